"""The longest input of a model, found by trying it.

What a configuration says is not it for every architecture: some count positions from behind the padding token's number,
some have more rows in their table than they say. So a model of the same architecture is given an input of that length: one
without weights (their memory is reserved and never touched), whose linear layers give zeros, and of whose equal layers
only the first one computes. That takes milliseconds, and fails where the model would.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

LONGEST_TRIED = 5000
"""Tokens. Beyond it a configuration is believed: models of longer inputs have no table of positions, and a trial of them
would take seconds and gigabytes."""

_SHORT = 8  # tokens; a model that fails on so many can't be tried
FORWARD_FAULTS = (RuntimeError, LookupError, ValueError, TypeError, AssertionError, AttributeError)
"""What the forward pass of a model raises on inputs that it does not take; memory that ran out is a RuntimeError, too."""

_found: dict[tuple[str, int], int] = {}


def longest_that_works(config: PretrainedConfig, wanted: int) -> int:
    """The most tokens up to `wanted` that a model of this configuration takes; `wanted` where it can't be tried."""
    key = (config.to_json_string(), wanted)
    if key not in _found:
        _found[key] = wanted if wanted > LONGEST_TRIED else _search(config, wanted)
    return _found[key]


def _search(config: PretrainedConfig, wanted: int) -> int:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            model = _without_weights(config)
            _forward(model, min(_SHORT, wanted))
        except FORWARD_FAULTS:
            return wanted
        works, fails = min(_SHORT, wanted), wanted + 1
        trying = wanted  # first of all: it nearly always works
        while works + 1 < fails:
            try:
                _forward(model, trying)
                works = trying
            except FORWARD_FAULTS:
                fails = trying
            trying = (works + fails) // 2
    return works


def _without_weights(config: PretrainedConfig) -> PreTrainedModel:
    config = copy.deepcopy(config)
    config.use_cache = False
    with no_init_weights():
        model = AutoModel.from_config(config).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            size = module.out_features if isinstance(module, nn.Linear) else module.nf
            module.forward = _zeros(size)  # type: ignore[method-assign]
        elif isinstance(module, nn.ModuleList):
            _compute_first_alone(module)
    return model


def _zeros(size: int) -> Callable[..., torch.Tensor]:
    return lambda given, *others: given.new_zeros((*given.shape[:-1], size))


def _compute_first_alone(layers: nn.ModuleList) -> None:
    """Have layers of one class give what the first of them gave."""
    first, given = (layers[0] if len(layers) else None), {}
    if first is None or isinstance(first, nn.Embedding | nn.Linear):
        return
    forward = first.forward

    def compute(*args: Any, **kwargs: Any) -> Any:
        given["outputs"] = forward(*args, **kwargs)
        return given["outputs"]

    first.forward = compute
    for layer in layers[1:]:
        if type(layer) is type(first):
            layer.forward = lambda *args, **kwargs: given["outputs"]


def _forward(model: PreTrainedModel, tokens: int) -> None:
    """One input of so many tokens, none of which is padding."""
    config = model.config.get_text_config()
    rows = getattr(config, "vocab_size", None) or 2
    token = next(one for one in (min(5, rows - 1), 0) if one != getattr(config, "pad_token_id", None))
    ids = torch.full((1, tokens), token)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids}
    taken = inspect.signature(model.forward).parameters
    model(**{name: value for name, value in inputs.items() if name in taken})

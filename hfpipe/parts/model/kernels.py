"""Attention and dropout on a CPU, computed faster than torch computes them there.

Both are the same functions as torch's. What differs is how they are computed: the attention with its scores held whole,
under autocast rounded to bf16 as in transformers' eager attention and with the softmax in fp32, which for short inputs is
several times faster than torch's own ways on a CPU; and dropout's masks from 16 random bits an element, of numpy's SFC64,
where torch draws one element after the other. The masks follow from torch's own generator, so that seeds, checkpoints and
recomputed activations need nothing new; they are other masks than torch would have drawn.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

ATTENTION = "hfpipe"
_LONGEST = 512  # keys; from there on torch's fused attention, which never holds the scores, is faster
_RANGE = 1 << 16


class Dropout(nn.Dropout):
    """nn.Dropout with `p` rounded to a multiple of 2**-16."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with a share `p` of its elements set to 0 and the others divided by 1 - p; any shape."""
        if not self.training or not self.p:
            return input
        return input * dropout_factors(input.shape, self.p, input.dtype)


def dropout_factors(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """What dropout multiplies by: 0 with probability `p`, else 1 / (1 - p); one number is drawn from torch's generator."""
    seed = int(torch.randint(2**63 - 1, ()))
    count = math.prod(shape)
    bits = torch.from_numpy(np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16))[:count].view(shape)
    dropped = round(p * _RANGE)
    if dropped == _RANGE:
        return torch.zeros(shape, dtype=dtype)
    return (bits >= dropped - _RANGE // 2).to(dtype).mul_(_RANGE / (_RANGE - dropped))


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention of short inputs; what is not as plain as this is left to torch's.

    Args:
        module: the layer, as transformers hands it over.
        query: `[batch, heads, tokens, size]`.
        key: `[batch, heads, keys, size]`.
        value: `[batch, heads, keys, size]`.
        attention_mask: `[batch or 1, heads or 1, tokens, keys]`, true where a key is seen; or what is added to the scores.
        dropout: share of the probabilities that is set to 0.
        scaling: of the scores; None is 1 / sqrt(size).
        is_causal: whether a token sees only the keys before it, where no mask says so.
        others: what some architectures add.

    Returns:
        `[batch, tokens, heads, size]`, and no probabilities.
    """
    causal = attention_mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    odd = any(others.get(name) is not None for name in ("position_bias", "softcap", "cache"))
    if causal or odd or key.shape[1] != query.shape[1] or key.shape[2] > _LONGEST:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **others
        )
    if attention_mask is None:
        attention_mask = torch.zeros(1)
    elif attention_mask.dtype == torch.bool:
        attention_mask = torch.where(attention_mask, 0.0, -math.inf)
    lowest = torch.finfo(torch.float32).min  # and no less: a row without any key would be no number
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.add(attention_mask.float().clamp(min=lowest), torch.matmul(query, key.transpose(2, 3)), alpha=scale)
    probabilities = torch.softmax(scores, dim=-1).to(value.dtype)
    if dropout:
        probabilities = probabilities * dropout_factors(probabilities.shape, dropout, probabilities.dtype)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), None


def install(model: nn.Module, which: str, device: torch.device) -> str:
    """Make a model compute with these kernels, if they are asked for and it is on a CPU; its weights stay as they are.

    Args:
        model: changed in place: its attention where it goes through transformers' interface, and every nn.Dropout.
        which: `train.kernels` of a recipe.
        device: where it is going to compute.

    Returns:
        What was asked for and is not done, in words; else nothing.
    """
    if which != "fast":
        return ""
    if device.type != "cpu":
        return f"train.kernels: fast is for a CPU, and changes nothing on {device.type}"
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    config = model.config if isinstance(model, PreTrainedModel) else None
    if isinstance(model, PreTrainedModel) and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)
    for name, module in list(model.named_modules()):
        if type(module) is nn.Dropout:
            model.set_submodule(name, Dropout(module.p).train(module.training))
    own = config is None or config._attn_implementation != ATTENTION
    return (
        f"train.kernels: fast changes dropout alone: {type(model).__name__} has an attention of its own" if own else ""
    )

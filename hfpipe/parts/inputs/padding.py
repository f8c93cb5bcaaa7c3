"""Padding that changes no answer: a row in a batch gets what it gets alone, and a model shows it before it is trained.

Two rows of unequal length go through the model alone and together, without dropout and in fp32. Where the tokenizer pads
on the side that changes answers, the other side is taken (a decoder that counts positions from its first token wants the
padding behind it, XLNet's head, which reads the last position, before). Where both do, as in models that mix all
positions, every row is padded to one length, so that there is nothing that batches could change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from hfpipe.errors import ModelError
from hfpipe.parts.inputs.batches import Collate, Examples
from hfpipe.parts.model.longest import FORWARD_FAULTS
from hfpipe.parts.model.own_class import PADDED_TO as _KEY
from hfpipe.parts.tasks import Task, outputs_of
from hfpipe.system.text import one_line

TOLERANCE = 1e-4
"""The largest difference of answers alone and together, as a share of the greatest of them, that is rounding in fp32.

Rounding gives 1e-8 to 1e-5, padding that is seen 1e-3 to 1.
"""

_PADDING = 16  # tokens of padding that the shorter row gets about: enough to show, and few enough to cost little
_LOOKED_AT = 256  # rows among which the two are chosen


@dataclass(frozen=True)
class Padding:
    """How the batches of a model are padded.

    Attributes:
        multiple: to the next multiple of this length; None to the longest row.
        difference: of the answers of two rows alone and together, as a share of the greatest; None where no rows differ
            in length.
        notice: what a user should know.
    """

    multiple: int | None
    difference: float | None = None
    notice: str | None = None


def settle_padding(
    model: torch.nn.Module,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    encoded: datasets.Dataset,
    max_length: int,
    *,
    multiple: int | None = None,
    where: str = "",
) -> Padding:
    """Find the way of padding that leaves the answers of a model alone; three forward passes of two short rows each.

    Args:
        model: wherever it is; weights, modes and random states are as before afterwards.
        task: of the rows.
        tokenizer: its `padding_side` becomes the one that is taken.
        encoded: rows, of which two of unequal length are tried.
        max_length: of a row, in tokens.
        multiple: of a length that batches are padded to.
        where: the place in the recipe.

    Raises:
        ModelError: the model fails on two rows, or its answers depend on padding however it is padded.
    """
    if (fixed := padded_to(getattr(model, "config", None))) is not None:
        return Padding(fixed)
    examples = _of_unequal_length(task, encoded)
    if examples is None:
        return Padding(multiple)
    own, differences = tokenizer.padding_side, {}
    for side in (own, "left" if own == "right" else "right"):
        tokenizer.padding_side = side
        alone, together = task.collator(tokenizer), task.collator(tokenizer, multiple)
        differences[side] = padding_difference(model, task, examples, alone, together, where)
        if differences[side] <= allowed(model):
            turned = f"the tokenizer pads on the {own}, and that changes the answers of {type(model).__name__} by "
            turned += f"{differences[own]:.1%}: batches are padded on the {side}"
            return Padding(multiple, differences[side], turned if side != own else None)
    tokenizer.padding_side = own
    together = task.collator(tokenizer, max_length)
    difference = padding_difference(model, task, examples, together, together, where)
    if difference > allowed(model):
        raise _refused(model, min(*differences.values(), difference), where)
    if hasattr(model, "config"):
        setattr(model.config, _KEY, max_length)
    notice = (
        f"padding changes the answers of {type(model).__name__} by {differences[own]:.1%} on whichever side: every row is "
        f"padded to {max_length} tokens, here and wherever hfpipe asks this model; a shorter model.max_length is faster"
    )
    return Padding(max_length, difference, notice)


def check_collate(
    model: torch.nn.Module, task: Task, collate: Collate, encoded: datasets.Dataset, where: str = ""
) -> Padding:
    """As `settle_padding`, of a way of making batches that is given and not chosen.

    Raises:
        ModelError: answers depend on the padding that it makes.
    """
    examples = _of_unequal_length(task, encoded)
    if examples is None:
        collate(Examples(encoded).__getitems__(range(min(2, len(encoded)))))  # it says itself what is wrong with it
        return Padding(None)
    difference = padding_difference(model, task, examples, collate, collate, where)
    if difference > allowed(model):
        raise _refused(model, difference, where)
    return Padding(None, difference)


def padded_to(config: PretrainedConfig | None) -> int | None:
    """The length that all rows of a trained model have, where its configuration holds one."""
    length: int | None = getattr(config, _KEY, None)  # a module of one's own may have no configuration
    return length


def forget(config: PretrainedConfig) -> None:
    """Remove that length: it is settled anew for every training."""
    if hasattr(config, _KEY):
        delattr(config, _KEY)


def padding_difference(
    model: torch.nn.Module,
    task: Task,
    examples: list[dict[str, Any]],
    alone: Collate,
    together: Collate,
    where: str = "",
) -> float:
    """How far the answers of rows in one batch are from those alone, as a share of the greatest of these.

    Raises:
        ModelError: the model fails on them.
    """
    with _at_rest(model):
        try:
            single = [_answers(model, task, alone([one]))[0] for one in examples]
            batched = _answers(model, task, together(examples))
        except torch.OutOfMemoryError:
            raise
        except FORWARD_FAULTS as error:
            raise ModelError(
                f"{type(model).__name__} fails on two short rows of the data: {one_line(error, 300)}",
                where=where,
                fix="Look at the checkpoint's configuration, or take another checkpoint.",
            ) from error
    if not all(np.isfinite(one).all() for one in single):
        return 0.0  # numbers that are none are found where they are scored, with their rows
    if not all(np.isfinite(one).all() for one in batched):
        return float("inf")
    scale = max((float(np.abs(one).max()) for one in (*single, *batched) if one.size), default=0.0)
    apart = max((float(np.abs(a - b).max()) for a, b in zip(single, batched, strict=True) if a.size), default=0.0)
    return apart / scale if scale else 0.0


def allowed(model: torch.nn.Module) -> float:
    """The tolerance, wider where weights are held in half precision."""
    formats = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max([TOLERANCE, *(10 * torch.finfo(one).eps for one in formats if one.itemsize == 2)])


def _answers(model: torch.nn.Module, task: Task, batch: Any) -> list[np.ndarray[Any, Any]]:
    torch.manual_seed(0)  # for models that draw hashes of their inputs
    device = next(model.parameters()).device
    moved = {name: value.to(device) for name, value in batch.items()}
    labels = moved.pop("labels", None)
    with torch.autocast(device.type, enabled=False):
        logits = outputs_of(model(**moved), moved).float()
    return task.unpad_logits(logits, moved if labels is None else {**moved, "labels": labels})


def _of_unequal_length(task: Task, encoded: datasets.Dataset) -> list[dict[str, Any]] | None:
    """Two rows, the shortest and one that is about so much longer; None where all are of one length."""
    lengths = task.lengths(encoded.select(range(min(_LOOKED_AT, len(encoded)))))
    if not len(lengths) or lengths.min() == lengths.max():
        return None
    short = int(lengths.argmin())
    distance = np.where(lengths > lengths[short], np.abs(lengths - lengths[short] - _PADDING), np.inf)
    return Examples(encoded).__getitems__([short, int(distance.argmin())])


def _refused(model: torch.nn.Module, difference: float, where: str) -> ModelError:
    return ModelError(
        f"the answers of {type(model).__name__} depend on what else is in a batch: two rows alone and together differ by "
        f"{difference:.1%}, whichever way they are padded",
        where=where,
        allowed=f"{allowed(model):.0e}, which is rounding",
        fix="Its attention must leave padding out (attention_mask), and nothing may mix the rows of a batch. With a collate "
        "of your own, look at that first.",
    )


@contextmanager
def _at_rest(model: torch.nn.Module) -> Iterator[None]:
    """In evaluation mode and without gradients; modes and random states are put back."""
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for module, training in modes:
            module.training = training

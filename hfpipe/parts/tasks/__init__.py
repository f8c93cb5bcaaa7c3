"""What is learned: which columns are read, what a label may be, the tokens a model reads, and what its answers mean.

One module a kind of task, all with the shape of :class:`Task`; nothing is inherited.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from transformers import PreTrainedTokenizerBase

from hfpipe.parts.data.columns import IGNORED, column, is_list
from hfpipe.parts.tasks.calibration import Calibration
from hfpipe.parts.tasks.classes import counts_of
from hfpipe.parts.tasks.text import TextTask
from hfpipe.recipe import schema

__all__ = [
    "IGNORED",
    "KINDS",
    "SIDE_COLUMNS",
    "Task",
    "TextTask",
    "calibrated",
    "class_counts",
    "head_task",
    "lengths",
    "make_task",
    "outputs_of",
    "pinned",
]

Array = np.ndarray[Any, Any]

KINDS = {
    "text-classification": "hfpipe.parts.tasks.text",
    "text-regression": "hfpipe.parts.tasks.text",
    "multi-label-classification": "hfpipe.parts.tasks.multi_label",
    "token-classification": "hfpipe.parts.tasks.tokens",
    "question-answering": "hfpipe.parts.tasks.questions",
    "multiple-choice": "hfpipe.parts.tasks.choices",
}

SIDE_COLUMNS = ("row", "words", "offsets")
"""Columns of encoded rows that no model reads: the number of the raw row, the word of each scored token, and where each
token stands in its text."""


class Task(Protocol):
    """What the rest of hfpipe asks of a kind of task."""

    auto_model: str
    """The class of transformers that loads the model."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in order; empty where the head has none."""

    @property
    def num_labels(self) -> int | None:
        """How many numbers the head puts out for an item; None where that is no property of the head."""

    @property
    def problem_type(self) -> str | None:
        """What transformers calls the problem of a sequence classifier, or None."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that are read."""

    def check(self, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
        """Refuse raw rows that would train or measure something wrong; raises DataError with split and rows."""

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """A batch of raw rows as what the model reads, `labels`, and any of SIDE_COLUMNS."""

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None = None) -> Any:
        """Makes a batch of encoded rows, padded to the longest of them, or to the next multiple of a length."""

    def unpad_logits(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> list[Array]:
        """What is kept of the logits of a batch: an array for each encoded row, none of it padding."""

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """What is predicted for each raw row and what is right, as metrics take them."""

    def dummy_predictions(self) -> tuple[Array, Array]:
        """Two predictions and what is right, to try a metric on before the first step."""

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """What `hfpipe predict` says of each raw row."""


def make_task(spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> Task:
    """The task that a recipe describes, with the classes of these rows where it does not declare them.

    Args:
        spec: the section of the recipe.
        rows: the raw training split.
        title: of that split, for messages.
        where: the place in the recipe.

    Raises:
        DataError: a missing column, or labels that are none.
    """
    made: Task = importlib.import_module(KINDS[spec.kind]).make(spec, rows, title, where)
    return made


def head_task(spec: schema.Task, names: tuple[str, ...]) -> Task:
    """The task of a trained head, whose classes have these names; no data are looked at."""
    made: Task = importlib.import_module(KINDS[spec.kind]).from_head(spec, names)
    return made


def calibrated(task: Task, calibration: Calibration) -> Task:
    """The same task with another way from logits to probabilities and decisions, where it has probabilities of classes."""
    if not hasattr(task, "calibration"):
        return task
    made: Task = replace(task, calibration=calibration)  # type: ignore[type-var]
    return made


def pinned(spec: schema.Task, task: Task) -> list[str]:
    """The overrides that declare the classes found in a whole split, so that a few of its rows give the same task."""
    if not task.names or spec.names is not None or len(spec.label_columns) > 1:
        return []
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in task.names)
    return [f"task.label={{column: {json.dumps(spec.label_columns[0], ensure_ascii=False)}, names: [{names}]}}"]


def class_counts(spec: schema.Task, task: Any, rows: datasets.Dataset) -> list[int]:
    """How often each class is a label of these raw rows, without tokenizing them."""
    if len(spec.label_columns) > 1:
        return [int(sum(map(float, rows[name][:]))) for name in spec.label_columns]
    values = column(rows, spec.label_columns[0])
    while is_list(values.type):
        values = pc.list_flatten(values)
    return counts_of(task.classes.of(values.to_pylist()), len(task.names))


def outputs_of(outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The logits of a model's answer.

    Args:
        outputs: what the model returned.
        batch: what it was given. Where the classes are positions, padding is no position: it gets the lowest logit, so
            that the loss does not depend on what else is in the batch.

    Returns:
        `[batch, classes]`, `[batch, length, classes]`, or start and end of an extractive answer as `[batch, 2, length]`.
    """
    if "logits" in outputs:
        logits: torch.Tensor = outputs["logits"]
        return logits
    spans = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=1).float()
    return spans.masked_fill(batch["attention_mask"][:, None] == 0, torch.finfo(spans.dtype).min)


def lengths(encoded: datasets.Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens in each encoded row, `[rows]`; of several choices the longest."""
    return lengths_of(column(encoded, "input_ids"))


def lengths_of(ids: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens in each row of the Arrow column `input_ids`, `[rows]`; of several choices the longest."""
    counts = [_longest(chunk) for chunk in ids.chunks]
    return np.concatenate(counts).astype(np.int64) if counts else np.zeros(0, np.int64)


def _longest(chunk: Any) -> Array:
    if not is_list(chunk.type.value_type):
        return np.asarray(pc.list_value_length(chunk))
    inner = chunk.flatten()
    tokens = np.asarray(pc.list_value_length(inner))
    choices = np.asarray(pc.list_value_length(chunk))
    return np.maximum.reduceat(tokens, np.concatenate([[0], np.cumsum(choices)[:-1]])) if len(chunk) else tokens

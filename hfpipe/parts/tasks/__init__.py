"""What is learned: which columns are read, what a label may be, the tokens a model reads, and what its answers mean.

One module a kind of task, all with the shape of :class:`Task`; nothing is inherited.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from hfpipe.errors import ModelError, RecipeError
from hfpipe.parts.data.columns import IGNORED, column, is_list
from hfpipe.parts.tasks.calibration import Calibration
from hfpipe.parts.tasks.classes import counts_of
from hfpipe.parts.tasks.findings import Scored, hot
from hfpipe.parts.tasks.text import Lines, TextTask
from hfpipe.parts.tasks.tokenizer import filler_of, lengths, lengths_of
from hfpipe.recipe import schema
from hfpipe.recipe.kinds import Kind, task_class
from hfpipe.system.text import listed

__all__ = [
    "IGNORED",
    "SIDE_COLUMNS",
    "Scored",
    "Task",
    "TextTask",
    "as_trained",
    "calibrated",
    "class_counts",
    "dummy_outputs",
    "form_of_head",
    "head_task",
    "lengths",
    "lengths_of",
    "make_task",
    "outputs_of",
    "pinned",
    "require_loss_fits",
    "require_threshold_fits",
]

Array = np.ndarray[Any, Any]
_FEW = 32  # classes at each end

_OF_CHOICES = ("cross_entropy", "focal", "kl_div")  # a softmax leaves out what has the lowest logit
SIDE_COLUMNS = ("row", "words", "offsets")
"""Columns of encoded rows that no model reads: the number of the raw row, the word of each scored token, and where each
token stands in its text."""


class Task(Protocol):
    """What the rest of hfpipe asks of a kind of task; nothing outside of it asks which kind that is."""

    kind: Kind
    """What is known of the kind without data: its default loss and metric, its fields of the recipe, its outputs."""

    auto_model: str
    """The class of transformers that loads the model."""

    @classmethod
    def make(cls, spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> Task:
        """The task that a recipe describes, with the classes of these raw rows where it does not declare them."""

    @classmethod
    def from_head(cls, spec: schema.Task, names: tuple[str, ...]) -> Task:
        """The task of a trained head whose classes have these names; no data are looked at."""

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
    def scheme(self) -> str | None:
        """How labels mark entities; None where they mark none."""

    @property
    def calibration(self) -> Calibration | None:
        """The way from logits to probabilities and decisions; None where the head has no probabilities to calibrate."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that are read."""

    def check(self, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
        """Refuse raw rows that would train or measure something wrong; raises DataError with split and rows."""

    @staticmethod
    def load_processor(folder: Path, config: PretrainedConfig, name: str, where: str) -> PreTrainedTokenizerBase:
        """What makes a model's input of raw rows, from a checkpoint's folder; raises ModelError with the place `where`."""

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """A batch of raw rows as what the model reads, `labels`, and any of SIDE_COLUMNS."""

    @staticmethod
    def lengths(encoded: datasets.Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
        """How long each encoded row is, `[rows]`: its tokens, or what else decides how much memory it takes."""

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None = None) -> Any:
        """Makes a batch of encoded rows, padded to the longest of them, or to the next multiple of a length."""

    def unpad_logits(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> list[Array]:
        """The logits of a batch without padding: an array for each encoded row."""

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """Predictions and references of the raw rows that count, as metrics take them; None where there are no labels."""

    def dummy_predictions(self) -> tuple[Array, Array]:
        """A few predictions and their references, with every class in them, to try a metric on before the first step."""

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """What `hfpipe predict` writes of each raw row: the columns `kind.outputs`."""

    def probabilities(self, logits: Sequence[Array]) -> Array | None:
        """Of the classes of each row, `[rows, classes]`; None where a row has no such."""

    def constant_predictions(self, references: Array) -> list[tuple[str, Array]]:
        """The constant predictions of which one is the best for these references, whichever the metric; a model should beat it.

        Args:
            references: as :meth:`decode` gives them, at least one.

        Returns:
            Each in words, and as predictions in the shape of the references, the most natural one first; none where there
            is nothing of the kind. Every one of them is scored.
        """

    def degenerate(self, predictions: Array) -> str | None:
        """In words that all of these predictions, two or more, are the same, if they are."""

    def findings(self, scored: Scored) -> dict[str, Any]:
        """What only this kind adds to the document of an evaluation: classes, confusion, errors, ..."""

    @staticmethod
    def example(columns: Sequence[str], options: str) -> Lines:
        """An example of use for the model card, given a model and a tokenizer.

        Args:
            columns: the text columns, as Python's identifiers.
            options: the arguments of the tokenizer that cut its input.

        Returns:
            Lines of Python that make `inputs`, and lines that print what `outputs` say.
        """


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
    made: Task = task_class(spec.kind).make(spec, rows, title, where)
    return made


def head_task(spec: schema.Task, names: tuple[str, ...]) -> Task:
    """The task of a trained head, whose classes have these names; no data are looked at."""
    made: Task = task_class(spec.kind).from_head(spec, names)
    return made


def calibrated(task: Task, calibration: Calibration) -> Task:
    """The same task with another way from logits to probabilities and decisions, where it has probabilities of classes."""
    if task.calibration is None:
        return task
    made: Task = replace(task, calibration=calibration)  # type: ignore[type-var]
    return made


def dummy_outputs(task: Task) -> tuple[Array, Array] | None:
    """Logits and label ids of a few rows, to try a metric on that takes them; None where rows are scored in parts."""
    predictions, references = task.dummy_predictions()
    if len(predictions) > 2 * _FEW:  # of many classes, whose logits would fill the memory
        predictions, references = (np.concatenate([one[:_FEW], one[-_FEW:]]) for one in (predictions, references))
    if predictions.dtype.kind == "f" and not task.names:
        return predictions[:, None].astype(np.float32), references.astype(np.float32)
    if predictions.dtype.kind == "i":
        return hot(predictions, task.num_labels or 2).astype(np.float32), references
    if not task.names:
        return None
    ids = np.tile(np.arange(len(task.names)), (2, 1))
    return np.eye(len(task.names), dtype=np.float32)[ids], ids


def require_threshold_fits(task: Task, threshold: str | None, where: str) -> None:
    """Refuse one decision threshold for three classes or more: with it the third would never be predicted.

    Raises:
        RecipeError: with the classes.
    """
    if threshold is not None and task.kind.one_class_a_row and len(task.names) > 2:
        raise RecipeError(
            f"a decision threshold chooses between two classes, and there are {len(task.names)}: {listed(task.names, 5)}",
            where=where,
            fix="Leave it out: the most probable class is predicted. calibrate: temperature makes its probability honest.",
        )


def pinned(spec: schema.Task, task: Task) -> list[str]:
    """The overrides that declare what a whole split says of the labels, so that a few of its rows give the same task."""
    declared: dict[str, Any] = spec.label.model_dump(mode="json") if isinstance(spec.label, schema.Label) else {}
    found = {**declared, "column": list(spec.label_columns), **form_of_head(spec, task)}
    if len(spec.label_columns) == 1:
        found["column"] = spec.label_columns[0]
        if task.names and spec.names is None:
            found["names"] = list(task.names)
    given = {key: value for key, value in found.items() if value is not None}
    return [f"task.label={json.dumps(given, ensure_ascii=False)}"] if len(given) > 1 else []


def form_of_head(spec: schema.Task, task: Task) -> dict[str, str]:
    """How the labels of a task are said, where its kind knows several forms: `form`, for the recipe or a model's config."""
    form = getattr(task, "form", None)
    return {"form": form} if form in task.kind.forms and len(spec.label_columns) == 1 else {}


def as_trained(
    spec: schema.Task, form: str | None, rows: Callable[[], datasets.Dataset], title: str, where: str
) -> schema.Task:
    """The section with the form of the labels that a model was trained with, or that these rows have.

    Args:
        spec: the section of the recipe; what it says itself holds.
        form: from the model's config, or None.
        rows: raw rows of the data that say what the labels are.
        title: of them, for messages.
        where: the place in the recipe.
    """
    says_it = spec.form is not None or (spec.names is not None and not spec.traits.has_classes)
    if says_it or not spec.traits.forms or len(spec.label_columns) > 1:
        return spec
    if form not in spec.traits.forms:
        find = getattr(task_class(spec.kind), "find_form", None)
        form = find(spec, rows(), title, where) if find is not None else None
    return spec if form is None else spec.with_form(form)


def require_loss_fits(task: Task, encoded: Iterable[datasets.Dataset], loss: schema.Loss, where: str) -> None:
    """Refuse a loss that can't leave out the choices that a row does not have.

    Raises:
        RecipeError: with the losses that can.
    """
    uneven = getattr(task, "is_uneven", None)
    if uneven is None or (not loss.label_smoothing and (":" in loss.name or loss.name in _OF_CHOICES)):
        return
    if any(uneven(rows) for rows in encoded):
        what = "label_smoothing" if loss.label_smoothing else f"loss {loss.name}"
        raise RecipeError(
            f"{what} counts all choices of a batch, and the rows have different numbers of them",
            where=where,
            fix=f"Take {', '.join(_OF_CHOICES)}, or a loss of your own, without label_smoothing.",
        )


def class_counts(spec: schema.Task, task: Any, rows: datasets.Dataset) -> list[int]:
    """How often each class is a label of these raw rows, without tokenizing them."""
    if (labels_of := getattr(task, "labels_of", None)) is not None:
        columns = rows.select_columns(list(spec.label_columns))
        found = [row for batch in columns.iter(batch_size=1000) for row in labels_of(batch)]
        return counts_of(found, len(task.names))
    values = column(rows, spec.label_columns[0])
    while is_list(values.type):
        values = pc.list_flatten(values)
    return counts_of(task.classes.of(values.to_pylist()), len(task.names))


def outputs_of(outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The logits in a model's output.

    Args:
        outputs: what the model returned: a mapping or an object with them, or the logits themselves.
        batch: what it was given. Where the classes are positions or choices, padding is none of them: it gets the lowest
            logit, so that the loss does not depend on what else is in the batch.

    Returns:
        `[batch, classes]`, `[batch, length, classes]`, or start and end of an extractive answer as `[batch, 2, length]`.
    """
    found = outputs if isinstance(outputs, torch.Tensor) else None
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
        if found is None and "start_logits" in outputs:
            spans = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=1).float()
            return spans.masked_fill(batch["attention_mask"][:, None] == 0, torch.finfo(spans.dtype).min)
    elif found is None:
        found = getattr(outputs, "logits", None)
    if not isinstance(found, torch.Tensor):
        got = f" with {', '.join(map(str, outputs))}" if isinstance(outputs, Mapping) else ""
        raise ModelError(
            f"the model returned a {type(outputs).__name__}{got}",
            allowed="logits, or a mapping or an object that has them",
        )
    filler = filler_of(batch)
    return found if filler is None else found.masked_fill(filler, torch.finfo(found.dtype).min)

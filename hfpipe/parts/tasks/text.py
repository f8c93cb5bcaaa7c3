"""One class or one number for a text or a pair of texts: `text-classification` and `text-regression`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from hfpipe.errors import DataError
from hfpipe.parts.data import columns
from hfpipe.parts.tasks.calibration import NONE, Calibration
from hfpipe.parts.tasks.classes import Classes, check_order, check_values, find_classes
from hfpipe.parts.tasks.long_texts import shortened
from hfpipe.recipe import schema

Array = np.ndarray[Any, Any]
REGRESSION = "For numbers that are no classes use task.kind: text-regression."


@dataclass(frozen=True)
class TextTask:
    """One class for each row, or one number where `classes` is None."""

    text: tuple[str, ...]
    label: str
    classes: Classes | None
    calibration: Calibration = field(default=NONE, repr=False)  # what the tokens are does not depend on it

    auto_model = "AutoModelForSequenceClassification"

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in order; empty for regression."""
        return self.classes.names if self.classes else ()

    @property
    def num_labels(self) -> int:
        """How many numbers the head puts out: one a class, or one."""
        return len(self.names) or 1

    @property
    def problem_type(self) -> str:
        """What transformers calls it."""
        return "single_label_classification" if self.classes else "regression"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, the label last."""
        return (*self.text, self.label)

    def check(self, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
        """Refuse rows that would train or measure something wrong.

        Raises:
            DataError: naming the split and the first rows: missing columns, texts that are no text, labels outside the
                classes or missing. With `labelled` false only the texts are looked at.
        """
        columns.require_columns(rows, self.columns if labelled else self.text, split, where)
        for name in self.text:
            columns.require_text(rows, name, split, where)
        if not labelled:
            return
        values = columns.require_values(rows, self.label, split, where)
        if self.classes is not None:
            check_order(self.classes, rows.features[self.label], split, where)
            check_values(self.classes, values, split, self.label, where)
            return
        numbers = np.asarray(columns.as_numbers(values, split, self.label, where))
        bad = ~np.isfinite(numbers) | (numbers == columns.IGNORED)
        if bad.any():
            what = f"{split}: label {numbers[bad][0]} is not a finite number"
            columns.refuse(pa.array(bad), what, where, "Mend these rows.")

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """What the model reads of a batch of rows; of a pair the longer text is cut first."""
        texts = (shortened(batch[name], tokenizer, max_length) for name in self.text)
        encoded = dict(tokenizer(*texts, truncation=True, max_length=max_length))
        if labelled and self.classes is not None:
            encoded["labels"] = self.classes.of(batch[self.label])
        elif labelled:
            encoded["labels"] = [float(value) for value in batch[self.label]]
        return encoded

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None = None) -> Any:
        """Pads to the longest row of a batch."""
        return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)

    def unpad_logits(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> list[Array]:
        """What is kept of a batch's logits `[batch, num_labels]`: a row of `[num_labels]` each."""
        return list(logits.cpu().numpy())

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """What is predicted, `[rows]`, and what is right, where the rows say so.

        The class with the greatest logit, unless a threshold says otherwise, or the number itself. A row whose label is
        ignored is left out.
        """
        stacked = np.stack(logits)
        decisions = self.calibration.one_of(stacked)[0] if self.classes else stacked.reshape(len(stacked))
        if "labels" not in encoded.column_names:
            return decisions, None
        labels = np.asarray(encoded["labels"][:])
        counted = labels != columns.IGNORED
        return decisions[counted], labels[counted]

    def dummy_predictions(self) -> tuple[Array, Array]:
        """Two predictions and their labels, to try a metric on."""
        if self.classes is None:
            return np.array([0.25, 1.5]), np.array([0.25, 1.5])  # no class ids, which whole numbers could be
        return np.array([0, 1]), np.array([0, 1])

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """For each row its `label`, `score` and the `probabilities` of all classes; for a regression its `value`."""
        stacked = np.stack(logits).astype(float)
        if self.classes is None:
            return [{"value": float(value)} for value in stacked.reshape(-1)]
        return [
            {
                "label": self.names[said],
                "score": float(row[said]),
                "probabilities": dict(zip(self.names, map(float, row), strict=True)),
            }
            for said, row in zip(*self.calibration.one_of(stacked), strict=True)
        ]


def make(spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> TextTask:
    """The task of these rows, from which the classes come where the recipe does not declare them.

    Raises:
        DataError: a missing column, or labels that are no classes.
    """
    label = spec.label_columns[0]
    columns.require_columns(rows, (*spec.text, label), title, where)
    if spec.kind == "text-regression":
        return TextTask(spec.text, label, None)
    values = columns.column(rows, label)
    if columns.is_list(values.type):
        raise DataError(
            f"{title}: {label!r} holds {values.type}",
            where=where,
            allowed="one class a row",
            fix="For rows with several classes use task.kind: multi-label-classification.",
        )
    found = find_classes(spec.names, rows.features[label], values, label, title, where, other_kind=REGRESSION)
    return TextTask(spec.text, label, found)


def from_head(spec: schema.Task, names: tuple[str, ...]) -> TextTask:
    """The task of a trained head whose classes have these names."""
    return TextTask(spec.text, spec.label_columns[0], None if spec.kind == "text-regression" else Classes(names))

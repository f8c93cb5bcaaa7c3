"""Any number of classes for a text or a pair of texts: `multi-label-classification`.

The label is one column of lists (of class names or numbers), or one column of 0 and 1 for each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from hfpipe.errors import DataError
from hfpipe.parts.data import columns
from hfpipe.parts.tasks import findings
from hfpipe.parts.tasks.calibration import NONE, Calibration
from hfpipe.parts.tasks.classes import Classes, check_order, check_values, find_classes
from hfpipe.parts.tasks.text import Lines, encode_texts, text_inputs
from hfpipe.parts.tasks.tokenizer import lengths, load_tokenizer, padding_collator, rows_of_logits
from hfpipe.recipe import schema
from hfpipe.recipe.kinds import KINDS

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class MultiLabelTask:
    """The classes that hold for each row; with several label columns, each of them is a class."""

    text: tuple[str, ...]
    labels: tuple[str, ...]
    classes: Classes
    calibration: Calibration = field(default=NONE, repr=False)  # what the tokens are does not depend on it

    kind = KINDS["multi-label-classification"]
    auto_model = "AutoModelForSequenceClassification"
    problem_type = "multi_label_classification"
    scheme = None

    load_processor = staticmethod(load_tokenizer)
    lengths = staticmethod(lengths)
    collator = staticmethod(padding_collator)
    unpad_logits = staticmethod(rows_of_logits)

    @classmethod
    def make(cls, spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> MultiLabelTask:
        """The task of these rows: the label columns as classes, or those in the lists.

        Raises:
            DataError: a missing column, a label that is no list, or lists without classes.
        """
        labels = spec.label_columns
        columns.require_columns(rows, (*spec.text, *labels), title, where)
        if len(labels) > 1:
            return cls(spec.text, labels, Classes(labels))
        values = columns.column(rows, labels[0])
        _require_list(values, labels[0], title, where)
        inner = pc.list_flatten(values)
        feature = rows.features[labels[0]].feature
        found = find_classes(spec.names, feature, inner, labels[0], title, where, other_kind="")
        return cls(spec.text, labels, found)

    @classmethod
    def from_head(cls, spec: schema.Task, names: tuple[str, ...]) -> MultiLabelTask:
        """The task of a trained head whose classes have these names."""
        return cls(spec.text, spec.label_columns, Classes(names))

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in order."""
        return self.classes.names

    @property
    def num_labels(self) -> int:
        """How many numbers the head puts out: one a class."""
        return len(self.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, the labels last."""
        return (*self.text, *self.labels)

    def check(self, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
        """Refuse rows that would train or measure something wrong.

        Raises:
            DataError: naming the split and the first rows: missing columns, texts that are no text, labels that are
                missing, outside the classes, or neither 0 nor 1. With `labelled` false only the texts are looked at.
        """
        columns.require_columns(rows, self.columns if labelled else self.text, split, where)
        for name in self.text:
            columns.require_text(rows, name, split, where)
        if not labelled:
            return
        if len(self.labels) > 1:
            for name in self.labels:
                _require_binary(rows, name, split, where)
            return
        values = columns.require_values(rows, self.labels[0], split, where)
        _require_list(values, self.labels[0], split, where)
        inner = pc.list_flatten(values)
        if inner.null_count:
            parents = np.asarray(pc.list_parent_indices(values))[np.asarray(pc.is_null(inner))]
            bad = np.isin(np.arange(len(values)), parents)
            columns.refuse(bad, f"{split}: a label is None", where, "Label or drop these rows.")
        if len(inner):
            check_order(self.classes, rows.features[self.labels[0]].feature, split, where)
            check_values(self.classes, inner, split, self.labels[0], where)

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """What the model reads of a batch of rows, and `labels` as multi-hot rows `[classes]` of floats."""
        encoded = encode_texts(batch, self.text, tokenizer, max_length)
        if not labelled:
            return encoded
        if len(self.labels) > 1:
            rows = zip(*(batch[name] for name in self.labels), strict=True)
            encoded["labels"] = [[float(value) for value in row] for row in rows]
        else:
            hot = np.zeros((len(batch[self.labels[0]]), self.num_labels))
            for row, values in enumerate(batch[self.labels[0]]):
                hot[row, self.classes.of(values)] = 1.0
            encoded["labels"] = hot.tolist()
        return encoded

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """The classes above 1/2 or their threshold, as 0 and 1, and those that hold; both `[rows, classes]`."""
        predictions, _ = self.calibration.any_of(np.stack(logits))
        if "labels" not in encoded.column_names:
            return predictions, None
        return predictions, np.asarray(encoded["labels"][:]).astype(np.int64)

    def dummy_predictions(self) -> tuple[Array, Array]:
        """Two predictions and their labels, to try a metric on."""
        hot = np.eye(2, self.num_labels, dtype=np.int64)
        return hot, hot

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """For each row its `labels`, and the `probabilities` of all classes, each by itself."""
        return [
            {
                "labels": [name for name, one in zip(self.names, holds, strict=True) if one],
                "probabilities": dict(zip(self.names, map(float, row), strict=True)),
            }
            for holds, row in zip(*self.calibration.any_of(np.stack(logits)), strict=True)
        ]

    def probabilities(self, logits: Sequence[Array]) -> Array:
        """Of each class by itself, `[rows, classes]`."""
        return self.calibration.any_of(np.stack(logits))[1]

    def constant_prediction(self, references: Array) -> tuple[str, Array]:
        """The classes that most examples have."""
        mostly = (references.mean(axis=0) > 0.5).astype(np.int64)
        return f"always {self._listed(mostly)}, as most examples", np.tile(mostly, (len(references), 1))

    def degenerate(self, predictions: Array) -> str | None:
        """Whether all predictions are the same classes."""
        if (predictions != predictions[0]).any():
            return None
        return f"the model predicts {self._listed(predictions[0])} for all {len(predictions):,} examples"

    def findings(self, scored: findings.Scored) -> dict[str, Any]:
        """Each class, and how far the probabilities can be trusted."""
        return findings.of_classes(scored, self.names)

    @staticmethod
    def example(columns: Sequence[str], options: str) -> Lines:
        """A text, and the probability of each class."""
        answer = "print({model.config.id2label[i]: p for i, p in enumerate(outputs.logits.sigmoid()[0].tolist())})"
        return text_inputs(columns, options), [answer]

    def _listed(self, holds: Array) -> str:
        """The classes of a row of 0 and 1, in words."""
        return ", ".join(name for name, one in zip(self.names, holds, strict=True) if one) or "no label"


def _require_list(values: pa.ChunkedArray, name: str, split: str, where: str) -> None:
    if not columns.is_list(values.type):
        raise DataError(
            f"{split}: column {name!r} holds {values.type}",
            where=where,
            allowed="lists of classes, or several columns of 0 and 1",
            fix="For one class a row use task.kind: text-classification.",
        )


def _require_binary(rows: datasets.Dataset, name: str, split: str, where: str) -> None:
    values = columns.require_values(rows, name, split, where, f"no label in column {name!r}")
    if pa.types.is_boolean(values.type):
        return
    numbers = np.asarray(columns.as_numbers(values, split, name, where))
    bad = (numbers != 0) & (numbers != 1)
    if bad.any():
        what = f"{split}: {name!r} is {numbers[bad][0]:g}, and a label column says 0 or 1"
        columns.refuse(bad, what, where, "Mend these rows, or name other columns.")

"""Any number of classes for a text or a pair of texts: `multi-label-classification`.

The label is one column of lists (of the names or numbers of classes, or of 0 and 1 for each class), of separated names, or
of structs of 0 and 1; or one column of 0 and 1 for each class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from hfpipe.parts.tasks.classes import (
    Classes,
    check_order,
    check_values,
    find_classes,
    is_blank,
    is_missing,
    refuse_missing,
)
from hfpipe.parts.tasks.label_lists import (
    CLASSES,
    COLUMNS,
    as_list,
    check_columns,
    check_flags,
    column_names,
    fields_of,
    flags_of,
    form_of,
    lists_of,
)
from hfpipe.parts.tasks.text import Lines, encode_texts, text_inputs
from hfpipe.parts.tasks.tokenizer import lengths, load_tokenizer, padding_collator, rows_of_logits
from hfpipe.recipe import schema
from hfpipe.recipe.kinds import KINDS
from hfpipe.system.text import listed

Array = np.ndarray[Any, Any]
_MOST_LISTED = 8  # labels in a sentence


@dataclass(frozen=True)
class MultiLabelTask:
    """The classes that hold for each row.

    Attributes:
        text: the columns that are read.
        labels: the label column; or several, each of which is a class.
        classes: their names in order.
        form: what the label column holds: `classes` that hold, or `columns`, 0 or 1 for each class.
        separator: between the names of a text.
    """

    text: tuple[str, ...]
    labels: tuple[str, ...]
    classes: Classes
    form: str = CLASSES
    separator: str | None = None
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
        labels, skips = spec.label_columns, spec.ignores_missing
        columns.require_columns(rows, (*spec.text, *labels), title, where)
        if len(labels) > 1:
            return cls(spec.text, labels, Classes(labels, ignores_missing=skips), COLUMNS)
        if fields := fields_of(rows, labels[0]):
            return cls(
                spec.text, labels, Classes(_of_fields(fields, spec, title, where), ignores_missing=skips), COLUMNS
            )
        lists = lists_of(columns.column(rows, labels[0]), spec.separator, title, labels[0], where)
        feature = getattr(rows.features[labels[0]], "feature", None)
        about = (spec.names, feature, title, labels[0], where)
        if (spec.form or form_of(lists, *about)) == COLUMNS:
            return cls(
                spec.text, labels, Classes(column_names(lists, *about), ignores_missing=skips), COLUMNS, spec.separator
            )
        found = find_classes(spec.names, feature, pc.list_flatten(lists), labels[0], title, where, other_kind="")
        return cls(spec.text, labels, replace(found, ignores_missing=skips), CLASSES, spec.separator)

    @classmethod
    def from_head(cls, spec: schema.Task, names: tuple[str, ...]) -> MultiLabelTask:
        """The task of a trained head whose classes have these names."""
        labels, form = spec.label_columns, spec.form or CLASSES
        if len(labels) > 1:
            form = COLUMNS
            labels = names if set(names) == set(labels) else labels  # each column is the class of its name
        return cls(spec.text, labels, Classes(names, ignores_missing=spec.ignores_missing), form, spec.separator)

    @staticmethod
    def find_form(spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> str:
        """How these rows say their labels, where neither the recipe nor the run that is measured does."""
        columns.require_columns(rows, spec.label_columns, title, where)
        name = spec.label_columns[0]
        if len(spec.label_columns) > 1 or fields_of(rows, name):
            return COLUMNS
        lists = lists_of(columns.column(rows, name), spec.separator, title, name, where)
        feature = getattr(rows.features[name], "feature", None)
        return form_of(lists, spec.names, feature, title, name, where)

    @property
    def reading(self) -> str:
        """How the labels are read, where the data alone say it; else nothing."""
        if self.form == CLASSES or len(self.labels) > 1:
            return ""
        return (
            f"{self.labels[0]!r} holds 0 or 1 for each of {len(self.names)} classes, in order: {listed(self.names, 8)}"
        )

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
        skips = self.classes.ignores_missing
        if len(self.labels) > 1:
            self._require_columns_of_head(where)
            for name in self.labels:
                check_flags(columns.column(rows, name), split, name, where, missing=skips)
        elif fields_of(rows, self.labels[0]):
            self._check_fields(rows, split, where)
        else:
            self._check_lists(rows, split, where)

    def _require_columns_of_head(self, where: str) -> None:
        """Refuse label columns of other names than the classes of a trained head have, except as many of no such name."""
        known = set(self.labels) & set(self.names)
        if len(self.labels) != len(self.names) or (known and self.labels != self.names):
            raise DataError(
                f"the label columns are {listed(self.labels, 8)}, and the classes {listed(self.names, 8)}",
                where=where,
                fix="Name the column of every class: by the names of the classes, or by others in their order.",
            )

    def _check_fields(self, rows: datasets.Dataset, split: str, where: str) -> None:
        """Refuse structs that are not 0 or 1 in each field."""
        values, name = columns.column(rows, self.labels[0]), self.labels[0]
        there = fields_of(rows, name)
        if absent := [one for one in self.names if one not in there]:
            raise DataError(f"{split}: {name!r} has no field {absent[0]!r}", where=where, allowed=", ".join(there))
        for one in self.names:
            field_of = pc.struct_field(values, one)
            check_flags(field_of, split, f"{name}.{one}", where, missing=self.classes.ignores_missing)

    def _check_lists(self, rows: datasets.Dataset, split: str, where: str) -> None:
        """Refuse lists that are missing, hold what is no class, or are not 0 or 1 for each class."""
        name, skips = self.labels[0], self.classes.ignores_missing
        lists = lists_of(columns.column(rows, name), self.separator, split, name, where)
        inner = pc.list_flatten(lists)
        holes = np.unique(np.asarray(pc.list_parent_indices(lists))[is_missing(inner, self.classes.named_blanks)])
        missing = np.asarray(pc.is_null(lists))
        if len(holes) and not skips:
            fix = f"Label or drop these rows, or leave them out: label: {{column: {name}, missing: ignore}}."
            columns.refuse(np.isin(np.arange(len(lists)), holes), f"{split}: a label is None", where, fix)
        missing[holes] = True
        refuse_missing(missing, split, name, where, ignore=skips)
        lists, numbers = lists.filter(pa.array(~missing)), np.flatnonzero(~missing)
        if self.form == COLUMNS:
            check_columns(lists, len(self.names), numbers, split, name, where)
            return
        inner, owner = pc.list_flatten(lists), numbers[np.asarray(pc.list_parent_indices(lists))]
        if not len(inner):
            return
        check_order(self.classes, getattr(rows.features[name], "feature", None), split, where)
        check_values(self.classes, inner, split, name, where, rows=owner)
        if pa.types.is_integer(inner.type) and (bad := np.asarray(pc.equal(inner, columns.IGNORED))).any():
            what = f"{split}: label {columns.IGNORED} is outside the {len(self.names)} classes"
            columns.refuse(np.isin(np.arange(len(rows)), owner[bad]), what, where, "Leave it out of the lists.")

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """What the model reads of a batch of rows, and `labels` as multi-hot rows `[classes]` of floats."""
        encoded = encode_texts(batch, self.text, tokenizer, max_length)
        if not labelled:
            return encoded
        encoded["labels"] = self.labels_of(batch)
        return encoded

    def labels_of(self, batch: Mapping[str, Sequence[Any]]) -> list[list[float]]:
        """Multi-hot rows `[classes]` of floats; of a row without labels, all NaN."""
        cells: Sequence[Any] = batch[self.labels[0]]
        if len(self.labels) > 1:
            cells = [list(row) for row in zip(*(batch[name] for name in self.labels), strict=True)]
        return [self._hot(cell) for cell in cells]

    def _hot(self, cell: Any) -> list[float]:
        nothing = [math.nan] * self.num_labels
        if cell is None:
            return nothing
        if self.form == COLUMNS:
            row = (
                [cell.get(name) for name in self.names] if isinstance(cell, Mapping) else as_list(cell, self.separator)
            )
            return nothing if any(is_blank(one) for one in row) else flags_of(row)
        held = self.classes.of(as_list(cell, self.separator))
        if columns.IGNORED in held:
            return nothing
        hot = [0.0] * self.num_labels
        for one in held:
            hot[one] = 1.0
        return hot

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """The classes above 1/2 or their threshold, as 0 and 1, and those that hold; both `[rows, classes]`."""
        predictions, _ = self.calibration.any_of(np.stack(logits))
        if "labels" not in encoded.column_names:
            return predictions, None
        labels = np.asarray(encoded["labels"][:]).reshape(-1, self.num_labels)
        counted = columns.is_item(labels[:, 0])
        return predictions[counted], labels[counted].astype(np.int64)

    def dummy_predictions(self) -> tuple[Array, Array]:
        """Two predictions and their labels, one with every class and one with none, to try a metric on."""
        hot = np.repeat(np.array([[1], [0]], np.int64), self.num_labels, axis=1)
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

    def constant_predictions(self, references: Array) -> list[tuple[str, Array]]:
        """What each class mostly is; the most frequent classes; the most frequent set of classes; every class that occurs.

        How many of the most frequent classes is what the micro F1 says: of so many classes no others have a greater one.
        """
        counts = references.sum(axis=0)
        order = np.argsort(-counts, kind="stable")
        f1s = (
            2 * np.cumsum(counts[order]) / np.maximum(np.arange(1, len(order) + 1) * len(references) + counts.sum(), 1)
        )
        sets, times = np.unique(np.packbits(references.astype(bool), axis=1), axis=0, return_counts=True)
        most_frequent = np.unpackbits(sets[times.argmax()], count=len(counts)).astype(np.int64)

        def first(many: int) -> Array:
            return np.isin(np.arange(len(counts)), order[:many]).astype(np.int64)

        candidates = {
            "as most examples": (counts > len(references) / 2).astype(np.int64),
            "the most frequent labels": first(int(f1s.argmax()) + 1),
            "the most frequent label": first(1),
            "the most frequent set of labels": most_frequent,
            "every label that occurs": (counts > 0).astype(np.int64),
        }
        found: dict[bytes, tuple[str, Array]] = {}
        for why, one in candidates.items():
            words = f"always {self._listed(one)}, {why}"
            found.setdefault(one.tobytes(), (words, np.broadcast_to(one, references.shape)))
        return list(found.values())

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
        names = [name for name, one in zip(self.names, holds, strict=True) if one]
        return (", ".join(names) if len(names) <= _MOST_LISTED else f"{len(names):,} labels") or "no label"


def _of_fields(fields: tuple[str, ...], spec: schema.Task, split: str, where: str) -> tuple[str, ...]:
    """The fields of structs that are classes: all of them, or those that the recipe names, in its order."""
    if spec.names is None:
        return fields
    named = tuple(spec.names)
    if isinstance(spec.names, Mapping) or set(named) - set(fields):
        raise DataError(
            f"{split}: {spec.label_columns[0]!r} has the fields {listed(fields, 8)}",
            where=where,
            fix="Leave label.names out, or list fields in it, in the order that the classes should have.",
        )
    return named

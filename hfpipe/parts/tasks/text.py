"""One class for a text or a pair of texts: `text-classification`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from hfpipe.errors import DataError
from hfpipe.parts.data import columns
from hfpipe.parts.tasks import findings
from hfpipe.parts.tasks.calibration import NONE, Calibration
from hfpipe.parts.tasks.classes import Classes, check_order, check_values, find_classes, numbered, present
from hfpipe.parts.tasks.long_texts import shortened
from hfpipe.parts.tasks.plain_text import never_empty, tokens_of
from hfpipe.parts.tasks.tokenizer import lengths, load_tokenizer, padding_collator, rows_of_logits
from hfpipe.recipe import schema
from hfpipe.recipe.kinds import KINDS

Array = np.ndarray[Any, Any]
Lines = tuple[list[str], list[str]]
"""Lines of Python that make `inputs` with `tokenizer`, and lines that print what `outputs` say."""
_REGRESSION = "For numbers that are no classes use task.kind: text-regression."
_MOST_CONSTANTS = 20  # classes that a baseline may predict for all rows


@dataclass(frozen=True)
class TextTask:
    """One class for each row."""

    text: tuple[str, ...]
    label: str
    classes: Classes
    calibration: Calibration = field(default=NONE, repr=False)  # what the tokens are does not depend on it

    kind = KINDS["text-classification"]
    auto_model = "AutoModelForSequenceClassification"
    problem_type = "single_label_classification"
    scheme = None

    load_processor = staticmethod(load_tokenizer)
    lengths = staticmethod(lengths)
    collator = staticmethod(padding_collator)
    unpad_logits = staticmethod(rows_of_logits)

    @classmethod
    def make(cls, spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> TextTask:
        """The task of these rows, from which the classes come where the recipe does not declare them.

        Raises:
            DataError: a missing column, or labels that are no classes.
        """
        label = spec.label_columns[0]
        columns.require_columns(rows, (*spec.text, label), title, where)
        values = columns.column(rows, label)
        if columns.is_list(values.type):
            raise DataError(
                f"{title}: {label!r} holds {values.type}",
                where=where,
                allowed="one class a row",
                fix="For rows with several classes use task.kind: multi-label-classification.",
            )
        found = find_classes(spec.names, rows.features[label], values, label, title, where, other_kind=_REGRESSION)
        return cls(spec.text, label, replace(found, ignores_missing=spec.ignores_missing))

    @classmethod
    def from_head(cls, spec: schema.Task, names: tuple[str, ...]) -> TextTask:
        """The task of a trained head whose classes have these names."""
        return cls(spec.text, spec.label_columns[0], Classes(names, ignores_missing=spec.ignores_missing))

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
        values, labelled_rows = present(columns.column(rows, self.label), self.classes, split, self.label, where)
        check_order(self.classes, rows.features[self.label], split, where)
        check_values(self.classes, values, split, self.label, where, labelled_rows)

    def numbered(self, rows: datasets.Dataset) -> str:
        """Which class the numbers of these rows are taken for, where nobody says it; else nothing."""
        return numbered(self.classes, rows, self.label)

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """What the model reads of a batch of rows; of a pair the longer text is cut first."""
        encoded = encode_texts(batch, self.text, tokenizer, max_length)
        if labelled:
            encoded["labels"] = self.classes.of(batch[self.label])
        return encoded

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """The predicted classes, `[rows]`, and the labels, where the rows have them.

        The class with the greatest logit, unless a threshold says otherwise. A row whose label is ignored is no example.
        """
        predictions = self.calibration.decide(np.stack(logits))
        if "labels" not in encoded.column_names:
            return predictions, None
        labels = np.asarray(encoded["labels"][:])
        counted = labels != columns.IGNORED
        return predictions[counted], labels[counted]

    def dummy_predictions(self) -> tuple[Array, Array]:
        """A prediction of every class and its label, to try a metric on."""
        classes = np.arange(max(2, len(self.names)))
        return classes, classes

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """For each row its `label`, `score` and the `probabilities` of all classes."""
        return [
            {
                "label": self.names[predicted],
                "score": float(row[predicted]),
                "probabilities": dict(zip(self.names, map(float, row), strict=True)),
            }
            for predicted, row in zip(*self.calibration.one_of(np.stack(logits).astype(float)), strict=True)
        ]

    def probabilities(self, logits: Sequence[Array]) -> Array:
        """Of all classes, `[rows, classes]`."""
        return self.calibration.one_of(np.stack(logits))[1]

    def constant_predictions(self, references: Array) -> list[tuple[str, Array]]:
        """Every class, the most frequent one first; of many classes the twenty most frequent ones."""
        counts = np.bincount(references, minlength=len(self.names))
        most = np.argsort(-counts, kind="stable")[:_MOST_CONSTANTS].tolist()
        what = [f"always {self.names[one]!r}" for one in most]
        what[0] += ", the most frequent one here"
        return [(words, np.full(len(references), one)) for words, one in zip(what, most, strict=True)]

    def degenerate(self, predictions: Array) -> str | None:
        """Whether all predictions are one class."""
        if (predictions != predictions[0]).any():
            return None
        return f"the model predicts {self.names[int(predictions[0])]!r} for all {len(predictions):,} examples"

    def findings(self, scored: findings.Scored) -> dict[str, Any]:
        """Each class, the confusion of them, and how far the probabilities can be trusted."""
        confused = findings.confusion(scored.predictions, scored.references, self.names)
        return {**findings.of_classes(scored, self.names), "confusion": confused}

    @staticmethod
    def example(columns: Sequence[str], options: str) -> Lines:
        """A text, and its class."""
        return text_inputs(columns, options), ["print(model.config.id2label[outputs.logits.argmax(-1).item()])"]


def encode_texts(
    batch: Mapping[str, Sequence[Any]], names: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, Any]:
    """One text a row, or the two of a pair, as tokens; of a pair the longer text is cut first."""
    texts = (shortened(batch[name], tokenizer, max_length) for name in names)
    numbers = batch.get(columns.ROW)
    return never_empty(
        dict(tokens_of(tokenizer, *texts, numbers=numbers, truncation=True, max_length=max_length)), tokenizer
    )


def text_inputs(columns: Sequence[str], options: str, texts: Sequence[str] = ("A text.", "Another text.")) -> list[str]:
    """Lines of Python that tokenize one text, or a pair of texts."""
    given = [f'{column} = "{text}"' for column, text in zip(columns, texts, strict=False)]
    return [*given, f'inputs = tokenizer({", ".join(columns)}, {options}, return_tensors="pt")']

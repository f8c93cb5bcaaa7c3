"""One of several endings for a context, as in SWAG: `multiple-choice`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy.special import softmax
from transformers import DataCollatorForMultipleChoice, PreTrainedTokenizerBase

from hfpipe.errors import DataError
from hfpipe.parts.data import columns
from hfpipe.parts.tasks import findings
from hfpipe.parts.tasks.text import Lines
from hfpipe.parts.tasks.tokenizer import lengths, load_tokenizer, rows_of_logits
from hfpipe.recipe import schema
from hfpipe.recipe.kinds import KINDS

Array = np.ndarray[Any, Any]
_BATCH = 1000  # rows that are looked at together


@dataclass(frozen=True)
class ChoiceTask:
    """The right one of the choices of each row; all rows of a split have the same number of them.

    Attributes:
        text: the column of the context, and of the beginning of all choices where there is one.
        choices: a column a choice, or one column of lists.
        label: the column of what is right.
        by_text: whether that is the text of the right choice; else it is its number, counted from 0.
    """

    text: tuple[str, ...]
    choices: tuple[str, ...]
    label: str
    by_text: bool

    kind = KINDS["multiple-choice"]
    auto_model = "AutoModelForMultipleChoice"
    names = ()
    num_labels = None
    problem_type = None
    scheme = calibration = None

    load_processor = staticmethod(load_tokenizer)
    lengths = staticmethod(lengths)
    unpad_logits = staticmethod(rows_of_logits)

    @classmethod
    def make(cls, spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> ChoiceTask:
        """The task of these rows, whose labels say whether they are numbers or texts.

        Raises:
            DataError: a missing column, labels that are neither, or labels that could be both and mean different choices.
        """
        assert spec.choices is not None
        label = spec.label_columns[0]
        columns.require_columns(rows, (*spec.text, *spec.choices, label), title, where)
        return cls(spec.text, spec.choices, label, _is_by_text(rows, spec.choices, label, title, where))

    @classmethod
    def from_head(cls, spec: schema.Task, names: tuple[str, ...]) -> ChoiceTask:
        """The task of a trained head; labels are not read."""
        assert spec.choices is not None
        return cls(spec.text, spec.choices, spec.label_columns[0], by_text=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, the label last."""
        return (*self.text, *self.choices, self.label)

    def check(self, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
        """Refuse rows that would train or measure something wrong.

        Raises:
            DataError: naming the split and the first rows: missing columns, texts that are no text, another number of
                choices than the first row has, and labels that are none of the row's choices. With `labelled` false
                labels are not looked at.
        """
        columns.require_columns(rows, self.columns if labelled else self.columns[:-1], split, where)
        for name in self.text:
            columns.require_text(rows, name, split, where)
        _require_choices(rows, self.choices, split, where)
        if not labelled:
            return
        values = columns.require_values(rows, self.label, split, where)
        if self.by_text:
            if not columns.is_text(values.type):
                what = f"{split}: column {self.label!r} holds {values.type}"
                raise DataError(what, where=where, allowed="the text of the right choice, as in training")
            bad = np.array([label not in choices for choices, label in _rows(rows, self.choices, self.label)])
            count = 0
        else:
            numbers = _numbers(values, self.label, split, where)
            count = len(next(_rows(rows, self.choices))[0]) if len(rows) else 0
            bad = (numbers < 0) | (numbers >= count)
            if bad.any() and (numbers == -1).all():
                raise DataError(
                    f"{split}: every label is -1, as in a split whose labels are kept back",
                    where=where,
                    fix="Such a split can't be trained on or scored; `hfpipe predict` labels it.",
                )
        if bad.any():
            first = values[int(np.flatnonzero(bad)[0])].as_py()
            of = "none of the choices of its row" if self.by_text else f"outside the {count} choices, counted from 0"
            columns.refuse(bad, f"{split}: label {first!r} is {of}", where, "Mend or drop these rows.")

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """What the model reads of a batch of rows, `[choices][tokens]` for each, and `labels`, the number of the right one.

        The second text of a pair is the choice, after the beginning of all choices where there is one; of a pair the
        longer text is cut first.
        """
        contexts = batch[self.text[0]]
        starts = [f"{start} " if start else "" for start in batch[self.text[1]]] if len(self.text) > 1 else None
        choices = _choices_of(batch, self.choices)
        first = [context for context, own in zip(contexts, choices, strict=True) for _ in own]
        second = [f"{starts[row] if starts else ''}{choice}" for row, own in enumerate(choices) for choice in own]
        flat = tokenizer(first, second, truncation=True, max_length=max_length)
        count, begins = len(choices[0]), range(0, len(first), len(choices[0]))
        encoded: dict[str, Any] = {name: [ids[at : at + count] for at in begins] for name, ids in flat.items()}
        if labelled and self.by_text:
            encoded["labels"] = [own.index(label) for own, label in zip(choices, batch[self.label], strict=True)]
        elif labelled:
            encoded["labels"] = [int(label) for label in batch[self.label]]
        return encoded

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None = None) -> Any:
        """Pads to the longest choice of a batch, `[batch, choices, length]`."""
        return functools.partial(_collate, DataCollatorForMultipleChoice(tokenizer, pad_to_multiple_of=multiple))

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """The number of the choice with the greatest logit, and of the right one; both `[rows]`."""
        predictions = np.stack(logits).argmax(axis=-1)
        return predictions, np.asarray(encoded["labels"][:]) if "labels" in encoded.column_names else None

    def dummy_predictions(self) -> tuple[Array, Array]:
        """Two predictions and their labels, to try a metric on."""
        return np.array([0, 1]), np.array([0, 1])

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """For each row the number of its `choice`, its `text`, its `score`, and the `probabilities` of all in order."""
        probabilities = softmax(np.stack(logits).astype(float), axis=-1)
        return [
            {
                "choice": int(row.argmax()),
                "text": choices[int(row.argmax())],
                "score": float(row.max()),
                "probabilities": [float(one) for one in row],
            }
            for row, (choices, _) in zip(probabilities, _rows(rows, self.choices), strict=True)
        ]

    def probabilities(self, logits: Sequence[Array]) -> None:
        """The choices of a row are no classes, which other rows would share."""

    def constant_prediction(self, references: Array) -> tuple[str, Array]:
        """The choice that is most often the right one."""
        most = int(np.bincount(references).argmax())
        return f"always choice {most}, the most frequent one here", np.full(len(references), most)

    def degenerate(self, predictions: Array) -> str | None:
        """Whether all predictions are the same choice."""
        if (predictions != predictions[0]).any():
            return None
        return f"the model predicts choice {int(predictions[0])} for all {len(predictions):,} examples"

    def findings(self, scored: findings.Scored) -> dict[str, Any]:
        """Nothing but the metrics."""
        return {}

    @staticmethod
    def example(columns: Sequence[str], options: str) -> Lines:
        """Two endings, and the more probable one."""
        return [
            f'{columns[0]} = "What all endings begin with."',
            'endings = ["One ending.", "Another ending."]',
            f'inputs = tokenizer([{columns[0]}] * len(endings), endings, {options}, padding=True, return_tensors="pt")',
            "inputs = {name: tensor.unsqueeze(0) for name, tensor in inputs.items()}",
        ], ["print(endings[outputs.logits.argmax(-1).item()])"]


def _is_by_text(rows: datasets.Dataset, names: tuple[str, ...], label: str, split: str, where: str) -> bool:
    """Whether labels are the texts of choices, and not their numbers."""
    values = columns.column(rows, label)
    if pa.types.is_integer(values.type):
        return False
    if not columns.is_text(values.type):
        raise DataError(
            f"{split}: {label!r} holds {values.type}",
            where=where,
            allowed="the number of the right choice, counted from 0, or its text",
        )
    digits = all(text.isdecimal() for text in pc.unique(values).drop_null().to_pylist())
    if not digits:
        return True
    _require_choices(rows, names, split, where)
    pairs = [(choices, text) for choices, text in _rows(rows, names, label) if text is not None]
    if all(text in choices for choices, text in pairs) and any(c.index(t) != int(t) for c, t in pairs):
        raise DataError(
            f"{split}: {label!r} holds numbers as text, and so do the choices: either the number or the text could be meant",
            where=where,
            fix="Store the labels as whole numbers, counted from 0.",
        )
    return False


def _numbers(values: pa.ChunkedArray, name: str, split: str, where: str) -> Array:
    """Labels as whole numbers, `[rows]`."""
    if pa.types.is_integer(values.type):
        return np.asarray(values)
    texts = values.to_pylist() if columns.is_text(values.type) else None
    if texts is None or not all(text.isdecimal() for text in texts):
        held = "texts" if texts is not None else values.type
        raise DataError(
            f"{split}: column {name!r} holds {held}",
            where=where,
            allowed="the number of the right choice, counted from 0, as in training",
        )
    return np.array([int(text) for text in texts], dtype=np.int64)


def _require_choices(rows: datasets.Dataset, names: tuple[str, ...], split: str, where: str) -> None:
    """Refuse choices that are no texts, or not as many in every row."""
    if len(names) > 1:
        for name in names:
            columns.require_text(rows, name, split, where)
        return
    values = columns.require_values(rows, names[0], split, where, f"column {names[0]!r} has no choices")
    if not columns.is_list(values.type) or not columns.is_text(values.type.value_type):
        what = f"{split}: column {names[0]!r} holds {values.type}"
        raise DataError(what, where=where, allowed="lists of texts, or several columns of texts")
    counts = np.asarray(pc.list_value_length(values))
    empty = np.array([None in choices for choices, _ in _rows(rows, names)])
    if empty.any():
        columns.refuse(empty, f"{split}: a choice has no text", where, "Fill or drop these rows.")
    if len(counts) and (other := counts != counts[0]).any():
        first = counts[other][0]
        what = f"{split}: {first} choice{'' if first == 1 else 's'} where the first row has {counts[0]}"
        columns.refuse(other, what, where, "All rows need the same number.")
    if len(counts) and counts[0] < 2:
        raise DataError(f"{split}: the rows have {counts[0]} choices", where=where, allowed="2 or more")


def _rows(rows: datasets.Dataset, names: tuple[str, ...], label: str | None = None) -> Iterator[tuple[list[str], Any]]:
    """The choices of each row and its label, a batch in memory at a time."""
    read = [*names, *([label] if label is not None else [])]
    for batch in rows.select_columns(list(dict.fromkeys(read))).iter(batch_size=_BATCH):
        labels = batch[label] if label is not None else [None] * len(batch[names[0]])
        yield from zip(_choices_of(batch, names), labels, strict=True)


def _choices_of(batch: Mapping[str, Sequence[Any]], names: tuple[str, ...]) -> list[list[str]]:
    """The choices of each row of a batch."""
    if len(names) == 1:
        return [list(choices) for choices in batch[names[0]]]
    return [list(choices) for choices in zip(*(batch[name] for name in names), strict=True)]


def _collate(pad: Any, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch with or without labels; transformers' collator makes only the first."""
    if "labels" in rows[0]:
        return dict(pad(rows))
    batch = dict(pad([{**row, "labels": 0} for row in rows]))
    del batch["labels"]
    return batch

"""One of several endings for a context, as in SWAG: `multiple-choice`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from hfpipe.parts.data.columns import IGNORED
from hfpipe.parts.tasks import findings
from hfpipe.parts.tasks.answers import (
    FROM_ONE,
    FROM_ZERO,
    IN_WORDS,
    LETTERS,
    NAMED,
    TEXT,
    Choices,
    choices_in,
    find_form,
    index_of,
    values_of,
)
from hfpipe.parts.tasks.classes import is_blank, is_missing, refuse_missing
from hfpipe.parts.tasks.label_lists import require_kept
from hfpipe.parts.tasks.plain_text import tokens_of
from hfpipe.parts.tasks.text import Lines
from hfpipe.parts.tasks.tokenizer import LEAST_TOKENS, filler_of, lengths, load_tokenizer, rows_of_logits
from hfpipe.recipe import schema
from hfpipe.recipe.kinds import KINDS

Array = np.ndarray[Any, Any]
_BATCH = 1000  # rows that are looked at together


@dataclass(frozen=True)
class ChoiceTask:
    """The right one of the choices of each row; rows may have different numbers of them.

    Attributes:
        text: the column of the context, and of the beginning of all choices where there is one.
        choices: a column a choice, or one column of lists.
        label: the column of what is right.
        form: how that is said, one of the forms in answers.py.
        values: the choice of each value that the recipe names.
        ignores_missing: whether a row may have no answer.
    """

    text: tuple[str, ...]
    choices: tuple[str, ...]
    label: str
    form: str
    values: tuple[tuple[str, int], ...] = ()
    ignores_missing: bool = False
    count: int = field(default=2, repr=False)  # the most choices of a row as far as seen; no tokens depend on it

    kind = KINDS["multiple-choice"]
    auto_model = "AutoModelForMultipleChoice"
    names = ()
    num_labels = None
    problem_type = None
    scheme = calibration = None

    load_processor = staticmethod(load_tokenizer)
    lengths = staticmethod(lengths)

    @classmethod
    def make(cls, spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> ChoiceTask:
        """The task of these rows, whose labels say whether they are numbers or texts.

        Raises:
            DataError: a missing column, labels that are neither, or labels that could be both and mean different choices.
        """
        assert spec.choices is not None
        label = spec.label_columns[0]
        columns.require_columns(rows, (*spec.text, *spec.choices, label), title, where)
        if spec.names is not None or spec.form is not None:
            return replace(cls.from_head(spec, ()), count=_most_choices(rows, spec.choices))
        kind = columns.column(rows, label).type
        if not (columns.is_text(kind) or pa.types.is_integer(kind)):
            allowed = f"{IN_WORDS[FROM_ZERO]}, or its letter, or its text"
            raise DataError(f"{title}: {label!r} holds {kind}", where=where, allowed=allowed)
        if not all(_may_hold_choices(columns.column(rows, name).type, len(spec.choices)) for name in spec.choices):
            return cls.from_head(spec, ())  # `check` refuses them, with the split
        is_class = isinstance(rows.features[label], datasets.ClassLabel)
        form = find_form(lambda: _rows(rows, spec.choices or (), label), is_class, title, label, where)
        return replace(cls.from_head(spec, ()), form=form, count=_most_choices(rows, spec.choices))

    @classmethod
    def from_head(cls, spec: schema.Task, names: tuple[str, ...]) -> ChoiceTask:
        """The task of a trained head; labels are read as the recipe says, or counted from 0."""
        assert spec.choices is not None
        form = NAMED if spec.names is not None else spec.form or FROM_ZERO
        values = tuple(values_of(spec.names).items())
        return cls(spec.text, spec.choices, spec.label_columns[0], form, values, spec.ignores_missing)

    @property
    def reading(self) -> str:
        """How the labels are read, where it is not the plain number."""
        return "" if self.form in (FROM_ZERO, NAMED) else f"{self.label!r} holds {IN_WORDS[self.form]}"

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
        values = columns.column(rows, self.label)
        self._require_kind(values, split, where)
        refuse_missing(is_missing(values), split, self.label, where, ignore=self.ignores_missing)
        require_kept(values.drop_null(), split, where)
        bad = np.array(
            [
                self._index(answer, own) is None and not is_blank(answer)
                for own, answer in _rows(rows, self.choices, self.label)
            ]
        )
        if bad.any():
            first = values[int(np.flatnonzero(bad)[0])].as_py()
            what = "none of the choices of its row" if self.form == TEXT else f"not {IN_WORDS[self.form]}"
            if self.form in (FROM_ZERO, FROM_ONE):
                own = next(itertools.islice(_rows(rows, self.choices), int(np.flatnonzero(bad)[0]), None))[0]
                what = f"outside the {len(own.texts)} choices, counted from {int(self.form == FROM_ONE)}"
            fix = "Mend or drop these rows, or say what each value means: label: {column: ..., names: [A, B, C, D]}."
            columns.refuse(bad, f"{split}: label {first!r} is {what}", where, fix)

    def _require_kind(self, values: pa.ChunkedArray, split: str, where: str) -> None:
        """Refuse labels of another kind than the training rows have."""
        fits = {TEXT: columns.is_text(values.type), LETTERS: columns.is_text(values.type)}
        if self.form in (FROM_ZERO, FROM_ONE):
            fits[self.form] = pa.types.is_integer(values.type) or (
                columns.is_text(values.type) and _are_numbers(pc.unique(values).to_pylist())
            )
        if not fits.get(self.form, True):
            held = "texts" if columns.is_text(values.type) else values.type
            what = f"{split}: column {self.label!r} holds {held}"
            raise DataError(what, where=where, allowed=f"{IN_WORDS[self.form]}, as in training")

    def _index(self, answer: Any, choices: Choices) -> int | None:
        return index_of(answer, choices, self.form, dict(self.values))

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
        first = [context for context, own in zip(contexts, choices, strict=True) for _ in own.texts]
        second = [f"{starts[row] if starts else ''}{choice}" for row, own in enumerate(choices) for choice in own.texts]
        rows = batch.get(columns.ROW, range(len(choices)))
        numbers = [number for number, own in zip(rows, choices, strict=True) for _ in own.texts]
        flat = tokens_of(tokenizer, first, second, numbers=numbers, truncation=True, max_length=max_length)
        if any(len(ids) < LEAST_TOKENS for ids in flat["input_ids"]):
            raise DataError(
                f"a context and a choice make fewer than {LEAST_TOKENS} tokens",
                fix="Fill the row, or raise model.max_length.",
            )
        ends = np.cumsum([0, *(len(own.texts) for own in choices)]).tolist()
        encoded: dict[str, Any] = {
            name: [ids[start:end] for start, end in itertools.pairwise(ends)] for name, ids in flat.items()
        }
        if labelled:
            found = [self._index(answer, own) for own, answer in zip(choices, batch[self.label], strict=True)]
            encoded["labels"] = [IGNORED if one is None else one for one in found]
        return encoded

    def unpad_logits(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> list[Array]:
        """The logits of the choices that each row has: those that fill the batch up stand at the end."""
        rows = rows_of_logits(logits, batch)
        filler = filler_of(batch)
        if filler is None:
            return rows
        counts = (~filler).sum(dim=1).tolist()
        return [row[:count] for row, count in zip(rows, counts, strict=True)]

    @staticmethod
    def is_uneven(encoded: datasets.Dataset) -> bool:
        """Whether rows have different numbers of choices."""
        counts = pc.unique(pc.list_value_length(columns.column(encoded, "input_ids")))
        return len(counts) > 1

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None = None) -> Any:
        """Pads to the longest choice and the most choices of a batch, `[batch, choices, length]`."""
        return functools.partial(_collate, DataCollatorForMultipleChoice(tokenizer, pad_to_multiple_of=multiple))

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """The number of the choice with the greatest logit, and of the right one; both `[rows]`."""
        predictions = np.array([int(row.argmax()) for row in logits], dtype=np.int64)
        if "labels" not in encoded.column_names:
            return predictions, None
        labels = np.asarray(encoded["labels"][:])
        return predictions[labels != IGNORED], labels[labels != IGNORED]

    def dummy_predictions(self) -> tuple[Array, Array]:
        """A prediction of every choice and its label, to try a metric on."""
        choices = np.arange(max(2, self.count))
        return choices, choices

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """For each row the number of its `choice`, its `text`, its `score`, and the `probabilities` of all in order."""
        probabilities = [softmax(row.astype(float)) for row in logits]
        return [
            {
                "choice": int(row.argmax()),
                "text": choices.texts[int(row.argmax())],
                "score": float(row.max()),
                "probabilities": [float(one) for one in row],
            }
            for row, (choices, _) in zip(probabilities, _rows(rows, self.choices), strict=True)
        ]

    def probabilities(self, logits: Sequence[Array]) -> None:
        """The choices of a row are no classes, which other rows would share."""

    def constant_predictions(self, references: Array) -> list[tuple[str, Array]]:
        """Every choice, the one first that is most often the right one."""
        most = np.argsort(-np.bincount(references), kind="stable").tolist()
        what = [f"always choice {one}" for one in most]
        what[0] += ", the most frequent one here"
        return [(words, np.full(len(references), one)) for words, one in zip(what, most, strict=True)]

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


def _are_numbers(texts: Sequence[str | None]) -> bool:
    return all(text is None or not text.strip() or text.strip().lstrip("-").isdecimal() for text in texts)


def _require_choices(rows: datasets.Dataset, names: tuple[str, ...], split: str, where: str) -> None:
    """Refuse choices that are no texts, and rows with fewer than two."""
    for name in names if len(names) > 1 else ():
        kind = columns.column(rows, name).type
        if not columns.is_text(kind) and not pa.types.is_null(kind):
            columns.require_text(rows, name, split, where)
    if len(names) == 1:
        values = columns.require_values(rows, names[0], split, where, f"column {names[0]!r} has no choices")
        if not _holds_choices(values.type):
            what = f"{split}: column {names[0]!r} holds {values.type}"
            allowed = "lists of texts, {text: [...], label: [...]}, {A: ..., B: ...}, or several columns of texts"
            raise DataError(what, where=where, allowed=allowed)
    bad: dict[str, list[bool]] = {"a choice has no text": [], "fewer than 2 choices": [], "as many keys as choices": []}
    for own, _ in _rows(rows, names):
        for what, is_so in zip(
            bad,
            (
                None in own.texts or (len(names) > 1 and any(is_blank(text) for text in own.texts)),
                len(own.texts) < 2,
                bool(own.keys) and (len(own.keys) != len(own.texts) or len(set(own.keys)) < len(own.keys)),
            ),
            strict=True,
        ):
            bad[what].append(is_so)
    for what, is_bad in bad.items():
        if any(is_bad):
            told = f"not {what}, each another one" if what.startswith("as many") else what
            columns.refuse(np.array(is_bad), f"{split}: {told}", where, "Fill or drop these rows.")


def _may_hold_choices(kind: pa.DataType, of: int) -> bool:
    """Whether one of so many columns may hold choices."""
    return columns.is_text(kind) or pa.types.is_null(kind) if of > 1 else _holds_choices(kind)


def _holds_choices(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds the choices of a row."""
    if columns.is_list(kind):
        inner = kind.value_type
        return columns.is_text(inner) or (pa.types.is_struct(inner) and any(columns.is_text(one.type) for one in inner))
    if not pa.types.is_struct(kind):
        return False
    if any(columns.is_list(one.type) for one in kind):
        return any(columns.is_list(one.type) and columns.is_text(one.type.value_type) for one in kind)
    return all(columns.is_text(one.type) or pa.types.is_null(one.type) for one in kind)


def _rows(rows: datasets.Dataset, names: tuple[str, ...], label: str | None = None) -> Iterator[tuple[Choices, Any]]:
    """The choices of each row and its label, a batch in memory at a time."""
    read = [*names, *([label] if label is not None else [])]
    for batch in rows.select_columns(list(dict.fromkeys(read))).iter(batch_size=_BATCH):
        labels = batch[label] if label is not None else [None] * len(batch[names[0]])
        yield from zip(_choices_of(batch, names), labels, strict=True)


def _most_choices(rows: datasets.Dataset, names: tuple[str, ...]) -> int:
    """The most choices that one of the first rows has, 2 at least; `check` refuses columns that hold none."""
    if not all(_may_hold_choices(columns.column(rows, name).type, len(names)) for name in names):
        return 2
    return max(2, *(len(own.texts) for own, _ in itertools.islice(_rows(rows, names), _BATCH)), 0)


def _choices_of(batch: Mapping[str, Sequence[Any]], names: tuple[str, ...]) -> list[Choices]:
    """The choices of each row of a batch; of several columns the last ones may be empty."""
    if len(names) == 1:
        return [choices_in(cell) or Choices([], []) for cell in batch[names[0]]]
    rows = (list(row) for row in zip(*(batch[name] for name in names), strict=True))
    return [Choices(_without_empty_end(row), []) for row in rows]


def _without_empty_end(texts: list[Any]) -> list[Any]:
    end = len(texts)
    while end and is_blank(texts[end - 1]):
        end -= 1
    return texts[:end]


def _collate(pad: Any, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch with or without labels, every row filled up to the most choices with ones of a single token.

    Transformers' collator takes as many choices of every row, and makes only a batch with labels.
    """
    most = max(len(row["input_ids"]) for row in rows)
    filled = [{"labels": 0, **{name: _filled(value, most) for name, value in row.items()}} for row in rows]
    batch = dict(pad(filled))
    if "labels" not in rows[0]:
        del batch["labels"]
    return batch


def _filled(value: Any, most: int) -> Any:
    """The tokens of each choice of a row, or its label."""
    return value if not isinstance(value, list) else value + [value[0][:1]] * (most - len(value))

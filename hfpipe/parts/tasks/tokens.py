"""A class for every word: `token-classification`, as named entities or parts of speech.

Rows are lists of words. A tokenizer makes one or several pieces of a word, or none; the positions that are scored are
the first piece of each word, or all pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy.special import softmax
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerBase

from hfpipe.errors import DataError, ModelError
from hfpipe.parts.data import columns
from hfpipe.parts.data.columns import IGNORED
from hfpipe.parts.metrics.entities import OUTSIDE, Label, entities, scheme_of
from hfpipe.parts.tasks import findings
from hfpipe.parts.tasks.classes import (
    Classes,
    check_order,
    check_values,
    find_classes,
    is_missing,
    numbered,
    refuse_missing,
)
from hfpipe.parts.tasks.plain_text import tokens_of
from hfpipe.parts.tasks.text import Lines
from hfpipe.parts.tasks.tokenizer import lengths, load_tokenizer
from hfpipe.recipe import schema
from hfpipe.recipe.kinds import KINDS

Array = np.ndarray[Any, Any]
_CONSTANT_WORDS, _LEAST_CONSTANTS = 500_000, 3  # that are labelled for baselines, and labels that are tried in any case


@dataclass(frozen=True)
class TokenTask:
    """One class for each word.

    Attributes:
        text: the column with lists of words.
        label: the column with a label for each word.
        classes: of the words.
        subwords: whether the `first` piece of a word carries its label, or `all` pieces.
        scheme: how the labels mark entities, a key of `hfpipe.parts.metrics.entities.SCHEMES`.
    """

    text: str
    label: str
    classes: Classes
    subwords: str
    scheme: str = field(repr=False)  # the text of a task is part of the key of its tokens

    kind = KINDS["token-classification"]
    auto_model = "AutoModelForTokenClassification"
    problem_type = None
    calibration = None

    load_processor = staticmethod(load_tokenizer)
    lengths = staticmethod(lengths)

    @classmethod
    def make(cls, spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> TokenTask:
        """The task of these rows, from which the classes and the scheme come where the recipe does not declare them.

        Raises:
            DataError: a missing column, labels that are no lists of classes, or that do not fit the scheme.
        """
        label = spec.label_columns[0]
        columns.require_columns(rows, (*spec.text, label), title, where)
        values = columns.column(rows, label)
        _require_list(values, label, title, where)
        feature = rows.features[label].feature
        found = find_classes(spec.names, feature, pc.list_flatten(values), label, title, where, other_kind="")
        scheme = _scheme(spec, found.names, where)
        if spec.scheme == "auto" and scheme == "IOB2" and not _begin_with_b(found, values):
            scheme = "IOB1"
        return cls._of(spec, replace(found, ignores_missing=spec.ignores_missing), scheme)

    @classmethod
    def from_head(cls, spec: schema.Task, names: tuple[str, ...]) -> TokenTask:
        """The task of a trained head whose classes have these names.

        Raises:
            DataError: names that do not fit the scheme.
        """
        return cls._of(spec, Classes(names, ignores_missing=spec.ignores_missing), _scheme(spec, names, "task.scheme"))

    @classmethod
    def _of(cls, spec: schema.Task, classes: Classes, scheme: str) -> TokenTask:
        assert spec.subwords is not None
        return cls(spec.text[0], spec.label_columns[0], classes, spec.subwords, scheme)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in order."""
        return self.classes.names

    @property
    def num_labels(self) -> int:
        """How many numbers the head puts out for a token: one a class."""
        return len(self.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: words and labels."""
        return (self.text, self.label)

    def check(self, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
        """Refuse rows that would train or measure something wrong; a row without words is none of them.

        Raises:
            DataError: naming the split and the first rows: missing columns, words that are no lists of text, no word at
                all, other than one label a word, labels outside the classes or missing. With `labelled` false only the
                words are looked at.
        """
        columns.require_columns(rows, self.columns if labelled else (self.text,), split, where)
        words = columns.require_values(rows, self.text, split, where, f"no list of words in column {self.text!r}")
        _require_words(words, self.text, split, where)
        if not labelled:
            return
        if not len(pc.list_flatten(words)):
            raise DataError(f"{split}: column {self.text!r} has not a single word", where=where)
        labels, skips = columns.column(rows, self.label), self.classes.ignores_missing
        _require_list(labels, self.label, split, where)
        without = np.asarray(pc.is_null(labels))
        refuse_missing(without, split, self.label, where, ignore=skips)
        counts, given = np.where(without, 0, _lengths(words)), _lengths(labels)
        if (counts != given).any():
            row = int(np.flatnonzero(counts != given)[0])
            what = f"{split}: {given[row]} labels for {counts[row]} words"
            columns.refuse(counts != given, what, where, "Give every word one label.")
        flat, row_of = pc.list_flatten(labels), np.repeat(np.arange(len(labels)), given)
        missing = is_missing(flat, self.classes.named_blanks)
        if missing.any() and not skips:
            bad = np.isin(np.arange(len(labels)), row_of[missing])
            fix = (
                f"Label or drop these rows, or leave out such words: label: {{column: {self.label}, missing: ignore}}."
            )
            columns.refuse(bad, f"{split}: a label is None", where, fix)
        check_order(self.classes, rows.features[self.label].feature, split, where)
        check_values(self.classes, flat.filter(pa.array(~missing)), split, self.label, where, rows=row_of[~missing])

    def numbered(self, rows: datasets.Dataset) -> str:
        """Which class the numbers of these rows are taken for, where nobody says it; else nothing."""
        return numbered(self.classes, rows, self.label)

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """What the model reads of a batch of rows, cut at the end.

        Returns:
            With it `labels`, `[length]`: the class of the word at every position that is scored (0 without labels), and
            IGNORED elsewhere; and `words`, for each scored position the number of its word in the row.

        Raises:
            ModelError: a tokenizer that does not say which word a token is of.
        """
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} does not say which word a token is of, and token classification needs that",
                fix="Take a checkpoint with a fast tokenizer, such as BERT's or RoBERTa's.",
            )
        space = _space_before_words(tokenizer)
        words = [[space + word if word else word for word in row] for row in batch[self.text]]
        numbers = batch.get(columns.ROW)
        options = {"is_split_into_words": True, "truncation": True, "max_length": max_length}
        encoded = tokens_of(tokenizer, words, numbers=numbers, **options)
        labels, words_of = [], []
        for row, given in enumerate(words):
            classes = self._classes(batch[self.label][row], len(given)) if labelled else [0] * len(given)
            word_of = encoded.word_ids(row)
            scored = [
                word is not None and (self.subwords == "all" or word != before)
                for word, before in zip(word_of, [None, *word_of], strict=False)
            ]
            placed = [classes[word] if one else IGNORED for word, one in zip(word_of, scored, strict=True)]
            labels.append(placed)
            counted = [word for word, one in zip(word_of, placed, strict=True) if one != IGNORED]
            words_of.append(np.array(counted, np.int32))
        return {**encoded, "labels": labels, "words": words_of}

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None = None) -> Any:
        """Pads to the longest row of a batch, the labels with IGNORED."""
        return DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=multiple)

    def unpad_logits(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> list[Array]:
        """Of the logits of a batch, `[batch, length, classes]`, those of the scored positions, `[scored, classes]` a row."""
        scored = (batch["labels"] != IGNORED).cpu().numpy()
        return [row[places] for row, places in zip(logits.cpu().numpy(), scored, strict=True)]

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """The label of every word as predicted, and as it is where the rows say so: lists of names, `[rows]`.

        Of several pieces the first one decides. A word of which no piece was scored, because the row was cut or the
        tokenizer makes nothing of it, is predicted as `O`, or as None where no class is called that, which is never
        right. A word whose label is ignored is left out on both sides.
        """
        predicted = [labels for labels, _ in self._predicted(logits, encoded, rows)]
        if self.label not in rows.column_names:
            return _objects(predicted), None
        references = []
        for row, given in enumerate(columns.column(rows, self.label).to_pylist()):
            classes = self._classes(given, len(predicted[row]))
            counted = [word for word, one in enumerate(classes) if one != IGNORED]
            predicted[row] = [predicted[row][word] for word in counted]
            references.append([self.names[classes[word]] for word in counted])
        return _objects(predicted), _objects(references)

    def dummy_predictions(self) -> tuple[Array, Array]:
        """Two predictions and their labels, with every class in them, to try a metric on."""
        labels = _objects([list(self.names), list(self.names)])
        return labels, labels

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """For each row the `labels` of its words and their `scores`, None for a word that was cut off or is no token.

        With a scheme of entities also `entities`: `type`, `start` and `end` (the first and one past the last word),
        `text`, and the mean `score` of its words.
        """
        found = []
        sentences = columns.column(rows, self.text).to_pylist()
        for words, (labels, scores) in zip(sentences, self._predicted(logits, encoded, rows), strict=True):
            one: dict[str, Any] = {"labels": labels, "scores": scores}
            if self.scheme != "none":
                one["entities"] = [
                    {
                        "type": entity.type,
                        "start": entity.start,
                        "end": entity.end,
                        "text": " ".join(words[entity.start : entity.end]),
                        "score": float(
                            np.mean([score for score in scores[entity.start : entity.end] if score is not None])
                        ),
                    }
                    for entity in entities(labels, self.scheme)
                ]
            found.append(one)
        return found

    def probabilities(self, logits: Sequence[Array]) -> None:
        """A row has none of its own: its words have."""

    def constant_predictions(self, references: Array) -> list[tuple[str, Array]]:
        """A label for every word: each that occurs, the most frequent one first; of many words the most frequent ones.

        None without a word. A label that begins an entity makes every word one, and finds those of one word.
        """
        counted = Counter(label for row in references for label in row)
        many = max(_LEAST_CONSTANTS, _CONSTANT_WORDS // max(1, counted.total()))
        order = sorted(counted, key=lambda one: (counted[one], one), reverse=True)[:many]
        what = [f"always {label!r}" for label in order]
        what[:1] = [f"{one}, the most frequent label of a word here" for one in what[:1]]
        return [
            (words, _objects([[label] * len(row) for row in references]))
            for words, label in zip(what, order, strict=True)
        ]

    def degenerate(self, predictions: Array) -> str | None:
        """Whether all words get one label."""
        labels = {label for row in predictions for label in row}
        return f"the model predicts {labels.pop()!r} for every word" if len(labels) == 1 else None

    def findings(self, scored: findings.Scored) -> dict[str, Any]:
        """`classes`: each type of entity, or each tag."""
        return {"classes": findings.by_type(scored.metrics, scored.intervals)}

    @staticmethod
    def example(columns: Sequence[str], options: str) -> Lines:
        """A sentence in words, and the class of each of its tokens."""
        return [
            f'{columns[0]} = ["A", "sentence", "in", "words"]',
            f'inputs = tokenizer({columns[0]}, is_split_into_words=True, {options}, return_tensors="pt")',
        ], ["print([model.config.id2label[i] for i in outputs.logits.argmax(-1)[0].tolist()])"]

    def _classes(self, labels: Sequence[Any] | None, words: int) -> list[int]:
        """The class of each word of a row; IGNORED where it has no label."""
        return [IGNORED] * words if labels is None else self.classes.of(labels)

    def _predicted(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> Iterator[tuple[list[Label], list[float | None]]]:
        """The label of every word of every raw row, and its probability where the model saw the word."""
        unseen = OUTSIDE if OUTSIDE in self.names else None
        counts = _lengths(columns.column(rows, self.text))
        for count, scored, numbers in zip(counts, logits, columns.column(encoded, "words").to_pylist(), strict=True):
            labels: list[Label] = [unseen] * count
            scores: list[float | None] = [None] * count
            probabilities = softmax(scored.astype(float), axis=-1)  # [scored, classes]
            for word, best, score in zip(
                numbers, probabilities.argmax(axis=-1), probabilities.max(axis=-1), strict=True
            ):
                if scores[word] is None:
                    labels[word], scores[word] = self.names[int(best)], float(score)
            yield labels, scores


def _scheme(spec: schema.Task, names: Sequence[str], where: str) -> str:
    assert spec.scheme is not None
    return scheme_of(names, spec.scheme, where)


def _begin_with_b(classes: Classes, labels: pa.ChunkedArray) -> bool:
    """Whether every entity of these rows begins with a B label, so that no I label stands behind another type or none."""
    coded = pc.dictionary_encode(pc.list_flatten(labels).combine_chunks())
    letters, types = [], []
    for value in [*coded.dictionary.to_pylist(), None]:  # the last of them for a label that is missing
        name = _name(classes, value)
        letters.append(name[0])
        types.append(name[2:])
    places = np.asarray(coded.indices.fill_null(-1))
    inside = np.array(letters)[places] == "I"
    kinds = np.unique(types, return_inverse=True)[1][places]
    outside = np.array(letters)[places] == OUTSIDE
    starts = np.zeros(len(places), bool)
    starts[1:] = outside[:-1] | (kinds[1:] != kinds[:-1])
    lengths = _lengths(labels)
    starts[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    return not bool((inside & starts).any())


def _name(classes: Classes, value: Any) -> str:
    """The name of a value that was not checked yet; O for what is no class."""
    try:
        number = classes.of([value])[0]
    except (KeyError, TypeError, ValueError):
        return OUTSIDE
    return classes.names[number] if 0 <= number < len(classes.names) else OUTSIDE


def _space_before_words(tokenizer: PreTrainedTokenizerBase) -> str:
    """What to put before every word, so that it gets the tokens it has in running text: a space, or nothing.

    Tokenizers of RoBERTa's kind write the space into the token of the word behind it. Given words one by one, and
    without `add_prefix_space`, they would take each for the middle of a longer word.
    """

    def second_of(words: list[str]) -> list[int]:
        split = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
        return [token for token, word in zip(split["input_ids"], split.word_ids(), strict=True) if word == 1]

    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    running = tokenizer("a a", add_special_tokens=False)["input_ids"][len(alone) :]
    return " " if second_of(["a", "a"]) != running and second_of([" a", " a"]) == running else ""


def _require_list(values: pa.ChunkedArray, name: str, split: str, where: str) -> None:
    if not columns.is_list(values.type):
        raise DataError(
            f"{split}: column {name!r} holds {values.type}",
            where=where,
            allowed="a list for each row, with a label for each word",
            fix="For one class a row use task.kind: text-classification.",
        )


def _require_words(words: pa.ChunkedArray, name: str, split: str, where: str) -> None:
    is_list = columns.is_list(words.type)
    flat = pc.list_flatten(words) if is_list else words
    if not is_list or not (columns.is_text(flat.type) or not len(flat)):
        raise DataError(
            f"{split}: column {name!r} holds {words.type}",
            where=where,
            allowed="a list of words for each row",
            fix="Split the texts into words first." if columns.is_text(words.type) else "",
        )
    if flat.null_count:
        row_of = np.repeat(np.arange(len(words)), _lengths(words))
        bad = np.isin(np.arange(len(words)), row_of[np.asarray(pc.is_null(flat))])
        columns.refuse(bad, f"{split}: a word in column {name!r} is None", where, "Fill or drop these rows.")


def _lengths(lists: pa.ChunkedArray) -> Array:
    """How long each list is, `[rows]`; 0 where there is none."""
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0))


def _objects(values: Sequence[Any]) -> Array:
    """Lists as an array that rows can be drawn from, `[rows]`."""
    made = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        made[row] = value
    return made

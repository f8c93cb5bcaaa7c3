"""Entities in the labels of words, read and counted as CoNLL's conlleval does, and the scores made of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.metrics.sums import Sums, overlap, share, values_of
from hfpipe.recipe.catalog import near

Array = np.ndarray[Any, Any]
Label = str | None
"""The label of a word; None where nothing was predicted for it, which is outside of every entity and never correct."""

OUTSIDE = "O"
SCHEMES: Mapping[str, str] = {"IOB1": "BI", "IOB2": "BI", "BILOU": "BILUES", "none": ""}
"""The letters before the types in each scheme. BILOU may also be written BIOES, with E for L and S for U."""
UNTYPED = "entity"
"""The type of entities that are labelled B and I alone."""
_SHOWN = 8  # labels named in an error


class Entity(NamedTuple):
    """Words from `start` up to, and without, `end`."""

    type: str
    start: int
    end: int


def entities(labels: Sequence[Label], scheme: str) -> list[Entity]:
    """The entities of a sentence in their order; with the scheme `none` every word is one, of the type of its label.

    Ill-formed labels are read as conlleval reads them. An inside label whose predecessor is outside, of another type, or
    the last of its entity begins an entity; a first or inside label without a last one ends with its type. Under this
    reading IOB1 and IOB2 mean the same: a B always begins an entity.

    Args:
        labels: of the words, such as `B-PER`, or `B` alone.
        scheme: a key of SCHEMES.

    Raises:
        DataError: a label that does not fit the scheme.

    Source: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 shared task", and its conlleval script.
    """
    found: list[Entity] = []
    start, letter, kind = None, OUTSIDE, ""
    for position, label in enumerate([*labels, None]):
        earlier, earlier_kind = letter, kind
        letter, kind = _read(label, scheme)
        if letter in "ILE" and earlier in "BI" and kind == earlier_kind:
            continue
        if start is not None:
            found.append(Entity(earlier_kind, start, position))
        start = None if letter == OUTSIDE else position
    return found


def scheme_of(names: Iterable[str], declared: str = "auto", where: str = "") -> str:
    """The scheme that label names are written in.

    Args:
        names: all labels there are.
        declared: a key of SCHEMES that they should fit, or `auto` to find it. Names alone don't tell IOB1 from IOB2, and
            nothing depends on it: IOB2 is the answer.
        where: the place in the recipe.

    Raises:
        DataError: names that don't fit the declared scheme; or, with `auto`, names of which some mark entities and others
            do not.
    """
    names = [name for name in names if name != OUTSIDE]
    scheme = declared
    if declared == "auto":
        alone = set(names) <= set("BILUES") and not {"B", "I"}.isdisjoint(names)
        marked = [name for name in names if alone or re.match("[BILUES]-.", name)]
        scheme = "BILOU" if any(name[0] in "LUES" for name in marked) else "IOB2" if marked else "none"
    strange = [name for name in names if not _fits(name, scheme)]
    if strange:
        shown = ", ".join(strange[:_SHOWN]) + (", ..." if len(strange) > _SHOWN else "")
        looks = "look like " if declared == "auto" else "are declared as "
        raise DataError(
            f"the labels {looks}{scheme}, and {shown} {'is' if len(strange) == 1 else 'are'} not of it",
            where=where,
            allowed=f"{OUTSIDE}, and types after {', '.join(f'{letter}-' for letter in SCHEMES[scheme])}",
            fix="Mend the labels, or say task.scheme: none for tags that mark no entities.",
        )
    return scheme


def types_of(names: Iterable[str], scheme: str) -> tuple[str, ...]:
    """The types of the entities that these labels mark, sorted; with the scheme `none` the labels themselves."""
    read = [_read(name, scheme) for name in names]
    return tuple(sorted({kind for letter, kind in read if letter != OUTSIDE}))


@dataclass(frozen=True)
class Counts:
    """What is counted in each sentence.

    Attributes:
        types: of entities.
        hits: entities that are predicted and actual, with type and both ends, `[sentences, types]`.
        predicted: entities that are predicted, `[sentences, types]`.
        actual: entities of the references, `[sentences, types]`.
        words_hit: words with the correct label, `[sentences]`.
        words: `[sentences]`.
    """

    types: tuple[str, ...]
    hits: Array
    predicted: Array
    actual: Array
    words_hit: Array
    words: Array


def count(
    predictions: Sequence[Sequence[Label]],
    references: Sequence[Sequence[Label]],
    scheme: str,
    types: Sequence[str] = (),
) -> Counts:
    """Count entities and words, sentence by sentence.

    Args:
        predictions: labels of the words of each sentence.
        references: the labels that they should have.
        scheme: a key of SCHEMES.
        types: to count even where there are none of them.

    Raises:
        DataError: a sentence with other than one prediction a word, or a label that does not fit the scheme.
    """
    pairs = []
    for row, (predicted_labels, labels) in enumerate(zip(predictions, references, strict=True)):
        if len(predicted_labels) != len(labels):
            raise DataError(f"{len(predicted_labels)} labels are predicted for {len(labels)} words", where=f"row {row}")
        pairs.append((set(entities(predicted_labels, scheme)), set(entities(labels, scheme))))
    known = sorted({*types, *(one.type for pair in pairs for side in pair for one in side)})
    column = {name: number for number, name in enumerate(known)}
    hits, predicted, actual = np.zeros((3, len(pairs), len(known)), np.int64)
    for row, (found, real) in enumerate(pairs):
        for table, some in ((hits, found & real), (predicted, found), (actual, real)):
            for one in some:
                table[row, column[one.type]] += 1
    words = np.array([len(labels) for labels in references], np.int64)
    words_hit = [
        sum(one == other for one, other in zip(*pair, strict=True))
        for pair in zip(predictions, references, strict=True)
    ]
    return Counts(tuple(known), hits, predicted, actual, np.array(words_hit, np.int64), words)


class Seqeval:
    """Precision, recall and F1 of entities as CoNLL counts them, micro over all and for each type; accuracy of words.

    An entity is correct when its type and both of its ends are. Precision is undefined (None) where nothing is predicted,
    recall where there is nothing to find, F1 where both hold. For tags that mark no entities, as parts of speech, there
    are the accuracy and the F1 of each tag.

    Args:
        scheme: IOB1, IOB2, BILOU or none; by default the task's, and without a task that of the labels.
        names: all labels, so that every type has its scores even where there are none of it; by default the task's, and
            without a task those that occur.
    """

    def __init__(self, scheme: str | None = None, names: Sequence[str] | None = None) -> None:
        if scheme is not None and scheme not in SCHEMES:
            raise RecipeError(f"unknown scheme {scheme!r}{near(str(scheme), SCHEMES)}", allowed=", ".join(SCHEMES))
        self.scheme, self.names = scheme, names

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """Score labels, each side a list of words' labels for each sentence.

        Returns:
            `precision`, `recall`, `f1`, `accuracy`, and `TYPE_precision`, `TYPE_recall`, `TYPE_f1` and `TYPE_support`
            (how many there are) of each type; with the scheme `none`, `accuracy` and `TAG_f1` of each tag.

        Raises:
            DataError: values that are no lists of labels, or labels that do not fit the scheme.
        """
        scheme, counts = self._counted(predictions, references)
        scores = values_of(dict(_scores(counts, scheme)))
        if scheme != "none":
            for number, kind in enumerate(counts.types):
                scores[f"{kind}_support"] = float(counts.actual[:, number].sum())
        return scores

    def sums(self, predictions: Any, references: Any) -> dict[str, Sums]:
        """What to sum over the sentences for each score but the support, which is no estimate."""
        scheme, counts = self._counted(predictions, references)
        return dict(_scores(counts, scheme))

    def _counted(self, predictions: Any, references: Any) -> tuple[str, Counts]:
        for side, values in (("predictions", predictions), ("references", references)):
            if not all(isinstance(row, list | tuple) for row in values):
                raise DataError(
                    f"the {side} are no lists of labels",
                    where="metric 'seqeval'",
                    allowed="the labels of the words of each sentence",
                    fix="Other kinds of task have other metrics, such as accuracy.",
                )
        seen = {label for side in (predictions, references) for row in side for label in row if label is not None}
        names = self.names if self.names is not None else sorted(seen)
        scheme = self.scheme or scheme_of(names, where="metric 'seqeval'")
        return scheme, count(predictions, references, scheme, types_of(names, scheme))


def _scores(counts: Counts, scheme: str) -> Iterator[tuple[str, Sums]]:
    """The scores, each a ratio of sums over sentences."""

    def three(prefix: str, hits: Array, predicted: Array, actual: Array) -> Iterator[tuple[str, Sums]]:
        if scheme != "none":
            yield f"{prefix}precision", Sums(np.stack([hits, predicted]), share)
            yield f"{prefix}recall", Sums(np.stack([hits, actual]), share)
        yield f"{prefix}f1", Sums(np.stack([2 * hits, predicted + actual]), overlap)

    tables = (counts.hits, counts.predicted, counts.actual)
    if scheme != "none":
        yield from three("", *(table.sum(axis=1) for table in tables))
    yield "accuracy", Sums(np.stack([counts.words_hit, counts.words]), share)
    for kind, *columns in zip(counts.types, *(table.T for table in tables), strict=True):
        yield from three(f"{kind}_", *columns)


@functools.lru_cache(maxsize=65_536)
def _read(label: Label, scheme: str) -> tuple[str, str]:
    """The letter and the type of a label; outside of entities the letter is O."""
    if label is None:
        return OUTSIDE, ""
    if scheme == "none":
        return "U", label
    if label == OUTSIDE:
        return OUTSIDE, ""
    if not _fits(label, scheme):
        raise DataError(
            f"{label!r} is no label of the scheme {scheme}",
            allowed=f"{OUTSIDE}, and types after {', '.join(f'{letter}-' for letter in SCHEMES[scheme])}",
        )
    return label[0], label[2:] or UNTYPED


def _fits(label: str, scheme: str) -> bool:
    """Whether a label other than O can be one of the scheme: `B-TYPE`, or `B` alone."""
    return scheme == "none" or re.fullmatch(f"[{SCHEMES[scheme]}](-.+)?", label) is not None

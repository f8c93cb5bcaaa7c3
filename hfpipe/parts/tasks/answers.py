"""Which choice an answer means: its number, its letter, its own key, its text, or a value that the recipe names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hfpipe.errors import DataError
from hfpipe.parts.tasks.classes import Names, is_blank, written

FROM_ZERO, FROM_ONE, LETTERS, TEXT, KEYS, NAMED = "from_zero", "from_one", "letters", "text", "keys", "names"
IN_WORDS = {
    FROM_ZERO: "the number of the right choice, counted from 0",
    FROM_ONE: "the number of the right choice, counted from 1",
    LETTERS: "the letter of the right choice, A for the first",
    TEXT: "the text of the right choice",
    KEYS: "the key of the right choice in its row",
    NAMED: "one of the values in label.names",
}
_LETTER = re.compile(r"\(?([A-Za-z])[.)]?")
_TEXTS, _KEYS = (
    ("text", "texts", "choice", "choices", "answer", "content"),
    ("label", "labels", "key", "keys", "letter", "id"),
)


class Choices(NamedTuple):
    """The choices of a row: their texts, and the keys that the row itself has for them, if it has."""

    texts: list[Any]
    keys: list[str]


def choices_in(cell: Any) -> Choices | None:
    """The choices in a cell; None where it holds none.

    A list of texts; `{text: [...], label: [...]}`; a list of `{text: ..., label: ...}`; or `{A: ..., B: ...}`.
    """
    if isinstance(cell, Mapping):
        texts, keys = _field(cell, _TEXTS), _field(cell, _KEYS)
        if texts is not None and not isinstance(cell[texts], str | None):
            found = list(cell[texts])
            return Choices(found, [written(one) for one in cell[keys]] if keys is not None else [])
        there = {key: text for key, text in cell.items() if text is not None}
        return Choices(list(there.values()), list(there))
    if isinstance(cell, Sequence) and not isinstance(cell, str):
        if cell and all(isinstance(one, Mapping) for one in cell):
            texts, keys = _field(cell[0], _TEXTS), _field(cell[0], _KEYS)
            if texts is None:
                return None
            return Choices([one[texts] for one in cell], [written(one[keys]) for one in cell] if keys else [])
        return Choices(list(cell), [])
    return None


def _field(cell: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in cell), None)


def index_of(answer: Any, choices: Choices, form: str, values: Mapping[str, int]) -> int | None:
    """The choice that an answer means in this form, counted from 0; None where it means none of the row's.

    Args:
        answer: a value of the label column.
        choices: of its row.
        form: one of the forms above.
        values: of the form `names`: the choice of each value.
    """
    if form in (TEXT, KEYS):
        among = choices.texts if form == TEXT else choices.keys
        wanted = answer if form == TEXT else written(answer)
        return among.index(wanted) if wanted in among else None
    if form == NAMED:
        number = values.get(written(answer))
    elif form == LETTERS:
        found = _LETTER.fullmatch(answer.strip()) if isinstance(answer, str) else None
        number = ord(found[1].upper()) - ord("A") if found else None
    else:
        number = _whole(answer)
        number = None if number is None else number - (form == FROM_ONE)
    return number if number is not None and 0 <= number < len(choices.texts) else None


def _whole(answer: Any) -> int | None:
    if isinstance(answer, bool):
        return None
    if isinstance(answer, str):
        return int(answer) if re.fullmatch(r"-?\d{1,9}", answer.strip()) else None
    return int(answer) if isinstance(answer, int) else None


def values_of(names: Names) -> dict[str, int]:
    """The choice of each value that the recipe names: in order, or by the order of what a mapping leads to."""
    if isinstance(names, Mapping):
        order = {one: number for number, one in enumerate(dict.fromkeys(names.values()))}
        return {value: order[one] for value, one in names.items()}
    return {name: number for number, name in enumerate(names or ())}


def find_form(
    rows: Callable[[], Iterable[tuple[Choices, Any]]], is_class: bool, split: str, name: str, where: str
) -> str:
    """The form in which the answers of a split are given.

    Args:
        rows: the choices and the answer of each row, from the beginning at each call.
        is_class: whether the data say themselves that the answers are classes counted from 0.
        split: title for messages.
        name: of the label column.
        where: the place in the recipe.

    Returns:
        The form in which every answer is one of its row's choices; else the one in which most are, so that the others can
        be told.

    Raises:
        DataError: several forms in which every answer is a choice, and not the same one.
    """
    if is_class:
        return FROM_ZERO
    forms = (KEYS, FROM_ZERO, FROM_ONE, LETTERS, TEXT)
    fitting = dict.fromkeys(forms, 0)
    parts: set[frozenset[str]] = set()  # forms that give some row different choices
    answered = 0
    for choices, answer in rows():
        if is_blank(answer):
            continue
        answered += 1
        meant = {form: index_of(answer, choices, form, {}) for form in forms}
        for form, number in meant.items():
            fitting[form] += number is not None
        found = [form for form in forms if meant[form] is not None]
        for one in found:
            for other in found:
                if meant[one] != meant[other]:
                    parts.add(frozenset((one, other)))
    if answered and fitting[KEYS] == answered:  # the rows say themselves what their answers mean
        return KEYS
    fits = [form for form in forms if fitting[form] == answered]
    second = next((form for form in fits[1:] if frozenset((fits[0], form)) in parts), None)
    if second is not None:
        first = fits[0]
        raise DataError(
            f"{split}: every answer in {name!r} can be read as {IN_WORDS[first]}, and as {IN_WORDS[second]}, and that is not "
            "always the same choice",
            where=where,
            fix=f"Say which: label: {{column: {name}, form: {first}}}, or label: {{column: {name}, form: {second}}}.",
        )
    return fits[0] if fits else max(forms[1:], key=lambda form: fitting[form]) if any(fitting.values()) else FROM_ZERO

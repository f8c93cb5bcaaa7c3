"""Where in a JSON document the rows are: a list of objects under a key, columns, or SQuAD's articles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hfpipe.errors import DataError
from hfpipe.parts.data.formats.layout import Layout, Notify
from hfpipe.recipe.catalog import near
from hfpipe.system.text import listed


@dataclass(frozen=True)
class Columns:
    """An object with the values of each column: a list, or an object from the number of the row, as pandas writes.

    Attributes:
        values: of each column, or each row.
        is_by_row: whether there is an object for each row under a key.
    """

    values: Mapping[str, Any]
    is_by_row: bool = False

    def rows(self, where: str) -> Iterator[dict[str, Any]]:
        """The rows.

        Raises:
            DataError: columns that are not equally long.
        """
        if self.is_by_row:
            yield from self.values.values()
            return
        columns = {name: one for name, one in self.values.items() if isinstance(one, list | dict)}
        keys = {name: list(one) if isinstance(one, dict) else range(len(one)) for name, one in columns.items()}
        first = next(iter(keys.values()))
        for name, own in keys.items():
            if own != first:
                lengths = ", ".join(f"{one!r} has {len(found):,}" for one, found in keys.items())
                what = f"the columns are not equally long: {lengths}"
                raise DataError(what if len(own) != len(first) else f"{name!r} has other rows", where=where)
        for key in first:
            yield {name: one[key] for name, one in columns.items()}


def find(document: Any, path: str, layout: Layout, notice: Notify) -> list[str] | Columns | None:
    """Where the rows of a document are.

    Args:
        document: the value of the whole file.
        path: of the file.
        layout: the field where they are, if somebody said it; and the text column, which tells a row from a document.
        notice: is told where they were found.

    Returns:
        The keys that lead to a list of objects; the columns; or None where the document itself is the only row.

    Raises:
        DataError: no such field, no rows under it, or several lists that may be meant.
    """
    if layout.field is not None:
        keys = _keys(document, layout.field, path)
        return _rows_at(_value(document, keys), keys, path, layout)
    if not isinstance(document, dict) or _is_row(document, layout):
        return None
    if _is_columns(document, layout):
        notice(f"{path} holds columns, which are read as rows: {listed(document, 8)}")
        return Columns(document)
    if _is_by_row(document, layout):
        notice(f"{path} has a row under each of {len(document):,} keys: {listed(document, 8)}")
        return Columns(document, is_by_row=True)
    candidates = list(_candidates(document, [], layout))
    if len(candidates) > 1:
        names = [".".join(keys) for keys in candidates]
        raise DataError(
            f"{len(names)} lists of objects may be the rows: {listed(names, 8)}",
            where=path,
            fix=f"Say which one: dataset.field: {names[0]}.",
        )
    if not candidates:
        return None
    (keys,) = candidates
    notice(f"the rows of {path} are those of {'.'.join(keys)!r} (dataset.field)")
    return _rows_at(_value(document, keys), keys, path, layout)


def _rows_at(value: Any, keys: list[str], path: str, layout: Layout) -> list[str] | Columns:
    if isinstance(value, list):
        return keys
    if isinstance(value, dict) and _is_columns(value, layout):
        return Columns(value)
    below = [f"{'.'.join(keys)}.{one}" for one in value] if isinstance(value, dict) else []
    raise DataError(
        f"{'.'.join(keys)!r} holds {_named(value)}",
        where=path,
        allowed="a list of objects, or an object with a list for each column",
        fix=f"In it are {listed(below, 8)}." if below else "",
    )


def _named(value: Any) -> str:
    return "an object" if isinstance(value, dict) else f"{type(value).__name__} {str(value)[:40]!r}"


def _keys(document: Any, field: str, path: str) -> list[str]:
    """The keys of a dotted path; a key may have dots in it itself."""
    if isinstance(document, dict):
        if field in document:
            return [field]
        pieces = field.split(".")
        for end in range(len(pieces) - 1, 0, -1):
            key = ".".join(pieces[:end])
            if key in document:
                return [key, *_keys(document[key], ".".join(pieces[end:]), path)]
    there = list(document) if isinstance(document, dict) else []
    raise DataError(
        f"no field {field!r}{near(field, there)}", where=path, allowed=listed(there, 8) or f"none in {_named(document)}"
    )


def _value(document: Any, keys: list[str]) -> Any:
    for key in keys:
        document = document[key]
    return document


def _is_row(value: Mapping[str, Any], layout: Layout) -> bool:
    """Whether an object is a row of the task: its text is a text, or a list of words."""
    one = value.get(layout.text)
    if layout.words:
        return isinstance(one, list) and (not one or isinstance(one[0], str))
    return isinstance(one, str)


def _is_columns(value: Mapping[str, Any], layout: Layout) -> bool:
    """Whether an object has the rows' values column by column."""
    if layout.text in value:
        one = value[layout.text]
        if isinstance(one, list) and layout.words:
            return bool(one) and isinstance(one[0], list)
        return isinstance(one, list | dict) and bool(one)
    values = list(value.values())
    if values and all(isinstance(one, dict) and one for one in values):  # as pandas writes: {"0": ..., "1": ...}
        return all(list(one) == list(values[0]) for one in values) and all(key.isdigit() for key in values[0])
    lengths = {len(one) if isinstance(one, list) else -1 for one in values}
    return len(lengths) == 1 and -1 not in lengths and not any(isinstance(one[0], dict) for one in values if one)


def _is_by_row(value: Mapping[str, Any], layout: Layout) -> bool:
    """Whether an object has a row under each of its keys, such as a number: objects with the same fields."""
    values = list(value.values())
    if len(values) < 2 or not all(isinstance(one, dict) and one.keys() == values[0].keys() for one in values):
        return False
    return layout.text in values[0] or all(key.isdigit() for key in value)


def _candidates(value: Mapping[str, Any], keys: list[str], layout: Layout) -> Iterator[list[str]]:
    """The keys of every list of objects, and of every object with columns, that is not itself in a list."""
    for key, part in value.items():
        here = [*keys, key]
        is_list = isinstance(part, list) and bool(part) and all(isinstance(one, dict) for one in part)
        if is_list or (isinstance(part, dict) and part and layout.text and _is_columns(part, layout)):
            yield here
        elif isinstance(part, dict):
            yield from _candidates(part, here, layout)


def questions(rows: Iterator[tuple[int, Any]], path: str, layout: Layout, notice: Notify) -> Iterator[tuple[int, Any]]:
    """The rows, or where these are SQuAD's articles, or paragraphs of them, a row for each question.

    Args:
        rows: line and value of each.
        path: of the file.
        layout: with the text column; rows that have it are what they are.
        notice: is told of the questions.

    Raises:
        DataError: a question without its text, or with answers although it is said to have none.
    """
    for number, (line, row) in enumerate(rows):
        if number == 0:
            nested = isinstance(row, dict) and layout.text not in row and any(
                isinstance(row.get(name), list) for name in ("paragraphs", "qas")
            )  # fmt: skip
            if nested:
                notice(
                    f"{path} holds paragraphs with questions, as SQuAD does: each question is a row, with its context"
                )
        if not nested:
            yield line, row
            continue
        where = f"{path}:{line}"
        title = row.get("title") if isinstance(row, dict) else None
        for paragraph in _list(row, "paragraphs", where) if "paragraphs" in row else [row]:
            for one in _list(paragraph, "qas", where):
                yield line, _question(one, paragraph.get("context"), title, where)


def _list(value: Any, name: str, where: str) -> list[dict[str, Any]]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"{name!r} is no list of objects", where=where, allowed="articles as in SQuAD")
    return found


def _question(one: dict[str, Any], context: Any, title: Any, where: str) -> dict[str, Any]:
    """A question as a row; one that is said to be impossible has no answers, whatever might look like one."""
    question, answers = one.get("question"), one.get("answers")
    if one.get("is_impossible"):
        if answers:
            what = f"question {one.get('id')!r} is said to be impossible, and has answers"
            raise DataError(what, where=where, fix="Remove one of the two.")
        answers = []
    if isinstance(answers, list):
        try:
            found = {
                "text": [each["text"] for each in answers],
                "answer_start": [each["answer_start"] for each in answers],
            }
        except (KeyError, TypeError):
            what = f"an answer of question {one.get('id')!r} has no `text` or no `answer_start`"
            raise DataError(what, where=where, allowed="answers as in SQuAD") from None
        answers = found
    name = one.get("id")
    return {
        "id": None if name is None else str(name),
        "title": title,
        "question": question,
        "context": context,
        "answers": answers,
    }

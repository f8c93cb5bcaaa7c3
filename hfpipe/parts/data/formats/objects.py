"""json and jsonl: one object a row, all with the same fields, and each field with one type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from hfpipe.errors import DataError

_ONE_A_LINE = 'Write one object a line: {"text": "...", "label": "..."}.'
_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}

Batch = tuple[list[int], dict[str, list[Any]]]
"""The first line of each row, `[rows]`, and the columns, `[rows]` each."""


def read_objects(file: TextIO, path: str, shape: Shape, batch_size: int, *, listed: bool) -> Iterator[Batch]:
    """The rows of an open file.

    Args:
        file: an object a line, or one list of objects.
        path: of the file, for errors.
        shape: the fields and types of the rows of the files before, which these must have too.
        batch_size: rows in a batch.
        listed: whether the file may be one list.

    Raises:
        DataError: no JSON, no object, a key twice in an object, or a row of another shape.
    """
    start = ""
    if listed:
        start = next((line for line in file if not line.isspace()), "").lstrip()[:1]
        file.seek(0)
    lines: list[int] = []
    rows: list[dict[str, Any]] = []
    for line, row in _of_list(file, path) if start == "[" else _of_lines(file, path):
        shape.check(row, f"{path}:{line}")
        lines.append(line)
        rows.append(row)
        if len(rows) == batch_size:
            yield lines, {name: [row[name] for row in rows] for name in shape.kinds}
            lines, rows = [], []
    if rows:
        yield lines, {name: [row[name] for row in rows] for name in shape.kinds}


class Shape:
    """The fields and types that the rows so far have; null fits everywhere."""

    def __init__(self) -> None:
        self.passed: set[tuple[Any, ...]] = set()  # what passed once passes again, at one lookup a row
        self.first = ""
        self.kinds: dict[str, tuple[str, str]] = {}

    def check(self, row: Any, where: str) -> None:
        """Refuse a row of another shape.

        Raises:
            DataError: no object, a field more or less than the first row, or a value of another type than before.
        """
        if type(row) is not dict:
            raise DataError(f"{_shown(row)} is no object", where=where, fix=_ONE_A_LINE)
        own = (*row, *map(type, row.values()))
        if own in self.passed:
            return
        if not row:
            raise DataError("an object without fields", where=where, fix=_ONE_A_LINE)
        if not self.first:
            self.first = where
            self.kinds = dict.fromkeys(row, ("", ""))
        for name in self.kinds:
            if name not in row:
                raise DataError(
                    f"no field {name!r}, which {self.first} has", where=where, fix="Write null where there is none."
                )
        for name, value in row.items():
            if name not in self.kinds:
                raise DataError(
                    f"a field {name!r}, which {self.first} lacks", where=where, fix="Give all rows the same fields."
                )
            if value is None:
                continue
            kind, (before, since) = _KINDS[type(value)], self.kinds[name]
            if not before:
                self.kinds[name] = (kind, where)
            elif before != kind:
                raise DataError(
                    f"{name!r} is {_shown(value)}, {kind}, and at {since} it is {before}",
                    where=where,
                    fix="Give a field one type in all rows.",
                )
        self.passed.add(own)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


class _Twice(Exception):
    """A key that an object has twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return row


def _of_lines(file: TextIO, path: str) -> Iterator[tuple[int, Any]]:
    """Line and value of every line that is not blank."""
    decode = json.JSONDecoder(object_pairs_hook=_pairs).decode
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        try:
            yield number, decode(line)
        except json.JSONDecodeError as error:
            raise _no_json(error, f"{path}:{number}:{error.colno}", "the line") from None
        except (_Twice, ValueError, RecursionError) as error:
            raise _unreadable(error, f"{path}:{number}") from None


def _of_list(file: TextIO, path: str) -> Iterator[tuple[int, Any]]:
    """First line and value of every item of the list that the file is."""
    text = file.read()
    decode = json.JSONDecoder(object_pairs_hook=_pairs).raw_decode

    def skip(place: int) -> int:
        return json.decoder.WHITESPACE.match(text, place).end()  # type: ignore[attr-defined,no-any-return]

    place = skip(text.index("[") + 1)
    line, counted, after = 1, 0, text[place : place + 1]
    while after != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decode(text, place)
            place = skip(place)
            after = text[place : place + 1]
            if after not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
        except json.JSONDecodeError as error:
            raise _no_json(error, f"{path}:{error.lineno}:{error.colno}", "the list") from None
        except (_Twice, ValueError, RecursionError) as error:
            raise _unreadable(error, f"{path}:{line}") from None
        yield line, value
        if after == ",":
            place = skip(place + 1)
    if skip(place + 1) != len(text):
        line += text.count("\n", counted, skip(place + 1))
        raise DataError("something follows the list", where=f"{path}:{line}", allowed="one list of objects")


def _no_json(error: json.JSONDecodeError, where: str, what: str) -> DataError:
    is_cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
    return DataError(f"{what} is cut short" if is_cut else f"no JSON: {error.msg}", where=where, fix=_ONE_A_LINE)


def _unreadable(error: Exception, where: str) -> DataError:
    if isinstance(error, _Twice):
        return DataError(f"the key {error.args[0]!r} is there twice", where=where, fix="Keep one of them.")
    what = "nested too deeply" if isinstance(error, RecursionError) else f"no JSON: {error}"
    return DataError(what, where=where)

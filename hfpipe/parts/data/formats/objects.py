"""json and jsonl: objects as rows, all with the same fields, and each field with one type.

A jsonl file has an object a line. A json file has that too, or a list of objects, or it is a document with the rows in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from hfpipe.errors import DataError
from hfpipe.parts.data.formats import documents
from hfpipe.parts.data.formats.layout import Layout, Notify

_ONE_A_LINE = 'Write one object a line: {"text": "...", "label": "..."}.'
_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}

Batch = tuple[list[int], dict[str, list[Any]]]
"""The first line of each row, `[rows]`, and the columns, `[rows]` each."""


def read_objects(
    file: TextIO, path: str, shape: Shape, layout: Layout, batch_size: int, notice: Notify
) -> Iterator[Batch]:
    """The rows of an open file.

    Args:
        file: an object a line; of `json` also one list of objects or a document, and it can be read twice.
        path: of the file, for errors.
        shape: the fields and types of the rows of the files before, which these must have too.
        layout: whether it is json or jsonl, and where in a document the rows are.
        batch_size: rows in a batch.
        notice: is told where in a document the rows were found.

    Raises:
        DataError: no JSON, no object, a key twice in an object, a row of another shape, or a document in which the rows
            are not to be found.
    """
    lines: list[int] = []
    rows: list[dict[str, Any]] = []
    for line, row in documents.questions(_values(file, path, layout, notice), path, layout, notice):
        shape.check(row, f"{path}:{line}")
        lines.append(line)
        rows.append(row)
        if len(rows) == batch_size:
            yield lines, {name: [row[name] for row in rows] for name in shape.kinds}
            lines, rows = [], []
    if rows:
        yield lines, {name: [row[name] for row in rows] for name in shape.kinds}


def _values(file: TextIO, path: str, layout: Layout, notice: Notify) -> Iterator[tuple[int, Any]]:
    """First line and value of each row."""
    if layout.form == "jsonl":
        yield from _of_lines(file, path)
        return
    filled = (line for line in file if not line.isspace())
    first, second = next(filled, ""), next(filled, "")
    file.seek(0)
    if first.lstrip()[:1] == "[":
        text = file.read()
        if layout.field is not None:
            raise DataError(
                f"the document is a list, and has no {layout.field!r}", where=path, fix="Leave dataset.field out."
            )
        yield from _of_list(text, text.index("["), path, is_all=True)
    elif layout.field is None and second and (_is_whole(first) or _is_whole(second)):
        yield from _of_lines(file, path)
    elif first:
        yield from _of_document(file.read(), path, layout, notice)


def _is_whole(line: str) -> bool:
    """Whether a line is an object by itself."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _of_document(text: str, path: str, layout: Layout, notice: Notify) -> Iterator[tuple[int, Any]]:
    """The rows of one object that holds them, or of objects that each take several lines."""
    place, values = _skip(text, 0), []
    while place < len(text):
        value, end = _decoded(text, place, path, "the document")
        values.append((text.count("\n", 0, place) + 1, value))
        place = _skip(text, end)
    (line, document), *others = values
    if others:
        if layout.field is not None:
            what = f"{len(values):,} objects, and dataset.field is of a single one"
            raise DataError(what, where=f"{path}:{others[0][0]}", fix="Leave dataset.field out.")
        yield from values
        return
    found = documents.find(document, path, layout, notice)
    if found is None:
        yield line, document
    elif isinstance(found, documents.Columns):
        yield from ((line, row) for row in found.rows(f"{path}:{line}"))
    else:
        yield from _of_list(text, _place_of(text, _skip(text, 0), found, path), path, is_all=False)


def _place_of(text: str, place: int, keys: list[str], path: str) -> int:
    """Where in a document the value under some keys starts."""
    for key in keys:
        name, place = None, _skip(text, place)
        while name != key:  # the document was read already, so that it is there
            name, place = _decoded(text, _skip(text, place + 1), path, "the document")
            place = _skip(text, _skip(text, place) + 1)
            if name != key:
                place = _skip(text, _decoded(text, place, path, "the document")[1])
    return place


def _skip(text: str, place: int) -> int:
    return json.decoder.WHITESPACE.match(text, place).end()  # type: ignore[attr-defined,no-any-return]


def _decoded(text: str, place: int, path: str, what: str) -> tuple[Any, int]:
    """The value that starts at a place, and where it ends."""
    try:
        return _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        raise _no_json(error, f"{path}:{error.lineno}:{error.colno}", what) from None
    except (_Twice, ValueError, RecursionError) as error:
        raise _unreadable(error, f"{path}:{text.count(chr(10), 0, place) + 1}") from None


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


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)


def _of_lines(file: TextIO, path: str) -> Iterator[tuple[int, Any]]:
    """Line and value of every line that is not blank."""
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        try:
            yield number, _DECODER.decode(line)
        except json.JSONDecodeError as error:
            raise _no_json(error, f"{path}:{number}:{error.colno}", "the line") from None
        except (_Twice, ValueError, RecursionError) as error:
            raise _unreadable(error, f"{path}:{number}") from None


def _of_list(text: str, place: int, path: str, *, is_all: bool) -> Iterator[tuple[int, Any]]:
    """First line and value of every item of the list that starts at a place, and is the whole text where that is said."""
    line, counted = 1 + text.count("\n", 0, place), place
    place = _skip(text, place + 1)
    after = text[place : place + 1]
    while after != "]":
        line, counted = line + text.count("\n", counted, place), place
        value, place = _decoded(text, place, path, "the list")
        place = _skip(text, place)
        after = text[place : place + 1]
        if after not in (",", "]"):
            error = json.JSONDecodeError("Expecting ',' or ']'", text, place)
            raise _no_json(error, f"{path}:{error.lineno}:{error.colno}", "the list")
        yield line, value
        if after == ",":
            place = _skip(text, place + 1)
    if is_all and _skip(text, place + 1) != len(text):
        line += text.count("\n", counted, _skip(text, place + 1))
        raise DataError("something follows the list", where=f"{path}:{line}", allowed="one list of objects")


def _no_json(error: json.JSONDecodeError, where: str, what: str) -> DataError:
    is_cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
    fixes = {"the line": f"{_ONE_A_LINE} A document of several lines is read with path: json.", "the list": _ONE_A_LINE}
    fix = fixes.get(what, "Get the file again, or mend it.")
    return DataError(f"{what} is cut short" if is_cut else f"no JSON: {error.msg}", where=where, fix=fix)


def _unreadable(error: Exception, where: str) -> DataError:
    if isinstance(error, _Twice):
        return DataError(f"the key {error.args[0]!r} is there twice", where=where, fix="Keep one of them.")
    what = "nested too deeply" if isinstance(error, RecursionError) else f"no JSON: {error}"
    return DataError(what, where=where)

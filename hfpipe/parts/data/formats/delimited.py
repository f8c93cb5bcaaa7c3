"""csv and tsv: records with as many fields as the header, whose fields stay the text that they are."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, TextIO

from hfpipe.errors import DataError
from hfpipe.system.text import plural

SEPARATORS = (";", "\t", "|", ",")
"""What may stand between fields where nobody said it."""
_LOOKED_AT = 20  # lines that tell which one it is
_OWN_WORD = re.compile(r'"?sep=(.)"?')  # the line that a spreadsheet reads its separator from

Batch = tuple[list[int], dict[str, Sequence[str]]]
"""The first line of each record, `[records]`, and the columns, `[records]` each."""


def read_records(
    file: TextIO, path: str, separator: str | None, quote: str | None, batch_size: int, *, default: str = ","
) -> Iterator[Batch]:
    """The records of an open file, by the names in its header; empty lines are none.

    Args:
        file: opened with `newline=""`.
        path: of the file, for errors.
        separator: the character between fields; None where nobody said it.
        quote: the character around fields that hold a separator or a line end; None for no such character.
        batch_size: records in a batch.
        default: the separator where nobody said it, and the file has no first line `sep=;` as spreadsheets write it.

    Raises:
        DataError: a header that names no columns, or that another separator parts, a record with more or fewer fields, bad
            quoting, or a NUL.
    """
    csv.field_size_limit(sys.maxsize)  # a long text is no mistake
    lines = _without_nul(file, path)
    head, before = list(islice(lines, 1)), 0  # no more: a pipe gives its rows one by one
    if head and (own := _OWN_WORD.fullmatch(head[0].strip("\r\n"))):
        separator, before, head = separator or own[1], 1, []
    elif head and separator is None and _better(head[0], default, quote):
        head += islice(lines, _LOOKED_AT)
        if other := separator_of(head, default, quote):
            counts = [f"{_count(head[0], one, quote)} between {one!r}" for one in (default, other)]
            raise DataError(
                f"the header has {counts[0]}, and {counts[1]}",
                where=f"{path}:1",
                fix=f"Say dataset.separator: {_written(other)}; or dataset.separator: {_written(default)} where that is meant.",
            )
    reader = csv.reader(
        chain(head, lines),
        delimiter=separator or default,
        quotechar=quote,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        strict=True,
    )
    yield from _records(reader, path, separator or default, batch_size, before)


def separator_of(lines: Sequence[str], separator: str, quote: str | None = '"') -> str | None:
    """Another separator than this one, which parts the header where this one does not; None where there is none.

    Args:
        lines: the first ones of a file.
        separator: that it would be read with.
        quote: the character around fields.
    """
    filled = [line for line in lines if line.strip("\r\n")]
    best = _better(filled[0], separator, quote) if filled else None
    if best is None or len(_parted(filled[0], separator, quote)) == 1:
        return best
    widths = {one: {len(_parted(line, one, quote)) for line in filled} for one in (best, separator)}
    return best if len(widths[best]) == 1 and len(widths[separator]) > 1 else None


def _better(header: str, separator: str, quote: str | None) -> str | None:
    """The separator that parts a header into the most names, all of them different, if those are more than with this one."""
    names = {one: _parted(header, one, quote) for one in SEPARATORS if one != separator}
    best = max(names, key=lambda one: len(names[one]))
    found = names[best]
    is_better = len(found) > len(_parted(header, separator, quote)) and len(set(found)) == len(found)
    return best if is_better and all(name.strip() for name in found) else None


def _parted(line: str, separator: str, quote: str | None) -> list[str]:
    quoting: Any = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return next(csv.reader([line], delimiter=separator, quotechar=quote, quoting=quoting), [])


def _count(line: str, separator: str, quote: str | None) -> str:
    return plural(len(_parted(line, separator, quote)), "field")


def _written(separator: str) -> str:
    return '"\\t"' if separator == "\t" else f'"{separator}"'


def named_by_separator(names: Sequence[str]) -> str:
    """What to do where the only column is a header that another separator parts; empty where it is not."""
    other = separator_of(names, "\0") if len(names) == 1 else None
    return (
        f"Its header is one column; if {other!r} is between fields, say dataset.separator: {_written(other)}."
        if other
        else ""
    )


def _records(reader: Any, path: str, separator: str, batch_size: int, before: int) -> Iterator[Batch]:
    """The records of a file behind so many lines that are none."""
    line = before + 1
    lines: list[int] = []
    records: list[list[str]] = []
    try:
        header: list[str] = next(reader, [])
        if not header or len(set(header)) != len(header):
            what = f"the header is {header}" if header else "there is no header"
            raise DataError(what, where=f"{path}:{line}", allowed="one line of different column names")
        line, width = before + reader.line_num + 1, len(header)
        for record in reader:
            if len(record) == width:
                lines.append(line)
                records.append(record)
            elif record:
                raise DataError(
                    f"{plural(len(record), 'field')}, and the header names {width}",
                    where=f"{path}:{line}",
                    fix=named_by_separator(header)
                    or f"Put a text that holds {separator!r} into quotes, or name another `dataset.separator`.",
                )
            line = before + reader.line_num + 1
            if len(records) == batch_size:
                yield lines, dict(zip(header, zip(*records, strict=True), strict=True))
                lines, records = [], []
    except csv.Error as error:
        to = f", read up to line {before + reader.line_num}" if before + reader.line_num > line else ""
        raise DataError(
            f"bad quoting ({error}{to})",
            where=f"{path}:{line}",
            fix="Write a quote inside a quoted field twice, or set `dataset.quote=null` where quotes are plain text.",
        ) from None
    if records:
        yield lines, dict(zip(header, zip(*records, strict=True), strict=True))


def _without_nul(file: TextIO, path: str) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise DataError(
                f"a NUL character at column {line.index(chr(0)) + 1}",
                where=f"{path}:{number}",
                fix="Look whether it is a text file, and `dataset.encoding` its encoding.",
            )
        yield line

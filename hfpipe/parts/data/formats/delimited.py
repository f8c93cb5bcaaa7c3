"""csv and tsv: records with as many fields as the header, whose fields stay the text that they are."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from hfpipe.errors import DataError
from hfpipe.system.text import plural

Batch = tuple[list[int], dict[str, Sequence[str]]]
"""The first line of each record, `[records]`, and the columns, `[records]` each."""


def read_records(file: TextIO, path: str, separator: str, quote: str | None, batch_size: int) -> Iterator[Batch]:
    """The records of an open file, by the names in its header; empty lines are none.

    Args:
        file: opened with `newline=""`.
        path: of the file, for errors.
        separator: the character between fields.
        quote: the character around fields that hold a separator or a line end; None for no such character.
        batch_size: records in a batch.

    Raises:
        DataError: a header that names no columns, a record with more or fewer fields, bad quoting, or a NUL.
    """
    csv.field_size_limit(sys.maxsize)  # a long text is no mistake
    reader = csv.reader(
        _without_nul(file, path),
        delimiter=separator,
        quotechar=quote,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        strict=True,
    )
    line = 1
    lines: list[int] = []
    records: list[list[str]] = []
    try:
        header = next(reader, [])
        if not header:
            raise DataError("there is no header", where=f"{path}:1", allowed="one line of different column names")
        if len(set(header)) != len(header):
            raise DataError(f"the header is {header}", where=f"{path}:1", allowed="one line of different column names")
        line, width = reader.line_num + 1, len(header)
        for record in reader:
            if len(record) == width:
                lines.append(line)
                records.append(record)
            elif record:
                raise DataError(
                    f"{plural(len(record), 'field')}, and the header names {width}",
                    where=f"{path}:{line}",
                    fix=f"Put a text that holds {separator!r} into quotes, or name another `dataset.separator`.",
                )
            line = reader.line_num + 1
            if len(records) == batch_size:
                yield lines, dict(zip(header, zip(*records, strict=True), strict=True))
                lines, records = [], []
    except csv.Error as error:
        to = f", read up to line {reader.line_num}" if reader.line_num > line else ""
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

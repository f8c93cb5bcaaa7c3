"""Rows that are labelled as they are read: chunks of rows, each row checked where it stands, then forgotten."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.data.formats import compressed, files
from hfpipe.parts.data.formats.delimited import named_by_separator
from hfpipe.parts.data.formats.layout import SUFFIXES as TEXT_SUFFIXES
from hfpipe.parts.data.formats.layout import Layout, Notify
from hfpipe.parts.data.formats.objects import Shape
from hfpipe.recipe.catalog import near
from hfpipe.system.text import finite

STANDARD_INPUT = "-"
FIRST_CHUNK = 8  # rows; a pipe gives its first labels after so many
LARGEST_CHUNK = 1024
_PARQUET_BATCH = 1024
FORMATS = (*files.FORMATS, "parquet")
SUFFIXES = {**TEXT_SUFFIXES, ".parquet": "parquet"}

Columns = dict[str, list[Any]]
Places = Callable[[int], str]
Batches = Iterator[tuple[Sequence[int], Mapping[str, Sequence[Any]]]]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some rows in the order of the input.

    Attributes:
        first: the number of its first row in the input, counted from 0.
        table: the columns that are read.
        values: the same as Python has them.
        copied: the columns that are passed on, as JSON has them.
        places: where each row stands, `[rows]` of what `place` takes.
        place: says it in words.
    """

    first: int
    table: pa.Table
    values: Columns
    places: Sequence[int]
    place: Places
    copied: Columns = field(default_factory=dict)

    def where(self, row: int) -> str:
        """Where a row of the chunk stands in the input."""
        return self.place(self.places[row])


def chunk_sizes(largest: int) -> Iterator[int]:
    """Rows in each chunk: few at first, then twice as many each time up to `largest`.

    The sizes depend on nothing but that number, and so do the predictions: which rows share a batch decides their last bit.
    """
    size = min(FIRST_CHUNK, largest)
    while True:
        yield size
        size = min(2 * size, largest)


def format_of(source: str, given: str | None) -> str:
    """The format of an input, by its name or by the ending of the source.

    Raises:
        RecipeError: neither tells one, or parquet from standard input.
    """
    if given is not None and given not in FORMATS:
        raise RecipeError(f"{given!r}{near(given, FORMATS)}", where="--input-format", allowed=", ".join(FORMATS))
    if source == STANDARD_INPUT:
        if given == "parquet":
            raise RecipeError("parquet is read from its end, which a pipe does not have", where="--input-format")
        return given or "jsonl"
    found = given or SUFFIXES.get(Path(compressed.bare(source)).suffix.lower())
    if found is None:
        endings = "a .csv, .tsv, .json, .jsonl, .conll, .parquet or .txt file, or - for standard input"
        raise RecipeError(f"{source!r}", where="INPUT", allowed=endings, fix="Or say what it is: --input-format csv.")
    return found


def is_piped(source: str) -> bool:
    """Whether an input can be read only once: standard input, or a pipe with a name."""
    return source == STANDARD_INPUT or not Path(source).expanduser().is_file()


def read_chunks(
    source: str,
    layout: Layout,
    names: Sequence[str],
    *,
    largest: int = LARGEST_CHUNK,
    keep: Sequence[str] = (),
    notice: Notify = lambda text: None,
) -> Iterator[Chunk]:
    """The rows of a file or of standard input, never more than a chunk of them in memory.

    The exceptions are `json` files that are no lines of objects: their text is read as a whole.

    Args:
        source: a path, or `-`.
        layout: how it is written; of `text` every line is a row with one column, the only one of `names`.
        names: the columns to read.
        largest: rows in a chunk at most.
        keep: the columns to pass on.
        notice: is told what the file says of itself.

    Raises:
        RecipeError: no such column to pass on.
        DataError: no file, one that can't be read, missing columns, or a row without a value; with file and row.
    """
    form = layout.form
    if form == "text" and len(names) != 1:
        raise RecipeError(
            f"a line of text is one column, and the model reads {len(names)}: {', '.join(names)}",
            where="INPUT",
            fix="Use jsonl or csv, with these columns.",
        )
    title = "standard input" if source == STANDARD_INPUT else source
    if form == "parquet":
        batches = _of_parquet(source, names, keep)
        yield from _chunks(batches, names, keep, _of_row(title), largest)
        return
    read = _of_text(source, title, layout, largest, notice)
    if form == "text":
        read = ((lines, {names[0]: columns["text"]}) for lines, columns in read)
    yield from _chunks(_with_columns(read, names, keep, title), names, keep, _of_line(title), largest)


def given_chunks(
    rows: Iterable[Mapping[str, Any]], names: Sequence[str], largest: int, keep: Sequence[str] = ()
) -> Iterator[Chunk]:
    """Rows that are in memory, as chunks; raises as `read_chunks`, with the number of the row."""
    place = "row {} (counted from 0)".format
    batches = (([number], {name: [value] for name, value in row.items()}) for number, row in enumerate(rows))
    return _chunks(_with_copied(batches, keep, place), names, keep, place, largest)


def require_columns(there: Iterable[str], names: Sequence[str], where: str) -> None:
    """Refuse an input without some of the columns.

    Raises:
        DataError: with all that are missing and all that are there.
    """
    there = list(there)
    missing = [name for name in names if name not in there]
    if missing:
        named = ", ".join(f"{name!r}{_meant(name, there)}" for name in missing)
        raise DataError(
            f"no column {named}; the columns are {', '.join(there) or 'none'}",
            where=where,
            fix=named_by_separator(there)
            or "Rename them in the input, or say which columns hold the texts, as in `task.text=[a, b]`.",
        )


def require_copied(there: Iterable[str], keep: Sequence[str], where: str) -> None:
    """Refuse to pass on a column that is not there.

    Raises:
        RecipeError: with the near names and all there are.
    """
    there = list(there)
    for name in keep:
        if name not in there:
            raise RecipeError(
                f"{where} has no column {name!r}{near(name, there)}", where="--keep", allowed=", ".join(there)
            )


def _meant(name: str, there: Sequence[str]) -> str:
    return f" ({near(name, there).removeprefix('; ')})" if near(name, there) else ""


def _chunks(
    batches: Batches, names: Sequence[str], keep: Sequence[str], place: Places, largest: int
) -> Iterator[Chunk]:
    """Batches of any size, cut anew."""
    sizes = chunk_sizes(largest)
    size, first = next(sizes), 0
    wanted = dict.fromkeys((*names, *keep))
    held: Columns = {name: [] for name in wanted}
    places: list[int] = []
    for numbers, columns in batches:
        start = 0
        while start < len(numbers):
            end = start + size - len(places)
            places += numbers[start:end]
            for name in wanted:
                held[name] += columns[name][start:end]
            start = end
            if len(places) == size:
                yield _chunk(first, held, names, keep, places, place)
                first, size = first + size, next(sizes)
                held, places = {name: [] for name in wanted}, []
    if places:
        yield _chunk(first, held, names, keep, places, place)


def _chunk(
    first: int, held: Columns, names: Sequence[str], keep: Sequence[str], places: Sequence[int], place: Places
) -> Chunk:
    """Checked rows in Arrow; what is passed on may be null."""
    values = {name: held[name] for name in names}
    copied = {name: _as_json(name, held[name], places, place) for name in keep}
    for name, column in values.items():
        if None in column:
            row = next(row for row, value in enumerate(column) if value is None)
            raise DataError(f"{name!r} is empty (null)", where=place(places[row]), fix="Fill or drop the row.")
    arrays = [files.as_arrow(column, name, place, places) for name, column in values.items()]
    return Chunk(first, pa.table(arrays, names=list(values)), values, places, place, copied)


def _as_json(name: str, column: Sequence[Any], places: Sequence[int], place: Places) -> list[Any]:
    """A column as JSON has it: dates, times and decimals as their text, what is no number as null."""
    for row, value in enumerate(column):
        try:
            json.dumps(value, default=_json_default)
        except (TypeError, ValueError):
            raise DataError(
                f"{name!r} is {type(value).__name__}, which JSON has no word for",
                where=place(places[row]),
                fix="Leave it out of --keep.",
            ) from None
    plain: list[Any] = json.loads(json.dumps(finite(list(column)), default=_json_default))
    files.as_arrow(plain, name, place, places)
    return plain


def _json_default(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return finite(value.tolist())
    if isinstance(value, datetime.date | datetime.time | decimal.Decimal | uuid.UUID):
        return str(value)
    raise TypeError


def _of_line(title: str) -> Places:
    return lambda line: f"{title}:{line}"


def _of_row(title: str) -> Places:
    return lambda row: f"{title}, row {row} (counted from 0)"


def _with_columns(batches: Batches, names: Sequence[str], keep: Sequence[str], title: str) -> Batches:
    for lines, columns in batches:
        require_columns(columns, names, title)
        require_copied(columns, keep, title)
        yield lines, columns


def _with_copied(batches: Batches, keep: Sequence[str], place: Places) -> Batches:
    for numbers, columns in batches:
        require_copied(columns, keep, place(numbers[0]))
        yield numbers, columns


def _of_text(source: str, title: str, layout: Layout, largest: int, notice: Notify) -> Batches:
    """The rows of a text file, in batches no larger than the first chunk, so that a slow pipe is read as it comes."""
    batch_size = min(FIRST_CHUNK, largest)
    try:
        with _opened(source) as binary:
            if binary.peek(1):
                yield from files.read_open(layout, binary, title, Shape(), batch_size, notice)
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=title) from None


def _opened(source: str) -> io.BufferedReader:
    """The bytes of the input, unpacked, which is closed when they were read."""
    if source != STANDARD_INPUT:
        path = Path(source).expanduser()
        return open(path, "rb") if is_piped(source) else compressed.opened(str(path))
    binary: BinaryIO = sys.stdin.buffer
    return binary if isinstance(binary, io.BufferedReader) else io.BufferedReader(cast(Any, binary))


def _of_parquet(path: str, names: Sequence[str], keep: Sequence[str]) -> Batches:
    """The rows of a parquet file; no more than a row group of it is in memory."""
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(Path(path).expanduser()) as file:
            require_columns(file.schema_arrow.names, names, path)
            require_copied(file.schema_arrow.names, keep, path)
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH, columns=list(dict.fromkeys((*names, *keep)))):
                yield range(number, number + len(batch)), batch.to_pydict()
                number += len(batch)
    except pa.ArrowInvalid as error:
        raise DataError(f"no parquet file: {' '.join(str(error).split())[:300]}", where=path) from None
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=path) from None

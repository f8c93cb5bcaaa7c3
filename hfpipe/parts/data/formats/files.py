"""Files of rows, read strictly: csv, tsv, json, jsonl and text, compressed or not, become Arrow, once for each content.

The reader that makes the rows is the one that checks them, so that what was checked is what is learned from; whatever is
wrong is refused with file and line. Nothing is guessed: a csv field is the text between the separators, and a JSON value
has the type that the file gives it.
"""

from __future__ import annotations

import bisect
import codecs
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import datasets
import pyarrow as pa

from hfpipe.errors import DataError
from hfpipe.parts.data.formats.compressed import opened
from hfpipe.parts.data.formats.delimited import read_records
from hfpipe.parts.data.formats.objects import Shape, read_objects
from hfpipe.system.cache import build_entry, entry_files, entry_folder
from hfpipe.system.manifest import find_corruption
from hfpipe.system.snapshot import digest_of_code, digest_of_text

FORMATS = ("csv", "tsv", "json", "jsonl", "text")
_BATCH = 1000  # rows that become Arrow at once

Splits = dict[str, datasets.Dataset]


def read_files(
    form: str,
    files: Mapping[str, Sequence[str]],
    *,
    digest: str,
    encoding: str = "utf-8",
    separator: str | None = None,
    quote: str | None = '"',
) -> tuple[Splits, tuple[str, ...]]:
    """The rows of files, by split, from the cache where the same files were read before.

    Args:
        form: one of FORMATS.
        files: paths by split.
        digest: of the contents of all files.
        encoding: of the files; a byte order mark is no part of the data.
        separator: csv and tsv: between fields; None is a comma, in tsv a tab.
        quote: csv and tsv: around fields that hold a separator or a line end; None for no such character.

    Returns:
        The splits, and notices about the cache.

    Raises:
        DataError: with file and line.
    """
    separator = separator or ("\t" if form == "tsv" else ",")
    key = repr((digest, dict(files), form, encoding, separator, quote, digest_of_code(Path(__file__).parent)))
    folder = entry_folder("files", digest_of_text(key)[:32])
    notices: tuple[str, ...] = ()
    if folder.is_dir():
        if find_corruption(folder) is None:
            return _read_cached(folder), ()
        notices = ("the cached rows of the data files were damaged, and the files were read again",)
    with build_entry(folder) as staging:
        for number, (split, paths) in enumerate(files.items()):
            batches = _batches(form, paths, encoding, separator, quote, staging)
            _write(staging, f"{number:03}-{split}.arrow", paths, batches, split)
    return _read_cached(folder), notices


def _read_cached(folder: Path) -> Splits:
    return {file.stem.partition("-")[2]: datasets.Dataset.from_file(str(file)) for file in entry_files(folder)}


def _write(folder: Path, name: str, paths: Sequence[str], batches: Iterable[pa.RecordBatch], split: str) -> None:
    """Write batches into one Arrow file.

    Its types hold all of them: a number may have its first fraction late, a list may be empty at first.
    """
    parts: list[tuple[Path, pa.Schema]] = []
    writer = None
    for batch in batches:
        if writer is None or batch.schema != parts[-1][1]:
            if writer is not None:
                writer.close()
            parts.append((folder / f"part-{len(parts)}", batch.schema))
            writer = pa.ipc.new_stream(str(parts[-1][0]), batch.schema)
        writer.write_batch(batch)
    assert writer is not None
    writer.close()
    if len(parts) == 1:
        parts[0][0].rename(folder / name)
        return
    try:
        schema = pa.unify_schemas([schema for _, schema in parts], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"split {split}: {error}", where=", ".join(paths), fix="Give a field one type.") from None
    with pa.ipc.new_stream(str(folder / name), schema) as whole:
        for part, _ in parts:
            with pa.memory_map(str(part)) as source:
                for batch in pa.ipc.open_stream(source):
                    whole.write_table(pa.Table.from_batches([batch]).cast(schema))
            part.unlink()


def _batches(
    form: str, paths: Sequence[str], encoding: str, separator: str, quote: str | None, into: Path
) -> Iterator[pa.RecordBatch]:
    """The rows of several files as Arrow, which will be written into a folder."""
    names: tuple[str, ...] = ()
    shape = Shape()
    for path in paths:
        found = False
        for lines, columns in _read(form, path, encoding, separator, quote, shape, into):
            found = found or bool(lines)
            names = names or tuple(columns)
            if set(columns) != set(names):
                raise DataError(
                    f"the columns are {', '.join(columns)}", where=f"{path}:1", allowed=f"{', '.join(names)}, as before"
                )
            arrays = [as_arrow(columns[name], name, f"{path}:{{}}".format, lines) for name in names]
            yield pa.record_batch(arrays, names=list(names))
        if not found:
            raise DataError("the file has no rows", where=path, fix="Fill it, or leave it out.")


def _read(
    form: str, path: str, encoding: str, separator: str, quote: str | None, shape: Shape, into: Path
) -> Iterator[tuple[list[int], Mapping[str, Sequence[Any]]]]:
    """The rows of one file: the first line of each, `[rows]`, and the columns, `[rows]` each."""
    try:
        binary = opened(path, into)
        with io.TextIOWrapper(binary, encoding=reading(encoding), newline=newline_of(form)) as file:
            yield from read_open(form, file, path, separator, quote, shape, _BATCH)
    except UnicodeError:
        raise undecodable(path, encoding) from None
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=path) from None


def reading(encoding: str) -> str:
    """The encoding to open a file with, so that a byte order mark is no part of its first field."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def newline_of(form: str) -> str | None:
    """The `newline` to open a file with: a quoted field keeps its own line ends."""
    return "" if form in ("csv", "tsv") else None


def read_open(
    form: str, file: TextIO, path: str, separator: str, quote: str | None, shape: Shape, batch_size: int
) -> Iterator[tuple[list[int], Mapping[str, Sequence[Any]]]]:
    """The rows of an open file, a batch as soon as its last row was read.

    Args:
        form: one of FORMATS.
        file: opened as `reading` and `newline_of` say; of `json` it can be read twice.
        path: of the file, for errors.
        separator: csv and tsv: between fields.
        quote: csv and tsv: around fields; None for no such character.
        shape: json and jsonl: the fields and types of the rows before.
        batch_size: rows in a batch.

    Yields:
        The first line of each row, `[rows]`, and the columns, `[rows]` each.
    """
    if form in ("csv", "tsv"):
        yield from read_records(file, path, separator, quote, batch_size)
    elif form == "text":
        yield from _lines(file, batch_size)
    else:
        yield from read_objects(file, path, shape, batch_size, listed=form == "json")


def _lines(file: TextIO, batch_size: int) -> Iterator[tuple[list[int], dict[str, list[str]]]]:
    """Every line is a row."""
    first = 1
    while texts := [line.removesuffix("\n") for line in islice(file, batch_size)]:
        yield list(range(first, first + len(texts))), {"text": texts}
        first += len(texts)


def as_arrow(values: Sequence[Any], name: str, place: Callable[[int], str], rows: Sequence[int]) -> pa.Array:
    """A column in Arrow.

    Args:
        values: of the column, `[rows]`.
        name: of the column.
        place: says where a row is, for errors.
        rows: for each row the number that `place` takes.

    Raises:
        DataError: at the first row whose value Arrow can't hold beside those before it.
    """
    refusals = (OverflowError, UnicodeEncodeError, pa.ArrowInvalid, pa.ArrowTypeError)
    try:
        return pa.array(values)
    except refusals:
        pass

    def fails(rows: int) -> bool:
        try:
            pa.array(values[:rows])
        except refusals:
            return True
        return False

    row = bisect.bisect_left(range(1, len(values) + 1), True, key=fails)
    try:
        pa.array(values[: row + 1])
    except UnicodeEncodeError as error:
        what = f"{name!r} has half of a surrogate pair, {error.object[error.start]!r}, which is no character"
    except OverflowError:
        what = f"{name!r} has a whole number of more than 64 bits"
    except refusals as error:
        what = f"{name!r} does not fit the rows before: {error}"
    raise DataError(what, where=place(rows[row]), fix="Mend the value.") from None


def undecodable(path: str, encoding: str) -> DataError:
    """What stands where a file is not of its encoding."""
    fix = "Save it as UTF-8, or name the encoding it has (dataset.encoding=latin-1)."
    decoder = codecs.getincrementaldecoder(encoding)()
    read, line = 0, 1
    with opened(path) as file:
        while True:
            chunk = file.read(1 << 20)
            read += len(chunk)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                byte = read - len(error.object) + error.start
                line += error.object[: error.start].decode(encoding, errors="ignore").count("\n")
                got = error.object[error.start]
                return DataError(f"not {encoding} at byte {byte} (0x{got:02x})", where=f"{path}:{line}", fix=fix)
            except UnicodeError as error:
                return DataError(f"not {encoding}: {error}", where=f"{path}:{line}", fix=fix)
            if not chunk:
                return DataError(f"not {encoding}", where=path, fix=fix)

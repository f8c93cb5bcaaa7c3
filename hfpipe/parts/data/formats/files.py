"""Files of rows, read strictly: csv, tsv, json, jsonl, conll and text, compressed or not, become Arrow, once for each content.

The reader that makes the rows is the one that checks them, so that what was checked is what is learned from; whatever is
wrong is refused with file and line. Types are never guessed: a csv field is the text between the separators, and a JSON value
has the type that the file gives it. What a file says itself, such as a byte order mark, is followed and told.
"""

from __future__ import annotations

import bisect
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import datasets
import pyarrow as pa

from hfpipe.errors import DataError
from hfpipe.parts.data.formats.columnar import read_columns
from hfpipe.parts.data.formats.compressed import opened
from hfpipe.parts.data.formats.conll import read_sentences
from hfpipe.parts.data.formats.delimited import read_records, separator_of
from hfpipe.parts.data.formats.layout import LONGEST_START, TEXT_FORMATS, Layout, Notify, encoding_of, undecodable
from hfpipe.parts.data.formats.objects import Shape, read_objects
from hfpipe.system.cache import build_entry, entry_files, entry_folder
from hfpipe.system.manifest import find_corruption
from hfpipe.system.snapshot import digest_of_code, digest_of_text

FORMATS = TEXT_FORMATS
_BATCH = 1000  # rows that become Arrow at once
_NOTICES = "notices.json"
_SEPARATORS = {"csv": ",", "tsv": "\t"}

_FILE, _LINE = "hfpipe:file", "hfpipe:line"  # columns of the cache: where a row stands

Splits = dict[str, datasets.Dataset]


@dataclass(frozen=True)
class Places:
    """Where the rows of a split stand, as far as files have lines.

    `files` are the names that `rows` counts; `rows` has a column of numbers of files, and one of first lines.
    """

    files: tuple[str, ...]
    rows: datasets.Dataset

    def select(self, numbers: Any) -> Places:
        """Of some of the rows."""
        return replace(self, rows=self.rows.select(numbers))

    def as_texts(self, numbers: Any) -> list[str]:
        """`train.csv:17` of each of these rows."""
        some = self.rows.select(numbers)
        return [f"{self.files[file]}:{line}" for file, line in zip(some[_FILE][:], some[_LINE][:], strict=True)]


@dataclass(frozen=True)
class FileRows:
    """What was read of files: rows and their places by split, and what should be said of the files and the cache."""

    splits: Splits
    places: dict[str, Places]
    notices: tuple[str, ...]


def read_files(layout: Layout, files: Mapping[str, Sequence[str]], *, digest: str) -> FileRows:
    """The rows of files, by split, from the cache where the same files were read before.

    Args:
        layout: how they are written.
        files: paths by split.
        digest: of the contents of all files.

    Raises:
        DataError: with file and line.
    """
    return _cached(layout, files, digest, lambda paths, staging, notice: _batches(layout, paths, staging, notice))


def read_columnar(form: str, files: Mapping[str, Sequence[str]], *, digest: str) -> FileRows:
    """The rows of parquet or arrow files with plain types; arguments and results as of :func:`read_files`."""
    return _cached(form, files, digest, lambda paths, staging, notice: read_columns(paths, form))


def _cached(
    how: Layout | str,
    files: Mapping[str, Sequence[str]],
    digest: str,
    read: Callable[[Sequence[str], Path, Notify], Iterable[pa.RecordBatch]],
) -> FileRows:
    """The rows of files from the cache, or as `read` makes them of the paths of a split."""
    key = repr((digest, dict(files), how, digest_of_code(Path(__file__).parent)))
    folder = entry_folder("files", digest_of_text(key)[:32])
    damaged: tuple[str, ...] = ()
    if folder.is_dir():
        if find_corruption(folder) is None:
            return _read_cached(folder, files)
        damaged = ("the cached rows of the data files were damaged, and the files were read again",)
    with build_entry(folder) as staging:
        notices: list[str] = []
        for number, (split, paths) in enumerate(files.items()):
            _write(staging, f"{number:03}-{split}.arrow", paths, read(paths, staging, notices.append), split)
        (staging / _NOTICES).write_text(json.dumps(notices), encoding="utf-8")
    found = _read_cached(folder, files)
    return replace(found, notices=(*damaged, *found.notices))


def _read_cached(folder: Path, files: Mapping[str, Sequence[str]]) -> FileRows:
    """What was read, and what was said of it."""
    kept = [file for file in entry_files(folder) if file.name != _NOTICES]
    splits = {file.stem.partition("-")[2]: datasets.Dataset.from_file(str(file)) for file in kept}
    places = {
        split: Places(tuple(Path(path).name for path in files[split]), rows.select_columns([_FILE, _LINE]))
        for split, rows in splits.items()
        if _LINE in rows.column_names
    }
    plain = {split: rows.remove_columns([_FILE, _LINE]) if split in places else rows for split, rows in splits.items()}
    told = json.loads((folder / _NOTICES).read_text(encoding="utf-8"))
    return FileRows(plain, places, tuple(told))


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
    if writer is None:
        raise DataError("the files have no rows", where=", ".join(paths), fix="Fill them, or leave them out.")
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


def _batches(layout: Layout, paths: Sequence[str], into: Path, notice: Notify) -> Iterator[pa.RecordBatch]:
    """The rows of several files as Arrow, which will be written into a folder."""
    names: tuple[str, ...] = ()
    shape = Shape()
    for number, path in enumerate(paths):
        found = False
        for lines, columns in _read(layout, path, shape, into, notice):
            found = found or bool(lines)
            names = names or tuple(columns)
            if set(columns) != set(names):
                raise DataError(
                    f"the columns are {', '.join(columns)}", where=f"{path}:1", allowed=f"{', '.join(names)}, as before"
                )
            arrays = [as_arrow(columns[name], name, f"{path}:{{}}".format, lines) for name in names]
            arrays += [pa.repeat(pa.scalar(number, pa.int32()), len(lines)), pa.array(lines, pa.int64())]
            yield pa.record_batch(arrays, names=[*names, _FILE, _LINE])
        if not found:
            raise DataError("the file has no rows", where=path, fix="Fill it, or leave it out.")


def _read(
    layout: Layout, path: str, shape: Shape, into: Path, notice: Notify
) -> Iterator[tuple[list[int], Mapping[str, Sequence[Any]]]]:
    """The rows of one file: the first line of each, `[rows]`, and the columns, `[rows]` each."""
    try:
        yield from read_open(layout, opened(path, into), path, shape, _BATCH, notice)
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=path) from None


def read_open(
    layout: Layout, binary: io.BufferedReader, path: str, shape: Shape, batch_size: int, notice: Notify
) -> Iterator[tuple[list[int], Mapping[str, Sequence[Any]]]]:
    """The rows of an open file, a batch as soon as its last row was read; the file is closed then.

    Args:
        layout: how it is written.
        binary: the file, unpacked.
        path: of the file, for errors.
        shape: json and jsonl: the fields and types of the rows before.
        batch_size: rows in a batch.
        notice: is told what the file says of itself.

    Yields:
        The first line of each row, `[rows]`, and the columns, `[rows]` each.

    Raises:
        DataError: with file and line.
    """
    with binary:
        encoding = encoding_of(binary.peek(LONGEST_START)[:LONGEST_START], layout, path, notice)
        yield from _decoded(layout, encoding, binary, path, shape, batch_size, notice)


def _decoded(
    layout: Layout,
    encoding: str,
    binary: io.BufferedReader,
    path: str,
    shape: Shape,
    batch_size: int,
    notice: Notify,
) -> Iterator[tuple[list[int], Mapping[str, Sequence[Any]]]]:
    form, is_delimited = layout.form, layout.form in ("csv", "tsv")
    try:
        # A quoted field keeps its own line ends.
        with io.TextIOWrapper(binary, encoding=encoding, newline="" if is_delimited else None) as file:
            text: TextIO = file
            if form in ("json", "conll") and not file.seekable():
                text = io.StringIO(file.read())  # it is read twice
            if is_delimited:
                default = _SEPARATORS[form]
                yield from read_records(text, path, layout.separator, layout.quote, batch_size, default=default)
            elif form == "text":
                yield from _lines(text, batch_size)
            elif form == "conll":
                yield from read_sentences(text, path, layout, batch_size, notice)
            else:
                yield from read_objects(text, path, shape, layout, batch_size, notice)
    except UnicodeError as error:
        if not Path(path).is_file():
            fix = "Give UTF-8, or name the encoding it has (dataset.encoding=latin-1)."
            raise DataError(f"not {layout.encoding}: {error}", where=path, fix=fix) from None
        raise undecodable(path, encoding, opened) from None


def other_separator(path: str, layout: Layout) -> str | None:
    """What is between the fields of a csv or tsv file, where its header says that it is not what it should be."""
    binary = opened(path)
    with binary:
        encoding = encoding_of(binary.peek(LONGEST_START)[:LONGEST_START], layout, path, lambda text: None)
        try:
            with io.TextIOWrapper(binary, encoding=encoding, newline="") as file:
                lines = list(islice(file, 20))
        except UnicodeError:
            return None  # which is told where it is read
    return separator_of(lines, layout.separator or _SEPARATORS[layout.form], layout.quote)


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

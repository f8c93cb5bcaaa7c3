"""Labelled rows on their way into a file: written chunk by chunk to FILE.partial, which the same command continues.

FILE.partial has one JSON value a line. The first is a header that says what labels what. Then, for each chunk of rows,
its labels, an object a row, and behind them a mark `[rows so far, digest of the rows of the input so far]`. What stands
behind the last mark is half written and is written anew; a row that was mended behind it does no harm.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from hfpipe.errors import MachineError, RecipeError
from hfpipe.system import atomic
from hfpipe.system.snapshot import digest_of_text

FORMATS = ("jsonl", "csv", "parquet")
_VERSION = 1
_BATCH = 1000  # rows that are converted at once
_ANEW = "Say --overwrite to start again, or name another --output."


def format_of(output: Path, given: str | None) -> str:
    """The format of an output, by its name or by the ending of the output.

    Raises:
        RecipeError: neither tells one.
    """
    found = given or output.suffix.lower().removeprefix(".")
    if found not in FORMATS:
        where = "--format" if given else "--output"
        raise RecipeError(
            f"{given or str(output)!r}",
            where=where,
            allowed=", ".join(FORMATS) if given else "a name that ends in .jsonl, .csv or .parquet",
            fix="" if given else "Or say --format.",
        )
    return found


def require_free(output: Path, *, overwrite: bool) -> None:
    """Refuse an output that can't be written, before the work and not after it.

    Raises:
        RecipeError: no such folder, a folder of that name, or a file that is there and not to be overwritten.
    """
    if not output.absolute().parent.is_dir():
        raise RecipeError(f"no folder {str(output.parent)!r}", where="--output", fix="Make it first.")
    if output.is_dir():
        raise RecipeError(f"{str(output)!r} is a folder", where="--output", fix="Name a file in it.")
    if output.exists() and not overwrite:
        raise RecipeError(f"{str(output)!r} is there already", where="--output", fix="Say --overwrite to replace it.")


class PartialOutput:
    """FILE.partial, open and locked; as a context it is closed at the end, and stays on the disk.

    Attributes:
        path: of the partial file.
        rows: labelled so far.
        digest: of the rows of the input so far.
        discarded: why another partial file was discarded, or nothing.
    """

    def __init__(self, output: Path, about: Mapping[str, Any], *, overwrite: bool) -> None:
        """Open a new partial file, or the one of the same command.

        Args:
            output: the file that it will become.
            about: what labels the rows: JSON values by name; all of them must be the same to go on.
            overwrite: discard a partial file of another command.

        Raises:
            RecipeError: a partial file of another command.
            MachineError: another process is writing it.
        """
        self.path = output.with_name(f"{output.name}.partial")
        self.rows, self.digest, self.discarded = 0, next_digest("", {}), ""
        header = {"hfpipe": _VERSION, **json.loads(json.dumps(about))}
        self.file: BinaryIO = open(self.path, "a+b")  # noqa: SIM115 - closed by __exit__
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._go_on(header, overwrite)
        except BlockingIOError:
            self.file.close()
            raise MachineError("another process is writing it", where=str(self.path), fix="Wait for its end.") from None
        except BaseException:
            self.file.close()
            raise
        self.header = header

    def _go_on(self, header: dict[str, Any], overwrite: bool) -> None:
        """Read what is there, and cut off what is half written."""
        self.file.seek(0)
        line = self.file.readline()
        if not line or _parsed(line) != header:
            self._begin(header, _difference(_parsed(line), header) if line else "", overwrite)
            return
        end = whole = len(line)
        for line in self.file:
            value = _parsed(line)
            if value is None:
                break
            end += len(line)
            if isinstance(value, list):
                (self.rows, self.digest), whole = value, end
        self.file.truncate(whole)

    def _begin(self, header: dict[str, Any], other: str, overwrite: bool) -> None:
        if other and not overwrite:
            raise RecipeError(f"it was started with {other}", where=str(self.path), fix=_ANEW)
        self.discarded = f"{self.path} is discarded: it was started with {other}" if other else ""
        self.rows, self.digest = 0, next_digest("", {})
        self.file.truncate(0)
        self.file.write(json.dumps(header).encode() + b"\n")
        self.file.flush()

    def refuse_input(self, *, overwrite: bool) -> None:
        """Begin anew, since the rows that are labelled here are not those of the input.

        Raises:
            RecipeError: without `overwrite`.
        """
        self._begin(self.header, f"another input: its first {self.rows:,} rows are not those of INPUT", overwrite)

    def write(self, labelled: Sequence[Mapping[str, Any]], digest: str) -> None:
        """Add the labels of a chunk; `digest` is that of the rows of the input up to its end."""
        self.rows, self.digest = self.rows + len(labelled), digest
        lines = [*map(as_line, labelled), json.dumps([self.rows, digest]) + "\n"]
        self.file.write("".join(lines).encode())
        self.file.flush()

    def finish(self, output: Path, form: str, columns: Sequence[str]) -> None:
        """Turn the partial file into the output, in constant memory, and remove it.

        Args:
            output: replaced when all of it is on the disk.
            form: one of FORMATS.
            columns: of an output without rows.
        """
        with atomic.replaced_file(output) as file:
            _WRITERS[form](self._labelled, file, columns)
        self.path.unlink()

    def _labelled(self) -> Iterator[dict[str, Any]]:
        """The labels of all rows, one at a time."""
        with open(self.path, "rb") as file:
            next(file)
            for line in file:
                if line.startswith(b"{"):
                    yield json.loads(line)

    def __enter__(self) -> Self:
        """The open file."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it, which gives the lock back; without a labelled row nothing of it stays."""
        if not self.rows:
            self.path.unlink(missing_ok=True)
        self.file.close()


def next_digest(before: str, values: Mapping[str, Sequence[Any]]) -> str:
    """The digest of the rows of the input up to the end of a chunk, from that of the rows before it."""
    return digest_of_text(f"{before}{json.dumps(values, sort_keys=True, default=repr)}")


def as_line(row: Mapping[str, Any]) -> str:
    """A labelled row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A labelled row in columns: the probability of each class in one of its own, `probability_CLASS`."""
    columns: dict[str, Any] = {}
    for name, value in row.items():
        if name == "probabilities" and isinstance(value, Mapping):
            columns |= {f"probability_{one}": share for one, share in value.items()}
        else:
            columns[name] = value
    return columns


def _parsed(line: bytes) -> Any:
    """The value of a whole line, or None."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _difference(found: Any, header: Mapping[str, Any]) -> str:
    """What a partial file was started with, by the names of what differs."""
    if not isinstance(found, dict) or found.get("hfpipe") != _VERSION:
        return "something else"
    changed = [name for name in header if found.get(name) != header[name]]
    return "another " + " and another ".join(changed or ["set of options"])


def _write_jsonl(rows: Any, file: BinaryIO, columns: Sequence[str]) -> None:
    for row in rows():
        file.write(as_line(row).encode())


def _write_csv(rows: Any, file: BinaryIO, columns: Sequence[str]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    names = list(flat(next(rows(), dict.fromkeys(columns))))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in map(flat, rows()):
        writer.writerow([_cell(row[name]) for name in names])
    text.detach()  # flushed; the file stays open


def _cell(value: Any) -> Any:
    """A value of csv: what is nested, or true or false, as JSON has it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else value


def _write_parquet(rows: Any, file: BinaryIO, columns: Sequence[str]) -> None:
    """Two passes: what types hold all rows, and the rows themselves."""
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema([pa.field(name, pa.null()) for name in columns])
    for number, batch in enumerate(_batches(rows)):
        own = pa.Table.from_pylist(batch).schema
        schema = pa.unify_schemas([schema, own], promote_options="permissive") if number else own
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for batch in _batches(rows):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _batches(rows: Any) -> Iterator[list[dict[str, Any]]]:
    each = map(flat, rows())
    while batch := list(islice(each, _BATCH)):
        yield batch


_WRITERS = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}

"""Label rows as they come: read a chunk, label it, write it, forget it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from hfpipe.errors import RecipeError, StoppedByUser
from hfpipe.evaluation.prediction.chunks import (
    STANDARD_INPUT,
    Chunk,
    given_chunks,
    is_piped,
    read_chunks,
    require_columns,
)
from hfpipe.evaluation.prediction.output_file import PartialOutput, next_digest
from hfpipe.evaluation.prediction.predictor import Predictor, columns_read
from hfpipe.evaluation.prediction.sentences import COLUMNS
from hfpipe.parts.data.formats.layout import Layout
from hfpipe.parts.inputs.rows import Notify
from hfpipe.recipe.schema import Recipe
from hfpipe.runs.store import Run
from hfpipe.system.snapshot import digest_of_text

_SECONDS_BETWEEN_MESSAGES = 10.0


@dataclass(frozen=True)
class Labelled:
    """What was labelled into a file.

    Attributes:
        output: the file.
        examples: rows in it.
        resumed: how many of them a run of the command before had labelled.
        examples_per_second: rows that were labelled now over the time that took, reading and writing included.
    """

    output: Path
    examples: int
    resumed: int
    examples_per_second: float


def predict_rows(predictor: Predictor, rows: Any, chunk_rows: int, keep: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Label rows that are in memory.

    Args:
        predictor: the loaded model.
        rows: texts, pairs of texts, or mappings from column to value.
        chunk_rows: rows that are predicted together at most.
        keep: columns to copy beside the predictions.

    Raises:
        RecipeError: rows that are no texts of this task, or columns that can't be copied.
        DataError: missing columns or empty values, with the number of the row.
    """
    columns = predictor.columns
    require_apart(predictor.recipe, keep)
    given = given_chunks(_as_mappings(rows, columns, predictor.recipe), columns, chunk_rows, keep)
    return [row for one in given for row in predict_chunk(predictor, one)]


def predict_chunk(predictor: Predictor, chunk: Chunk) -> list[dict[str, Any]]:
    """The predictions for each row of a chunk, behind the columns that are copied."""
    return [
        {**{name: column[row] for name, column in chunk.copied.items()}, **prediction}
        for row, prediction in enumerate(predictor.label(chunk))
    ]


def require_apart(recipe: Recipe, keep: Sequence[str]) -> None:
    """Refuse to copy columns whose names are those of the predictions.

    Raises:
        RecipeError: with the names that are taken.
    """
    outputs = (*recipe.task.traits.outputs, *(COLUMNS if recipe.task.traits.is_words else ()))
    for name in keep:
        if name in outputs or name.startswith("probability_"):
            what = f"{name!r} is the name of a column that hfpipe writes itself"
            taken = f"other names than {', '.join(outputs)} and probability_..."
            raise RecipeError(what, where="--keep", allowed=taken, fix="Rename the column in the input.")


def chunks_of(
    recipe: Recipe,
    source: str,
    form: str,
    chunk_rows: int,
    keep: Sequence[str] = (),
    notice: Notify = lambda text: None,
) -> Iterator[Chunk]:
    """The chunks of a file or of standard input, as the recipe says that files of this format are written.

    Raises:
        RecipeError: columns that can't be copied.
    """
    require_apart(recipe, keep)
    layout = Layout.of(recipe, form)
    return read_chunks(source, layout, columns_read(recipe), largest=chunk_rows, keep=keep, notice=notice)


def predict_into(
    predictor: Predictor,
    recipe: Recipe,
    source: str,
    form: str,
    output: Path,
    kind: str,
    *,
    overwrite: bool,
    chunk_rows: int,
    notice: Notify,
    keep: Sequence[str] = (),
) -> Labelled:
    """Label a file or standard input into a file, or go on with that where it was left.

    Args:
        predictor: the loaded model.
        recipe: says how files of this format are written.
        source: a path, or `-`.
        form: of the source.
        output: a jsonl, csv or parquet file; it is there only when all of it is.
        kind: format of the output.
        overwrite: replace a file that is there, and discard a partial one that another command left.
        chunk_rows: rows that are predicted together at most.
        notice: is called with what goes on.
        keep: columns of the source to copy into the rows of the output.

    Raises:
        HfpipeError: with the exit code; whatever was labelled before is in `output.partial`.
    """
    piped = is_piped(source)
    with PartialOutput(output, _about(predictor, chunk_rows, keep), overwrite=overwrite) as partial:
        chunks = _behind(partial, lambda: chunks_of(recipe, source, form, chunk_rows, keep), overwrite, piped)
        resumed, digest, started = partial.rows, partial.digest, time.monotonic()
        if partial.discarded:
            notice(partial.discarded)
        if resumed:
            notice(f"going on with {partial.path} behind row {resumed:,}")
        spoke = started
        try:
            for one in chunks:
                digest = next_digest(digest, one.values | one.copied)
                partial.write(predict_chunk(predictor, one), digest)
                if time.monotonic() - spoke > _SECONDS_BETWEEN_MESSAGES:
                    spoke = time.monotonic()
                    notice(f"{partial.rows:,} rows, {(partial.rows - resumed) / (spoke - started):,.0f} a second")
            seconds = time.monotonic() - started
            if not partial.rows:
                notice(
                    f"{'standard input' if source == STANDARD_INPUT else source} has no rows, and so {output} has none"
                )
            partial.finish(output, kind, [*keep, *_empty(predictor)])
        except KeyboardInterrupt:
            fix = f"The same command goes on behind row {partial.rows:,}; {partial.path} has what was labelled."
            raise StoppedByUser("stopped by the user", fix=fix) from None
        return Labelled(output, partial.rows, resumed, (partial.rows - resumed) / max(seconds, 1e-9))


def _behind(
    partial: PartialOutput, read: Callable[[], Iterator[Chunk]], overwrite: bool, piped: bool
) -> Iterator[Chunk]:
    """The chunks of the input behind the rows that are labelled already, which must be the same rows."""
    chunks, digest, rows = read(), next_digest("", {}), 0
    while rows < partial.rows and (one := next(chunks, None)) is not None:
        digest, rows = next_digest(digest, one.values | one.copied), rows + one.table.num_rows
    if (rows, digest) == (partial.rows, partial.digest):
        return chunks
    partial.refuse_input(overwrite=overwrite and not piped)  # what was read of a pipe is gone
    return read()


def _about(predictor: Predictor, chunk_rows: int, keep: Sequence[str]) -> dict[str, Any]:
    """What decides the labels beside the rows."""
    recipe = predictor.recipe
    options = {
        "task": recipe.task.model_dump(mode="json"),
        "max_length": predictor.max_length,
        "batch_size": recipe.evaluate.batch_size,
        "precision": predictor.precision.name,
        "chunk": chunk_rows,
        "keep": list(keep),
    }
    written = digest_of_text(json.dumps(options, sort_keys=True))
    return {"model": predictor.digests, "set of options": written}


def _empty(predictor: Predictor) -> list[str]:
    """The columns of an output without rows."""
    found: list[str] = []
    for name in predictor.task.kind.outputs:
        is_each = name == "probabilities" and predictor.task.names
        found += [f"probability_{one}" for one in predictor.task.names] if is_each else [name]
    return found


def _as_mappings(rows: Any, columns: Sequence[str], recipe: Recipe) -> Iterator[Mapping[str, Any]]:
    """Rows as mappings from column to value, whichever way they were given."""
    shape = _shape(columns, recipe)
    if isinstance(rows, str | bytes | Mapping):
        raise RecipeError(f"{_shown(rows)} is one row", where="predict", allowed=f"a list of rows, each {shape}")
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        rows = rows.to_dict("records")  # a DataFrame would give its column names
    if not isinstance(rows, Iterable):
        raise RecipeError(f"got {_shown(rows)}", where="predict", allowed=f"a list of rows, each {shape}; or a file")
    for number, row in enumerate(rows):
        if isinstance(row, Mapping):
            require_columns(row, columns, f"row {number} (counted from 0)")
            yield row
        elif len(columns) == 1 and (isinstance(row, str) or recipe.task.traits.is_words):
            yield {columns[0]: row}
        elif len(columns) > 1 and isinstance(row, tuple | list) and len(row) == len(columns):
            yield dict(zip(columns, row, strict=True))
        else:
            raise RecipeError(f"{_shown(row)}", where=f"row {number} (counted from 0)", allowed=shape)


def _shape(columns: Sequence[str], recipe: Recipe) -> str:
    if recipe.task.traits.is_words:
        return f"a sentence, a list of words or {{{columns[0]!r}: ...}}"
    if len(columns) == 1:
        return f"a text or {{{columns[0]!r}: ...}}"
    return f"({', '.join(columns)}) or {{{', '.join(f'{name!r}: ...' for name in columns)}}}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_cached: WeakKeyDictionary[Run, tuple[object, Predictor]] = WeakKeyDictionary()


def cached_predictor(run: Run, changes: object, load: Callable[[], Predictor]) -> Predictor:
    """The loaded model of a run, as long as the `Run` lives and nothing in its files or in `changes` differs."""
    files = [run.path / "recipe.yaml", *sorted((run.path / "model").glob("*"))]
    stats = [(file.name, *_stat(file)) for file in files]
    before = _cached.get(run)
    if before is None or before[0] != (changes, stats):
        _cached.pop(run, None)  # its memory, before the next model takes as much
        _cached[run] = ((changes, stats), load())
    return _cached[run][1]


def _stat(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino

"""predict: rows labelled, from a file, a pipe, or memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpipe.errors import (
    DataError,
    RecipeError,
)
from hfpipe.recipe import Recipe, with_overrides
from hfpipe.recipe.source import Overrides, as_overrides
from hfpipe.runs.arguments import checked
from hfpipe.runs.given_parts import PREDICTED_WITH, Given, require_given, take_parts, with_held
from hfpipe.runs.store import Run
from hfpipe.runs.targets import quiet, reach_hub, require_effect, rows_of_file, with_checkpoint
from hfpipe.system.display import NOTE, Display, as_display
from hfpipe.system.machine import translated_errors

if TYPE_CHECKING:
    from hfpipe.evaluation.prediction.predict_rows import Labelled
    from hfpipe.evaluation.prediction.predictor import Predictor

_ONE_AT_A_TIME = (
    threading.Lock()
)  # a run's model is loaded once, and the libraries' logs are redirected for all threads


@checked
def predict(
    target: Run | str | Path,
    source: Any,
    *,
    input_format: str | None = None,
    chunk_rows: int = 1024,
    keep: Sequence[str] = (),
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    runs_dir: str | Path | None = None,
    display: Display | bool | None = None,
    **parts: Any,
) -> list[dict[str, Any]]:
    """Label rows with a run or a checkpoint; they need the text columns of the recipe, and no label.

    With a :class:`Run` as target the model is loaded once, and lives as long as that object. Threads take turns.

    Args:
        target: as for :func:`evaluate`.
        source: a csv, tsv, json, jsonl, parquet or text file by its path, or `-` for standard input; or rows in memory:
            a list of texts, of pairs of texts, or of mappings from column to value.
        input_format: where the ending of `source` does not say it.
        chunk_rows: rows that are predicted together at most.
        keep: columns of the input to copy beside the predictions.
        recipe: names the text columns; by default the run's own. A checkpoint needs one.
        overrides: `dotted.path=value` each, or a mapping from paths to values.
        runs_dir: where run ids are looked up.
        display: where progress goes: by default to a terminal or a notebook, and nowhere else; False for none.
        parts: `model`, `tokenizer`, `collate` that a run was given from Python; the model gets the trained weights.

    Returns:
        For each row, in order, `label`, `score` and `probabilities`, for a regression `value`, and so on by kind of task.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    if isinstance(source, str | Path):
        chunks = predict_chunks(
            target,
            source,
            input_format=input_format,
            chunk_rows=chunk_rows,
            keep=keep,
            recipe=recipe,
            overrides=overrides,
            runs_dir=runs_dir,
            display=display,
            **parts,
        )
        return [row for one in chunks for row in one]
    _require_chunk(chunk_rows)
    given, overrides = (
        take_parts(with_held(target, parts, PREDICTED_WITH), predict, PREDICTED_WITH),
        as_overrides(overrides),
    )
    with _ONE_AT_A_TIME, quiet(), translated_errors(after_stop=""):
        from hfpipe.evaluation.prediction.predict_rows import predict_rows

        predictor = _predictor(
            target,
            recipe,
            overrides,
            lambda: _for_rows(target, "jsonl", recipe, overrides, runs_dir, given),
            display,
            given,
        )
        return predict_rows(predictor, source, chunk_rows, keep)


@checked
def predict_file(
    target: Run | str | Path,
    source: str | Path,
    output: str | Path,
    *,
    output_format: str | None = None,
    overwrite: bool = False,
    input_format: str | None = None,
    chunk_rows: int = 1024,
    keep: Sequence[str] = (),
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    runs_dir: str | Path | None = None,
    display: Display | bool | None = None,
    **parts: Any,
) -> Labelled:
    """Label a file into a file, in constant memory; the same call goes on where an earlier one was stopped.

    Args:
        target: as for :func:`evaluate`.
        source: as for :func:`predict`, a path or `-`.
        output: a jsonl, csv or parquet file, which is there only when all of it is. Until then OUTPUT.partial has the rows.
        output_format: where the ending of `output` does not say it.
        overwrite: replace an output that is there, and discard what another command left in OUTPUT.partial.
        input_format: where the ending of `source` does not say it.
        chunk_rows: rows that are in memory and predicted together at most.
        keep: columns of the input to copy into the rows of the output.
        recipe: names the text columns; by default the run's own. A checkpoint needs one.
        overrides: `dotted.path=value` each, or a mapping from paths to values.
        runs_dir: where run ids are looked up.
        display: where progress goes: by default to a terminal or a notebook, and nowhere else; False for none.
        parts: `model`, `tokenizer`, `collate` that a run was given from Python; the model gets the trained weights.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    from hfpipe.evaluation.prediction import output_file

    display, into = as_display(display, lines=True), Path(output)
    kind = output_file.format_of(into, output_format)
    output_file.require_free(into, overwrite=overwrite)  # before the work, not after it
    given, overrides = (
        take_parts(with_held(target, parts, PREDICTED_WITH), predict, PREDICTED_WITH),
        as_overrides(overrides),
    )
    asked = (target, source, input_format, recipe, overrides, runs_dir, chunk_rows, keep)
    resolved, form = _of_input(*asked, display, given)
    with quiet(), translated_errors(after_stop=""):
        from hfpipe.evaluation.prediction.predict_rows import predict_into

        return predict_into(
            _predictor(target, recipe, overrides, lambda: resolved, display, given),
            resolved,
            str(source),
            form,
            into,
            kind,
            overwrite=overwrite,
            chunk_rows=chunk_rows,
            notice=display.notice,
            keep=keep,
        )


def predict_chunks(
    target: Run | str | Path,
    source: str | Path,
    *,
    input_format: str | None = None,
    chunk_rows: int = 1024,
    keep: Sequence[str] = (),
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    runs_dir: str | Path | None = None,
    display: Display | bool | None = None,
    **parts: Any,
) -> Iterator[list[dict[str, Any]]]:
    """Label a file or standard input as it is read; arguments as for :func:`predict`.

    Yields:
        The predictions for some rows at a time, in the order of the input, as soon as the model has made them.
    """
    given, overrides = (
        take_parts(with_held(target, parts, PREDICTED_WITH), predict, PREDICTED_WITH),
        as_overrides(overrides),
    )
    asked = (target, source, input_format, recipe, overrides, runs_dir, chunk_rows, keep)
    resolved, form = _of_input(*asked, as_display(display, lines=True), given)
    with quiet(), translated_errors(after_stop=""):
        from hfpipe.evaluation.prediction.predict_rows import chunks_of, predict_chunk

        predictor = _predictor(target, recipe, overrides, lambda: resolved, display, given)
        for one in chunks_of(resolved, str(source), form, chunk_rows, keep):
            yield predict_chunk(predictor, one)


def predict_glue(
    target: Run | str | Path,
    folder: str | Path = "glue",
    *,
    overwrite: bool = False,
    overrides: Overrides = (),
    runs_dir: str | Path | None = None,
    display: Display | bool | None = None,
    **parts: Any,
) -> dict[str, int]:
    """Label the test sets of a run on a set of GLUE, and write what the GLUE server takes.

    Args:
        target: a run or its id or folder.
        folder: where the files go, under the names that the server knows.
        overwrite: replace files that are there.
        overrides: `dotted.path=value` each, or a mapping from paths to values.
        runs_dir: where run ids are looked up.
        display: where progress and warnings go; by default nowhere.
        parts: as for :func:`predict`.

    Returns:
        The rows of each file, by its name.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    overrides, display = as_overrides(overrides), as_display(display, lines=True)
    name = str(target.path if isinstance(target, Run) else target)
    given = take_parts(with_held(target, parts, PREDICTED_WITH), predict, PREDICTED_WITH)
    run, resolved = with_checkpoint(target, name, None, overrides, runs_dir)
    if run is not None:
        require_given(run, given.keywords, PREDICTED_WITH, call="hfpipe.predict(run, rows, ...)")
    resolved = with_overrides(resolved, given.overrides)
    reach_hub(resolved, display)
    from hfpipe.evaluation.prediction.submission import submit

    with quiet(), translated_errors(after_stop=""):
        return submit(resolved, Path(folder), overwrite=overwrite, notice=display.notice, parts=given.objects)


def _of_input(
    target: Run | str | Path,
    source: str | Path,
    input_format: str | None,
    recipe: Recipe | str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str],
    runs_dir: str | Path | None,
    chunk_rows: int,
    keep: Sequence[str],
    display: Display,
    given: Given,
) -> tuple[Recipe, str]:
    """The recipe that reads an input, and its format; what is wrong with the first rows is an error before anything loads."""
    _require_chunk(chunk_rows)
    from hfpipe.evaluation.prediction import chunks

    form = chunks.format_of(str(source), input_format)
    if str(source) != chunks.STANDARD_INPUT and not Path(source).expanduser().exists():
        raise DataError(f"no file {str(source)!r} (from {Path.cwd()})", where="INPUT")
    resolved = _for_rows(target, form, recipe, overrides, runs_dir, given)
    if not chunks.is_piped(str(source)):
        from hfpipe.evaluation.prediction.predict_rows import chunks_of

        def say(text: str) -> None:
            display.notice(f"{NOTE}{text}")

        with quiet(), translated_errors(after_stop=""):
            next(chunks_of(resolved, str(source), form, chunk_rows, keep, say), None)
    return resolved, form


def _for_rows(
    target: Run | str | Path,
    form: str,
    recipe: Recipe | str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str],
    runs_dir: str | Path | None,
    given: Given,
) -> Recipe:
    """The recipe of the target with rows of this format instead of its data."""
    name = str(target.path if isinstance(target, Run) else target)
    run, base = with_checkpoint(target, name, recipe, (), runs_dir)
    if run is not None:
        require_given(run, given.keywords, PREDICTED_WITH, call="hfpipe.predict(run, rows, ...)")
    changes = [*overrides, *given.overrides]
    resolved = with_overrides(with_overrides(base, rows_of_file(base, form, None), "INPUT"), changes)
    require_effect(overrides)
    return resolved


def _require_chunk(chunk_rows: int) -> None:
    if chunk_rows < 1:
        raise RecipeError(f"{chunk_rows}", where="--chunk", allowed="1 or more rows")


def _predictor(
    target: Run | str | Path,
    recipe: object,
    overrides: Sequence[str],
    resolve_recipe: Callable[[], Recipe],
    display: Display | bool | None,
    given: Given,
) -> Predictor:
    """The loaded model of the target, which a run keeps."""
    from hfpipe.evaluation.prediction.predict_rows import cached_predictor
    from hfpipe.evaluation.prediction.predictor import load_predictor
    from hfpipe.system import hub

    notice = as_display(display, lines=True).notice

    def load() -> Predictor:
        resolved = resolve_recipe()
        checkpoint = resolved.model.checkpoint
        if not hub.is_local(checkpoint) and not checkpoint.startswith("embedded:"):
            hub.detect_offline(lambda text: notice(f"{NOTE}{text}"))
        return load_predictor(resolved, notice, given.objects)

    if not isinstance(target, Run) or recipe is not None:
        return load()
    return cached_predictor(target, (*overrides, *given.overrides, *given.objects.items()), load)

"""`hfpipe predict` and `hfpipe glue-zip`: labels for rows that have none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hfpipe.cli.options import ChoicesOption, Json, Overrides, RunsDir, Target, Text, columns
from hfpipe.cli.output import answer
from hfpipe.errors import RecipeError
from hfpipe.system.text import json_line


def predict(
    target: Target,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A csv, tsv, json, jsonl, parquet or txt file with the text columns, or - for standard input.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    text: Text = None,
    choices: ChoicesOption = None,
    recipe: Annotated[str | None, typer.Option(help="Names the columns, for a checkpoint that is not a run.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A .jsonl, .csv or .parquet file; with --glue a folder. [default: JSON lines on standard output]"
        ),
    ] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="jsonl, csv or parquet. [default: the ending of --output]")
    ] = None,
    input_format: Annotated[
        str | None,
        typer.Option(help="csv, tsv, json, jsonl, parquet or text. [default: the ending of INPUT; jsonl for -]"),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN[,COLUMN...]", help="Columns of INPUT to copy into every row. Can be given several times."
        ),
    ] = None,
    chunk: Annotated[
        int,
        typer.Option("--chunk", "--window", help="Rows in memory at most; 1 labels each row as soon as it is read."),
    ] = 1024,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    glue: Annotated[
        bool, typer.Option("--glue", help="Label the test sets of the run's own GLUE data, for the GLUE server.")
    ] = False,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Label the rows of a file, in their order.

    One JSON object a row is written, or a file with --output. After a stop the same command goes on where it was.
    """
    from hfpipe.system import display

    shown = display.choose(quiet=as_json)
    if glue:
        without_effect = {
            "text": text,
            "choices": choices,
            "recipe": recipe,
            "format": output_format,
            "input-format": input_format,
            "keep": keep,
        }
        changes = _changes_with_glue(source, overrides or [], without_effect)
        common = {"overwrite": overwrite, "overrides": changes, "runs_dir": runs_dir, "display": shown}
        _predict_glue(target, output or Path("glue"), common, as_json)
        return
    if source is None:
        raise RecipeError("INPUT is missing", where="predict", fix="Name a file, - for standard input, or --glue.")
    given = {"task.text": columns(text), "task.choices": columns(choices)}
    changes = [f"{field}={json_line(names)}" for field, names in given.items() if names]
    options: dict[str, Any] = {
        "input_format": input_format,
        "chunk_rows": chunk,
        "keep": columns(keep),
        "recipe": recipe,
        "overrides": [*changes, *(overrides or [])],
        "runs_dir": runs_dir,
        "display": shown,
    }
    if output is not None:
        to_file = {"output_format": output_format, "overwrite": overwrite}
        _predict_into(target, source, output, {**to_file, **options}, as_json)
        return
    if output_format not in (None, "jsonl"):
        raise RecipeError(f"{output_format!r} on standard output", where="--format", fix="Name a file with --output.")
    if not _predict_here(target, source, options, as_json):
        shown.notice(f"{'standard input' if source == '-' else source} has no rows")


def _changes_with_glue(source: str | None, overrides: list[str], without_effect: dict[str, Any]) -> list[str]:
    """The overrides of `--glue`, which takes no INPUT: what stands in its place is the first of them."""
    if source is not None and "=" not in source:
        raise RecipeError(f"{source!r}", where="INPUT", fix="--glue labels the run's own test sets: leave INPUT out.")
    for option, value in without_effect.items():
        if value is not None:
            raise RecipeError(f"--{option} does nothing with --glue", where=f"--{option}", fix="Leave it out.")
    return [*([source] if source else []), *overrides]


def _predict_glue(target: str, folder: Path, options: dict[str, Any], as_json: bool) -> None:
    from hfpipe.evaluation.prediction.predict import predict_glue

    files = predict_glue(target, folder, **options)

    def page() -> None:
        for name, rows in files.items():
            print(f"{folder / name}: {rows:,} rows")

    answer(as_json, lambda: {"target": target, "output": str(folder), "files": files}, page)


def _predict_into(target: str, source: str, output: Path, options: dict[str, Any], as_json: bool) -> None:
    from hfpipe.evaluation.prediction.predict import predict_file

    made = predict_file(target, source, output, **options)
    answer(
        as_json,
        lambda: {"target": target, **asdict(made), "output": str(made.output)},
        lambda: print(f"{made.output}: {made.examples:,} rows, {made.examples_per_second:,.1f} a second"),
    )


def _predict_here(target: str, source: str, options: dict[str, Any], as_json: bool) -> int:
    """Print the labels, as JSON lines as soon as there are some; returns the number of rows."""
    from hfpipe.evaluation.prediction import predict as predicting

    if as_json:
        rows = predicting.predict(target, source, **options)
        about = {"target": target, "examples": len(rows), "output": None, "predictions": rows}
        answer(True, lambda: about, lambda: None)
        return max(len(rows), 1)  # the object says so itself
    count = 0
    for chunk in predicting.predict_chunks(target, source, **options):
        _stream(chunk)
        count += len(chunk)
    return count


def _stream(rows: Iterable[dict[str, Any]]) -> None:
    """Write to standard output now; whoever reads it may have enough, as `head` has."""
    try:
        sys.stdout.write("".join(f"{json_line(row)}\n" for row in rows))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise typer.Exit from None


def glue_zip(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `predict --glue` wrote, of all the sets.")],
    output: Annotated[Path | None, typer.Option(help="The zip. [default: submission.zip in DIR]")] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Refuse while one of the eleven files is missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check and pack the files for the GLUE server.

    The same files give the same zip.
    """
    from hfpipe.evaluation.prediction.glue import pack

    packed = pack(folder, output, complete=complete)

    def page() -> None:
        if packed.missing:
            wants = "the server refuses a zip without them; its sample submission has files to put in their place"
            print(f"warning: not in the zip: {', '.join(packed.missing)}; {wants}", file=sys.stderr)
        print(f"{packed.output}: {', '.join(packed.files)}")

    answer(as_json, lambda: {**asdict(packed), "output": str(packed.output)}, page)

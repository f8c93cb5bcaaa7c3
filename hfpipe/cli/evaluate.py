"""`hfpipe evaluate`: a run or a checkpoint, measured."""

from __future__ import annotations

from typing import Annotated

import typer

from hfpipe.cli.options import ChoicesOption, Json, Overrides, RunsDir, Target, Text, columns, input_and_overrides
from hfpipe.cli.output import answer


def evaluate(
    target: Target,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A csv, tsv, json, jsonl or parquet file with labels. [default: the recipe's evaluation split]",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    text: Text = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN[,COLUMN...]", help="The column of labels, if not the recipe's.")
    ] = None,
    choices: ChoicesOption = None,
    input_format: Annotated[
        str | None, typer.Option(help="csv, tsv, json, jsonl or parquet. [default: the ending of INPUT]")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Data and task, for a checkpoint that is not a run.")] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Split or slice. Can be given several times. [default: the recipe's evaluation split]"),
    ] = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Measure a run or a checkpoint, with intervals and a baseline.

    Shown are every metric with its 95 % interval, the classes, and the slices.
    """
    from hfpipe.evaluation.evaluate import evaluate as run_evaluate
    from hfpipe.reports.terminal.evaluation import show
    from hfpipe.system import display

    file, changes = input_and_overrides(source, overrides)
    measured = run_evaluate(
        target,
        file,
        text=columns(text),
        label=columns(label),
        choices=columns(choices),
        input_format=input_format,
        recipe=recipe,
        overrides=changes,
        split=split or None,
        runs_dir=runs_dir,
        display=display.choose(quiet=as_json),
    )

    def page() -> None:
        for one in (measured, *measured.also):
            show(one.document)

    answer(as_json, measured.as_dict, page)

"""What several commands take, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfpipe.cli import completion

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.", autocompletion=completion.recipes
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Changes to the recipe: train.epochs=1",
        show_default=False,
        autocompletion=completion.fields,
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run: its folder, its id, or the start of its id.", autocompletion=completion.runs
    ),
]
RunOrGroup = Annotated[
    str,
    typer.Argument(
        metavar="RUN|GROUP",
        help="A run or a group: its folder, its id, or the start of its id.",
        autocompletion=completion.runs_or_groups,
    ),
]
RunsDir = Annotated[
    Path | None, typer.Option("--runs-dir", help="Folder of the runs. [default: $HFPIPE_RUNS_DIR or runs]")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; notices go to standard error.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Text = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN[,COLUMN...]", help="The columns of texts in INPUT, if not the recipe's."),
]
ChoicesOption = Annotated[
    list[str] | None,
    typer.Option("--choices", metavar="COLUMN[,COLUMN...]", help="The columns of the choices, if not the recipe's."),
]


def columns(given: list[str] | None) -> list[str]:
    """The columns that an option names, which may be given several times or with commas."""
    return list(dict.fromkeys(name.strip() for names in given or [] for name in names.split(",") if name.strip()))


def input_and_overrides(source: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """INPUT, and the overrides behind it, the first of which stands in its place where there is none."""
    if source is not None and "=" in source and not Path(source).expanduser().exists():
        return None, [source, *(overrides or [])]
    return source, list(overrides or [])

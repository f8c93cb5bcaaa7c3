"""What several commands take, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hfpipe.cli import completion
from hfpipe.errors import RecipeError
from hfpipe.system.text import json_line

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.", autocompletion=completion.recipes
    ),
]
Target = Annotated[
    str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run (folder or id), a checkpoint folder, or a Hub id.")
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
TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="COLUMN[,COLUMN]", help="The text column, or the two of a pair: task.text."),
]
LabelColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="COLUMN[,COLUMN...]", help="The column to learn, or several of 0 and 1: task.label."
    ),
]
TaskKind = Annotated[
    str | None,
    typer.Option(
        "--kind", help="The kind of task, such as text-regression: task.kind.", autocompletion=completion.one_of("kind")
    ),
]
Checkpoint = Annotated[
    str | None, typer.Option("--checkpoint", help="Hub id or folder to start from: model.checkpoint.")
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


_FIELDS = {
    "text": "task.text",
    "label": "task.label",
    "kind": "task.kind",
    "checkpoint": "model.checkpoint",
    "epochs": "train.epochs",
    "lr": "optimizer.lr",
    "batch-size": "train.batch_size",
    "seed": "seed",
}


def with_options(overrides: list[str] | None, **options: Any) -> list[str]:
    """The overrides, with those that options stand for before them; of lists each part may have commas.

    Raises:
        RecipeError: a field that is set twice.
    """
    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    changes = list(overrides or [])
    set_already = {override.partition("=")[0].strip() for override in changes}
    made = []
    for option, value in given.items():
        field = _FIELDS[option]
        if field in set_already:
            raise RecipeError(f"sets {field}, and so does an override", where=f"--{option}", fix="Say one of the two.")
        if isinstance(value, list):
            parts = columns(value)
            value = parts[0] if len(parts) == 1 else parts
        made.append(f"{field}={json_line(value)}")
    return [*made, *changes]

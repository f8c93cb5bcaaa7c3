"""`hfpipe recipes`: the recipes that come with hfpipe, and checking your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfpipe.cli import completion
from hfpipe.cli.examples import examples
from hfpipe.cli.options import (
    Checkpoint,
    Json,
    LabelColumns,
    Overrides,
    RecipeArgument,
    TaskKind,
    TextColumns,
    with_options,
)
from hfpipe.cli.output import answer, print_json
from hfpipe.errors import RecipeError

app = typer.Typer(help="List, show, write, copy and check recipes.", no_args_is_help=True)


@app.command("list", epilog=examples("recipes list"))
def list_recipes(as_json: Json = False) -> None:
    """List the shipped recipes."""
    from hfpipe.recipe import shipped

    found = {name: (shipped.header(name) or [""])[0] for name in shipped.names()}

    def page() -> None:
        width = max(map(len, found), default=0)
        for name, about in found.items():
            print(f"{name:<{width}}  {about}")

    answer(as_json, lambda: {"recipes": [{"name": name, "about": about} for name, about in found.items()]}, page)


@app.command("show", epilog=examples("recipes show"))
def show(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    resolved: Annotated[bool, typer.Option(help="Show every field, as a run would record it.")] = False,
) -> None:
    """Show a recipe as it is written, or fully resolved."""
    from hfpipe.recipe import load_recipe, shipped, to_yaml

    if resolved or overrides:
        print(to_yaml(load_recipe(recipe, overrides or [])), end="")
    else:
        print(shipped.find(recipe).read_text(encoding="utf-8"), end="")


@app.command("new", epilog=examples("recipes new"))
def new(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A file (csv, tsv, json, jsonl, parquet, ...), a folder, or a data set of the Hub.",
            autocompletion=completion.recipes_or_data,
        ),
    ],
    overrides: Overrides = None,
    text: TextColumns = None,
    label: LabelColumns = None,
    kind: TaskKind = None,
    checkpoint: Checkpoint = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write it; never over another. [default: the data's name.yaml]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a recipe for your data: columns and task guessed.

    Every guess stands in a comment beside its line. What is not clear is asked for: --text, --label, --kind.
    """
    from hfpipe.parts.tasks.draft import draft_recipe, write_draft
    from hfpipe.runs.targets import quiet
    from hfpipe.system import display
    from hfpipe.system.machine import translated_errors

    changes = with_options(overrides, text=text, label=label, kind=kind, checkpoint=checkpoint)
    shown = display.choose(quiet=as_json)
    with quiet(), translated_errors():
        written, draft = write_draft(draft_recipe(data, overrides=changes, notice=shown.notice), output)
    for line in draft.lines():
        shown.notice(f"{display.NOTE}{line}")
    answer(
        as_json,
        lambda: {"recipe": str(written), "fields": draft.fields, "reasons": draft.reasons},
        lambda: print(f"{written}\nNext: hfpipe finetune {written}"),
    )


@app.command("copy", epilog=examples("recipes copy"))
def copy(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it. A file that exists is not replaced.")],
) -> None:
    """Copy a shipped recipe, to change it."""
    from hfpipe.recipe import shipped

    print(shipped.copy(recipe, to))


@app.command("validate", epilog=examples("recipes validate"))
def validate(recipe: RecipeArgument, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check a recipe without data or weights.

    Every field, every part and its arguments are checked, and every mistake is told at once.
    """
    from hfpipe.recipe import load_recipe
    from hfpipe.recipe.certainty import is_certain
    from hfpipe.recipe.trainer_options import ALWAYS_TAKEN, option_problems

    loaded = load_recipe(recipe, overrides or [])
    loaded.require_data_named()
    if not is_certain(loaded):
        from hfpipe.parts.build import check_parts, check_scores

        check_parts(loaded)
        check_scores(loaded)
    elif problems := option_problems(loaded):
        raise RecipeError("\n".join(problems))
    if not all(isinstance(value, bool) and (key, value) in ALWAYS_TAKEN for key, value in loaded.trainer.items()):
        from hfpipe.training.engines.trainer import check_options

        check_options(loaded)
    answer(as_json, lambda: {"recipe": recipe, "valid": True}, lambda: print(f"{recipe}: valid"))


@app.command("schema", epilog=examples("recipes schema"))
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from hfpipe.recipe.schema import json_schema

    print_json(json_schema())

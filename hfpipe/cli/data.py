"""`hfpipe data`, `hfpipe preprocess` and `hfpipe peek`: looking at data without training."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from hfpipe.cli.options import Json, Overrides, RecipeArgument
from hfpipe.cli.output import answer
from hfpipe.system.text import plural, shortened

_FEATURE = 300  # characters of a column's type that are shown, such as the names of its classes
_ROW, _LEAST, _ITEMS = (
    800,
    40,
    10,
)  # of a row about so many characters, of a value at least so many, of a list so many items


def show(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    examples: Annotated[int, typer.Option(help="Rows of the training split to show.")] = 3,
    as_json: Json = False,
) -> None:
    """Look at the data of a recipe without training.

    Classes, lengths, truncation, repeated rows, leaks.
    """
    from hfpipe.parts.inputs.preview import look_at_data
    from hfpipe.reports.terminal.data import page
    from hfpipe.system import display

    title, audit, longer, shown = look_at_data(
        recipe, overrides=overrides or [], examples=examples, display=display.choose(quiet=as_json)
    )
    answer(
        as_json,
        lambda: {"data": title, **audit.as_json(), "longer": longer, "examples": shown},
        lambda: print(page(title, audit, longer, shown)),
    )


def preprocess(recipe: RecipeArgument, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check and tokenize data, so that a later run starts at once."""
    from hfpipe.parts.inputs.preview import preprocess as run_preprocess
    from hfpipe.system import display

    made = run_preprocess(recipe, overrides=overrides or [], display=display.choose(quiet=as_json))

    def page() -> None:
        for split, about in made.items():
            seconds = about["seconds"]
            rate = "from the cache" if seconds is None else f"{about['rows'] / seconds:,.0f} rows a second"
            print(f"{split}: {about['rows']:,} rows, {rate}")

    answer(as_json, lambda: {"splits": made}, page)


def peek(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A Hub id, a local folder, or a file.")],
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="The configuration, where there are several.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split. [default: the first]")] = None,
    rows: Annotated[int, typer.Option(min=0, help="How many rows to show.")] = 5,
    full: Annotated[bool, typer.Option("--full", help="Cut no long values; --json never does.")] = False,
    as_json: Json = False,
) -> None:
    """Show features, sizes and a few rows of a data set.

    It is not downloaded.
    """
    from hfpipe.parts.inputs.preview import peek as run_peek
    from hfpipe.system import display

    seen = run_peek(dataset, config, split=split, rows=rows, display=display.choose(quiet=as_json))

    def page() -> None:
        print(f"{dataset}{f' {seen.config}' if seen.config else ''} ({seen.source})")
        if len(seen.configs) > 1:
            print(f"configurations: {', '.join(seen.configs)}")
        sizes = (f"{name} {'?' if count is None else f'{count:,}'}" for name, count in seen.splits.items())
        print(f"rows: {', '.join(sizes)}")
        for name, kind in seen.features.items():
            print(f"  {name}: {kind if full else shortened(kind, _FEATURE)[0]}")
        cut = 0
        for row in seen.rows:
            shown, parts = (row, 0) if full else shortened(row, max(_ROW // max(len(row), 1), _LEAST), _ITEMS)
            cut += parts
            print(json.dumps(shown, ensure_ascii=False, default=str))
        if cut:
            print(
                f"note: {plural(cut, 'long value')} cut; --full shows {'it' if cut == 1 else 'them'} whole",
                file=sys.stderr,
            )

    answer(as_json, lambda: asdict(seen), page)

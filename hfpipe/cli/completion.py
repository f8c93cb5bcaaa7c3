"""What the shell completes: recipes, runs, fields. Nothing heavy is imported, and a mistake completes to nothing."""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

_RECIPES = (".yaml", ".yml")


def _quietly(complete: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with nothing where it fails: a completion never prints an error."""

    @functools.wraps(complete)
    def safe(*arguments: Any, **named: Any) -> Any:
        try:
            return complete(*arguments, **named)
        except Exception:  # noqa: BLE001 - whatever is wrong, the command itself says it when it is run
            return []

    return safe


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _files(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Folders, and files with one of some endings, that begin with what was typed."""
    found = sorted(glob.glob(glob.escape(os.path.expanduser(incomplete)) + "*"))
    return [f"{one}/" if os.path.isdir(one) else one for one in found if os.path.isdir(one) or one.endswith(endings)]


@_quietly
def recipes(incomplete: str) -> list[str]:
    """Shipped recipes, and YAML files."""
    from hfpipe.recipe import shipped

    return [*_matching(shipped.names(), incomplete), *_files(incomplete, _RECIPES)]


@_quietly
def recipes_or_data(incomplete: str) -> list[str]:
    """Shipped recipes, YAML files, and files of data."""
    from hfpipe.recipe import shipped

    endings = (*_RECIPES, ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".gz", ".zst")
    return [*_matching(shipped.names(), incomplete), *_files(incomplete, endings)]


@_quietly
def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of runs, the newest first, and folders."""
    from hfpipe.runs import default_folder, list_runs

    folder = ctx.params.get("runs_dir")
    return [
        *_matching((run.id for run in list_runs(Path(folder or default_folder()))), incomplete),
        *_files(incomplete, ()),
    ]


@_quietly
def runs_or_groups(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same, and the groups that runs are in."""
    found = runs(ctx, incomplete)
    return list(dict.fromkeys([*(name.partition("/")[0] for name in found if "/" in name.rstrip("/")), *found]))


@_quietly
def metrics(ctx: typer.Context, incomplete: str) -> list[str]:
    """The metrics that the runs have."""
    from hfpipe.runs import default_folder, listing

    rows = listing.table(Path(ctx.params.get("runs_dir") or default_folder()))
    return _matching(dict.fromkeys(name for row in rows for name in row["metrics"]), incomplete)


@_quietly
def fields(incomplete: str) -> list[str]:
    """Fields of a recipe with `=`, a section at a time where several begin alike."""
    from hfpipe.recipe.hints import field_paths

    return _matching((f"{path}=" for path in field_paths()), incomplete)


def one_of(table: str) -> Callable[[str], list[str]]:
    """The names of a table: of the catalog, or the statuses of a run."""

    @_quietly
    def names(incomplete: str) -> list[str]:
        from hfpipe.recipe import catalog, kinds
        from hfpipe.runs import listing

        found: dict[str, Iterable[str]] = {"engine": catalog.ENGINES, "kind": kinds.KINDS, "status": listing.STATUSES}
        return _matching(found[table], incomplete)

    return names


@_quietly
def recipes_or_runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """What `compare` takes first."""
    return list(dict.fromkeys([*recipes(incomplete), *runs_or_groups(ctx, incomplete)]))


@_quietly
def fields_or_runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """What `compare` takes then."""
    return [*fields(incomplete), *runs_or_groups(ctx, incomplete)]

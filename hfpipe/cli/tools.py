"""`hfpipe compare`, `hfpipe push` and `hfpipe doctor`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from hfpipe.cli import completion
from hfpipe.cli.options import Json, Overrides, RunArgument, RunsDir, Yes
from hfpipe.cli.output import answer, require_confirmed
from hfpipe.cli.runs import answer_difference


def compare(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN",
            help="A YAML file or the name of a shipped recipe; or a run or group.",
            autocompletion=completion.recipes_or_runs,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE|RUN",
            help="Changes to the recipe: train.epochs=1; or the other run or group.",
            show_default=False,
            autocompletion=completion.fields_or_runs,
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,...",
            help="A field and its values. Several of them make a grid.",
            autocompletion=completion.fields,
        ),
    ] = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Train variants of a recipe, or compare two runs.

    Variants are trained from one seed; shown are their metrics with a paired test, and where and how far their losses and
    weights part. Two runs are compared as by `hfpipe runs diff`.
    """
    if not vary and overrides and len(overrides) == 1 and "=" not in overrides[0]:
        answer_difference(recipe, overrides[0], runs_dir, as_json)
        return
    from hfpipe.experiments.compare.compare import compare as run_comparison
    from hfpipe.experiments.compare.grid import parse_vary
    from hfpipe.experiments.compare.table import show
    from hfpipe.system import display

    comparison = run_comparison(
        recipe,
        parse_vary(vary or []),
        overrides=overrides or [],
        runs_dir=runs_dir,
        display=display.choose(quiet=as_json),
    )
    answer(as_json, comparison.as_dict, lambda: show(comparison))


def push(
    run: RunArgument,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="NAME/REPOSITORY on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it. [default: private]")] = False,
    yes: Yes = False,
    revision: Annotated[str | None, typer.Option("--revision", help="A branch. [default: the main one]")] = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Upload the model of a run to the Hub, privately.

    The files are shown first, and nothing is sent without a yes.
    """
    from hfpipe.runs import default_folder, find_run
    from hfpipe.sharing.push import push as run_push
    from hfpipe.sharing.push import uploads
    from hfpipe.system import display

    found = find_run(run, runs_dir or default_folder())
    files = uploads(found, repo)
    if not as_json:
        for one in files:
            print(f"{one.size:>14,}  {one.name}", file=sys.stderr)
        whole = f"{sum(one.size for one in files):,} bytes in {len(files)} files"
        print(f"{whole} to {repo}, {'public' if public else 'private'}", file=sys.stderr)
    require_confirmed("Upload them?", where=f"push {found.id}", yes=yes, as_json=as_json)
    done = run_push(found, repo, public=public, revision=revision, notice=display.choose(quiet=as_json).notice)
    answer(as_json, lambda: {"run": str(found.path), **asdict(done)}, lambda: print(done.url))


def doctor(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check a recipe on this machine, or the machine alone.

    A recipe is checked by measuring it: does the loss depend on accumulation, do both engines agree?
    """
    from hfpipe.experiments.doctor import examine, exit_code

    checks = examine(recipe, overrides=overrides or [], show=lambda check: None if as_json else print(check.line()))
    answer(
        as_json,
        lambda: {"checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]},
        lambda: None,  # each was printed when it was made
    )
    raise typer.Exit(exit_code(checks))

"""`hfpipe runs`: the runs that are remembered."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hfpipe.cli import completion
from hfpipe.cli.examples import examples
from hfpipe.cli.options import Json, RunArgument, RunOrGroup, RunsDir, Yes
from hfpipe.cli.output import answer, require_confirmed
from hfpipe.system.text import plural

app = typer.Typer(help="List, show, compare, export and delete runs.", no_args_is_help=True)


@app.command("list", epilog=examples("runs list"))
def list_runs(
    runs_dir: RunsDir = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of the recipe of this name.")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="Only runs with this status: finished, failed, died, ...", autocompletion=completion.one_of("status")
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only runs started then or later: a date, 7d, 12h.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only runs started no later: a date, 7d, 12h.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="The best by a metric first, such as accuracy or loss.",
            autocompletion=completion.metrics,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most, from the top.")] = None,
    as_json: Json = False,
) -> None:
    """List the runs, the newest or the best first."""
    from hfpipe.reports.terminal import runs as runs_page
    from hfpipe.runs import default_folder, listing

    folder = runs_dir or default_folder()
    rows = listing.table(folder, recipe=recipe, status=status, since=since, until=until, limit=limit, sort=sort)

    def page() -> None:
        if rows:
            runs_page.print_table(rows)
        else:
            print(runs_page.none_there(folder, recipe, filtered=bool(recipe or status or since or until)))

    answer(as_json, lambda: {"runs_dir": str(folder), "runs": rows}, page)


@app.command("show", epilog=examples("runs show"))
def show(run: RunOrGroup, runs_dir: RunsDir = None, as_json: Json = False) -> None:
    """Show what a run remembers, or what a group's seeds say."""
    from hfpipe.reports.terminal import runs as runs_page
    from hfpipe.reports.terminal import seeds as seeds_page
    from hfpipe.runs import default_folder, groups
    from hfpipe.system import display

    found = groups.find_run_or_group(run, runs_dir or default_folder())
    if isinstance(found, groups.Group):
        groups.require_summary(found)
        answer(as_json, lambda: seeds_page.as_json(found), lambda: seeds_page.show(found))
        return
    about = runs_page.everything(found)
    runs_page.tell_broken(found, display.choose(quiet=as_json).notice)
    answer(as_json, lambda: about, lambda: print(runs_page.page(found, about), end=""))


@app.command("diff", epilog=examples("runs diff"))
def diff(first: RunOrGroup, second: RunOrGroup, runs_dir: RunsDir = None, as_json: Json = False) -> None:
    """Show what differs between two runs or groups.

    Recipe, versions, machine, data, and the metrics, with tests against chance where possible.
    """
    answer_difference(first, second, runs_dir, as_json)


def answer_difference(first: str, second: str, runs_dir: Path | None, as_json: bool) -> None:
    """Print what differs between two runs or groups: `runs diff`, and `compare` of two runs."""
    from hfpipe.experiments.diff.evaluations import compare_evaluations
    from hfpipe.reports.terminal.difference import show as show_difference
    from hfpipe.runs import default_folder, groups
    from hfpipe.runs.difference import difference

    folder = runs_dir or default_folder()
    sides = groups.find_run_or_group(first, folder), groups.find_run_or_group(second, folder)
    rows = difference(*sides)
    compared = compare_evaluations(*sides, (first, second))
    differences = [{"path": path, "first": before, "second": after} for path, before, after in rows]
    answer(
        as_json,
        lambda: {"first": first, "second": second, "differences": differences, **compared},
        lambda: show_difference(first, second, rows, compared),
    )


@app.command("report", epilog=examples("runs report"))
def report(run: RunArgument, runs_dir: RunsDir = None, as_json: Json = False) -> None:
    """Write report.html of a run anew.

    The evaluations made since are in it.
    """
    from hfpipe.reports import write_report
    from hfpipe.runs import default_folder, find_run

    found = find_run(run, runs_dir or default_folder())
    write_report(found)
    path = str(found.path / "report.html")
    answer(as_json, lambda: {"run": str(found.path), "report": path}, lambda: print(path))


@app.command("delete", epilog=examples("runs delete"))
def delete(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN|GROUP", help="Runs and groups: their folders, ids, or the starts of their ids."),
    ],
    runs_dir: RunsDir = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete runs and groups with everything in their folders.

    If one of them is running or missing, none is deleted.
    """
    from hfpipe.runs import default_folder, groups

    found = groups.find_all(runs, runs_dir or default_folder())
    groups.require_none_running(found)
    where = f"delete {' '.join(run.id for run in found)}"
    require_confirmed(f"Delete {', '.join(str(run.path) for run in found)}?", where=where, yes=yes)
    for run in found:
        groups.delete(run)
        if not as_json:
            print(f"deleted {run.path}")
    answer(as_json, lambda: {"deleted": [str(run.path) for run in found]}, lambda: None)


@app.command("clean", epilog=examples("runs clean"))
def clean(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|GROUP",
            help="Which runs and groups; by default all.",
            show_default=False,
            autocompletion=completion.runs_or_groups,
        ),
    ] = None,
    keep: Annotated[str, typer.Option(help="Checkpoints of finished runs that stay: all, last, best or none.")] = "all",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go, and remove nothing.")] = False,
    runs_dir: RunsDir = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Free disk space: what finished runs do not need any more.

    That is what their optimizers remember, what interrupted saves left behind, and with --keep also checkpoints. It is
    listed with its size first. model/ always stays; a run that was stopped can still go on.
    """
    from hfpipe.reports.terminal import runs as runs_page
    from hfpipe.runs import cleaning, default_folder, groups, store

    folder = runs_dir or default_folder()
    named = groups.find_all(runs, folder) if runs else store.list_runs(folder)
    chosen = [run for one in named for run in (store.list_runs(one.path) if isinstance(one, groups.Group) else [one])]
    planned, skipped = cleaning.removals(chosen, keep)
    if not as_json:
        runs_page.print_removals(planned, skipped)
    if planned and not dry_run:
        require_confirmed(f"Remove {plural(len(planned), 'item')}?", where="clean", yes=yes, as_json=as_json)
        cleaning.remove(planned)
    answer(
        as_json,
        lambda: {
            "removed": not dry_run,
            "bytes": sum(one.bytes for one in planned),
            "removals": [
                {"run": one.run.id, "path": str(one.path), "what": one.what, "bytes": one.bytes} for one in planned
            ],
            "left_alone": skipped,
        },
        lambda: None if planned else print("nothing to remove"),
    )


@app.command("reproduce", epilog=examples("runs reproduce"))
def reproduce(
    run: RunArgument,
    runs_dir: RunsDir = None,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Train even if data, checkpoint, tokenizer or recipe are not the same."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a run again: are the weights equal?

    It is trained from its recorded recipe, and the weights and metrics are compared.
    """
    from hfpipe.errors import NumericError
    from hfpipe.experiments.reproduce import reproduce as run_again
    from hfpipe.system import display

    outcome = run_again(run, runs_dir=runs_dir, anyway=anyway, display=display.choose(quiet=as_json))
    answer(as_json, outcome.as_dict, lambda: print("\n".join(outcome.lines())))
    if not outcome.equal:
        raise typer.Exit(NumericError.exit_code)


@app.command("export", epilog=examples("runs export"))
def export(
    run: RunArgument,
    to: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Write a folder ready for `from_pretrained` or an upload.

    The model, its card, recipe.yaml and metrics.json are in it.
    """
    from hfpipe.sharing.export import export as run_export
    from hfpipe.system import display

    exported = run_export(run, to, runs_dir=runs_dir, display=display.choose(quiet=as_json))
    lines = [exported.folder, *(f"  {name}" for name in exported.files)]
    answer(as_json, lambda: asdict(exported), lambda: print("\n".join(lines)))

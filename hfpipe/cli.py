"""The commands. Thin: each reads its options, calls a function of the package, and prints what it returns.

Results go to standard output, progress and messages to standard error. Whatever is heavy is imported inside a command.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hfpipe.errors import HfpipeError, RecipeError, StoppedByUser

app = typer.Typer(
    name="hfpipe",
    help="Fine-tune Hugging Face checkpoints, and trust the number that comes out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipes_app = typer.Typer(help="The recipes that come with hfpipe, and checking your own.", no_args_is_help=True)
runs_app = typer.Typer(help="The runs that are remembered.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")
app.add_typer(runs_app, name="runs")

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe: train.epochs=1", show_default=False),
]
RunsDir = Annotated[
    Path | None, typer.Option("--runs-dir", help="Folder of the runs. [default: $HFPIPE_RUNS_DIR or runs]")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. May stand anywhere.")] = False,
) -> None:
    """Options of every command."""
    if version:
        from importlib.metadata import version as installed

        print(f"hfpipe {installed('hfpipe')}")
        raise typer.Exit


@app.command()
def finetune(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help="A YAML file, or a shipped recipe. Not needed with --resume."),
    ] = None,
    overrides: Overrides = None,
    engine: Annotated[str | None, typer.Option(help="trainer, loop, or module:attribute.")] = None,
    runs_dir: RunsDir = None,
    name: Annotated[str | None, typer.Option(help="Id of the run. [default: the recipe's name and the time]")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")] = None,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="With --resume: what may differ from before, such as optimizer.lr."),
    ] = None,
    reset_optimizer: Annotated[
        bool, typer.Option("--reset-optimizer", help="With --resume: do without what the optimizer remembered.")
    ] = False,
    use_previous: Annotated[
        bool,
        typer.Option("--use-previous", help="With --resume: where the newest checkpoint is damaged, the one before."),
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop before so many minutes are over, resumable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a checkpoint as a recipe says, or go on with a run that was stopped."""
    import os

    from hfpipe import display
    from hfpipe.pipeline import finetune as run_finetune
    from hfpipe.recipe import load_recipe

    changes = list(overrides or [])
    if resume is not None and recipe is not None and "=" in recipe:
        changes, recipe = [recipe, *changes], None
    resolved = None
    if recipe is not None:  # a mistake in the recipe is told before anything heavy is imported
        resolved = load_recipe(recipe, [*changes, *([f"engine={engine}"] if engine else [])])
    run = run_finetune(
        resolved,
        overrides=changes if resolved is None else (),
        engine=engine if resolved is None else None,
        runs_dir=runs_dir,
        name=name,
        display=display.choose(silent=as_json),
        resume=resume,
        allow_change=allow_change or (),
        reset_optimizer=reset_optimizer,
        use_previous=use_previous,
        max_minutes=max_minutes,
    )
    if os.environ.get("RANK", "0") != "0":  # one process speaks for all
        return
    summary = run.read_json("metrics.json")
    if as_json:
        _print_json(
            {
                "run": str(run.path),
                "status": run.status,
                "engine": run.recipe.engine,
                "metrics": summary["metrics"],
                **({"also": summary["also"]} if "also" in summary else {}),
                "split": summary["split"],
                "examples": summary["examples"],
                "steps": summary["steps"],
                "examples_per_second": summary["examples_per_second"],
            }
        )
        return
    print(f"{run.path}")
    if summary["metrics"]:
        print(f"{display.figures(summary['metrics'])}  on {summary['examples']:,} examples of {summary['split']}")
    for split, metrics in summary.get("also", {}).items():
        print(f"{display.figures(metrics)}  on {split}")
    print(
        f"{summary['steps']:,} steps in {display.duration(summary['seconds'])}, "
        f"{summary['examples_per_second']:.1f} examples/s (training only)"
    )


@app.command()
def evaluate(
    target: Annotated[
        str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run (folder or id), a checkpoint folder, or a Hub id.")
    ],
    overrides: Overrides = None,
    recipe: Annotated[str | None, typer.Option(help="Data and task, for a checkpoint that is no run.")] = None,
    split: Annotated[str | None, typer.Option(help="Split or slice. [default: the recipe's evaluation split]")] = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Measure a run or a checkpoint, with 95 % intervals."""
    from hfpipe import display
    from hfpipe.pipeline import evaluate as run_evaluate

    measured = run_evaluate(
        target,
        recipe=recipe,
        overrides=overrides or [],
        split=split,
        runs_dir=runs_dir,
        display=display.choose(silent=as_json),
    )
    if as_json:
        _print_json(asdict(measured))
        return
    from rich.console import Console
    from rich.table import Table

    print(f"{measured.target}: {measured.examples:,} examples of {measured.split}")
    table = Table("metric", "value", "95 % interval")
    for name, value in measured.metrics.items():
        interval = measured.intervals[name]
        between = "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
        table.add_row(name, "undefined" if value is None else f"{value:.4f}", between)
    Console().print(table)


@app.command()
def predict(
    target: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="As for evaluate.")],
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A csv, json, jsonl or parquet file with the text columns.")
    ],
    overrides: Overrides = None,
    recipe: Annotated[str | None, typer.Option(help="Names the columns, for a checkpoint that is no run.")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON lines go here. [default: standard output]")] = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Label the rows of a file: one JSON object a row, in the order of the file."""
    from hfpipe import display
    from hfpipe.pipeline import predict as run_predict

    if output is not None and not output.absolute().parent.is_dir():  # before the work, not after it
        raise RecipeError(f"no folder {str(output.parent)!r}", where="--output", fix="Make it first.")
    rows = run_predict(
        target,
        source,
        recipe=recipe,
        overrides=overrides or [],
        runs_dir=runs_dir,
        display=display.choose(silent=as_json),
    )
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if output is not None:
        output.write_text(lines, encoding="utf-8")
    if as_json:
        shown = {} if output is not None else {"predictions": rows}
        _print_json({"target": target, "examples": len(rows), "output": output and str(output), **shown})
    elif output is None:
        print(lines, end="")


@app.command()
def compare(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,...", help="A field and its values. Several make a grid."),
    ] = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Train variants of a recipe from one seed, and say where and how far they part."""
    from hfpipe import display
    from hfpipe.comparison.compare import compare as run_comparison
    from hfpipe.comparison.grid import parse_vary
    from hfpipe.comparison.table import show

    comparison = run_comparison(
        recipe,
        parse_vary(vary or []),
        overrides=overrides or [],
        runs_dir=runs_dir,
        display=display.choose(silent=as_json),
    )
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    if as_json:
        _print_json(comparison.as_dict())
    else:
        show(comparison)


@app.command()
def data(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    examples: Annotated[int, typer.Option(help="Rows of the training split that are shown.")] = 3,
    as_json: Json = False,
) -> None:
    """Look at the data of a recipe without training: classes, lengths, truncation, repeated rows, leaks."""
    from hfpipe import display
    from hfpipe.pipeline import look_at_data

    title, audit, longer, shown = look_at_data(
        recipe, overrides=overrides or [], examples=examples, display=display.choose(silent=as_json)
    )
    if as_json:
        _print_json({"data": title, **audit.as_json(), "longer": longer, "examples": shown})
    else:
        from hfpipe.data_page import page

        print(page(title, audit, longer, shown))


@app.command()
def preprocess(recipe: RecipeArgument, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check and tokenize the data of a recipe, so that a later run starts from the cache."""
    from hfpipe import display
    from hfpipe.pipeline import preprocess as run_preprocess

    made = run_preprocess(recipe, overrides=overrides or [], display=display.choose(silent=as_json))
    if as_json:
        _print_json({"splits": made})
        return
    for split, about in made.items():
        seconds = about["seconds"]
        rate = "from the cache" if seconds is None else f"{about['rows'] / seconds:,.0f} rows a second"
        print(f"{split}: {about['rows']:,} rows, {rate}")


@app.command()
def peek(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A Hub id, a local folder, or a file.")],
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="The configuration, of several.")] = None,
    split: Annotated[str | None, typer.Option(help="Split. [default: the first]")] = None,
    rows: Annotated[int, typer.Option(min=0, help="How many rows.")] = 5,
    as_json: Json = False,
) -> None:
    """Show features, sizes and a few rows of a data set without downloading it."""
    from hfpipe import display
    from hfpipe.pipeline import peek as run_peek

    seen = run_peek(dataset, config, split=split, rows=rows, display=display.choose(silent=as_json))
    if as_json:
        _print_json(asdict(seen))
        return
    print(f"{dataset}{f' {seen.config}' if seen.config else ''} ({seen.source})")
    if len(seen.configs) > 1:
        print(f"configurations: {', '.join(seen.configs)}")
    sizes = (f"{name} {'?' if count is None else f'{count:,}'}" for name, count in seen.splits.items())
    print(f"rows: {', '.join(sizes)}")
    for name, kind in seen.features.items():
        print(f"  {name}: {kind}")
    for row in seen.rows:
        print(json.dumps(row, ensure_ascii=False, default=str))


@app.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="A YAML file, or the name of a shipped recipe.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check a recipe on this machine by measuring it, or without one the machine."""
    from hfpipe.doctor import examine, exit_code

    checks = examine(recipe, overrides=overrides or [], show=lambda check: None if as_json else print(check.line()))
    if as_json:
        _print_json({"checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]})
    raise typer.Exit(exit_code(checks))


@recipes_app.command("list")
def recipes_list(as_json: Json = False) -> None:
    """The shipped recipes."""
    from hfpipe.recipe import shipped

    found = {name: (shipped.header(name) or [""])[0] for name in shipped.names()}
    if as_json:
        _print_json({"recipes": [{"name": name, "about": about} for name, about in found.items()]})
        return
    width = max(map(len, found), default=0)
    for name, about in found.items():
        print(f"{name:<{width}}  {about}")


@recipes_app.command("show")
def recipes_show(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    resolved: Annotated[bool, typer.Option(help="Every field, as a run would record it.")] = False,
) -> None:
    """A recipe as it is written, or fully resolved."""
    from hfpipe.recipe import load_recipe, shipped, to_yaml

    if resolved or overrides:
        print(to_yaml(load_recipe(recipe, overrides or [])), end="")
    else:
        print(_read(shipped.find(recipe)), end="")


@recipes_app.command("copy")
def recipes_copy(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; never over a file that is there.")],
) -> None:
    """Copy a shipped recipe, to change it."""
    from hfpipe.recipe import shipped

    source = shipped.find(recipe)
    target = to / source.name if to.is_dir() else to
    try:
        with open(target, "x", encoding="utf-8") as file:
            file.write(_read(source))
    except FileExistsError:
        raise RecipeError("is there already", where=str(target), fix="Name another file.") from None
    except OSError as error:
        raise RecipeError(f"can't be written: {error.strerror}", where=str(target)) from None
    print(target)


@recipes_app.command("validate")
def recipes_validate(recipe: RecipeArgument, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check a recipe: every field, every part and its arguments, without data or weights."""
    from hfpipe.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from hfpipe.job import check_parts

    check_parts(loaded)
    if as_json:
        _print_json({"recipe": recipe, "valid": True})
    else:
        print(f"{recipe}: valid")


@recipes_app.command("schema")
def recipes_schema() -> None:
    """The JSON Schema of recipes, for editors."""
    from hfpipe.recipe.schema import json_schema

    _print_json(json_schema())


@runs_app.command("list")
def runs_list(runs_dir: RunsDir = None, as_json: Json = False) -> None:
    """The runs, newest first."""
    from hfpipe.runs import default_folder, list_runs

    folder = runs_dir or default_folder()
    rows: list[dict[str, Any]] = []
    for run in list_runs(folder):
        damaged = run.status == "damaged"
        about, metrics = ({}, {}) if damaged else (run.about, run.metrics)
        rows.append(
            {
                "id": run.id,
                "status": run.status,
                "engine": about.get("engine"),
                "started": about.get("started"),
                "metrics": metrics,
            }
        )
    if as_json:
        _print_json({"runs_dir": str(folder), "runs": rows})
        return
    from rich.console import Console
    from rich.table import Table

    from hfpipe.display import figures

    table = Table("run", "status", "engine", "started", "metrics")
    for row in rows:
        table.add_row(row["id"], row["status"], row["engine"], row["started"], figures(row["metrics"]))
    Console().print(table if rows else f"no runs in {folder}")


@runs_app.command("show")
def runs_show(
    run: Annotated[str, typer.Argument(metavar="RUN")], runs_dir: RunsDir = None, as_json: Json = False
) -> None:
    """What a run remembers."""
    from hfpipe.display import figures
    from hfpipe.recipe import to_yaml
    from hfpipe.runs import default_folder, find_run

    found = find_run(run, runs_dir or default_folder())
    about = found.about
    if as_json:
        _print_json(
            {"run": str(found.path), **about, "metrics": found.metrics, "recipe": found.recipe.model_dump(mode="json")}
        )
        return
    print(found.path)
    for key in ("status", "engine", "started", "ended", "device", "seed", "commit", "error"):
        if about.get(key) is not None:
            print(f"{key:<8} {about[key]}")
    if found.metrics:
        print(f"{'metrics':<8} {figures(found.metrics)}")
    print(f"\n{to_yaml(found.recipe)}", end="")


@runs_app.command("diff")
def runs_diff(
    first: Annotated[str, typer.Argument(metavar="RUN")],
    second: Annotated[str, typer.Argument(metavar="RUN")],
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """What differs between two runs: recipe, versions, machine, data, and the figures."""
    from hfpipe.runs import default_folder, find_run
    from hfpipe.runs.difference import difference

    folder = runs_dir or default_folder()
    rows = difference(find_run(first, folder), find_run(second, folder))
    if as_json:
        _print_json(
            {
                "first": first,
                "second": second,
                "differences": [{"path": p, "first": a, "second": b} for p, a, b in rows],
            }
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("what", first, second)
    for path, before, after in rows:
        table.add_row(path, str(before), str(after))
    Console().print(table if rows else "no difference")


@runs_app.command("delete")
def runs_delete(
    run: Annotated[str, typer.Argument(metavar="RUN")],
    runs_dir: RunsDir = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a run and everything in its folder."""
    from hfpipe.runs import default_folder, delete_run, find_run

    found = find_run(run, runs_dir or default_folder())
    if not yes:
        if not sys.stdin.isatty():
            raise RecipeError("nobody can be asked here", where=f"delete {found.id}", fix="Say --yes.")
        typer.confirm(f"Delete {found.path}?", abort=True, err=True)
    delete_run(found)
    if as_json:
        _print_json({"deleted": str(found.path)})
    else:
        print(f"deleted {found.path}")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _print_json(content: Any) -> None:
    from hfpipe.runs.store import finite

    print(json.dumps(finite(content), indent=2, ensure_ascii=False))


# A wrong option or a missing argument. Some releases of typer bring their own copy of click, where this class is.
_USAGE_ERRORS: tuple[Any, ...] = tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """Run a command, tell an error in one paragraph, and leave with its exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(args=arguments, prog_name="hfpipe", standalone_mode=False)
        if code == StoppedByUser.exit_code:  # typer's own answer to Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code)
    except (KeyboardInterrupt, typer.Abort):
        _leave(StoppedByUser("stopped by the user"), arguments, debug)
    except HfpipeError as error:
        _leave(error, arguments, debug)
    except OSError as error:
        from hfpipe.machine import as_machine_error

        _leave(as_machine_error(error), arguments, debug)
    except Exception as error:  # noqa: BLE001 - the last resort: a fault of hfpipe itself, told without a traceback
        if isinstance(error, _USAGE_ERRORS):
            error.show()  # with the usage above it
            if "--json" in arguments:
                _print_json({"error": error.format_message(), "exit_code": error.exit_code})
            sys.exit(error.exit_code)
        fault = HfpipeError(
            f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
            where="unexpected",
            fix="This is a fault in hfpipe; --debug shows where, and the run's log.txt has it too.",
        )
        _leave(fault, arguments, debug, error)


def _leave(error: HfpipeError, arguments: list[str], debug: bool, cause: BaseException | None = None) -> None:
    if debug:
        import traceback

        traceback.print_exception(cause or error)
    print(error, file=sys.stderr)
    if "--json" in arguments:
        _print_json({"error": str(error), "exit_code": error.exit_code})
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

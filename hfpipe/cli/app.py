"""The commands. Thin: each reads its options, calls a function of the package, and prints what it returns.

Results go to standard output, progress and messages to standard error. Whatever is heavy is imported inside a command.
"""

from __future__ import annotations

import json
import os
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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; notices go to standard error.")]


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
    seeds: Annotated[
        str | None, typer.Option(metavar="N|A,B,...", help="Train from several seeds: how many, or which.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN|GROUP", help="Go on with a run or group that was stopped.")
    ] = None,
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
    from hfpipe.recipe import load_recipe
    from hfpipe.system import display
    from hfpipe.training.finetune import finetune as run_finetune

    changes = list(overrides or [])
    if resume is not None and recipe is not None and "=" in recipe:
        changes, recipe = [recipe, *changes], None
    if seeds is not None or (resume is not None and _is_group(resume, runs_dir)):
        of_one_run = {
            "--allow-change": allow_change,
            "--reset-optimizer": reset_optimizer,
            "--use-previous": use_previous,
            "--max-minutes": max_minutes is not None,
        }
        for option, given in of_one_run.items():
            if given:
                raise RecipeError("is for one run, not for a group of seeds", where=option)
        _finetune_seeds(recipe, seeds, changes, engine, runs_dir, name, resume, as_json)
        return
    resolved = None
    if recipe is not None:  # a mistake in the recipe is told before anything heavy is imported
        resolved = load_recipe(recipe, [*changes, *([f"engine={engine}"] if engine else [])])
    run = run_finetune(
        resolved,
        overrides=changes if resolved is None else (),
        engine=engine if resolved is None else None,
        runs_dir=runs_dir,
        name=name,
        display=display.choose(quiet=as_json),
        resume=resume,
        allow_change=allow_change or (),
        reset_optimizer=reset_optimizer,
        use_previous=use_previous,
        max_minutes=max_minutes,
    )
    if os.environ.get("RANK", "0") != "0":  # one process speaks for all
        return
    summary, early = run.read_json("metrics.json"), run.metadata.get("stopped_early")
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
                "stopped_early": early,
                "examples_per_second": summary["examples_per_second"],
            }
        )
        return
    print(f"{run.path}")
    if summary["metrics"]:
        print(f"{display.figures(summary['metrics'])}  on {summary['examples']:,} examples of {summary['split']}")
    for split, metrics in summary.get("also", {}).items():
        print(f"{display.figures(metrics)}  on {split}")
    share = summary.get("padding_share")
    padding = "" if share is None else f", {share:.1%} padding"
    of = f" of {early['of']:,}" if early else ""
    print(
        f"{summary['steps']:,}{of} steps in {display.duration(summary['seconds'])}, "
        f"{summary['examples_per_second']:.1f} examples/s (training only){padding}"
    )


def _is_group(name: str, runs_dir: Path | None) -> bool:
    from hfpipe.runs import default_folder
    from hfpipe.runs.groups import is_group

    return is_group(Path(name).expanduser()) or is_group((runs_dir or default_folder()) / name)


def _finetune_seeds(
    recipe: str | None,
    seeds: str | None,
    overrides: list[str],
    engine: str | None,
    runs_dir: Path | None,
    name: str | None,
    resume: str | None,
    as_json: bool,
) -> None:
    from hfpipe.experiments.seeds import finetune_seeds, parse_seeds
    from hfpipe.reports.terminal import seeds as seeds_page
    from hfpipe.system import display

    group = finetune_seeds(
        recipe,
        seeds=None if seeds is None else parse_seeds(seeds),
        overrides=overrides,
        engine=engine,
        runs_dir=runs_dir,
        name=name,
        resume=resume,
        display=display.choose(quiet=as_json),
    )
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    if as_json:
        _print_json(seeds_page.as_json(group))
    else:
        seeds_page.show(group)


@app.command()
def evaluate(
    target: Annotated[
        str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run (folder or id), a checkpoint folder, or a Hub id.")
    ],
    overrides: Overrides = None,
    recipe: Annotated[str | None, typer.Option(help="Data and task, for a checkpoint that is no run.")] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Split or slice; may be given several times. [default: the recipe's evaluation split]"),
    ] = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Measure a run or a checkpoint: every figure with its 95 % interval and a baseline, the classes, the slices."""
    from hfpipe.evaluation.evaluate import evaluate as run_evaluate
    from hfpipe.system import display

    measured = run_evaluate(
        target,
        recipe=recipe,
        overrides=overrides or [],
        split=split or None,
        runs_dir=runs_dir,
        display=display.choose(quiet=as_json),
    )
    from accelerate import PartialState

    if not PartialState().is_main_process:  # one process speaks for all
        return
    if as_json:
        _print_json(measured.as_dict())
        return
    from hfpipe.reports.terminal.evaluation import show

    for one in (measured, *measured.also):
        show(one.document)


@app.command()
def predict(
    target: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="As for evaluate.")],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A csv, tsv, json, jsonl, parquet or txt file with the text columns, or - for standard input.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    recipe: Annotated[str | None, typer.Option(help="Names the columns, for a checkpoint that is no run.")] = None,
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
            metavar="COLUMN[,COLUMN...]", help="Columns of INPUT to copy into every row; may be given several times."
        ),
    ] = None,
    chunk: Annotated[int, typer.Option(help="Rows in memory at most; 1 labels each row as it comes.")] = 1024,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there.")] = False,
    glue: Annotated[
        bool, typer.Option("--glue", help="Label the test sets of the run's own GLUE data, for the GLUE server.")
    ] = False,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Label the rows of a file: one JSON object a row, in the order of the file. The same command goes on after a stop."""
    from hfpipe.evaluation.prediction import predict as pipeline
    from hfpipe.system import display

    shown = display.choose(quiet=as_json)
    if glue:
        if source is not None and "=" not in source:
            raise RecipeError(
                f"{source!r}", where="INPUT", fix="--glue labels the run's own test sets: leave INPUT out."
            )
        idle = {"--recipe": recipe, "--format": output_format, "--input-format": input_format, "--keep": keep}
        for option, value in idle.items():
            if value is not None:
                raise RecipeError(f"{option} does nothing with --glue", where=option, fix="Leave it out.")
        folder, changes = output or Path("glue"), [*([source] if source else []), *(overrides or [])]
        files = pipeline.predict_glue(
            target, folder, overwrite=overwrite, overrides=changes, runs_dir=runs_dir, display=shown
        )
        if as_json:
            _print_json({"target": target, "output": str(folder), "files": files})
        for name, rows in {} if as_json else files.items():
            print(f"{folder / name}: {rows:,} rows")
        return
    if source is None:
        raise RecipeError("INPUT is missing", where="predict", fix="Name a file, say - for standard input, or --glue.")
    options: dict[str, Any] = {
        "input_format": input_format,
        "chunk_rows": chunk,
        "keep": list(dict.fromkeys(name for names in keep or [] for name in names.split(","))),
        "recipe": recipe,
        "overrides": overrides or [],
        "runs_dir": runs_dir,
        "display": shown,
    }
    if output is not None:
        made = pipeline.predict_file(
            target, source, output, output_format=output_format, overwrite=overwrite, **options
        )
        if as_json:
            _print_json({"target": target, **asdict(made), "output": str(made.output)})
        else:
            print(f"{made.output}: {made.examples:,} rows, {made.examples_per_second:,.1f} a second")
        return
    if output_format not in (None, "jsonl"):
        raise RecipeError(f"{output_format!r} on standard output", where="--format", fix="Name a file with --output.")
    if as_json:
        predictions = pipeline.predict(target, source, **options)
        _print_json({"target": target, "examples": len(predictions), "output": None, "predictions": predictions})
        return
    count = 0
    for rows_of_chunk in pipeline.predict_chunks(target, source, **options):
        _stream("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of_chunk))
        count += len(rows_of_chunk)
    if not count:
        shown.say(f"{'standard input' if source == '-' else source} has no rows")


@app.command("glue-zip")
def glue_zip(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `predict --glue` wrote, of all the sets.")],
    output: Annotated[Path | None, typer.Option(help="The zip. [default: submission.zip in DIR]")] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Refuse while one of the eleven files is missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the files for the GLUE server and pack them; the same files give the same zip."""
    from hfpipe.evaluation.prediction.glue import pack

    packed = pack(folder, output, complete=complete)
    if as_json:
        _print_json({**asdict(packed), "output": str(packed.output)})
        return
    if packed.missing:
        wants = "the server refuses a zip without them; its sample submission has files to put in their place"
        print(f"warning: not in the zip: {', '.join(packed.missing)}; {wants}", file=sys.stderr)
    print(f"{packed.output}: {', '.join(packed.files)}")


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
    from hfpipe.parts.inputs.preview import look_at_data
    from hfpipe.system import display

    title, audit, longer, shown = look_at_data(
        recipe, overrides=overrides or [], examples=examples, display=display.choose(quiet=as_json)
    )
    if as_json:
        _print_json({"data": title, **audit.as_json(), "longer": longer, "examples": shown})
    else:
        from hfpipe.reports.terminal.data import page

        print(page(title, audit, longer, shown))


@app.command()
def preprocess(recipe: RecipeArgument, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check and tokenize the data of a recipe, so that a later run starts from the cache."""
    from hfpipe.parts.inputs.preview import preprocess as run_preprocess
    from hfpipe.system import display

    made = run_preprocess(recipe, overrides=overrides or [], display=display.choose(quiet=as_json))
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
    from hfpipe.parts.inputs.preview import peek as run_peek
    from hfpipe.system import display

    seen = run_peek(dataset, config, split=split, rows=rows, display=display.choose(quiet=as_json))
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
def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run: its folder, its id, or the start of its id.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="NAME/REPOSITORY on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it. [default: private]")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="A branch. [default: the main one]")] = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Upload the model of a run to the Hub, privately, after showing the files."""
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
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise RecipeError("nobody can be asked here", where=f"push {found.id}", fix="Say --yes.")
        typer.confirm("Upload them?", abort=True, err=True)
    done = run_push(found, repo, public=public, revision=revision, say=display.choose(quiet=as_json).say)
    if as_json:
        _print_json({"run": str(found.path), **asdict(done)})
    else:
        print(done.url)


@app.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="A YAML file, or the name of a shipped recipe.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check a recipe on this machine by measuring it, or without one the machine."""
    from hfpipe.experiments.doctor import examine, exit_code

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
            file.write(shipped.copied(source))
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
    from hfpipe.parts.build import check_parts

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
def runs_list(
    runs_dir: RunsDir = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of the recipe of that name.")] = None,
    status: Annotated[str | None, typer.Option(help="Only runs with that status: finished, failed, died, ...")] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Started then or later: a date, 7d, 12h.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="Started no later: a date, 7d, 12h.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="No more than that, of the newest.")] = None,
    as_json: Json = False,
) -> None:
    """The runs, newest first."""
    from hfpipe.reports.terminal import runs as runs_page
    from hfpipe.runs import default_folder, listing

    folder = runs_dir or default_folder()
    rows = listing.table(folder, recipe=recipe, status=status, since=since, until=until, limit=limit)
    if as_json:
        _print_json({"runs_dir": str(folder), "runs": rows})
    elif rows:
        runs_page.print_table(rows)
    else:
        print(runs_page.none_there(folder, recipe, filtered=bool(recipe or status or since or until)))


@runs_app.command("show")
def runs_show(
    run: Annotated[
        str, typer.Argument(metavar="RUN|GROUP", help="A run or a group: its folder, its id, or the start of its id.")
    ],
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """What a run remembers, or what the seeds of a group say together."""
    from hfpipe.reports.terminal import runs as runs_page
    from hfpipe.reports.terminal import seeds as seeds_page
    from hfpipe.runs import default_folder
    from hfpipe.runs.groups import Group, find_run_or_group
    from hfpipe.system import display

    found = find_run_or_group(run, runs_dir or default_folder())
    if isinstance(found, Group):
        if not found.summary:
            raise RecipeError(
                f"the group {found.id!r} is {found.status}: its seeds say nothing together yet",
                where=str(found.path),
                fix=f"`hfpipe finetune --resume {found.path}` goes on with it.",
            )
        if as_json:
            _print_json(seeds_page.as_json(found))
        else:
            seeds_page.show(found)
        return
    about = runs_page.everything(found)
    runs_page.tell_broken(found, display.choose(quiet=as_json).say)
    if as_json:
        _print_json(about)
    else:
        print(runs_page.page(found, about), end="")


@runs_app.command("diff")
def runs_diff(
    first: Annotated[
        str, typer.Argument(metavar="RUN|GROUP", help="A run or a group: its folder, its id, or the start of its id.")
    ],
    second: Annotated[
        str, typer.Argument(metavar="RUN|GROUP", help="A run or a group: its folder, its id, or the start of its id.")
    ],
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """What differs: recipe, versions, machine, data; and the figures, told apart from chance where that can be done."""
    from hfpipe.experiments.diff.evaluations import compare_evaluations
    from hfpipe.runs import default_folder
    from hfpipe.runs.difference import difference
    from hfpipe.runs.groups import find_run_or_group

    folder = runs_dir or default_folder()
    sides = find_run_or_group(first, folder), find_run_or_group(second, folder)
    rows = difference(*sides)
    compared = compare_evaluations(*sides, (first, second))
    if as_json:
        _print_json(
            {
                "first": first,
                "second": second,
                "differences": [{"path": p, "first": a, "second": b} for p, a, b in rows],
                **compared,
            }
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("what", first, second)
    for path, before, after in rows:
        table.add_row(path, str(before), str(after))
    console = Console(highlight=False, markup=False)
    console.print(table if rows else "no difference")
    for one in compared["comparisons"]:
        console.print(f"\n{one['text'] or one['split']}", soft_wrap=True)
        for row in one["metrics"]:
            console.print(row["text"], soft_wrap=True)
    for notice in compared["notices"]:
        console.print(f"\nnote: {notice}", soft_wrap=True)


@runs_app.command("report")
def runs_report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run: its folder, its id, or the start of its id.")],
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Write report.html of a run anew, with the evaluations made since."""
    from hfpipe.reports import write_report
    from hfpipe.runs import default_folder, find_run

    found = find_run(run, runs_dir or default_folder())
    write_report(found)
    if as_json:
        _print_json({"run": str(found.path), "report": str(found.path / "report.html")})
    else:
        print(found.path / "report.html")


@runs_app.command("delete")
def runs_delete(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN|GROUP...", help="Runs and groups: their folders, ids, or the starts of their ids."),
    ],
    runs_dir: RunsDir = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete runs and groups with everything in their folders; none of them when one is running or not there."""
    from hfpipe.runs import default_folder, delete_run
    from hfpipe.runs.groups import Group, delete_group, find_run_or_group, require_group_not_running
    from hfpipe.runs.store import require_not_running

    named = [find_run_or_group(run, runs_dir or default_folder()) for run in runs]
    found = list({run.path: run for run in named}.values())
    for run in found:
        require_group_not_running(run) if isinstance(run, Group) else require_not_running(run)
    if not yes:
        if not sys.stdin.isatty():
            raise RecipeError(
                "nobody can be asked here", where=f"delete {' '.join(run.id for run in found)}", fix="Say --yes."
            )
        typer.confirm(f"Delete {', '.join(str(run.path) for run in found)}?", abort=True, err=True)
    for run in found:
        delete_group(run) if isinstance(run, Group) else delete_run(run)
        if not as_json:
            print(f"deleted {run.path}")
    if as_json:
        _print_json({"deleted": [str(run.path) for run in found]})


@runs_app.command("reproduce")
def runs_reproduce(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run: its folder, its id, or the start of its id.")],
    runs_dir: RunsDir = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Train also when data, checkpoint, tokenizer or recipe are not the same.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a run again from its recorded recipe, and say whether the weights came out equal."""
    from hfpipe.errors import NumericError
    from hfpipe.experiments.reproduce import reproduce
    from hfpipe.system import display

    shown = display.choose(quiet=as_json)
    outcome = reproduce(run, runs_dir=runs_dir, anyway=anyway, display=shown)
    if as_json:
        _print_json(outcome.as_dict())
    else:
        print("\n".join(outcome.lines()))
    if not outcome.equal:
        raise typer.Exit(NumericError.exit_code)


@runs_app.command("export")
def runs_export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run: its folder, its id, or the start of its id.")],
    to: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Write a folder ready for `from_pretrained` or upload: the model, its card, recipe.yaml and metrics.json."""
    from hfpipe.sharing.export import export
    from hfpipe.system import display

    shown = display.choose(quiet=as_json)
    exported = export(run, to, runs_dir=runs_dir, display=shown)
    if as_json:
        _print_json(asdict(exported))
        return
    print(exported.folder)
    for name in exported.files:
        print(f"  {name}")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _stream(text: str) -> None:
    """Write to standard output now; whoever reads it may have enough, as `head` has."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise typer.Exit from None


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
        from hfpipe.system.machine import as_machine_error

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

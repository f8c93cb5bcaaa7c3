"""`hfpipe finetune`: one training, or several seeds of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hfpipe.cli import completion
from hfpipe.cli.options import Checkpoint, Json, LabelColumns, Overrides, RunsDir, TaskKind, TextColumns, with_options
from hfpipe.cli.output import answer
from hfpipe.errors import RecipeError
from hfpipe.system.display import NOTE

if TYPE_CHECKING:
    from hfpipe.runs import Run
    from hfpipe.system.display import Display


def finetune(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE|DATA",
            help="A YAML file, a shipped recipe, or data to make one for: a file or folder. Not needed with --resume.",
            autocompletion=completion.recipes_or_data,
        ),
    ] = None,
    overrides: Overrides = None,
    text: TextColumns = None,
    label: LabelColumns = None,
    kind: TaskKind = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data: train.epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate: optimizer.lr.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a micro-batch: train.batch_size.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and dropout: seed.")] = None,
    checkpoint: Checkpoint = None,
    engine: Annotated[
        str | None,
        typer.Option(help="trainer, loop, or module:attribute.", autocompletion=completion.one_of("engine")),
    ] = None,
    runs_dir: RunsDir = None,
    name: Annotated[str | None, typer.Option(help="Id of the run. [default: the recipe's name and the time]")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N|A,B,...", help="Train from several seeds: how many, or which.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|GROUP",
            help="Go on with a run or group that was stopped.",
            autocompletion=completion.runs_or_groups,
        ),
    ] = None,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="With --resume: what may differ from before, such as optimizer.lr. Can be given several times.",
        ),
    ] = None,
    reset_optimizer: Annotated[
        bool, typer.Option("--reset-optimizer", help="With --resume: start with a fresh optimizer state.")
    ] = False,
    use_previous: Annotated[
        bool,
        typer.Option(
            "--use-previous", help="With --resume: if the newest checkpoint is damaged, go on from the one before it."
        ),
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Save and stop before this many minutes are over.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a checkpoint as a recipe says, or on your data.

    For data, such as a csv file, a recipe is made and said: `hfpipe recipes new` writes it to a file. With --resume a run
    that was stopped goes on. An option that names a field, such as train.epochs, sets it.
    """
    changes = list(overrides or [])
    if resume is not None and recipe is not None and "=" in recipe:
        changes, recipe = [recipe, *changes], None
    changes = with_options(
        changes, text=text, label=label, kind=kind, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed,
        checkpoint=checkpoint,
    )  # fmt: skip
    from hfpipe.recipe.shipped import looks_like_data
    from hfpipe.system import display

    shown = display.choose(quiet=as_json)
    source: Any = recipe
    is_data = recipe is not None and (looks_like_data(recipe) or _is_said_to_be_data(recipe, changes))
    if recipe is not None and resume is None and is_data:
        source, changes = _from_data(recipe, changes, shown), []
    of_one_run: dict[str, Any] = {
        "allow_change": allow_change or (),
        "reset_optimizer": reset_optimizer,
        "use_previous": use_previous,
        "max_minutes": max_minutes,
    }
    options: dict[str, Any] = {
        "overrides": changes,
        "engine": engine,
        "runs_dir": runs_dir,
        "name": name,
        "resume": resume,
    }
    if seeds is not None and seed is not None:
        raise RecipeError("one seed, and --seeds several", where="--seed", fix="Say one of the two.")
    if seeds is not None or (resume is not None and _is_group(resume, runs_dir)):
        for option, given in of_one_run.items():
            if given is not None and given is not False and given != ():
                raise RecipeError("is for one run, not for a group of seeds", where=f"--{option.replace('_', '-')}")
        _finetune_seeds(source, seeds, options, as_json)
        return
    from hfpipe.training.finetune import finetune as run_finetune

    run = run_finetune(source, **options, **of_one_run, display=shown)
    answer(as_json, lambda: _document(run), lambda: _print_page(run))


def _is_said_to_be_data(source: str, changes: list[str]) -> bool:
    """Whether the format of a file is said with it, whatever its ending."""
    is_said = any(one.startswith("dataset.path=") for one in changes)
    return is_said and Path(source).suffix not in (".yaml", ".yml") and Path(source).is_file()


def _from_data(source: str, changes: list[str], display: Display) -> dict[str, Any]:
    """The fields of a recipe for data, with what was guessed said."""
    from hfpipe.parts.tasks.draft import draft_recipe
    from hfpipe.runs.targets import quiet
    from hfpipe.system.machine import translated_errors

    with quiet(), translated_errors():
        draft = draft_recipe(source, overrides=changes, notice=display.notice)
    for line in draft.lines():
        display.notice(f"{NOTE}{line}")
    return dict(draft.fields)


def _is_group(name: str, runs_dir: Path | None) -> bool:
    from hfpipe.runs import default_folder
    from hfpipe.runs.groups import is_group

    return is_group(Path(name).expanduser()) or is_group((runs_dir or default_folder()) / name)


def _finetune_seeds(recipe: Any, seeds: str | None, options: dict[str, Any], as_json: bool) -> None:
    from hfpipe.experiments.seeds import finetune_seeds, parse_seeds
    from hfpipe.reports.terminal import seeds as seeds_page
    from hfpipe.system import display

    which = None if seeds is None else parse_seeds(seeds)
    group = finetune_seeds(recipe, seeds=which, **options, display=display.choose(quiet=as_json))
    answer(as_json, lambda: seeds_page.as_json(group), lambda: seeds_page.show(group))


def _document(run: Run) -> dict[str, Any]:
    from hfpipe.reports.wording import own_evaluation

    summary = run.read_json("metrics.json")
    return {
        "run": str(run.path),
        "status": run.status,
        "engine": run.recipe.engine,
        "metrics": summary["metrics"],
        **({"also": summary["also"]} if "also" in summary else {}),
        "split": summary["split"],
        "examples": summary["examples"],
        "steps": summary["steps"],
        "stopped_early": run.metadata.get("stopped_early"),
        "examples_per_second": summary["examples_per_second"],
        "intervals": summary["intervals"],
        "baseline": own_evaluation(run).get("baseline"),
        **({"leak": summary["leak"]} if "leak" in summary else {}),
        "report": str(run.path / "report.html"),
    }


def _print_page(run: Run) -> None:
    from hfpipe.reports.wording import own_evaluation, result
    from hfpipe.system.display import duration, metrics_line

    summary, early = run.read_json("metrics.json"), run.metadata.get("stopped_early")
    print(run.path)
    if summary["metrics"]:
        print(f"{metrics_line(summary['metrics'])}  on {summary['examples']:,} examples of {summary['split']}")
    if main := result(own_evaluation(run), run.recipe.evaluate.best):
        print(f"{main['name']}: {' '.join(main['sentences'])}")
    for split, metrics in summary.get("also", {}).items():
        print(f"{metrics_line(metrics)}  on {split}")
    share = summary.get("padding_share")
    padding = "" if share is None else f", {share:.1%} padding"
    of = f" of {early['of']:,}" if early else ""
    print(
        f"{summary['steps']:,}{of} steps in {duration(summary['seconds'])}, "
        f"{summary['examples_per_second']:.1f} examples/s (training only){padding}"
    )
    if (run.path / "report.html").is_file():
        print(f"report: {run.path / 'report.html'}")

"""What a command names: a recipe, a run, a checkpoint; and whether the Hub is needed for it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe import Recipe, load_recipe, with_overrides
from hfpipe.runs.model_files import model_folder, require_own_files
from hfpipe.runs.store import Run, default_folder, find_run, require_no_group
from hfpipe.system.display import NOTE, Display

# Other data than the recipe's own, of which nothing is set aside and nothing fitted.
OTHER_SPLITS = (
    "dataset.splits={train: train, evaluation: null}",
    "evaluate.calibrate=null",
    "evaluate.threshold=null",
    "evaluate.slices=[]",
)

Names = str | Sequence[str] | None

# Other files than the recipe's own: how those are written says nothing of these.
OTHER_FILES = (
    "dataset.encoding=utf-8",
    "dataset.separator=null",
    "dataset.quote='\"'",
    "dataset.field=null",
    "dataset.columns=null",
)

_OF_A_TRAINING = ("name", "optimizer", "schedule", "train", "checkpoints", "engine", "tracking", "trainer")


def with_checkpoint(
    target: Run | str | Path,
    name: str,
    recipe: Recipe | str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str],
    runs_dir: str | Path | None,
) -> tuple[Run | None, Recipe]:
    """The run, if the target is one, and its recipe or the given one with the weights of the target as its checkpoint."""
    run = target if isinstance(target, Run) else _run_named(name, runs_dir, must=recipe is None)
    if run is not None:
        base = run.recipe if recipe is None else as_recipe(recipe, ())
        folder = model_folder(run)
        require_own_files(run, folder)
        checkpoint = str(folder)
    else:
        assert recipe is not None
        base, checkpoint = as_recipe(recipe, ()), name
        if name.count("/") > 1 and Path(name).is_dir() and not Path(name).is_absolute():
            checkpoint = os.path.abspath(name)  # `runs/mrpc-1/model`: no Hub id has two slashes
    fixed = [f"model.checkpoint={quoted(checkpoint)}", "model.revision=null", "model.fresh=[]"]
    if base.dataset.splits.hold_out is not None and any(
        change.startswith(("dataset=", "dataset.path=", "dataset.data_files=")) for change in overrides
    ):
        fixed += OTHER_SPLITS  # of other data no row was held out
    source = f"run {run.id!r}" if run is not None else "RUN|CHECKPOINT"
    resolved = with_overrides(with_overrides(base, fixed, source), overrides)
    require_effect(overrides)
    return run, resolved


def rows_of_file(recipe: Recipe, form: str, file: Path | None) -> list[str]:
    """The overrides by which a recipe reads a file instead of its data, as the split `train`.

    Args:
        recipe: with data of its own.
        form: of the file, as `dataset.path` has it.
        file: None for rows that do not come from a file.
    """
    data = "null" if file is None else quoted(str(file.expanduser().absolute()))
    changes = [f"dataset.path={form}", f"dataset.data_files={data}", "dataset.name=null", "dataset.revision=null"]
    changes += OTHER_SPLITS
    if recipe.dataset.streaming:
        changes += ["dataset.streaming=false", "dataset.shuffle_buffer=10000"]
    if recipe.dataset.path != form:
        changes += OTHER_FILES
    return changes


def columns_of_file(recipe: Recipe, text: Names = None, label: Names = None, choices: Names = None) -> list[str]:
    """The overrides by which a recipe reads other columns; what it says of the classes stays.

    Args:
        recipe: with columns of its own.
        text: the columns of texts, None for those of the recipe.
        label: the column or columns to learn, None for those of the recipe.
        choices: the columns of the choices, None for those of the recipe.
    """
    listed = {"text": text, "choices": choices}
    changes = [f"task.{field}={json.dumps(_names(given))}" for field, given in listed.items() if given]
    if label:
        column: Any = _names(label)
        column = column[0] if len(column) == 1 else column
        declared = recipe.task.model_dump(mode="json")["label"]
        changes.append(
            f"task.label={json.dumps({**declared, 'column': column} if isinstance(declared, dict) else column)}"
        )
    return changes


def _names(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def require_effect(overrides: Sequence[str]) -> None:
    """Refuse overrides of what only a training reads.

    Raises:
        RecipeError: with the first of them.
    """
    for change in overrides:
        path = change.partition("=")[0].strip()
        if path.partition(".")[0] in _OF_A_TRAINING and path not in ("train", "train.precision", "train.kernels"):
            instead = (
                "evaluate.batch_size is the one that is read here." if path == "train.batch_size" else "Leave it out."
            )
            raise RecipeError(
                f"{path} does nothing where nothing is trained", where=f"override {change!r}", fix=instead
            )


def quoted(text: str) -> str:
    """A text as the value of an override."""
    return json.dumps(text, ensure_ascii=False)  # as YAML reads it too


def _run_named(name: str, runs_dir: str | Path | None, *, must: bool) -> Run | None:
    try:
        found = find_run(name, Path(runs_dir) if runs_dir else default_folder())
        is_exact = found.id == name or (Path(name).expanduser() / "run.json").is_file()
        # With a recipe the name may be a checkpoint's, which is no abbreviation of a run id.
        return found if must or is_exact else None
    except RecipeError as error:
        if not must:
            return None
        require_no_group(name, Path(runs_dir) if runs_dir else default_folder())
        if Path(name).expanduser().is_dir():
            raise RecipeError(
                f"{name!r} is a folder but no run", fix="For a checkpoint, say which data: --recipe RECIPE."
            ) from None
        fix = "For a checkpoint, say which data: --recipe RECIPE."
        raise RecipeError(error.what, where=error.where, allowed=error.allowed, fix=fix) from None


def as_recipe(recipe: Recipe | str | Path | Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    """A recipe, or what `load_recipe` takes, with overrides."""
    if isinstance(recipe, Recipe):
        return with_overrides(recipe, overrides) if overrides else recipe
    return load_recipe(recipe, overrides)


def reach_hub(recipe: Recipe, display: Display) -> None:
    """Find out whether the Hub answers, if the recipe needs it, before any library that would ask it is imported.

    Without an answer the libraries keep to the local cache, where they would else retry for minutes at every file.

    Args:
        recipe: its checkpoint, data set and metrics say whether anything comes from the Hub.
        display: gets a notice when the Hub doesn't answer.
    """
    from hfpipe.system import hub

    needed = [recipe.model.checkpoint]
    if recipe.dataset.data_files is None:  # which go with a format, not with an id
        needed.append(recipe.dataset.path)
    names = [metric if isinstance(metric, str) else str(metric.get("name")) for metric in recipe.evaluate.metrics]
    asks = any(not hub.is_local(path) and not path.startswith("embedded:") for path in needed)
    if asks or any(name.startswith("evaluate:") for name in names):
        hub.detect_offline(lambda text: display.notice(f"{NOTE}{text}"))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the libraries print off the terminal, in a command that leaves no run behind."""
    from hfpipe.system import library_logs

    with (
        tempfile.TemporaryDirectory(prefix="hfpipe-") as folder,
        library_logs.library_logs_to(Path(folder) / "log.txt"),
    ):
        yield

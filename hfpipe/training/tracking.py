"""Trackers that receive the records of a run, through accelerate's own classes for them: the same keys from both engines."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from hfpipe.errors import MachineError
from hfpipe.recipe import Recipe
from hfpipe.runs import Run
from hfpipe.system.display import NOTE, Display
from hfpipe.system.redaction import redact
from hfpipe.system.text import json_line, listed

# The names that transformers' integrations give the same metrics, so that runs of both lie in one chart.
_STEP_KEYS = {"loss": "train/loss", "grad_norm": "train/grad_norm", "lr": "train/learning_rate", "epoch": "train/epoch"}
# accelerate's class, and what its import needs beside the package itself.
_CLASSES = {
    "trackio": "TrackioTracker",
    "tensorboard": "TensorBoardTracker",
    "wandb": "WandBTracker",
    "mlflow": "MLflowTracker",
}
# What would send trackio's data to a Space or a server.
_TRACKIO_ELSEWHERE = ("SPACE_ID", "SERVER_URL", "WRITE_TOKEN", "DATASET_ID", "BUCKET_ID", "WEBHOOK_URL")


def require_installed(recipe: Recipe) -> None:
    """Refuse a tracker whose library is not here, before any data are read.

    Raises:
        MachineError: with the line that installs all that are missing.
    """
    missing = [name for name in recipe.tracking if importlib.util.find_spec(name) is None]
    if missing:
        raise MachineError(
            f"not installed: {listed(missing)}",
            where=recipe.where("tracking"),
            fix=f"pip install {' '.join(missing)}",
        )


def values_of(record: Mapping[str, Any]) -> dict[str, float]:
    """What the trackers receive of a record: names to numbers; nothing of a notice or of an undefined metric."""
    if record["type"] == "step":
        named = {key: record.get(name) for name, key in _STEP_KEYS.items()}
    elif record["type"] == "evaluation":
        named = {f"eval/{name}": value for name, value in record["metrics"].items()}
        named["train/epoch"] = record["epoch"]
    else:
        return {}
    return {key: float(value) for key, value in named.items() if value is not None}


def configuration(recipe: Recipe) -> dict[str, bool | int | float | str | None]:
    """The resolved recipe as one flat mapping of dotted paths; without secrets, the user's home folder as `~`."""
    flat: dict[str, bool | int | float | str | None] = {}

    def add(path: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, part in value.items():
                add(f"{path}.{key}".lstrip("."), part)
        elif isinstance(value, str):
            flat[path] = redact(value)
        elif isinstance(value, list | dict):
            flat[path] = redact(json_line(value))
        else:
            flat[path] = value

    add("", recipe.model_dump(mode="json"))
    return flat


class Tracked:
    """A display that sends the trackers what it is shown; they start when the training does.

    Args:
        display: is shown everything as before.
        run: under whose `tracking/` all of it lands.
        recipe: says which trackers.
        stack: closes them.
    """

    def __init__(self, display: Display, run: Run, recipe: Recipe, stack: ExitStack) -> None:
        self.display, self.run, self.recipe, self.stack = display, run, recipe, stack
        self.trackers: list[Any] = []

    def notice(self, text: str) -> None:
        """Only for the display."""
        self.display.notice(text)

    def start(self, num_steps: int) -> None:
        """Start the trackers, and give them the recipe."""
        for name in self.recipe.tracking:
            self.trackers.append(self.stack.enter_context(_started(name, self.run, self.recipe)))
        self.display.start(num_steps)

    def record(self, record: Mapping[str, Any]) -> None:
        """Send the metrics of a step or an evaluation."""
        values = values_of(record)
        if values:
            for tracker in self.trackers:
                tracker.log(values, step=record["step"])
        self.display.record(record)

    def close(self) -> None:
        """The display closes with the training; an evaluation may still come for the trackers."""
        self.display.close()


@contextmanager
def tracked(run: Run, recipe: Recipe, display: Display, *, main: bool) -> Iterator[Display]:
    """A display that feeds the recipe's trackers, which are closed however the block ends.

    Args:
        run: under whose `tracking/` everything lands.
        recipe: says which trackers.
        display: the one to pass everything on to.
        main: whether this is the main process; the others track nothing.
    """
    if not recipe.tracking or not main:
        yield display
        return
    for name in (f"TRACKIO_{rest}" for rest in _TRACKIO_ELSEWHERE):
        if "trackio" in recipe.tracking and name in os.environ:
            display.notice(f"{NOTE}{name} is not read: what trackio gets stays in {run.path / 'tracking'}")
    with ExitStack() as stack:
        yield Tracked(display, run, recipe, stack)


@contextmanager
def _started(name: str, run: Run, recipe: Recipe) -> Iterator[Any]:
    """One tracker, from its start to its end, in an environment that keeps it under the run folder."""
    from accelerate import tracking as accelerate_trackers

    folder = run.path.resolve() / "tracking" / name
    folder.mkdir(parents=True, exist_ok=True)
    kind = getattr(accelerate_trackers, _CLASSES[name])
    with ExitStack() as stack:
        stack.enter_context(_environment(name, folder))
        if name == "trackio":
            stack.enter_context(_own_trackio())
        tracker = _make(kind, name, run, recipe, folder)
        with redirect_stdout(io.StringIO()):  # standard output is for results
            tracker.start()
            tracker.store_init_configuration(configuration(recipe))
        try:
            yield tracker
        finally:
            with redirect_stdout(io.StringIO()):
                tracker.finish()


def _make(kind: Any, name: str, run: Run, recipe: Recipe, folder: Path) -> Any:
    """The tracker, not started yet. Charts of one recipe's runs belong together, so the recipe's name is the project."""
    label = run.id.replace("/", "-")
    if name == "tensorboard":
        return kind(label, logging_dir=str(folder))
    if name == "trackio":  # its metrics of the machine would not be the same from run to run
        return kind(recipe.name, name=label, embed=False, auto_log_gpu=False, auto_log_cpu=False)
    if name == "wandb":
        return kind(recipe.name, name=label, dir=str(folder), mode=os.environ.get("WANDB_MODE", "offline"))
    return kind(recipe.name, run_name=label, logging_dir=str(folder / "artifacts"))


@contextmanager
def _environment(name: str, folder: Path) -> Iterator[None]:
    """Environment variables that keep a tracker in its folder and off the network, put back afterwards.

    wandb and mlflow have settings for where they write, and what the user set for them stands.
    """
    changes: dict[str, str | None] = {}
    if name == "trackio":
        changes = {"TRACKIO_DIR": str(folder), **{f"TRACKIO_{rest}": None for rest in _TRACKIO_ELSEWHERE}}
    elif name == "wandb" and "WANDB_MODE" not in os.environ:
        changes = {"WANDB_MODE": "offline", "WANDB_CONSOLE": "off", "WANDB_DISABLE_CODE": "true"}
    elif name == "mlflow" and "MLFLOW_TRACKING_URI" not in os.environ:
        changes = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    before = {key: os.environ.get(key) for key in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for key, value in variables.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@contextmanager
def _own_trackio() -> Iterator[None]:
    """A trackio imported anew, since it reads TRACKIO_DIR only then, and off the Hub, which it would ask who the user is."""
    from huggingface_hub import constants

    theirs = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "trackio"}
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        trackio = importlib.import_module("trackio")  # accelerate's tracker finds it imported
        yield
        trackio.context_vars.current_run.set(None)  # else the process would finish it once more when it ends
    finally:
        constants.HF_HUB_OFFLINE = offline
        for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
            del sys.modules[name]
        sys.modules.update(theirs)

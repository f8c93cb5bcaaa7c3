"""A run that was stopped anywhere and resumed ends with the weights and records of the run that never was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopped import Dying, Killed, digest, records

import hfpipe
from hfpipe.system.display import Silent

ENGINES = ("trainer", "loop")
PLATEAU = "schedule={name: reduce_lr_on_plateau, patience: 0, threshold: 0.5}"
WAITING = ("evaluate.patience=2", "train.epochs=6")

# What is trained, and after which step the process dies: 44 rows in micro-batches of 8 make 6, the last one ragged, so
# with accumulation 2 an epoch has 3 steps and with 4 it has 2, the last window a partial one.
SETTINGS: dict[str, tuple[list[str], int]] = {
    "mid-epoch": (["checkpoints.every_steps=4", "checkpoints.every=never"], 5),
    "epoch": (["evaluate.best=null", "optimizer.name=rmsprop"], 8),
    "partial-window": (["train.accumulate=4", "checkpoints.every_steps=1", "optimizer.name=updater_sgd"], 3),
    "window": (["train.accumulate=2", "checkpoints.every_steps=1", "optimizer.name=nadam"], 2),
    "evaluate-steps": (["evaluate.every=2", "checkpoints.every_steps=3", "optimizer.name=radam"], 8),
    "evaluate-never": (["evaluate.every=never", "checkpoints.every_steps=5", "optimizer.name=adamax"], 6),
    "best": (["optimizer.lr=0.03", "evaluate.every=2", "checkpoints.keep_last=1", "checkpoints.every_steps=5"], 9),
    "workers": (["train.workers=2", "train.epochs=1", "checkpoints.every_steps=2", "optimizer.name=asgd"], 4),
    "plateau": ([PLATEAU, "evaluate.every=2", "checkpoints.every_steps=4", "optimizer={name: sgd, momentum: 0.9}"], 7),
    "cosine": (["schedule={name: cosine, warmup: 3}", "checkpoints.every_steps=2", "optimizer.name=adafactor"], 3),
    "kernels": (["train.kernels=fast", "evaluate.every=2", "checkpoints.every_steps=2"], 5),
    "buckets": (["train.batching.bucket=true", "train.accumulate=2", "checkpoints.every_steps=1"], 4),
    "tokens": (["train.batching={by: tokens, bucket: true}", "train.accumulate=2", "checkpoints.every_steps=2"], 5),
    "patience": (
        [*WAITING, "optimizer.lr=0.03", "evaluate.best=loss", "evaluate.every=4", "checkpoints.every_steps=7"],
        15,
    ),
    "patience-plateau": ([*WAITING, PLATEAU, "checkpoints.every_steps=5"], 17),
    "sum": (["loss.reduction=sum", "optimizer={name: updater_momentum, lr: 0.001}", "checkpoints.every_steps=3"], 4),
}


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def notice(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)


Start = Callable[..., hfpipe.Run]


pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture
def start(recipe_fields: dict[str, Any], tmp_path: Path) -> Start:
    """Trains the tiny recipe with these overrides; with `dies_at` the process dies when it records that step."""

    def finetune(*overrides: str, dies_at: int | None = None, name: str = "one", **options: Any) -> hfpipe.Run:
        options.setdefault("runs_dir", tmp_path / "runs")
        if dies_at is None:
            return hfpipe.finetune(recipe_fields, overrides=overrides, name=name, **options)
        with pytest.raises(Killed):
            hfpipe.finetune(recipe_fields, overrides=overrides, name=name, display=Dying(dies_at), **options)
        return hfpipe.Run(options["runs_dir"] / name)

    return finetune


def assert_same(resumed: hfpipe.Run, whole: hfpipe.Run) -> None:
    """The two ended with the same weights, records and figures, bit for bit."""
    assert resumed.status == whole.status == "finished"
    for mine, theirs in zip(records(resumed), records(whole), strict=True):
        assert mine == theirs
    assert digest(resumed) == digest(whole)
    assert resumed.metrics == whole.metrics
    assert resumed.metadata["stopped_early"] == whole.metadata["stopped_early"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_resumed_run_ends_as_the_whole_one(start: Start, setting: str, tmp_path: Path) -> None:
    """Each engine goes on from a checkpoint of the other, and of itself, to the weights and records of the whole run."""
    overrides, dies_at = SETTINGS[setting]
    whole = start(*overrides, engine="loop", name="whole")
    assert bool(whole.metadata["stopped_early"]) == ("patience" in setting)
    pairs = {"trainer": ENGINES, "loop": ("trainer",)}
    if setting == "workers":  # whose processes take seconds to start
        pairs = {"trainer": ("loop",), "loop": ("trainer",)}
    for first, others in pairs.items():
        stopped = start(*overrides, engine=first, name=f"{first}-dies", dies_at=dies_at)
        assert stopped.status == "failed"
        saved = [path.name for path in (stopped.path / "checkpoints").glob("step-*")]
        assert saved
        assert int(max(saved)[5:]) < dies_at
        for second in others:
            copy = tmp_path / "moved" / f"{first}-{second}"
            shutil.copytree(stopped.path, copy)
            resumed = hfpipe.finetune(resume=copy, engine=second)
            assert_same(resumed, whole)
            assert resumed.metadata["resumed"][0]["step"] == int(max(saved)[5:])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_resumed_stream_ends_as_the_whole_one(
    start: Start, pairs_folder: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stream the rows of the steps before are read and left out, and what follows is the same."""
    import datasets

    # The datasets library rests for five seconds after each pass over several parquet files.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    files = f"{{train: {pairs_folder / 'train.parquet'}, validation: {pairs_folder / 'validation.parquet'}}}"
    overrides = [
        *("dataset.path=parquet", f"dataset.data_files={files}", "dataset.streaming=true", "train.max_steps=9"),
        *("task.label={column: label, names: [other, same]}", "checkpoints.every_steps=2", "train.accumulate=2"),
    ]
    whole = start(*overrides, engine="loop", name="whole")
    stopped = start(*overrides, engine=engine, dies_at=7)
    resumed = hfpipe.finetune(resume=stopped, engine=ENGINES[ENGINES.index(engine) - 1])
    assert resumed.metadata["resumed"][0]["step"] == 6
    assert_same(resumed, whole)

"""What follows from the records of an engine: they are written down, checkpoints are saved, the best one is kept."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfpipe.recipe.schema import Recipe
from hfpipe.runs.store import Run

Save = Callable[[Path], None]


class Recorder:
    """Receives every record of a run: `recorder(record)`.

    Args:
        run: where things are written.
        recipe: says when to save, and what best means.
        num_steps: steps of the whole run.
        steps_per_epoch: steps of one epoch.
        evaluates: whether the engine measures an evaluation split.
        greater_is_better: the direction of `recipe.evaluate.best`.
        save: writes the current weights and tokenizer into a folder.
        show: is shown every record.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        *,
        num_steps: int,
        steps_per_epoch: int,
        evaluates: bool,
        greater_is_better: bool,
        save: Save,
        show: Callable[[dict[str, Any]], None],
    ) -> None:
        self.run, self.recipe, self.save, self.show = run, recipe, save, show
        self.num_steps, self.steps_per_epoch, self.evaluates = num_steps, steps_per_epoch, evaluates
        self.sign = 1 if greater_is_better else -1
        self.last_step: dict[str, Any] | None = None
        self.last_evaluation: dict[str, Any] | None = None
        self.best: dict[str, Any] | None = None
        self.seconds_aside = 0.0  # spent evaluating and saving since the start
        self.started = time.perf_counter()

    def __call__(self, record: dict[str, Any]) -> None:
        """Write one record down and do what follows from it."""
        self.run.append(record)
        self.show(record)
        if record["type"] == "step":
            self.last_step = record
            if self._save_due(record["step"]) and not self._evaluation_due(record["step"]):
                self._checkpoint(record["step"], None)
        elif record["type"] == "evaluation":
            self.seconds_aside += record["seconds"]
            self.last_evaluation = record
            better = self._is_better(record)
            if better:
                self.best = record
            if self._save_due(record["step"]) or (better and self._keeps_best):
                self._checkpoint(record["step"], record["metrics"])

    @property
    def training_seconds(self) -> float:
        """Seconds since the start, without evaluation and saving."""
        return time.perf_counter() - self.started - self.seconds_aside

    @property
    def best_folder(self) -> Path | None:
        """The best checkpoint, when one is kept and it is not the last step."""
        if (
            self.best is None
            or not self._keeps_best
            or self.last_step is None
            or self.best["step"] == self.last_step["step"]
        ):
            return None
        return self.run.path / _name(self.best["step"])

    @property
    def final_evaluation(self) -> dict[str, Any] | None:
        """The evaluation of the weights that the run ends with, if there was one."""
        if self._keeps_best and self.best is not None:
            return self.best
        last = self.last_evaluation
        return last if last and self.last_step and last["step"] == self.last_step["step"] else None

    @property
    def _keeps_best(self) -> bool:
        return self.recipe.checkpoints.keep_best and self.recipe.evaluate.best is not None

    def _is_better(self, record: dict[str, Any]) -> bool:
        value = record["metrics"].get(self.recipe.evaluate.best)
        if value is None or not math.isfinite(value):
            return False  # a figure that is no number is never the best
        return self.best is None or self.sign * value > self.sign * self.best["metrics"][self.recipe.evaluate.best]

    def _evaluation_due(self, step: int) -> bool:
        every = self.recipe.evaluate.every
        if not self.evaluates or every == "never":
            return False
        return step == self.num_steps or step % (self.steps_per_epoch if every == "epoch" else int(every)) == 0

    def _save_due(self, step: int) -> bool:
        spec = self.recipe.checkpoints
        by_epoch = spec.every == "epoch" and (step % self.steps_per_epoch == 0 or step == self.num_steps)
        return by_epoch or (spec.every_steps is not None and step % spec.every_steps == 0)

    def _checkpoint(self, step: int, metrics: dict[str, Any] | None) -> None:
        started = time.perf_counter()
        with self.run.staged(_name(step)) as folder:
            self.save(folder)
            Run(folder).write_json("checkpoint.json", {"step": step, "num_steps": self.num_steps, "metrics": metrics})
        kept = sorted((self.run.path / "checkpoints").glob("step-*"))
        best = _name(self.best["step"]).rpartition("/")[2] if self.best and self._keeps_best else None
        for old in kept[: -self.recipe.checkpoints.keep_last]:
            if old.name != best:
                shutil.rmtree(old)
        self.seconds_aside += time.perf_counter() - started


def _name(step: int) -> str:
    return f"checkpoints/step-{step:08d}"

"""What follows from the records of an engine: they are written down, checkpoints are saved, and the best one stays.

A step boundary is the record of a step, or of the evaluation that is due after it. There, and nowhere else, the run is
saved, and stopped where that was asked for.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfpipe.errors import MachineError, RecipeError
from hfpipe.recipe.schema import Recipe
from hfpipe.runs import checkpoints
from hfpipe.runs.records import Lines
from hfpipe.runs.store import Run, now
from hfpipe.system.stops import StopRequests, stopped
from hfpipe.system.text import json_line, plural
from hfpipe.training.timeline import Timeline

Save = Callable[[Path | None], None]
"""Called on every process: on the main one with the folder to fill, on the others with None."""
Agree = Callable[[int, bool], tuple[int, bool]]
"""Whether any process was asked to stop, and whether the main one wants to save."""


class Recorder:
    """Receives every record of a run: `recorder(record)`.

    Args:
        run: where things are written.
        recipe: says when to save, and what best means.
        timeline: its steps, epochs and evaluations.
        greater_is_better: the direction of `recipe.evaluate.best`.
        save: writes weights, tokenizer and state into a folder.
        show: is shown every record.
        writes: whether this process writes; the others follow, so that all of them save and stop together.
        about: further fields of `checkpoint.json`.
        required: files that `save` must write.
        needed: bytes of a checkpoint, until one was saved.
        stops: what was asked of this process.
        agree: brings together what the processes were asked; none where there is one.
        progress: `checkpoint.json` of the checkpoint that the run goes on from.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        *,
        timeline: Timeline,
        greater_is_better: bool,
        save: Save,
        show: Callable[[dict[str, Any]], None],
        writes: bool = True,
        about: Mapping[str, Any] | None = None,
        required: tuple[str, ...] = (),
        needed: int = 0,
        stops: StopRequests | None = None,
        agree: Agree | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        self.run, self.recipe, self.save, self.show, self.writes = run, recipe, save, show, writes
        self.timeline = timeline
        self.sign = 1 if greater_is_better else -1
        self.about, self.required, self.needed = dict(about or {}), required, needed
        self.stops, self.agree = stops, agree
        at = progress or {}
        self.last_step: dict[str, Any] | None = at.get("last_step")
        self.last_evaluation: dict[str, Any] | None = at.get("last_evaluation")
        self.best: dict[str, Any] | None = at.get("best")
        self.unimproved = int(at.get("unimproved", 0))  # evaluations in a row, with the last, that did not improve it
        self.saved_step: int | None = at.get("step")
        self.seconds_before = float(at.get("seconds", 0.0))  # of training, by the processes before this one
        self.seconds_aside = 0.0  # spent evaluating and saving since the start
        self.lines = Lines(run.path / "records.jsonl")
        self.started = self.saved_at = self.stepped_at = time.perf_counter()
        self.longest_step = self.longest_save = 0.0
        self.evaluates_since: float | None = None  # after a step, until the record of its evaluation

    def __call__(self, record: dict[str, Any]) -> None:
        """Write one record down and do what follows from it.

        Raises:
            InterruptedRun: a stop was asked for; the checkpoint of this step is whole.
            StoppedByUser: the same, by Ctrl-C.
            RecipeError: an engine that did not go on where the run was.
        """
        arrived = time.perf_counter()
        if record["type"] == "step":
            self._require_next(record["step"])
        self._write(record)
        if record["type"] == "step":
            self.last_step, stepped = record, time.perf_counter()
            self.longest_step, self.stepped_at = max(self.longest_step, stepped - self.stepped_at), stepped
            if self.timeline.evaluation_due(record["step"]):
                self.evaluates_since = time.perf_counter()
            else:
                self._boundary(record["step"], None)
        elif record["type"] == "evaluation":
            since, self.evaluates_since = self.evaluates_since, None
            # All that lies between the two records, so that what an engine does around an evaluation is none of its steps.
            self.seconds_aside += record["seconds"] if since is None else max(record["seconds"], arrived - since)
            self.last_evaluation = record
            gain = self._gain(record)
            better = gain > 0
            self.unimproved = 0 if gain > self.recipe.evaluate.min_improvement else self.unimproved + 1
            if better:
                self.best = record
            self._boundary(record["step"], record["metrics"], better=better)
            self.stepped_at = time.perf_counter()

    @property
    def training_seconds(self) -> float:
        """Seconds of training, without evaluation and saving; those before a resumption are among them."""
        return self.seconds_before + time.perf_counter() - self.started - self.seconds_aside

    @property
    def stops_early(self) -> bool:
        """Whether `evaluate.patience` is over before the steps are: the engine is to return."""
        patience, last = self.recipe.evaluate.patience, self.last_step
        return patience is not None and self.unimproved >= patience and last is not None and not self._is_last(last)

    @property
    def why_stopped_early(self) -> str:
        """Why the run stopped early, in words."""
        spec, step = self.recipe.evaluate, self.last_step["step"] if self.last_step else 0
        more = f"no {spec.best} better by more than {spec.min_improvement:g}"
        what = more if spec.min_improvement else f"no better {spec.best}"
        return f"stopped after step {step:,}: {what} in {plural(self.unimproved, 'evaluation')}"

    @property
    def best_folder(self) -> Path | None:
        """The best checkpoint, when it is kept and it is not the last step."""
        if (
            self.best is None
            or not self._keeps_best
            or self.last_step is None
            or self.best["step"] == self.last_step["step"]
        ):
            return None
        return self.run.path / checkpoints.name_of(self.best["step"])

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

    def _require_next(self, step: int) -> None:
        before = self.last_step["step"] if self.last_step else 0
        if step != before + 1:
            raise RecipeError(
                f"the engine made step {step} after step {before}",
                where=self.recipe.where("engine"),
                fix="An engine of your own makes the updates of job.updates() and emits every step.",
            )
        if self.stops_early:
            raise RecipeError(
                f"the engine made step {step} though training {self.why_stopped_early}",
                where=self.recipe.where("engine"),
                fix="An engine of your own makes no update beyond those of job.updates(); to train on: evaluate.patience=null.",
            )

    def _write(self, record: dict[str, Any]) -> None:
        if not self.writes:
            return
        trouble = self.lines.append(json_line(record))
        self.show(record)
        if trouble is not None:
            self.show({"type": "notice", "text": f"records can't be written for now ({trouble}); training goes on"})

    def _gain(self, record: dict[str, Any]) -> float:
        """By how much the metric of an evaluation is better than the best before it."""
        name = self.recipe.evaluate.best
        value = record["metrics"].get(name)
        if value is None or not math.isfinite(value):
            return -math.inf  # a metric that is no number is never the best
        # The best until now has no such metric where another one was followed.
        before = self.best["metrics"].get(name) if self.best else None
        return math.inf if before is None or not math.isfinite(before) else float(self.sign * (value - before))

    def _is_last(self, record: dict[str, Any]) -> bool:
        return bool(record["step"] == self.timeline.num_steps)

    def _save_due(self, step: int) -> bool:
        spec = self.recipe.checkpoints
        at_end = self.timeline.ends_epoch(step) or step == self.timeline.num_steps or self.stops_early
        by_epoch = spec.every == "epoch" and at_end
        return by_epoch or (spec.every_steps is not None and step % spec.every_steps == 0)

    def _boundary(self, step: int, metrics: dict[str, Any] | None, *, better: bool = False) -> None:
        """Save and stop, where that is due; every process comes here at the same step."""
        asked, due = 0, False
        if self.stops is not None:
            self.stops.check_deadline(2 * self.longest_step + 1.5 * self.longest_save)
            asked = self.stops.asked
        if (minutes := self.recipe.checkpoints.every_minutes) is not None:
            due = time.perf_counter() - self.saved_at >= 60 * minutes
        if self.agree is not None and (self.stops is not None or minutes is not None):
            asked, due = self.agree(asked, due)
        due = due or self._save_due(step) or (better and self._keeps_best)
        if (due or asked) and step != self.saved_step:
            self._checkpoint(step, metrics)
        if asked:
            raise stopped(
                asked,
                f"step {step:,} of {self.timeline.num_steps:,} is saved",
                f"`hfpipe finetune --resume {self.run.path}` goes on from there.",
            )

    def _checkpoint(self, step: int, metrics: dict[str, Any] | None, *, unmeasured: bool = False) -> None:
        started = time.perf_counter()
        if self.writes:
            progress = {
                **self.about,
                "step": step,
                "num_steps": self.timeline.num_steps,
                "steps_per_epoch": self.timeline.steps_per_epoch,
                "metrics": metrics,
                "best": self.best,
                "unimproved": self.unimproved,
                "last_step": self.last_step,
                "last_evaluation": self.last_evaluation,
                "seconds": self.training_seconds,
                "saved": now(),
                **({"unmeasured": True} if unmeasured else {}),
            }

            def write(folder: Path) -> None:
                self.save(folder)
                Run(folder).write_json(checkpoints.PROGRESS, {**progress, "records_bytes": self.lines.sync()})

            target = self.run.path / checkpoints.name_of(step)
            try:
                required = (*self.required, checkpoints.PROGRESS)
                self.needed = checkpoints.commit(target, write, required=required, needed=self.needed)
            except OSError as error:
                raise self._not_saved(target, error) from error
            best = self.best["step"] if self.best and self._keeps_best else None
            checkpoints.rotate(self.run.path, self.recipe.checkpoints.keep_last, best)
        else:
            self.save(None)
        if self.agree is not None:
            self.agree(0, False)  # no process leaves before the checkpoint is whole: a launcher would end the others
        self.saved_step, self.saved_at = step, time.perf_counter()
        self.longest_save = max(self.longest_save, self.saved_at - started)
        self.seconds_aside += self.saved_at - started
        self.stepped_at = self.saved_at

    def save_unmeasured(self, save: Save) -> None:
        """Save the last step, of which an evaluation failed, unless it is saved; on the main process, without the others.

        A run that goes on from there makes that evaluation first.

        Args:
            save: writes weights, tokenizer and state into a folder.

        Raises:
            HfpipeError: it can't be saved.
        """
        if not self.writes or self.last_step is None or self.last_step["step"] == self.saved_step:
            return
        self.save, self.agree = save, None
        self._checkpoint(self.last_step["step"], None, unmeasured=True)

    def _not_saved(self, target: Path, error: OSError) -> MachineError:
        status = os.statvfs(self.run.path)
        needed = f"about {self.needed:,} bytes needed, " if self.needed else ""
        return MachineError(
            f"the checkpoint could not be saved: {error.strerror or error} "
            f"({needed}{status.f_bavail * status.f_frsize:,} free)",
            where=str(target),
            fix=f"The checkpoints before it are whole; make room, then `hfpipe finetune --resume {self.run.path}`.",
        )

"""A job: a recipe with its parts built, and the updates that an engine makes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import datasets
import torch
from accelerate import PartialState
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.trainer_utils import EvalPrediction

from hfpipe.evaluation.inference import Predictions, compute_metrics, mean_loss_of, predict
from hfpipe.parts import tasks
from hfpipe.parts.data.formats.files import Places
from hfpipe.parts.inputs.audit import Audit
from hfpipe.parts.inputs.batch_plan import BatchPlan
from hfpipe.parts.inputs.batches import Collate, TrainLoader
from hfpipe.parts.inputs.buckets import padding_share
from hfpipe.parts.inputs.streams import StreamLoader
from hfpipe.parts.model.precision import Precision
from hfpipe.parts.optim.objective import Objective
from hfpipe.parts.optim.schedules import steps_on_metric
from hfpipe.recipe.schema import Recipe
from hfpipe.training.determinism import seed_epoch
from hfpipe.training.job_state import JobState
from hfpipe.training.timeline import Timeline
from hfpipe.training.update import Update


@dataclass(frozen=True)
class Job:
    """A recipe with its parts built, ready to train, in memory. What is built once is frozen; `state` changes.

    Attributes:
        config: of the model; one that was made for it where it has none.
        others: raw and encoded rows of the further splits, by name: `(encoded, raw)`.
        places: where the raw rows of the measured splits stand, in files that have lines.
        timeline: its steps, epochs and evaluations.
        fresh: the weights that were initialised here.
        restorable: `model` and `tokenizer`, where one was given and a checkpoint of this job gives it back.
        identity: hashes of data, tokenizer, checkpoint and recipe.
        padded_to: batches are as long as the next multiple of this, None as their longest row.
        batch_plans: how rows became updates so far, and do now.
    """

    recipe: Recipe
    task: tasks.Task
    tokenizer: PreTrainedTokenizerBase
    collate: Collate
    model: nn.Module
    config: PretrainedConfig
    train_data: datasets.Dataset
    evaluation_data: datasets.Dataset | None
    evaluation_rows: datasets.Dataset | None
    others: dict[str, tuple[datasets.Dataset, datasets.Dataset]]
    places: Mapping[str, Places]
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Any
    metrics: list[tuple[str, Any]]
    precision: Precision
    device: torch.device
    loader: TrainLoader | StreamLoader
    timeline: Timeline
    fresh: list[str]
    identity: dict[str, Any]
    audit: Audit
    padded_to: int | None = None
    batch_plans: tuple[BatchPlan, ...] = ()
    notices: tuple[str, ...] = ()
    restorable: tuple[str, ...] = ()
    state: JobState = field(default_factory=JobState)

    @property
    def start(self) -> int:
        """Steps that were taken before, by the process that this one goes on from."""
        return self.state.resume_point.step if self.state.resume_point else 0

    def updates(self, scaler: torch.amp.GradScaler | None = None) -> Generator[Update]:
        """The updates that are left, one a step, in an order that depends on seed and epoch alone.

        Whatever a training needs in order to be repeated and resumed happens here: optimizer, schedule and random states
        are put back where a run goes on, every epoch is seeded, and the iteration ends with the last step or where
        `evaluate.patience` is over. Begin it when the model is on its device.

        Args:
            scaler: of fp16 gradients, where the engine has one.
        """
        self.state.scaler = scaler
        point, accumulate, step = self.state.resume_point, self.recipe.train.accumulate, self.start
        if point:
            point.restore()
        while step < self.timeline.num_steps:
            epoch, within = self.timeline.position(step)
            seed_epoch(self.recipe.seed, epoch)
            self.model.train()
            self.loader.set_epoch(epoch, within * accumulate)
            if point and within and step == point.step:
                point.restore_random()
            batches = iter(self.loader)
            while micro_batches := list(islice(batches, accumulate)):
                step += 1
                update = self._update(step, micro_batches)
                if getattr(self.optimizer, "divides_by_items", False):
                    self.optimizer.num_items = update.divisor or 1.0  # type: ignore[attr-defined]
                yield update
                if step == self.timeline.num_steps or self.state.stops_early:
                    return

    def _update(self, step: int, micro_batches: list[dict[str, torch.Tensor]]) -> Update:
        return Update(
            step=step,
            epoch=self.timeline.epochs_by(step),
            batches=micro_batches,
            objective=self.objective,
            spec=self.recipe.train,
            device=self.device,
            state=self.state,
            rows=lambda: self.rows_of(step),
            examples=self.loader.examples if isinstance(self.loader, StreamLoader) else None,
        )

    def evaluate(self, step: int) -> dict[str, Any]:
        """Measure the evaluation split with the weights as they are: the record of it, to be emitted.

        A schedule that follows a metric is stepped with it.

        Raises:
            NumericError: the model's outputs are not finite.
        """
        record = evaluate_step(self, step)
        step_on_metric(self, record)
        return record

    def rows_of(self, step: int) -> list[int]:
        """The encoded training rows of a step, from 0, in the order of its micro-batches; none of a stream."""
        if isinstance(self.loader, StreamLoader):
            return []
        epoch, within = self.timeline.position(step - 1)
        rows: list[int] = self.loader.order.updates(epoch)[within].tolist()
        return [row for row in rows if row >= 0]

    @property
    def compute_metrics(self) -> Callable[[Any], dict[str, float | None]] | None:
        """Metric names to numbers, from an EvalPrediction; None without an evaluation split."""
        if self.evaluation_data is None or self.evaluation_rows is None:
            return None
        return compute_metrics(self.task, self.metrics, self.evaluation_data, self.evaluation_rows)

    def examples_by(self, record: Mapping[str, Any]) -> int:
        """How many examples all processes have trained on by the step of a record; a window of a long text is one."""
        step: int = record["step"]
        if isinstance(self.loader, StreamLoader):
            spec = self.recipe.train
            at_most = step * spec.batch_size * spec.accumulate * PartialState().num_processes
            return int(record.get("examples", at_most))  # not recorded by an engine of one's own
        epoch, within = self.timeline.position(step)
        left = self.loader.order.updates(epoch)[within:] if within else []
        return (epoch + bool(within)) * len(self.train_data) - sum(int((rows >= 0).sum()) for rows in left)

    def padding_share(self) -> float | None:
        """The share of padding among the tokens of an epoch on all processes, 0 to 1; of a stream it is not known."""
        if isinstance(self.loader, StreamLoader):
            return None
        partial = self.loader.order.partial_epoch
        whole = 0 if partial is None else partial.epoch + 1  # the first epoch that has these updates from its beginning
        batches = self.loader.batches.all_shares(whole)
        return padding_share(batches, self.task.lengths(self.train_data), self.padded_to)


def evaluate_step(job: Job, step: int) -> dict[str, Any]:
    """Score the evaluation split with the weights as they are: the record of an evaluation.

    What was predicted is kept in `job.state.predictions` under the step, until `forget` drops it.

    Raises:
        NumericError: the model's outputs are not finite.
    """
    assert job.evaluation_data is not None
    assert job.evaluation_rows is not None
    started = time.perf_counter()
    job.state.status.evaluating = True  # and stays so where it fails
    predictions = job.state.predictions[step] = predict_split(job, job.evaluation_data)
    metrics: dict[str, float | None] = {"loss": mean_loss_of(predictions)}
    score = compute_metrics(job.task, job.metrics, job.evaluation_data, job.evaluation_rows)
    metrics |= score(EvalPrediction(predictions.logits, None))
    epoch = job.timeline.epochs_by(step)
    job.state.status.evaluating = False
    seconds = time.perf_counter() - started  # with the metrics, which may take longer than the model
    return {"type": "evaluation", "step": step, "epoch": epoch, "metrics": metrics, "seconds": seconds}


def step_on_metric(job: Job, record: Mapping[str, Any]) -> None:
    """Step a schedule that follows a metric with the record of an evaluation."""
    if steps_on_metric(job.schedule):
        value = record["metrics"][job.recipe.evaluate.best or "loss"]
        job.schedule.step(math.nan if value is None else value)  # an undefined metric is no better than any


def predict_split(job: Job, encoded: datasets.Dataset) -> Predictions:
    """The outputs of the model for every encoded row, with the weights as they are."""
    return predict(
        job.model,
        job.task,
        encoded,
        job.collate,
        batch_size=job.recipe.evaluate.batch_size,
        precision=job.precision,
        objective=job.objective,
    )

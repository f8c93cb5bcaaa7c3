"""prepare(recipe) -> Job: the only place where the parts meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import EvalPrediction

from hfpipe.evaluation.inference import Predictions, compute_metrics, mean_loss_of, predict
from hfpipe.parts import tasks
from hfpipe.parts.inputs.audit import Audit
from hfpipe.parts.inputs.batch_plan import BatchPlan
from hfpipe.parts.inputs.batches import Collate, TrainLoader
from hfpipe.parts.inputs.buckets import padding_share
from hfpipe.parts.inputs.streams import StreamLoader
from hfpipe.parts.model.precision import Precision
from hfpipe.parts.optim.objective import Objective
from hfpipe.recipe.schema import Recipe
from hfpipe.training.checkpoint_state import ResumePoint


@dataclass
class StepStatus:
    """Where an engine is.

    Attributes:
        step: the step that is being made, from 1.
        evaluating: whether it is evaluating.
        shape: of the widest that the model was given last, `[inputs, tokens]`, or `[inputs, choices, tokens]`.
        not_finite: steps that were left out because something in them was not finite.
        skipped_by_scaler: steps that the fp16 scaler left out while it looked for a scale.
    """

    step: int = 0
    evaluating: bool = False
    shape: tuple[int, ...] = ()
    not_finite: int = 0
    skipped_by_scaler: int = 0


@dataclass
class Job:
    """A recipe with its parts built, ready to train, in memory."""

    recipe: Recipe
    task: tasks.Task
    tokenizer: PreTrainedTokenizerBase
    collate: Collate
    model: PreTrainedModel
    train_data: datasets.Dataset
    evaluation_data: datasets.Dataset | None
    evaluation_rows: datasets.Dataset | None
    others: dict[str, tuple[datasets.Dataset, datasets.Dataset]]
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Any
    metrics: list[tuple[str, Any]]
    precision: Precision
    device: torch.device
    loader: TrainLoader | StreamLoader
    steps_per_epoch: int
    num_steps: int
    fresh: list[str]
    identity: dict[str, Any]
    audit: Audit
    padded_to: int | None = None
    """Batches are as long as the next multiple of this, None as their longest row."""
    batch_plans: tuple[BatchPlan, ...] = ()
    """How rows became updates so far, and do now."""
    step_offset: int = 0
    """What is added to a step for its place in the order; not 0 where updates have changed their size."""
    notices: list[str] = field(default_factory=list)
    predictions: dict[int, Predictions] = field(default_factory=dict)
    resume_point: ResumePoint | None = None
    """From where training goes on; None at the beginning. An engine of your own starts from `job.start` too."""
    stops_early: bool = False
    """Set while the record of an evaluation is emitted, when `evaluate.patience` is over: the engine returns."""
    scaler: Any = None
    """Of fp16 gradients, set by the engine."""
    status: StepStatus = field(default_factory=StepStatus)
    """What the engine is doing, for a message when it fails."""

    @property
    def start(self) -> int:
        """Steps that were taken before, by the process that this one goes on from."""
        return self.resume_point.step if self.resume_point else 0

    def position(self, step: int) -> tuple[int, int]:
        """Where it goes on after so many steps: the epoch, from 0, and how many of its updates come before."""
        return divmod(step + self.step_offset, self.steps_per_epoch)

    def epochs_by(self, step: int) -> float:
        """How many epochs are trained by this step."""
        return (step + self.step_offset) / self.steps_per_epoch

    def rows_of(self, step: int) -> list[int]:
        """The encoded training rows of a step, from 0, in the order of its micro-batches; none of a stream."""
        if isinstance(self.loader, StreamLoader):
            return []
        epoch, within = self.position(step - 1)
        rows: list[int] = self.loader.order.updates(epoch)[within].tolist()
        return [row for row in rows if row >= 0]

    @property
    def compute_metrics(self) -> Callable[[Any], dict[str, float | None]] | None:
        """Metric names to numbers, from an EvalPrediction; None without an evaluation split."""
        if self.evaluation_data is None or self.evaluation_rows is None:
            return None
        return compute_metrics(self.task, self.metrics, self.evaluation_data, self.evaluation_rows)

    def forget(self, keep: set[int]) -> None:
        """Drop what was predicted at other steps than these."""
        self.predictions = {step: kept for step, kept in self.predictions.items() if step in keep}

    def examples_by(self, step: int) -> int:
        """How many examples all processes have trained on by this step; a window of a long text is one."""
        if isinstance(self.loader, StreamLoader):
            spec = self.recipe.train
            return int(step * spec.batch_size * spec.accumulate * PartialState().num_processes)
        epoch, within = self.position(step)
        left = self.loader.order.updates(epoch)[within:] if within else []
        return (epoch + bool(within)) * len(self.train_data) - sum(int((rows >= 0).sum()) for rows in left)

    def padding_share(self) -> float | None:
        """The share of padding among the tokens of an epoch's micro-batches, 0 to 1; of a stream it is not known."""
        if isinstance(self.loader, StreamLoader):
            return None
        partial = self.loader.order.partial_epoch
        whole = 0 if partial is None else partial.epoch + 1  # the first epoch that has these updates from its beginning
        return padding_share(self.loader.micro_batches(whole), tasks.lengths(self.train_data), self.padded_to)

    def step_record(self, step: int, figures: Mapping[str, Any], grad_norm: float, lr: float) -> dict[str, Any]:
        """The record of one step: `figures` from `Update.figures`, the norm of `.grad` before clipping, the rate used."""
        epoch = self.epochs_by(step)
        return {"type": "step", "step": step, "epoch": epoch, **figures, "grad_norm": grad_norm, "lr": lr}


def evaluate_step(job: Job, step: int) -> dict[str, Any]:
    """Score the evaluation split with the weights as they are: the record of an evaluation.

    What was predicted is kept in `job.predictions` under the step, until `forget` is told that it is not needed.

    Raises:
        NumericError: the model's outputs are not finite.
    """
    assert job.evaluation_data is not None
    assert job.evaluation_rows is not None
    predictions = job.predictions[step] = predict_split(job, job.evaluation_data)
    metrics: dict[str, float | None] = {"loss": mean_loss_of(predictions)}
    score = compute_metrics(job.task, job.metrics, job.evaluation_data, job.evaluation_rows)
    metrics |= score(EvalPrediction(predictions.logits, None))
    epoch = job.epochs_by(step)
    return {"type": "evaluation", "step": step, "epoch": epoch, "metrics": metrics, "seconds": predictions.seconds}


def predict_split(job: Job, encoded: datasets.Dataset) -> Predictions:
    """What the model says of every encoded row, with the weights as they are."""
    return predict(
        job.model,
        job.task,
        encoded,
        job.collate,
        batch_size=job.recipe.evaluate.batch_size,
        precision=job.precision,
        objective=job.objective,
    )


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed the dropout of an epoch, the same for both engines and different on each process."""
    set_seed((seed + epoch + 1_000_003 * PartialState().process_index) % 2**32)

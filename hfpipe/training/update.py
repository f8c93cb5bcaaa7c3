"""One update of the weights, as an engine is given it: its micro-batches, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState

from hfpipe.errors import NumericError, RecipeError
from hfpipe.parts.optim.objective import Objective, UpdateLosses
from hfpipe.parts.optim.reduction import clip_threshold
from hfpipe.parts.tasks import outputs_of
from hfpipe.recipe.schema import Train
from hfpipe.runs.records import NO_ITEM
from hfpipe.system.text import listed
from hfpipe.training.job_state import JobState

_SHOWN = 16  # row numbers in a message


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward pass, on the device.

    Attributes:
        inputs: what the model is called with, by the names of its arguments, `[rows, length]` each.
        labels: in the shape that the kind of task gives them.
        is_last: whether it is the last one of its update: under DDP, gradients are averaged with this one alone.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    is_last: bool


@dataclass
class Update:
    """One update of the weights, from :meth:`hfpipe.Job.updates`.

    Attributes:
        step: its number, from 1.
        epoch: how many epochs are trained with it.
        batches: the micro-batches of this process, as the collator made them.
        objective: the loss of an item and its reduction.
        spec: of the training: `max_grad_norm` and `tolerate_nonfinite`.
        device: where the model is.
        state: of the job.
        rows: asks for the numbers of its training rows.
        examples: of a stream, how many were trained on with it, on all processes; None where the order of the rows says it.
    """

    step: int
    epoch: float
    batches: Sequence[Mapping[str, torch.Tensor]]
    objective: Objective
    spec: Train
    device: torch.device
    state: JobState
    rows: Callable[[], list[int]]
    examples: int | None = None

    def __post_init__(self) -> None:
        """Count first: every item's loss is divided by the items of the whole update, not of its micro-batch."""
        self._losses = UpdateLosses(self.objective, self.objective.tally(self.batches))
        self._summary: dict[str, Any] = {}
        self._grad_norm = math.nan

    @property
    def divisor(self) -> float:
        """D, the sum of the weights of all its items, over micro-batches and processes."""
        return self._losses.tally.divisor

    @property
    def clip_threshold(self) -> float:
        """The L2 norm that the gradient in `.grad` is clipped to; infinite for none."""
        return clip_threshold(self.spec.max_grad_norm, self.objective.reduction, self.divisor)

    def micro_batches(self) -> Iterator[MicroBatch]:
        """The micro-batches of this process, each moved to the device when its turn comes."""
        for number, batch in enumerate(self.batches, start=1):
            inputs = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
            self.note_shape(inputs)
            yield MicroBatch(inputs, inputs.pop("labels"), is_last=number == len(self.batches))

    def note_shape(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Remember which step is being made of which micro-batch, for a message if memory runs out in it."""
        widest = max((value.shape for value in inputs.values()), key=len)
        status = self.state.status
        status.step, status.shape = self.step, tuple(widest)

    def loss(self, outputs: Any, inputs: Mapping[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """The scalar to call backward on for one micro-batch: its items' losses under the recipe's reduction.

        Args:
            outputs: of the model.
            inputs: what the model was given.
            labels: of the same rows.
        """
        losses = self.objective.item_losses(outputs_of(outputs, inputs), labels)
        self._losses.add(losses)
        return self.objective.backward_value(losses, self._losses.tally, PartialState().num_processes)

    def skip_if_nonfinite(self, grad_norm: torch.Tensor | float) -> bool:
        """Whether to take no gradient to the weights: there is no item, or the loss or the gradient is not finite.

        Args:
            grad_norm: L2 norm of the gradient of the whole update, before clipping.

        Raises:
            NumericError: more such steps than `train.tolerate_nonfinite`, naming the step and the rows.
        """
        self._summary, self._grad_norm = self._losses.summary(grad_norm)
        loss, norm, status = self._summary["loss"], self._grad_norm, self.state.status
        if not self.divisor:
            status.without_items += 1
            self._summary |= {"skipped": NO_ITEM, "left_out": NO_ITEM}
            return True
        if math.isfinite(loss) and (math.isfinite(norm) or self.state.scaler is not None):
            return False  # an infinite gradient is how the fp16 scaler finds its scale
        what = f"the loss {self.objective.name!r} is {loss}" if not math.isfinite(loss) else f"the gradient is {norm}"
        status.not_finite += 1
        if status.not_finite > self.spec.tolerate_nonfinite:
            raise NumericError(
                f"{what} at step {self.step}{self._rows()}",
                fix="Look at those rows, try a smaller optimizer.lr or train.precision=fp32, or skip such steps with "
                "train.tolerate_nonfinite; the records hold every step before it.",
            )
        self._summary |= {"skipped": what, "left_out": what}  # `left_out`: its name before
        return True

    def record(self, lr: float) -> dict[str, Any]:
        """The record of the step, to be emitted after the optimizer's step.

        Args:
            lr: the learning rate that was used.

        Raises:
            RecipeError: nothing looked at loss and gradient before.
        """
        if not self._summary:
            raise RecipeError(
                f"step {self.step} has neither loss nor gradient",
                fix="Call update.skip_if_nonfinite(grad_norm) before it.",
            )
        head: dict[str, Any] = {"type": "step", "step": self.step, "epoch": self.epoch}
        if self.examples is not None:
            head["examples"] = self.examples
        return {**head, **self._summary, "grad_norm": self._grad_norm, "lr": lr}

    def _rows(self) -> str:
        rows = self.rows()
        if not rows:
            return ""
        return f" ({'rows' if len(rows) > 1 else 'row'} {listed(rows, _SHOWN)} of the training inputs, from 0)"

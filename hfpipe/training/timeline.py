"""The steps of a run: in which epoch each of them is, and what is due after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Timeline:
    """How many steps a run has, and where its epochs and evaluations are.

    Attributes:
        num_steps: steps of the whole run.
        steps_per_epoch: steps of one epoch.
        step_offset: what is added to a step before it is divided into epochs; not 0 where updates changed their size.
        evaluate_every: `epoch`, a number of steps, or `never`.
    """

    num_steps: int
    steps_per_epoch: int
    step_offset: int = 0
    evaluate_every: Literal["epoch", "never"] | int = "never"

    def position(self, step: int) -> tuple[int, int]:
        """Where training goes on after so many steps: the epoch, from 0, and how many of its updates come before."""
        return divmod(step + self.step_offset, self.steps_per_epoch)

    def epochs_by(self, step: int) -> float:
        """How many epochs are trained by this step."""
        return (step + self.step_offset) / self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether the step is the last one of its epoch."""
        return (step + self.step_offset) % self.steps_per_epoch == 0

    def evaluation_due(self, step: int) -> bool:
        """Whether the evaluation split is measured after this step."""
        every = self.evaluate_every
        if every == "never":
            return False
        return step == self.num_steps or (self.ends_epoch(step) if every == "epoch" else step % every == 0)

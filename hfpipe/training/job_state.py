"""What changes while a job is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from hfpipe.evaluation.inference import Predictions
from hfpipe.training.checkpoint_state import ResumePoint


@dataclass
class StepStatus:
    """What an engine is doing, for a message when it fails.

    Attributes:
        step: the step that is being made, from 1.
        evaluating: whether it is evaluating.
        shape: of the widest tensor that the model was given last, `[inputs, tokens]`, or `[inputs, choices, tokens]`.
        not_finite: steps that were skipped because something in them was not finite.
        skipped_by_scaler: steps that the fp16 scaler skipped while it looked for a scale.
        without_items: steps that were skipped because they had no item.
    """

    step: int = 0
    evaluating: bool = False
    shape: tuple[int, ...] = field(default=())
    not_finite: int = 0
    skipped_by_scaler: int = 0
    without_items: int = 0


@dataclass
class JobState:
    """What changes while a job is trained.

    Attributes:
        resume_point: from where training goes on; None at the beginning.
        stops_early: set while the record of an evaluation is emitted, when `evaluate.patience` is over.
        scaler: of fp16 gradients, set by the engine.
        predictions: of the evaluation split, by the step after which they were made.
        status: what the engine is doing.
    """

    resume_point: ResumePoint | None = None
    stops_early: bool = False
    scaler: torch.amp.GradScaler | None = None
    predictions: dict[int, Predictions] = field(default_factory=dict)
    status: StepStatus = field(default_factory=StepStatus)

    def forget(self, keep: set[int]) -> None:
        """Drop what was predicted after other steps than these."""
        self.predictions = {step: kept for step, kept in self.predictions.items() if step in keep}

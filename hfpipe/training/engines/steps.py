"""What both engines do around a step: measure, and look at its figures before they reach the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from hfpipe.errors import NumericError
from hfpipe.parts.optim.schedules import steps_on_metric
from hfpipe.training.job import Job, evaluate_step

_SHOWN = 16  # row numbers in a message


def evaluate(job: Job, step: int) -> dict[str, Any]:
    """Measure the evaluation split, and tell a schedule that waits for it: the record, to be emitted after both.

    Raises:
        NumericError: the model's outputs are not finite.
    """
    job.status.evaluating = True
    record = evaluate_step(job, step)
    job.status.evaluating = False
    if steps_on_metric(job.schedule):
        figure = record["metrics"][job.recipe.evaluate.best or "loss"]
        job.schedule.step(math.nan if figure is None else figure)  # an undefined figure is no better than any
    return record


def begin(job: Job, step: int, batch: Mapping[str, torch.Tensor]) -> None:
    """Note which step is being made of which micro-batch, for a message if memory runs out in it."""
    widest = max((value.shape for value in batch.values()), key=len)
    job.status.step, job.status.shape = step, tuple(widest)


def skip_if_nonfinite(job: Job, step: int, figures: dict[str, Any], grad_norm: float) -> bool:
    """Whether a step is to be left out because its loss or gradient is not finite; then it takes no gradient to the weights.

    Args:
        job: says how many such steps are tolerated, and counts them.
        step: the step, from 1.
        figures: of the loss; what is wrong is added to them.
        grad_norm: of the whole update.

    Raises:
        NumericError: more of them than `train.tolerate_nonfinite`, naming the step and the rows.
    """
    loss = figures["loss"]
    if math.isfinite(loss) and (math.isfinite(grad_norm) or job.scaler is not None):
        return False  # an infinite gradient is how the fp16 scaler finds its scale
    what = f"the loss {job.objective.name!r} is {loss}" if not math.isfinite(loss) else f"the gradient is {grad_norm}"
    job.status.not_finite += 1
    if job.status.not_finite > job.recipe.train.tolerate_nonfinite:
        raise NumericError(
            f"{what} at step {step}{_rows(job, step)}",
            fix="Look at those rows, try a smaller optimizer.lr or train.precision=fp32, or leave such steps out with "
            "train.tolerate_nonfinite; the records hold every step before it.",
        )
    figures["left_out"] = what
    return True


def _rows(job: Job, step: int) -> str:
    rows = job.rows_of(step)
    if not rows:
        return ""
    shown = ", ".join(map(str, rows[:_SHOWN])) + (f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else "")
    return f" ({'rows' if len(rows) > 1 else 'row'} {shown} of the training inputs, from 0)"

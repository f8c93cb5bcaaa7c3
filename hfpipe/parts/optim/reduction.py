"""How items' losses become one update: all counting, dividing and clipping, pure numbers in and numbers out.

Let an update use N items over all its micro-batches and processes, item i with weight w_i (1 without class weights; its
loss l_i already contains it), and let D = sum of w_i. What lands in `.grad` is

    mean   (1/D) * sum of grad l_i
    sum    sum of grad l_i
    none   the same as sum: the losses stay a vector in the record, and are summed for backward

The reported loss is (sum of l_i) / D whatever the reduction. Clipping speaks about the gradient of the mean: its
threshold grows with D where the gradient does. Where D is 0 there is no mean: the update is a step that changes no weight
and nothing that the optimizer remembers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Reduction = Literal["none", "mean", "sum"]


@dataclass(frozen=True)
class Tally:
    """What one update counts, over all its micro-batches and processes, before any backward."""

    num_items: int
    """N: label positions that count."""
    divisor: float
    """D: the sum of their weights; equal to N without class weights."""


def item_scale(reduction: Reduction, divisor: float, divided_away: float = 1.0) -> float:
    """What every item's loss is multiplied by before backward.

    Args:
        reduction: the recipe's.
        divisor: D of the whole update.
        divided_away: what the framework will divide the gradient by afterwards: the number of processes under DDP.
    """
    return divided_away / divisor if reduction == "mean" else divided_away


def clip_threshold(max_norm: float | None, reduction: Reduction, divisor: float) -> float:
    """The L2 norm above which the gradient in `.grad` is scaled down; infinite for no clipping, and for no item."""
    if max_norm is None or not divisor:
        return math.inf
    return max_norm if reduction == "mean" else max_norm * divisor


def mean_loss(total: float, divisor: float) -> float:
    """The reported loss: the sum of the items' losses over D; NaN where there is no item."""
    return total / divisor if divisor else math.nan


def effective_rate(lr: float, reduction: Reduction, divisor: float, *, optimizer_divides: bool) -> float:
    """The learning rate that plain SGD on the mean loss would need for the same step.

    `mean` with an updater that divides again gives lr / D; `sum` with one that does not gives lr * D.
    """
    rate = lr if reduction == "mean" else lr * divisor
    return rate / divisor if optimizer_divides else rate

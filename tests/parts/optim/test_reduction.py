"""The arithmetic of one update, against its definition, for any split of a batch."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpipe.parts.optim.reduction import clip_threshold, effective_rate, item_scale, mean_loss

GRADIENTS = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=24)
REDUCTIONS = st.sampled_from(["none", "mean", "sum"])
CUTS = st.lists(st.integers(0, 24), max_size=5)


def split(items: list[float], cuts: list[int]) -> list[list[float]]:
    """The items cut into micro-batches at these places; some may be empty."""
    edges = [0, *sorted(min(cut, len(items)) for cut in cuts), len(items)]
    return [items[start:end] for start, end in itertools.pairwise(edges)]


@given(items=GRADIENTS, cuts=CUTS, reduction=REDUCTIONS, weight=st.floats(0.1, 10.0))
def test_any_split_of_an_update_adds_up_to_the_same_gradient(
    items: list[float], cuts: list[int], reduction: str, weight: float
) -> None:
    """Micro-batches of any size give the gradient of the whole batch: Σ/D for mean, Σ for sum and none."""
    divisor = weight * len(items)
    scale = item_scale(reduction, divisor)
    landed = math.fsum(scale * part for micro_batch in split(items, cuts) for part in micro_batch)
    whole = math.fsum(items) / divisor if reduction == "mean" else math.fsum(items)
    assert landed == pytest.approx(whole, rel=1e-12, abs=1e-9)


@given(items=GRADIENTS, processes=st.integers(1, 8), reduction=REDUCTIONS)
def test_the_average_over_processes_is_undone(items: list[float], processes: int, reduction: str) -> None:
    """DDP averages what each process has; the update is that of one process with all the items."""
    shares = [items[rank::processes] for rank in range(processes)]
    scale = item_scale(reduction, float(len(items)), processes)
    averaged = math.fsum(scale * math.fsum(share) for share in shares) / processes
    alone = item_scale(reduction, float(len(items))) * math.fsum(items)
    assert averaged == pytest.approx(alone, rel=1e-12, abs=1e-9)


@given(norm=st.floats(0.0, 1e6), max_norm=st.floats(1e-3, 1e3), divisor=st.floats(1e-2, 1e4), reduction=REDUCTIONS)
def test_clipping_speaks_about_the_mean_gradient(norm: float, max_norm: float, divisor: float, reduction: str) -> None:
    """The gradient is scaled down by the same factor whatever the reduction."""
    mean_factor = min(1.0, max_norm / norm) if norm else 1.0
    landed = norm if reduction == "mean" else norm * divisor
    threshold = clip_threshold(max_norm, reduction, divisor)
    assert (min(1.0, threshold / landed) if landed else 1.0) == pytest.approx(mean_factor, rel=1e-12)


@given(divisor=st.floats(1e-2, 1e4), reduction=REDUCTIONS)
def test_no_clipping_is_an_infinite_threshold(divisor: float, reduction: str) -> None:
    """Without max_norm no norm is too long."""
    assert clip_threshold(None, reduction, divisor) == math.inf


@given(items=GRADIENTS, lr=st.floats(1e-6, 10.0), reduction=REDUCTIONS, divides=st.booleans())
def test_the_effective_rate_is_that_of_sgd_on_the_mean(
    items: list[float], lr: float, reduction: str, divides: bool
) -> None:
    """A step of the reduction and the updater equals a step of plain SGD on the mean loss at the effective rate."""
    divisor = float(len(items))
    landed = item_scale(reduction, divisor) * math.fsum(items)
    step = lr * landed / (divisor if divides else 1.0)
    rate = effective_rate(lr, reduction, divisor, optimizer_divides=divides)
    assert rate * math.fsum(items) / divisor == pytest.approx(step, rel=1e-12, abs=1e-12)


@given(losses=GRADIENTS, weight=st.floats(0.1, 10.0))
def test_the_reported_loss_is_the_mean_over_items(losses: list[float], weight: float) -> None:
    """Σℓ / D, whatever the reduction."""
    assert mean_loss(math.fsum(losses), weight * len(losses)) == math.fsum(losses) / (weight * len(losses))

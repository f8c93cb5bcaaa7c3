"""The objective: per-item losses, counted before backward, and what is refused as no loss."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hfpipe.errors import RecipeError
from hfpipe.parts.optim import losses
from hfpipe.parts.optim.objective import Objective, UpdateLosses, as_items
from hfpipe.parts.optim.reduction import Reduction, clip_threshold, mean_loss
from hfpipe.recipe.catalog import LOSSES

LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
LABELS = torch.tensor([0, 1, 2, -100, 1, 0, 2])
CUTS = [(0, 7), (0, 4, 7), (0, 1, 2, 3, 4, 5, 6, 7), (0, 3, 4, 7)]


def objective(reduction: str = "mean", weights: torch.Tensor | None = None, loss: Any = None) -> Objective:
    """Cross entropy, or another loss, under a reduction."""
    bound = loss or functools.partial(losses.cross_entropy, class_weights=weights)
    return Objective(bound, "cross_entropy", reduction, weights)


def gradient(reduction: str, cuts: tuple[int, ...], weights: torch.Tensor | None = None) -> torch.Tensor:
    """What lands in `.grad` of the logits when the batch is cut at these places."""
    logits = LOGITS.clone().requires_grad_()
    target = objective(reduction, weights)
    batches = [slice(start, end) for start, end in itertools.pairwise(cuts)]
    tally = target.tally([{"labels": LABELS[batch]} for batch in batches])
    for batch in batches:
        target.backward_value(target.item_losses(logits[batch], LABELS[batch]), tally, 1).backward()
    return logits.grad


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_the_gradient_is_torchs_own_for_any_cut(cuts: tuple[int, ...], weights: torch.Tensor | None) -> None:
    """mean equals torch's (weighted) mean of the whole batch, and sum its sum, however the batch is cut."""
    for reduction in ("mean", "sum"):
        logits = LOGITS.clone().requires_grad_()
        F.cross_entropy(logits, LABELS, weight=weights, reduction=reduction).backward()
        torch.testing.assert_close(gradient(reduction, cuts, weights), logits.grad, rtol=1e-6, atol=1e-7)
    assert torch.equal(gradient("none", cuts, weights), gradient("sum", cuts, weights))


def test_items_are_counted_over_the_whole_update() -> None:
    """N is the number of labels that count, D the sum of their weights, over all micro-batches."""
    batches = [{"labels": LABELS[:4]}, {"labels": LABELS[4:]}]
    assert (objective().tally(batches).num_items, objective().tally(batches).divisor) == (6, 6.0)
    weighted = objective(weights=torch.tensor([1.0, 2.0, 0.5])).tally(batches)
    assert (weighted.num_items, weighted.divisor) == (6, 2 * 1.0 + 2 * 2.0 + 2 * 0.5)
    tokens = objective().tally([{"labels": torch.tensor([[0, -100], [1, 2]])}])
    assert tokens.num_items == 3


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_an_update_without_items_has_no_loss_and_no_gradient(reduction: Reduction) -> None:
    """All labels ignored, or all weights zero: nothing is divided by zero, and backward gives zeros."""
    for target, labels in (
        (objective(reduction=reduction), torch.full((7,), -100)),
        (objective(reduction=reduction, weights=torch.zeros(3)), LABELS),
    ):
        logits = torch.randn(7, 3, requires_grad=True)
        tally = target.tally([{"labels": labels}])
        assert tally.divisor == 0
        losses = target.item_losses(logits, labels)
        target.backward_value(losses, tally, 2).backward()
        assert logits.grad is not None
        assert not logits.grad.any()
        assert math.isinf(clip_threshold(1.0, reduction, tally.divisor))
        assert math.isnan(mean_loss(float(losses.detach().sum()), tally.divisor))


@pytest.mark.parametrize("number", [-100.0, -100.5, 0.0])
def test_every_number_is_an_item_but_nan(number: float) -> None:
    """-100.0 in a regression counts as any other number does; only NaN, which marks a blank, does not."""
    target = Objective(losses.mse, "mse", "mean")
    labels = torch.tensor([number, 2.0, math.nan])
    assert target.tally([{"labels": labels}]).num_items == 2
    logits = torch.tensor([[1.0], [2.0], [5.0]], requires_grad=True)
    found = target.item_losses(logits, labels)
    assert found.tolist() == [(1 - number) ** 2, 0.0, 0.0]
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == [2 * (1 - number), 0.0, 0.0]


@pytest.mark.parametrize("poison", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("name", list(LOSSES.keys()))
def test_ignored_labels_cost_nothing(name: str, poison: float) -> None:
    """Their loss, weight and gradient are 0 with every loss, even where the logits are not finite; no other item changes."""
    weights = torch.tensor([0.5, 2.0, 1.0])
    loss = functools.partial(getattr(losses, name), label_smoothing=0.1, class_weights=weights)
    target = Objective(loss, name, "mean", weights)
    logits = LOGITS.detach().clone()
    logits[3] = poison
    logits.requires_grad_()
    found = target.item_losses(logits, LABELS)
    assert found[3] == 0.0
    found.sum().backward()
    assert not logits.grad[3].any()
    assert torch.isfinite(logits.grad).all()
    others = [0, 1, 2, 4, 5, 6]
    assert torch.equal(found[others], target.item_losses(LOGITS[others], LABELS[others]))
    assert target.weights(LABELS).tolist() == [0.5, 2.0, 1.0, 0.0, 2.0, 0.5, 1.0]


def test_nothing_but_ignored_labels_gives_zeros() -> None:
    """Zeros with a zero gradient, not NaN."""
    logits = LOGITS.detach().clone().requires_grad_()
    found = objective().item_losses(logits, torch.full_like(LABELS, -100))
    found.sum().backward()
    assert not found.any()
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda logits, targets: F.cross_entropy(logits, targets), "shape []"),
        (lambda logits, targets: logits, "shape [7, 3]"),
        (lambda logits, targets: F.cross_entropy(logits, targets, reduction="none")[:3], "shape [3]"),
        (lambda logits, targets: 0.5, "float"),
        (lambda logits, targets: None, "NoneType"),
    ],
)
def test_what_is_no_loss_per_item_is_told(loss: Any, got: str) -> None:
    """A scalar, another shape or no tensor at all is an error that names the loss and the shape it should have."""
    with pytest.raises(RecipeError) as caught:
        objective(loss=loss).item_losses(LOGITS, LABELS)
    assert f"gave {got} for 7 items" in str(caught.value)
    assert "shape [7]" in str(caught.value)
    assert "reduction='none'" in str(caught.value)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_values_of_a_step(reduction: str) -> None:
    """The loss is Σℓ / N whatever the reduction; the raw reduced value stands beside it."""
    target = objective(reduction)
    tally = target.tally([{"labels": LABELS[:4]}, {"labels": LABELS[4:]}])
    update = UpdateLosses(target, tally)
    for part in (slice(0, 4), slice(4, 7)):
        update.add(target.item_losses(LOGITS[part], LABELS[part]))
    values, norm = update.summary(torch.tensor(0.5))
    assert norm == 0.5
    mean = float(F.cross_entropy(LOGITS.double(), LABELS))
    assert values["loss"] == pytest.approx(mean, rel=1e-6)
    assert values["num_items"] == 6
    if reduction == "none":
        assert len(values["reduced_loss"]) == 7
        assert sum(values["reduced_loss"]) == pytest.approx(6 * mean, rel=1e-6)
    else:
        assert values["reduced_loss"] == pytest.approx(mean if reduction == "mean" else 6 * mean, rel=1e-6)


def test_one_row_a_label_position() -> None:
    """Sequences, tokens and numbers all become positions: the last axis of the logits stays the classes."""
    logits, targets = as_items(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.long))
    assert (logits.shape, targets.shape) == ((10, 3), (10,))
    logits, targets = as_items(torch.zeros(4, 1, dtype=torch.bfloat16), torch.zeros(4))
    assert (logits.shape, targets.shape, logits.dtype) == ((4,), (4,), torch.float32)

"""Losses that return one number per item, and the class weights that go with them.

A loss is a function `loss(logits, targets, *, label_smoothing=0.0, class_weights=None, ...) -> [items]`. It neither
sums nor divides: that happens once, in `parts/optim/reduction.py`. Two shapes are understood:

* classification: logits `[items, classes]`, targets `[items]` of integer class ids. `bce_with_logits` also takes
  multi-hot targets `[items, classes]`.
* regression (`mse`, `l1`, `smooth_l1`): logits `[items]`, targets `[items]` of floats.

In the formulas z are an item's logits, y its class, C the number of classes, p = softmax(z), w the class weights, e the
label smoothing, and t the smoothed one-hot target: t_c = (1 - e) [c = y] + e / C (Szegedy et al. 2016, "Rethinking the
Inception architecture", section 7).

Logits in half precision are computed with in float32. Labels that are ignored (-100) never reach a loss: `Objective`
leaves them out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hfpipe.errors import DataError, RecipeError
from hfpipe.recipe.catalog import near
from hfpipe.system.text import listed


def cross_entropy(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross entropy: sum_c w_c t_c (-log p_c).

    The sum over the items, divided by the sum of `item_weights`, is torch's weighted mean, smoothing included. The
    smoothed part is weighted class by class, as torch does it, and not by the weight of the target.

    Args:
        logits: `[items, classes]`.
        targets: `[items]`, class ids.
        label_smoothing: e, from 0 to 1.
        class_weights: `[classes]`.

    Returns:
        `[items]`.

    Source: `torch.nn.functional.cross_entropy`.
    """
    case = _classification("cross_entropy", logits, targets, label_smoothing, class_weights)
    return F.cross_entropy(
        case.logits,
        case.targets,
        weight=case.class_weights,
        label_smoothing=label_smoothing,
        reduction="none",
    )


def focal(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    gamma: float = 2.0,
) -> Tensor:
    """Focal loss: w_y sum_c t_c (1 - p_c)^gamma (-log p_c); without smoothing w_y (1 - p_y)^gamma (-log p_y).

    Easy items count less; gamma 0 is the cross entropy. The paper's alpha is the class weight.

    Args:
        logits: `[items, classes]`.
        targets: `[items]`, class ids.
        label_smoothing: e, from 0 to 1.
        class_weights: `[classes]`.
        gamma: 0 or more, no unit.

    Returns:
        `[items]`.

    Source: Lin et al. 2017, "Focal loss for dense object detection", equations 4 and 5, with softmax for the sigmoid.
    """
    _require(_is_number(gamma) and 0.0 <= gamma < math.inf, "gamma", gamma, "a finite number of 0 or more")
    case = _classification("focal", logits, targets, label_smoothing, class_weights)
    log_p = F.log_softmax(case.logits, dim=-1)
    # The floor keeps the gradient of x^gamma finite at x = 0 (p rounded to 1) for a gamma between 0 and 1.
    other_p = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    return case.weighted(-(case.dense() * other_p**gamma * log_p).sum(dim=-1))


def earth_mover(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Squared earth mover's distance: w_y sum_k (P_k - T_k)^2, with P and T the sums of p and t up to class k.

    For classes in an order (stars, grades): a mistake costs the more, the farther it is from the right class.

    Args:
        logits: `[items, classes]`, the classes in their order.
        targets: `[items]`, class ids.
        label_smoothing: e, from 0 to 1.
        class_weights: `[classes]`.

    Returns:
        `[items]`.

    Source: Hou, Yu and Samaras 2016, "Squared earth mover's distance-based loss for training deep neural networks",
    equation 9 with l = 2.
    """
    case = _classification("earth_mover", logits, targets, label_smoothing, class_weights)
    ahead = (F.softmax(case.logits, dim=-1) - case.dense()).cumsum(dim=-1)  # [items, classes]
    return case.weighted(ahead.pow(2).sum(dim=-1))


def kl_div(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Kullback-Leibler divergence of the prediction from the target: w_y sum_c t_c (log t_c - log p_c), 0 log 0 = 0.

    Without smoothing this is the cross entropy; with it, the cross entropy less the entropy of t, so that the best
    possible loss is 0.

    Args:
        logits: `[items, classes]`.
        targets: `[items]`, class ids.
        label_smoothing: e, from 0 to 1.
        class_weights: `[classes]`.

    Returns:
        `[items]`; its mean is torch's `batchmean`.

    Source: `torch.nn.functional.kl_div` of log_softmax(z) and t; Kullback and Leibler 1951.
    """
    case = _classification("kl_div", logits, targets, label_smoothing, class_weights)
    log_p = F.log_softmax(case.logits, dim=-1)
    return case.weighted(F.kl_div(log_p, case.dense(), reduction="none").sum(dim=-1))


def cosine_embedding(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cosine distance of the logits from the target: w_y (1 - cos(z, t)).

    torch's loss for pairs that belong together. It has no margin here: torch's margin is for pairs that don't.

    Args:
        logits: `[items, classes]`.
        targets: `[items]`, class ids.
        label_smoothing: e, from 0 to 1.
        class_weights: `[classes]`.

    Returns:
        `[items]`.

    Source: `torch.nn.functional.cosine_embedding_loss` with y = 1; Barz and Denzler 2020, "Deep learning on small
    datasets without pre-training using cosine loss".
    """
    case = _classification("cosine_embedding", logits, targets, label_smoothing, class_weights)
    together = torch.ones_like(case.logits[:, 0])
    return case.weighted(F.cosine_embedding_loss(case.logits, case.dense(), together, reduction="none"))


def bce_with_logits(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Binary cross entropy of each class, averaged: w_y (1/C) sum_c -[t_c log s_c + (1 - t_c) log(1 - s_c)].

    s is sigmoid(z). The average makes the mean over the items equal to torch's mean over all numbers.

    With multi-hot targets each class is a question of its own: the smoothing makes it (1 - e) t + e / 2, nearer to 1/2,
    and w_c weights the class inside the average instead of the item.

    Args:
        logits: `[items, classes]`.
        targets: `[items]`, class ids; or multi-hot `[items, classes]`, from 0 to 1.
        label_smoothing: e, from 0 to 1.
        class_weights: `[classes]`.

    Returns:
        `[items]`.

    Source: `torch.nn.functional.binary_cross_entropy_with_logits`; for one-hot targets Wightman et al. 2021, "ResNet
    strikes back".
    """
    if targets.ndim == 2:
        return _multi_hot_bce(logits, targets, label_smoothing, class_weights)
    case = _classification("bce_with_logits", logits, targets, label_smoothing, class_weights)
    losses = F.binary_cross_entropy_with_logits(case.logits, case.dense(), reduction="none")  # [items, classes]
    return case.weighted(losses.mean(dim=-1))


def mse(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Squared error: (z - y)^2; of classes w_y (1/C) sum_c (z_c - t_c)^2.

    With classes the logits themselves are compared with the target, without a softmax, as the source does.

    Args:
        logits: `[items]`, or `[items, classes]`.
        targets: `[items]`: floats, or class ids.
        label_smoothing: e, from 0 to 1; for classes only.
        class_weights: `[classes]`; for classes only.

    Returns:
        `[items]`.

    Source: `torch.nn.functional.mse_loss`; Hui and Belkin 2021, "Evaluation of neural architectures trained with square
    loss vs cross-entropy in classification tasks", section 2.
    """
    if logits.ndim == 1:
        return F.mse_loss(*_regression("mse", logits, targets, label_smoothing, class_weights), reduction="none")
    case = _classification("mse", logits, targets, label_smoothing, class_weights)
    return case.weighted(F.mse_loss(case.logits, case.dense(), reduction="none").mean(dim=-1))


def l1(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> Tensor:
    """Absolute error: |z - y|; of classes w_y (1/C) sum_c |z_c - t_c|.

    With classes the logits themselves are compared with the target, without a softmax, as the source does.

    Args:
        logits: `[items]`, or `[items, classes]`.
        targets: `[items]`: floats, or class ids.
        label_smoothing: e, from 0 to 1; for classes only.
        class_weights: `[classes]`; for classes only.

    Returns:
        `[items]`.

    Source: `torch.nn.functional.l1_loss`; for classes Janocha and Czarnecki 2017, "On loss functions for deep neural
    networks in classification", table 1 (there summed over the classes).
    """
    if logits.ndim == 1:
        return F.l1_loss(*_regression("l1", logits, targets, label_smoothing, class_weights), reduction="none")
    case = _classification("l1", logits, targets, label_smoothing, class_weights)
    return case.weighted(F.l1_loss(case.logits, case.dense(), reduction="none").mean(dim=-1))


def smooth_l1(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    beta: float = 1.0,
) -> Tensor:
    """Smooth absolute error: with d = z - y, d^2 / (2 beta) where |d| < beta, else |d| - beta / 2.

    With classes it is w_y times the average of this over z_c - t_c, on the logits themselves as in `mse`.

    Args:
        logits: `[items]`, or `[items, classes]`.
        targets: `[items]`: floats, or class ids.
        label_smoothing: e, from 0 to 1; for classes only.
        class_weights: `[classes]`; for classes only.
        beta: where the parabola meets the line, in units of the target; 0 is `l1`.

    Returns:
        `[items]`.

    Source: `torch.nn.functional.smooth_l1_loss`; Girshick 2015, "Fast R-CNN", equation 3 (beta 1).
    """
    _require(_is_number(beta) and 0.0 <= beta < math.inf, "beta", beta, "a finite number of 0 or more")
    if logits.ndim == 1:
        pair = _regression("smooth_l1", logits, targets, label_smoothing, class_weights)
        return F.smooth_l1_loss(*pair, beta=beta, reduction="none")
    case = _classification("smooth_l1", logits, targets, label_smoothing, class_weights)
    return case.weighted(F.smooth_l1_loss(case.logits, case.dense(), beta=beta, reduction="none").mean(dim=-1))


def class_weights(
    spec: str | Mapping[Any, float] | Sequence[float], counts: Sequence[int], names: Sequence[str] = ()
) -> Tensor:
    """Make the weight of each class from the recipe's words and the training split's counts.

    * `"balanced"`: n / (C n_c), n the number of examples. Source: scikit-learn's `compute_class_weight`.
    * `{"effective_number": beta}`: (1 - beta) / (1 - beta^n_c), scaled to sum to C; beta from 0 (all the same) to just
      below 1 (nearly 1 / n_c). Source: Cui et al. 2019, "Class-balanced loss based on effective number of samples".
    * a list: as it stands.
    * a mapping from names of classes: 1 for those that are not named.

    Args:
        spec: one of the four.
        counts: `[classes]`, examples of each class in the training split.
        names: of the classes.

    Returns:
        `[classes]`, float32: the very numbers that `item_weights` and the losses use, so that they divide out.

    Raises:
        RecipeError: an unknown word, a beta out of range, a list of the wrong length or with impossible numbers.
        DataError: a class without examples, which neither formula can weight.
    """
    if isinstance(spec, str) and spec == "balanced":
        _require_examples(spec, counts)
        weights = [sum(counts) / (len(counts) * count) for count in counts]
    elif isinstance(spec, Mapping) and set(spec) == {"effective_number"}:
        beta = spec["effective_number"]
        _require(_is_number(beta) and 0.0 <= beta < 1.0, "class_weights.effective_number", beta, "0 <= beta < 1")
        _require_examples("effective_number", counts)
        # (1 - beta) is the same in every class and falls out of the scaling; expm1 keeps the digits for beta near 1.
        raw = [1.0 / -math.expm1(count * math.log(beta)) if beta else 1.0 for count in counts]
        weights = [len(counts) * one / math.fsum(raw) for one in raw]
    elif isinstance(spec, Mapping) and spec:
        if stray := [name for name in spec if name not in names]:
            raise RecipeError(
                f"no class is called {stray[0]!r}{near(str(stray[0]), ['effective_number', *names])}",
                where="loss.class_weights",
                allowed=f"effective_number, or classes: {listed(names, 20)}",
            )
        weights = _listed_weights([spec.get(name, 1.0) for name in names], len(counts))
    elif isinstance(spec, Sequence) and not isinstance(spec, str):
        weights = _listed_weights(spec, len(counts))
    else:
        raise RecipeError(
            f"class weights {spec!r} are not understood",
            where="loss.class_weights",
            allowed="balanced, {effective_number: BETA}, a list of one number per class, or {CLASS: number}",
        )
    return torch.tensor(weights, dtype=torch.float32)


def item_weights(targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """What each item adds to the divisor of a mean: w_y, or 1 without weights.

    The divisor is the sum of these over the whole update. Targets that are no class ids (floats, multi-hot) add 1.

    Args:
        targets: `[items]`, class ids, or floats; or multi-hot `[items, classes]`.
        class_weights: `[classes]`.

    Returns:
        `[items]`, in the type of `class_weights`, float32 without them.
    """
    if targets.ndim == 2 or targets.is_floating_point():
        dtype = torch.float32 if class_weights is None else class_weights.dtype
        return torch.ones(targets.shape[0], dtype=dtype, device=targets.device)
    if class_weights is None:
        return torch.ones(len(targets), device=targets.device)
    return class_weights.to(targets.device)[targets]


class _Case(NamedTuple):
    """A classification batch made ready: half precision widened."""

    logits: Tensor  # [items, classes], float32 or float64
    targets: Tensor  # [items], class ids
    label_smoothing: float
    class_weights: Tensor | None  # [classes]

    def dense(self) -> Tensor:
        """The smoothed one-hot targets t. `[items, classes]`."""
        num_classes = self.logits.shape[1]
        one_hot = F.one_hot(self.targets, num_classes).to(self.logits.dtype)
        return one_hot * (1.0 - self.label_smoothing) + self.label_smoothing / num_classes

    def weighted(self, losses: Tensor) -> Tensor:
        """Multiply by w_y. `[items]`."""
        return losses * item_weights(self.targets, self.class_weights).to(losses.dtype)


def _classification(
    name: str, logits: Tensor, targets: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> _Case:
    _require_float(name, logits)
    if logits.ndim != 2 or targets.ndim != 1 or logits.shape[0] != targets.shape[0] or targets.is_floating_point():
        extra = " (or multi-hot [items, classes])" if name == "bce_with_logits" else ""
        raise RecipeError(
            f"{name} got {_shape('logits', logits)} and {_shape('targets', targets)}",
            where="loss.name",
            allowed=f"logits [items, classes] and integer targets [items]{extra}",
            fix="For one float per item take mse, l1 or smooth_l1.",
        )
    logits = _widened(logits)
    class_weights = _checked_weights(name, logits, label_smoothing, class_weights)
    return _Case(logits, targets.long(), label_smoothing, class_weights)


def _regression(
    name: str, logits: Tensor, targets: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Check a regression batch and return logits and targets, both `[items]`, in one type."""
    _require_float(name, logits)
    if label_smoothing or class_weights is not None:
        option = "label_smoothing" if label_smoothing else "class_weights"
        raise RecipeError(
            f"{name} of one float per item has no classes, so {option} has no meaning",
            where=f"loss.{option}",
            fix=f"Remove loss.{option}, or train a classification.",
        )
    if targets.shape != logits.shape or not targets.is_floating_point():
        raise RecipeError(
            f"{name} got {_shape('logits', logits)} and {_shape('targets', targets)}",
            where="loss.name",
            allowed="logits [items] and float targets [items], or logits [items, classes] and integer targets [items]",
        )
    logits = _widened(logits)
    return logits, targets.to(logits.dtype)


def _multi_hot_bce(logits: Tensor, targets: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    _require_float("bce_with_logits", logits)
    if logits.shape != targets.shape:
        raise RecipeError(
            f"bce_with_logits got {_shape('logits', logits)} and multi-hot {_shape('targets', targets)}",
            where="loss.name",
            allowed="both [items, classes]",
        )
    logits = _widened(logits)
    weights = _checked_weights("bce_with_logits", logits, label_smoothing, class_weights)
    dense = targets.to(logits.dtype) * (1.0 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, dense, weight=weights, reduction="none").mean(dim=-1)


def _checked_weights(name: str, logits: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor | None:
    """Check the options against the logits `[items, classes]`; return the class weights in their type and place."""
    _require(0.0 <= label_smoothing <= 1.0, "label_smoothing", label_smoothing, "a share from 0 to 1")
    if class_weights is None:
        return None
    if class_weights.shape != logits.shape[1:]:
        raise RecipeError(
            f"{name} got {_shape('class weights', class_weights)} for {logits.shape[1]} classes",
            where="loss.class_weights",
            allowed=f"{logits.shape[1]} numbers, one per class",
        )
    return class_weights.to(logits)


def _listed_weights(spec: Sequence[float], num_classes: int) -> list[float]:
    if len(spec) != num_classes:
        raise RecipeError(
            f"{len(spec)} class weights for {num_classes} classes",
            where="loss.class_weights",
            allowed=f"{num_classes} numbers, one per class in the order of the labels",
        )
    possible = all(_is_number(one) and 0.0 <= one < math.inf for one in spec) and any(spec)
    _require(possible, "class_weights", list(spec), "finite numbers of 0 or more, not all 0")
    return [float(one) for one in spec]


def _require_examples(spec: str, counts: Sequence[int]) -> None:
    empty = [str(index) for index, count in enumerate(counts) if count == 0]
    if empty:
        raise DataError(
            f"no training example of class {', '.join(empty)}, so {spec} cannot weight it",
            where="loss.class_weights",
            fix="Give the weights as a list, or take a training split that has every class.",
        )


def _require(holds: bool, option: str, value: object, allowed: str) -> None:
    if not holds:
        raise RecipeError(f"{option} is {value!r}", where=f"loss.{option}", allowed=allowed)


def _require_float(name: str, logits: Tensor) -> None:
    if not logits.is_floating_point():
        raise RecipeError(f"{name} got {_shape('logits', logits)}", where="loss.name", allowed="logits of floats")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _widened(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _shape(name: str, tensor: Tensor) -> str:
    return f"{name} {list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"

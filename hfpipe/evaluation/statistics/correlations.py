"""95 % intervals of correlations: Pearson, Spearman, Matthews, and Cohen's kappa with quadratic weights."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from hfpipe.evaluation.statistics.proportions import ALPHA, clopper_pearson

Array = np.ndarray[Any, Any]
MOST_CLASSES = 500  # of a kappa
_PERFECT = 0.2  # the same, of numbers that correlate perfectly

_UNSEEN = 1.0  # example of an independent pair, that is supposed beside those seen


class _Linear(NamedTuple):
    """A correlation of the examples and one example of an independent pair, with its influences.

    Attributes:
        value: of the correlation.
        seen: mean square of the influence of the examples.
        independent: that of independent pairs.
        chance: how often two independent draws of the margins differ; 1 of numbers.
    """

    value: float
    seen: float
    independent: float
    chance: float


def correlation_interval(
    kind: Literal["numbers", "ranks", "classes", "kappa"], predictions: Array, references: Array, value: float
) -> tuple[float, float]:
    """The interval of a correlation, by Fisher's z with a variance that supposes no distribution.

    Of classes an example of an independent pair is supposed beside those that were seen, and the interval is no narrower
    than the one that the exact interval of the accuracy makes of it. Of numbers it is no narrower than that of normal
    numbers, and where they correlate perfectly a fifth of an independent pair is supposed. The correlation of the ranks of
    a few examples lies below that of many: the upper end is moved by as much.

    Args:
        kind: what it is a correlation of.
        predictions: `[examples]`.
        references: `[examples]`.
        value: the correlation, defined.

    Source: R. Fisher 1921; the variance by the delta method, as in J. Steiger and A. Hakstian, British Journal of
    Mathematical and Statistical Psychology 35, 1982.
    """
    from scipy import stats

    examples = len(references)
    if kind == "ranks":
        predictions, references = stats.rankdata(predictions), stats.rankdata(references)
    of_classes = kind in ("classes", "kappa")
    unseen = _UNSEEN if of_classes else 0.0
    shrink = 1 / (1 + (unseen or _PERFECT * (1 - abs(value) < 1e-9)) / examples)
    made = {"classes": _of_classes, "kappa": _of_kappa}.get(kind, _of_numbers)
    found = made(predictions, references, shrink)
    variance = (examples * found.seen + unseen * found.independent) / (examples + unseen) ** 2
    inside = float(np.clip(found.value, -1 + 1e-9, 1 - 1e-9))
    half = float(stats.t.isf(ALPHA / 2, examples - 1)) * variance**0.5 / (1 - inside**2)
    if not of_classes:  # Source of the variance of ranks: D. Bonett and T. Wright, Psychometrika 65, 2000
        of_normal = (1 + inside**2 / 2 if kind == "ranks" else 1.0) / (examples - 3)
        half = max(half, float(stats.norm.isf(ALPHA / 2)) * of_normal**0.5)
    above = min(inside + _bias_of_ranks(predictions, references, value), 1 - 1e-9) if kind == "ranks" else inside
    low, high = np.tanh(np.arctanh(inside) - half), np.tanh(np.arctanh(above) + half)
    if of_classes:
        accuracy = float((predictions == references).mean())
        ends = clopper_pearson(accuracy * examples, examples)
        steep = (1 - value) / (1 - accuracy) if accuracy < 1 else 1 / found.chance
        low, high = min(low, 1 - steep * (1 - ends[0])), max(high, 1 - steep * (1 - ends[1]))
    return max(-1.0, float(min(low, value))), min(1.0, float(max(high, value)))


def _bias_of_ranks(predictions: Array, references: Array, value: float) -> float:
    """By how much Spearman's correlation of so many examples lies below that of very many, on average; 0 or more.

    Source: M. Kendall, Rank Correlation Methods, 1948: its mean is ((n - 2) r + 3 tau) / (n + 1).
    """
    from scipy import stats

    examples = len(references)
    tau = float(stats.kendalltau(predictions, references).statistic)
    return max(0.0, ((examples + 1) * value - 3 * tau) / (examples - 2) - value)


def _of_numbers(predictions: Array, references: Array, shrink: float) -> _Linear:
    x, y = (side - side.mean() for side in (predictions.astype(float), references.astype(float)))
    x, y = x / x.std(), y / y.std()
    value = shrink * float((x * y).mean())
    influence = x * y - value / 2 * (x**2 + y**2)
    independent = 1 + value**2 / 4 * float((x**4).mean() + (y**4).mean() + 2)
    return _Linear(value, float((influence**2).mean()), independent, 1.0)


def _of_classes(predictions: Array, references: Array, shrink: float) -> _Linear:
    """Matthews' correlation in any number of classes: that of the indicators of the classes, as vectors."""
    examples = len(references)
    numbered = np.unique(np.concatenate([predictions, references]), return_inverse=True)[1].ravel()
    x, y = numbered[:examples], numbered[examples:]
    p, q = (np.bincount(side, minlength=int(numbered.max()) + 1) / examples for side in (x, y))
    product = (x == y) - q[x] - p[y] + p @ q
    squares = (1 - 2 * p[x] + p @ p, 1 - 2 * q[y] + q @ q)
    sizes = tuple(float(one.mean()) for one in squares)
    scale = (sizes[0] * sizes[1]) ** 0.5
    value = shrink * float(product.mean()) / scale
    influence = product / scale - value / 2 * (squares[0] / sizes[0] + squares[1] / sizes[1])
    both = p @ q - p @ q**2 - p**2 @ q + (p @ q) ** 2
    fourth = sum(float((one**2).mean()) / size**2 for one, size in zip(squares, sizes, strict=True))
    independent = float(both) / scale**2 + value**2 / 4 * (fourth + 2)
    return _Linear(value, float((influence**2).mean()), independent, float(1 - p @ q))


def _of_kappa(predictions: Array, references: Array, shrink: float) -> _Linear:
    """1 - D/E, the mean squared distance of predictions and references over that of independent draws of both."""
    x, y = predictions.astype(float), references.astype(float)
    expected = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    off = shrink * float(((x - y) ** 2).mean()) + (1 - shrink) * expected

    def influence(one: Array, other: Array) -> Array:
        ends = (one - y.mean()) ** 2 + y.var() + (other - x.mean()) ** 2 + x.var() - 2 * expected
        return np.asarray(-((one - other) ** 2 - off) / expected + off / expected**2 * ends)

    sides = [np.unique(side, return_counts=True) for side in (x, y)]
    grid = influence(sides[0][0][:, None], sides[1][0][None, :])
    shares = np.outer(*(counts / len(x) for _, counts in sides))
    chance = 1 - sum(float((x == one).mean() * (y == one).mean()) for one in sides[0][0])
    seen = influence(x, y)
    return _Linear(float(1 - off / expected), float((seen**2).mean()), float((shares * grid**2).sum()), chance)

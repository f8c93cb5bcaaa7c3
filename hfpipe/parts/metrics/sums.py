"""Scores that depend on the examples through sums over them alone: the value, and every resample, from the same sums.

Accuracy is the count of correct examples over that of all. What a score is, a mean, a share or an overlap, decides which
interval it gets (`hfpipe.evaluation.statistics.intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


def ratio(sums: Array) -> Array:
    """The first sum over the second, `[..., 2] -> [...]`."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def share(sums: Array) -> Array:
    """The same of a part and the whole that it is taken from, as recall: never outside of 0 to 1."""
    return ratio(sums)


def overlap(sums: Array) -> Array:
    """The same of twice what two sides have in common, over what both have together, as F1."""
    return ratio(sums)


RATIOS = (ratio, share, overlap)


class Sums(NamedTuple):
    """What to sum for a score, and the score of the sums.

    Attributes:
        terms: of each example, `[sums, examples]`, numbers or bool; examples last, so that numpy adds them pairwise.
        score: `[..., sums] -> [...]`, NaN or infinite where it is undefined.
    """

    terms: Array
    score: Callable[[Array], Array] = ratio


def mean(values: Array) -> Sums:
    """The mean of a number an example, or the share of those that are true, `[examples]`."""
    return Sums(np.stack([values, np.ones_like(values)]), share if values.dtype == bool else ratio)


def values_of(scores: Mapping[str, Sums]) -> dict[str, float | None]:
    """The value of each score; None where it is undefined."""
    with np.errstate(all="ignore"):  # what is undefined is None, and a warning says nothing more
        return {name: finite(float(one.score(one.terms.sum(axis=-1)))) for name, one in scores.items()}


def finite(value: float) -> float | None:
    """The number as a float, or None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None

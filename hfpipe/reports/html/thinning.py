"""Long series made short enough to draw: the mean of each bin, and its least and greatest value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray  # [points], float64


@dataclass(frozen=True)
class Series:
    """A series over the steps, ready to draw.

    Attributes:
        steps: of each point, the middle of its bin, `[points]`.
        mean: of the bin, `[points]`; nan where it has no number.
        least: of the bin, `[points]`.
        greatest: of the bin, `[points]`.
        width: steps of a bin; 1 where every step is a point.
    """

    steps: Array
    mean: Array
    least: Array
    greatest: Array
    width: int


def thin(steps: Sequence[float], values: Sequence[float | None], most: int = 300) -> Series:
    """Put neighbouring points together so that at most `most` remain; a spike stays visible in `greatest`.

    Args:
        steps: of each value, rising, `[n]`.
        values: `[n]`; None and what is not finite count as nothing.
        most: points that may remain.
    """
    at, found = np.asarray(steps, dtype=float), np.array([np.nan if v is None else v for v in values], dtype=float)
    found[~np.isfinite(found)] = np.nan
    width = max(1, -(-len(at) // most))
    if width == 1:
        return Series(at, found, found, found, 1)
    bins = -(-len(at) // width)
    known = ~np.isnan(found)
    where = np.arange(len(at)) // width
    counts = np.bincount(where[known], minlength=bins)
    empty = counts == 0
    mean = np.bincount(where[known], weights=found[known], minlength=bins) / np.where(empty, np.nan, counts)
    starts = np.arange(0, len(at), width)
    least = np.minimum.reduceat(np.where(known, found, np.inf), starts)
    greatest = np.maximum.reduceat(np.where(known, found, -np.inf), starts)
    least[empty], greatest[empty] = np.nan, np.nan
    middle = np.bincount(where, weights=at, minlength=bins) / np.bincount(where, minlength=bins)
    return Series(middle, mean, least, greatest, width)

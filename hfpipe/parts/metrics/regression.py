"""Metrics of one number an example; undefined (None) when a prediction is not finite, and without examples."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any, Literal, cast

import numpy as np

from hfpipe.parts.metrics.array_metrics import Statistic, StatisticMetric, SumMetric
from hfpipe.parts.metrics.sums import mean

Array = np.ndarray[Any, Any]


def mse() -> SumMetric:
    """The mean squared error (1/n) Σ (ŷᵢ - yᵢ)², in squared units of the label."""
    return SumMetric("numbers", lambda predictions, references: {"mse": mean((predictions - references) ** 2)})


def mae() -> SumMetric:
    """The mean absolute error (1/n) Σ |ŷᵢ - yᵢ|, in units of the label."""
    return SumMetric("numbers", lambda predictions, references: {"mae": mean(np.abs(predictions - references))})


def pearson() -> StatisticMetric:
    """Pearson's r: Σ(xᵢ - x̄)(yᵢ - ȳ) / √(Σ(xᵢ - x̄)² Σ(yᵢ - ȳ)²).

    Undefined for fewer than two examples, and where either side is constant, also up to rounding: scipy's limit of
    1e-13 of the mean, below which the digits of r are noise. Source: `scipy.stats.pearsonr`.
    """
    return StatisticMetric("numbers", {"pearson": _PEARSON})


def spearman() -> StatisticMetric:
    """Spearman's rank correlation: Pearson's r of the ranks, equal values sharing the mean of their ranks.

    Undefined for fewer than two examples and where either side is constant. Source: `scipy.stats.spearmanr`.
    """
    return StatisticMetric("numbers", {"spearmanr": _SPEARMAN})


def pearson_and_spearman() -> StatisticMetric:
    """`pearson` and `spearman`, as GLUE scores sentence similarity (STS-B)."""
    return StatisticMetric("numbers", {"pearson": _PEARSON, "spearmanr": _SPEARMAN})


def _correlation(which: Literal["pearsonr", "spearmanr"], predictions: Array, references: Array) -> float:
    if len(references) < 2:
        return math.nan
    from scipy import stats

    with warnings.catch_warnings():
        # scipy's own verdict on constant and nearly constant input, which comes as a warning.
        warnings.simplefilter("error", stats.DegenerateDataWarning)
        try:
            return cast(float, getattr(stats, which)(predictions, references).statistic)
        except stats.DegenerateDataWarning:
            return math.nan


def _pearson_of_resamples(predictions: Array, references: Array, axis: int) -> Array:
    """Scipy's own looks at each row for what it must warn of, and is many times slower."""
    x = predictions - predictions.mean(axis=axis, keepdims=True)
    y = references - references.mean(axis=axis, keepdims=True)
    return np.asarray((x * y).sum(axis=axis) / np.sqrt((x * x).sum(axis=axis) * (y * y).sum(axis=axis)))


def _spearman_of_resamples(predictions: Array, references: Array, axis: int) -> Array:
    from scipy.stats import rankdata

    return _pearson_of_resamples(rankdata(predictions, axis=axis), rankdata(references, axis=axis), axis)


_PEARSON = Statistic(functools.partial(_correlation, "pearsonr"), _pearson_of_resamples, "numbers")
_SPEARMAN = Statistic(functools.partial(_correlation, "spearmanr"), _spearman_of_resamples, "ranks")

"""Is a difference more than chance? Numbers in, numbers out: McNemar, t tests, a bootstrap's p, and how many seeds it takes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

Array = np.ndarray[Any, Any]

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 100_000  # nobody trains more; the search ends here


@dataclass(frozen=True)
class Pairs:
    """McNemar's test of two models on the same examples.

    Attributes:
        only_first: examples that the first predicts correctly and the second does not.
        only_second: the other way round.
        p: two-sided.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Array, second: Array) -> Pairs:
    """The exact test of whether both models are correct equally often: binomial over the examples that one alone has correct.

    Args:
        first: whether the first model is correct, `[examples]`.
        second: whether the second is, `[examples]`.

    Returns:
        p is 1 where the models never differ. Source: Q. McNemar, Psychometrika 12, 1947; `scipy.stats.binomtest`.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disagreements = only_first + only_second
    return Pairs(
        only_first, only_second, float(stats.binomtest(only_second, disagreements).pvalue) if disagreements else 1.0
    )


def share_difference(only_first: int, only_second: int, examples: int) -> list[float]:
    """The 95 % interval [low, high] of how much greater the second model's share of correct examples is, seen in pairs.

    A pair of each kind is supposed beside those that were seen, so that two models that never differ have an interval, too.
    Source: D. Bonett and R. Price, Journal of Educational and Behavioral Statistics 37, 2012.
    """
    of = examples + 2
    lost, won = (only_first + 1) / of, (only_second + 1) / of
    half = float(stats.norm.isf(ALPHA / 2)) * ((lost + won - (won - lost) ** 2) / of) ** 0.5
    return [max(-1.0, won - lost - half), min(1.0, won - lost + half)]


def p_of_resamples(differences: Array) -> float | None:
    """Two-sided p of the hypothesis that a difference is 0, from the difference in each resample.

    Twice the share of resamples on the rarer side of 0, those at 0 counting for both sides and the data themselves as
    one resample more, so that it is never 0. It is below 0.05 where the 95 % percentile interval leaves 0 out. Source:
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 15 and 16.

    Args:
        differences: `[resamples]`, NaN where undefined.

    Returns:
        None where more than half of them, or all, are undefined.
    """
    defined = differences[np.isfinite(differences)]
    if not len(defined) or len(defined) * 2 < len(differences):
        return None
    rarer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(defined) + 1))


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation (n - 1); exactly 0 for equal values, None for fewer than two."""
    if len(values) < 2:
        return None
    return 0.0 if min(values) == max(values) else float(np.std(values, ddof=1))


def t_interval(values: Sequence[float]) -> list[float] | None:
    """The 95 % interval [low, high] of the mean, by Student's t; None for fewer than two values, or where all are equal."""
    return _around(values, 1 / len(values)) if deviation(values) else None


def prediction_interval(values: Sequence[float]) -> list[float] | None:
    """Where one more value of the same kind would be in 95 % of all cases, by Student's t; None as for `t_interval`."""
    return _around(values, 1 + 1 / len(values)) if deviation(values) else None


def _around(values: Sequence[float], variances: float) -> list[float]:
    spread = deviation(values)
    assert spread is not None
    middle = float(np.mean(values))
    half = float(stats.t.isf(ALPHA / 2, len(values) - 1)) * spread * variances**0.5
    return [middle - half, middle + half]


@dataclass(frozen=True)
class MeanDifference:
    """A t test of two means.

    Attributes:
        difference: the second mean minus the first.
        interval: its 95 % interval [low, high]; None where there is none.
        p: two-sided; None where there is none: fewer than two values on a side, or none that differ on both.
    """

    difference: float
    interval: list[float] | None
    p: float | None


def welch(first: Sequence[float], second: Sequence[float]) -> MeanDifference:
    """Whether two means differ, without supposing equal deviations. Source: `scipy.stats.ttest_ind`."""
    difference = float(np.mean(second) - np.mean(first))
    if min(len(first), len(second)) < 2 or not (deviation(first) or deviation(second)):
        return MeanDifference(difference, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal values on one side are no loss of precision
        tested = stats.ttest_ind(second, first, equal_var=False)
        interval = tested.confidence_interval(1 - ALPHA)
    return MeanDifference(difference, [float(interval.low), float(interval.high)], float(tested.pvalue))


def differences_of(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """The second minus the first, value by value; rounding in the last digits makes no difference of its own."""
    return [round(after - before, 12) for before, after in zip(first, second, strict=True)]


def paired_t(first: Sequence[float], second: Sequence[float]) -> MeanDifference:
    """Whether two means differ, of values that belong together one by one. Source: `scipy.stats.ttest_rel`."""
    differences = differences_of(first, second)
    difference = float(np.mean(differences))
    if not deviation(differences):
        return MeanDifference(difference, None, None)
    p = float(stats.ttest_rel(second, first).pvalue)
    return MeanDifference(difference, t_interval(differences), p)


def power(effect: float, sizes: Sequence[int]) -> float:
    """The chance that a two-sided t test at 0.05 finds a true difference.

    Args:
        effect: the difference in standard deviations.
        sizes: one number of values for the test of a mean against a known number, two for the test of two means.

    Returns:
        By the noncentral t. Source: J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 2.
    """
    freedom = sum(sizes) - len(sizes)
    shift = abs(effect) / sum(1 / size for size in sizes) ** 0.5
    bound = stats.t.isf(ALPHA / 2, freedom)
    # scipy gives NaN for some of the far tails, which are nothing here.
    return float(stats.nct.sf(bound, freedom, shift) + np.nan_to_num(stats.nct.cdf(-bound, freedom, shift)))


def seeds_needed(difference: float, deviation: float, *, groups: int = 1) -> int | None:
    """How many seeds, in each group, tell a difference from noise with power 0.8 at 0.05, in a two-sided t test.

    Args:
        difference: that is supposed to be the true one.
        deviation: between seeds; that of the groups together, where there are two.
        groups: 1 for a mean against a known number, 2 for two means.

    Returns:
        At least 2, since one seed has no deviation; None for no difference, or where it takes more than 100,000.
    """
    if not difference:
        return None
    if not deviation:
        return 2
    effect = difference / deviation

    def suffices(seeds: int) -> bool:
        return power(effect, [seeds] * groups) >= POWER

    low, high = 1, 2
    while not suffices(high):
        if high >= MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def smallest_difference(deviation: float, sizes: Sequence[int]) -> float | None:
    """The smallest true difference that so many seeds tell from noise with power 0.8 at 0.05.

    Args:
        deviation: between seeds.
        sizes: as for :func:`power`.

    Returns:
        In the unit of the deviation; None where one seed alone has no deviation.
    """
    if min(sizes) < 2:
        return None
    effect = optimize.brentq(lambda tried: power(tried, sizes) - POWER, 1e-6, 100.0)
    return float(effect) * deviation

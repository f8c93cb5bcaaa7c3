"""Resamples of the examples, and the intervals that come from them.

Which metric gets which interval is said in `hfpipe.evaluation.statistics.intervals`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hfpipe.errors import HfpipeError
from hfpipe.parts.metrics.array_metrics import StatisticMetric
from hfpipe.parts.metrics.scores import Metric, compute_all, takes_logits
from hfpipe.parts.metrics.sums import RATIOS, Sums

Array = np.ndarray[Any, Any]

_RESAMPLES = 9_999
SLOW_RESAMPLES = 999  # for a metric that is computed one resample at a time, or that averages over classes
_STUDENTIZED = 4_999  # resamples
_MOST_ROWS = 1_000  # of a studentized bootstrap; more rows show their skewness well enough
_MOST_DRAWN = 5_000_000  # rows over all resamples of a metric that is computed one resample at a time
_GROUPS = 40  # of rows that are left out in turn, where there are more
_EXCHANGED = 2  # predictions of a resample that are another row's, on average
_FARTHEST = 8.0  # standard errors; a resample without its outlier has next to none
_LEVEL = 0.95
_MOST_NUMBERS = 2_000_000  # held at once while resampling; ten times as many take longer, for the memory is fresh


def resampled_loss(losses: Array, weights: Array, *, seed: int, resamples: int = _RESAMPLES) -> Array:
    """The mean loss of each resample of the examples, `[resamples]`; empty with fewer than two examples."""
    return resampled_sums({"loss": Sums(np.stack([losses, weights]))}, seed, resamples)["loss"]


def resampled(
    metrics: Sequence[tuple[str, Metric]],
    predictions: Array,
    references: Array,
    *,
    seed: int,
    resamples: int = _RESAMPLES,
) -> dict[str, Array]:
    """Every metric on each resample of the examples, NaN where it is undefined.

    The seed and the number of examples alone say which examples a resample has: two sets of predictions for the same
    examples get the same ones.

    Args:
        metrics: as for `compute_all`.
        predictions: decisions, `[examples]`.
        references: labels, `[examples]`.
        seed: of the resampling.
        resamples: how many; at most 999 of a metric that is computed one resample at a time, or that has averages over
            classes.

    Returns:
        `[resamples]` by the name of the score; empty with fewer than two examples.
    """
    found: dict[str, Array] = {}
    fewer = min(resamples, SLOW_RESAMPLES)
    for name, metric in metrics:
        if takes_logits(metric):
            continue
        sums_of = getattr(metric, "sums", None)
        if sums_of is not None:
            sums = sums_of(predictions, references)
            are_ratios = all(one.score in RATIOS for one in sums.values())
            found |= resampled_sums(sums, seed, resamples if are_ratios else fewer)
        elif isinstance(metric, StatisticMetric) and metric.is_vectorised:
            for key, statistic in metric.statistics.items():
                assert statistic.resampled is not None
                found[key] = _bootstrapped((predictions, references), statistic.resampled, seed, resamples)
        else:
            found |= _resampled_slowly(name, metric, predictions, references, seed, fewer)
    return found


def percentiles(values: Array) -> list[float] | None:
    """The middle 95 % of what resampling gave; None where more than half of it, or all, is undefined."""
    defined = values[np.isfinite(values)]
    if len(defined) * 2 < len(values) or not len(defined):
        return None
    low, high = np.percentile(defined, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return [float(low), float(high)]


def mean_interval(values: Array, weights: Array, *, seed: int) -> tuple[list[float] | None, str]:
    """The interval of Σ values / Σ weights, and how it was computed; `[examples]` both, of numbers that may be skewed.

    Of up to 1,000 examples studentized bootstrap: each resample says by how many of its own standard errors its mean is
    off. Of more the quantiles of Student's t, moved by the skewness (Cornish and Fisher). Where no value is negative the
    interval is not, either. Source: P. Hall, The Annals of Statistics 16, 1988; N. Johnson, JASA 73, 1978.
    """
    from scipy import stats

    values, weights = values.astype(float), weights.astype(float)
    examples, total = len(values), weights.sum()
    mean = float(values.sum() / total)
    off = values - mean * weights
    error = float(np.sqrt((off**2).sum() * examples / (examples - 1)) / total)
    if not error > 1e-12 * abs(mean):
        return [mean, mean], "studentized bootstrap"
    if examples <= _MOST_ROWS:
        low, high = np.percentile(_studentized(off, weights, seed), [100 * (1 - _LEVEL) / 2, 50 * (1 + _LEVEL)])
        low, high, method = max(low, -_FARTHEST), min(high, _FARTHEST), "studentized bootstrap"
    else:
        z = float(stats.t.isf((1 - _LEVEL) / 2, examples - 1))
        moved = float(stats.skew(off)) * (2 * z**2 + 1) / (6 * examples**0.5)
        low, high, method = -z - moved, z - moved, "t with the skewness"
    ends = [mean - high * error, mean - low * error]
    return ([max(0.0, ends[0]), ends[1]] if values.min() >= 0 else ends), method


def _studentized(off: Array, weights: Array, seed: int) -> Array:
    """By how many standard errors of its own the mean of each resample is off, without those that have none."""
    examples = len(off)
    table = np.stack([off, weights, off**2, off * weights, weights**2], axis=1)

    def scores_of(counts: Array) -> list[Array]:
        shift, total, squares, products, weights_squared = (counts @ table).T
        by = shift / total
        scatter = squares - 2 * by * products + by**2 * weights_squared
        return [shift / np.sqrt(np.maximum(scatter, 0) * examples / (examples - 1))]

    found = _resampled_by_count(["t"], scores_of, examples, seed, _STUDENTIZED)["t"]
    return np.clip(found[~np.isnan(found)], -_FARTHEST, _FARTHEST)


def intervals_of_any(
    name: str, metric: Metric, predictions: Array, references: Array, *, seed: int
) -> tuple[dict[str, list[float] | None], str]:
    """Intervals of a metric of which nothing is known but how to compute it, by the name of the score, and the method.

    Of up to 5,000 examples percentiles of 999 resamples. In each, two predictions on average are exchanged for those of
    other rows, so that a metric without a single error has an interval, too. Of more examples a jackknife of 40 groups
    with Student's t: whatever the number of rows, the metric is computed 40 times.
    """
    examples = len(references)
    if examples * SLOW_RESAMPLES <= _MOST_DRAWN:
        drawn = _resampled_slowly(name, metric, predictions, references, seed, SLOW_RESAMPLES, exchanged=_EXCHANGED)
        return {key: percentiles(values) for key, values in drawn.items()}, "bootstrap with exchanged predictions"
    from scipy import stats

    groups = np.random.default_rng(seed).permutation(examples) % _GROUPS
    left = [_computed(name, metric, predictions, references, groups != group) for group in range(_GROUPS)]
    whole = compute_all([(name, metric)], predictions, references)
    found: dict[str, list[float] | None] = {}
    for key, value in whole.items():
        others = np.array([np.nan if one.get(key) is None else one[key] for one in left], float)
        if value is None or np.isnan(others).any():
            found[key] = None
            continue
        error = float(np.sqrt((_GROUPS - 1) / _GROUPS * ((others - others.mean()) ** 2).sum()))
        half = float(stats.t.isf((1 - _LEVEL) / 2, _GROUPS - 1)) * error
        found[key] = [value - half, value + half]
    return found, "grouped jackknife"


def _computed(name: str, metric: Metric, predictions: Array, references: Array, rows: Array) -> dict[str, float | None]:
    """The scores of some rows; none where the metric refuses them, such as a resample that lacks a class."""
    try:
        return compute_all([(name, metric)], predictions[rows], references[rows])
    except HfpipeError:
        return {}


def resampled_sums(scores: Mapping[str, Sums], seed: int, resamples: int) -> dict[str, Array]:
    """Scores of sums on the same resamples.

    Two sums are taken over the drawn examples. For more, a resample is how often it has each example, so that one
    product of matrices gives all of them.
    """
    if not scores:
        return {}
    table = np.concatenate([one.terms for one in scores.values()])  # [sums, examples]
    if len(table) == 2:
        ((name, one),) = scores.items()

        def statistic(*drawn: Array, axis: int) -> Array:
            return one.score(np.stack([terms.sum(axis=axis) for terms in drawn], axis=-1))

        return {name: _bootstrapped(tuple(table), statistic, seed, resamples)}
    ends = np.cumsum([len(one.terms) for one in scores.values()])[:-1]
    table = table.astype(float).T

    def scores_of(counts: Array) -> list[Array]:
        parts = np.split(counts @ table, ends, axis=1)  # [resamples, sums] each
        return [one.score(part) for one, part in zip(scores.values(), parts, strict=True)]

    return _resampled_by_count(list(scores), scores_of, len(table), seed, resamples)


def _resampled_by_count(
    names: Sequence[str], scores_of: Callable[[Array], list[Array]], examples: int, seed: int, resamples: int
) -> dict[str, Array]:
    """The resampled scores, one `[resamples]` a name, which `scores_of` makes of the counts `[resamples, examples]`."""
    if examples < 2 or not names:
        return {name: np.empty(0) for name in names}

    def statistic(drawn: Array, axis: int) -> Array:
        rows = drawn.reshape(-1, examples)
        numbered = rows + examples * np.arange(len(rows))[:, None]
        counts = np.bincount(numbered.ravel(), minlength=rows.size).reshape(rows.shape)
        return np.stack(scores_of(counts.astype(float))).reshape(len(names), *drawn.shape[:-1])

    return dict(zip(names, _bootstrapped((np.arange(examples),), statistic, seed, resamples), strict=True))


def _bootstrapped(columns: tuple[Array, ...], statistic: Callable[..., Array], seed: int, resamples: int) -> Array:
    """The statistic of each resample, the last axis counting resamples."""
    examples = len(columns[0])
    if examples < 2:
        return np.empty(0)
    from scipy import stats

    # An undefined resample is NaN and left out later; scipy's warning about it says nothing more.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            columns,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, _MOST_NUMBERS // examples),
            confidence_level=_LEVEL,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return np.asarray(result.bootstrap_distribution)


def _resampled_slowly(
    name: str,
    metric: Metric,
    predictions: Array,
    references: Array,
    seed: int,
    resamples: int,
    *,
    exchanged: int = 0,
) -> dict[str, Array]:
    rng, drawn, examples = np.random.default_rng(seed), [], len(references)
    for _ in range(resamples if examples > 1 else 0):
        rows = rng.integers(0, examples, examples)
        predicted = predictions[rows]
        if exchanged:
            count = rng.binomial(examples, exchanged / (examples + exchanged))
            predicted[:count] = predictions[rng.integers(0, examples, count)]
        try:
            drawn.append(compute_all([(name, metric)], predicted, references[rows]))
        except HfpipeError:  # such as a resample that lacks a class
            drawn.append({})
    names = dict.fromkeys(key for one in drawn for key in one)
    numbers = {key: [one.get(key) for one in drawn] for key in names}
    return {key: np.array([np.nan if one is None else one for one in column], float) for key, column in numbers.items()}

"""How far a metric could be off: 95 % bootstrap intervals over the examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hfpipe.errors import HfpipeError
from hfpipe.parts.metrics.array_metrics import StatisticMetric
from hfpipe.parts.metrics.scores import Metric, compute_all, takes_logits
from hfpipe.parts.metrics.sums import Sums, ratio

Array = np.ndarray[Any, Any]

_RESAMPLES = 9_999
_SLOW_RESAMPLES = 999  # for a metric that is computed one resample at a time, or that averages over classes
_LEVEL = 0.95
_MOST_NUMBERS = 2_000_000  # held at once while resampling; ten times as many take longer, for the memory is fresh


def bootstrap_intervals(
    metrics: Sequence[tuple[str, Metric]],
    predictions: Array,
    references: Array,
    losses: Array,
    weights: Array,
    *,
    seed: int,
    resamples: int = _RESAMPLES,
) -> dict[str, list[float] | None]:
    """Percentile intervals [low, high] of the loss and of every metric, resampling examples with replacement.

    Args:
        metrics: as for `compute_all`.
        predictions: decisions, `[examples]`.
        references: labels, `[examples]`.
        losses: loss of each example, `[examples]`.
        weights: weight of each example in the mean, `[examples]`.
        seed: of the resampling.
        resamples: how many; as for `resampled`.

    Returns:
        An interval by name; None with fewer than two examples, or where more than half of the resamples leave the
        metric undefined. Resamples on which it is undefined are left out. Source: `scipy.stats.bootstrap`.
    """
    drawn = {"loss": resampled_loss(losses, weights, seed=seed, resamples=resamples)}
    drawn |= resampled(metrics, predictions, references, seed=seed, resamples=resamples)
    return {name: percentiles(values) for name, values in drawn.items()}


def resampled_loss(losses: Array, weights: Array, *, seed: int, resamples: int = _RESAMPLES) -> Array:
    """The mean loss of each resample of the examples, `[resamples]`; empty with fewer than two examples."""
    return _resampled_sums({"loss": Sums(np.stack([losses, weights]))}, seed, resamples)["loss"]


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
    fewer = min(resamples, _SLOW_RESAMPLES)
    for name, metric in metrics:
        if takes_logits(metric):
            continue
        sums_of = getattr(metric, "sums", None)
        if sums_of is not None:
            sums = sums_of(predictions, references)
            are_ratios = all(one.score is ratio for one in sums.values())
            found |= _resampled_sums(sums, seed, resamples if are_ratios else fewer)
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


def ratio_intervals(ratios: Mapping[str, tuple[Array, Array]], *, seed: int) -> dict[str, list[float] | None]:
    """Percentile intervals of scores that are one sum over the examples divided by another, both `[examples]`."""
    sums = {name: Sums(np.stack(sides)) for name, sides in ratios.items()}
    return {name: percentiles(values) for name, values in _resampled_sums(sums, seed, _RESAMPLES).items()}


def count_intervals(
    scores: Mapping[str, Callable[[Array], Array]], examples: int, *, seed: int
) -> dict[str, list[float] | None]:
    """Percentile intervals of scores that are functions of how often each example occurs.

    Args:
        scores: functions `[resamples, examples] -> [resamples]`; all see the same resamples.
        examples: how many there are.
        seed: of the resampling.
    """
    found = _resampled_by_count(
        list(scores), lambda counts: [score(counts) for score in scores.values()], examples, seed, _RESAMPLES
    )
    return {name: percentiles(values) for name, values in found.items()}


def _resampled_sums(scores: Mapping[str, Sums], seed: int, resamples: int) -> dict[str, Array]:
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
    name: str, metric: Metric, predictions: Array, references: Array, seed: int, resamples: int
) -> dict[str, Array]:
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(resamples if len(references) > 1 else 0):
        rows = rng.integers(0, len(references), len(references))
        try:
            drawn.append(compute_all([(name, metric)], predictions[rows], references[rows]))
        except HfpipeError:  # such as a resample that lacks a class
            drawn.append({})
    names = dict.fromkeys(key for one in drawn for key in one)
    numbers = {key: [one.get(key) for one in drawn] for key in names}
    return {key: np.array([np.nan if one is None else one for one in column], float) for key, column in numbers.items()}

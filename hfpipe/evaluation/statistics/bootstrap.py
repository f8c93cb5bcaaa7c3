"""How far a figure could be off: 95 % bootstrap intervals over the examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hfpipe.errors import HfpipeError
from hfpipe.parts.metrics.metrics import Metric, compute_all

Array = np.ndarray[Any, Any]

_RESAMPLES = 9_999
_SLOW_RESAMPLES = 999  # for a metric that can only be computed one resample at a time
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
        resamples: how many; of a metric that can only be computed one resample at a time at most 999.

    Returns:
        An interval by name; None with fewer than two examples, or where more than half of the resamples leave the
        metric undefined. Resamples on which it is undefined are left out. Source: `scipy.stats.bootstrap`.
    """
    drawn = {"loss": resampled_loss(losses, weights, seed=seed, resamples=resamples)}
    drawn |= resampled(metrics, predictions, references, seed=seed, resamples=resamples)
    return {name: percentiles(values) for name, values in drawn.items()}


def resampled_loss(losses: Array, weights: Array, *, seed: int, resamples: int = _RESAMPLES) -> Array:
    """The mean loss of each resample of the examples, `[resamples]`; empty with fewer than two examples."""
    return _bootstrapped((losses, weights), _ratio, seed, resamples)


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
        resamples: how many; of a metric that can only be computed one resample at a time at most 999.

    Returns:
        `[resamples]` by the name of the figure; empty with fewer than two examples.
    """
    found: dict[str, Array] = {}
    for name, metric in metrics:
        vectorised, ratios = _STATISTICS.get(name), getattr(metric, "ratios", None)
        if ratios is not None:
            found |= _resampled_ratios(ratios(predictions, references), seed, resamples)
        elif vectorised is not None and _scores_class_1(metric):
            for key, statistic in vectorised.items():
                found[key] = _bootstrapped((predictions, references), statistic, seed, resamples)
        else:
            found |= _resampled_slowly(name, metric, predictions, references, seed, min(resamples, _SLOW_RESAMPLES))
    return found


def percentiles(values: Array) -> list[float] | None:
    """The middle 95 % of what resampling gave; None where more than half of it, or all, is undefined."""
    defined = values[np.isfinite(values)]
    if len(defined) * 2 < len(values) or not len(defined):
        return None
    low, high = np.percentile(defined, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)])
    return [float(low), float(high)]


def _scores_class_1(metric: Metric) -> bool:
    """Whether a metric was built without an average or a positive class of its own, as the statistics below are."""
    return getattr(metric, "average", "binary") == "binary" and getattr(metric, "pos_label", 1) == 1


def ratio_intervals(ratios: Mapping[str, tuple[Array, Array]], *, seed: int) -> dict[str, list[float] | None]:
    """Percentile intervals of figures that are one sum over the examples divided by another, both `[examples]`."""
    return {name: percentiles(values) for name, values in _resampled_ratios(ratios, seed, _RESAMPLES).items()}


def count_intervals(
    figures: Mapping[str, Callable[[Array], Array]], examples: int, *, seed: int
) -> dict[str, list[float] | None]:
    """Percentile intervals of figures that are functions of how often each example occurs.

    Args:
        figures: functions `[resamples, examples] -> [resamples]`; all see the same resamples.
        examples: how many there are.
        seed: of the resampling.
    """

    def together(counts: Array) -> Array:
        return np.stack([figure(counts) for figure in figures.values()])

    found = _resampled_by_count(list(figures), together, examples, seed, _RESAMPLES)
    return {name: percentiles(values) for name, values in found.items()}


def _resampled_ratios(ratios: Mapping[str, tuple[Array, Array]], seed: int, resamples: int) -> dict[str, Array]:
    """Figures that are a sum over the examples divided by another.

    All figures share the resamples. A resample is how often it has each example, `[examples]`, so that one product of
    matrices gives the sums of all figures.
    """
    if not ratios:
        return {}
    table = np.array([side for pair in ratios.values() for side in pair], dtype=float).T  # [examples, 2 figures]

    def figures(counts: Array) -> Array:
        sums = counts @ table  # [resamples, 2 figures]
        return np.asarray((sums[:, ::2] / sums[:, 1::2]).T)

    return _resampled_by_count(list(ratios), figures, len(table), seed, resamples)


def _resampled_by_count(
    names: Sequence[str], figures: Callable[[Array], Array], examples: int, seed: int, resamples: int
) -> dict[str, Array]:
    """The resampled `figures`, which makes `[names, resamples]` of the counts `[resamples, examples]`."""
    if examples < 2 or not names:
        return {name: np.empty(0) for name in names}

    def statistic(drawn: Array, axis: int) -> Array:
        rows = drawn.reshape(-1, examples)
        places = rows + examples * np.arange(len(rows))[:, None]
        times = np.bincount(places.ravel(), minlength=rows.size).reshape(rows.shape)
        return figures(times.astype(float)).reshape(len(names), *drawn.shape[:-1])

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


def _ratio(losses: Array, weights: Array, axis: int) -> Array:
    return np.asarray(losses.sum(axis=axis) / weights.sum(axis=axis))


def _accuracy(predictions: Array, references: Array, axis: int) -> Array:
    return np.asarray((predictions == references).mean(axis=axis))


def _counts(predictions: Array, references: Array, axis: int) -> tuple[Array, Array, Array]:
    """True positives, predicted positives and positives of class 1."""
    said, is_positive = predictions == 1, references == 1
    return (said & is_positive).sum(axis=axis), said.sum(axis=axis), is_positive.sum(axis=axis)


def _f1(predictions: Array, references: Array, axis: int) -> Array:
    hits, said, is_positive = _counts(predictions, references, axis)
    return np.asarray(2 * hits / (said + is_positive))


def _precision(predictions: Array, references: Array, axis: int) -> Array:
    hits, said, _ = _counts(predictions, references, axis)
    return np.asarray(hits / said)


def _recall(predictions: Array, references: Array, axis: int) -> Array:
    hits, _, is_positive = _counts(predictions, references, axis)
    return np.asarray(hits / is_positive)


def _matthews(predictions: Array, references: Array, axis: int) -> Array:
    """The correlation of the confusion matrix in any number of classes, as `MatthewsCorrelation` writes it."""
    examples = references.shape[axis]
    hits = (predictions == references).sum(axis=axis)
    both, said_twice, is_twice = 0, 0, 0
    for label in range(int(max(predictions.max(), references.max())) + 1):  # to sort them all takes five times as long
        said, is_positive = (predictions == label).sum(axis=axis), (references == label).sum(axis=axis)
        both, said_twice, is_twice = both + said * is_positive, said_twice + said**2, is_twice + is_positive**2
    margins = (examples**2 - np.asarray(said_twice, float)) * (examples**2 - np.asarray(is_twice, float))
    return np.asarray((hits * examples - both) / np.sqrt(margins))


def _pearson(predictions: Array, references: Array, axis: int) -> Array:
    x = predictions - predictions.mean(axis=axis, keepdims=True)
    y = references - references.mean(axis=axis, keepdims=True)
    return np.asarray((x * y).sum(axis=axis) / np.sqrt((x * x).sum(axis=axis) * (y * y).sum(axis=axis)))


def _spearman(predictions: Array, references: Array, axis: int) -> Array:
    from scipy.stats import rankdata

    return _pearson(rankdata(predictions, axis=axis), rankdata(references, axis=axis), axis)


def _mse(predictions: Array, references: Array, axis: int) -> Array:
    return np.asarray(((predictions - references) ** 2).mean(axis=axis))


def _mae(predictions: Array, references: Array, axis: int) -> Array:
    return np.asarray(np.abs(predictions - references).mean(axis=axis))


_ONE_ACCURACY = {"accuracy": _accuracy}
_STATISTICS: dict[str, dict[str, Callable[..., Array]]] = {
    "accuracy": _ONE_ACCURACY,
    "f1": {"f1": _f1},
    "precision": {"precision": _precision},
    "recall": {"recall": _recall},
    "matthews_correlation": {"matthews_correlation": _matthews},
    "glue/cola": {"matthews_correlation": _matthews},
    "glue/ax": {"matthews_correlation": _matthews},
    "pearson": {"pearson": _pearson},
    "spearmanr": {"spearmanr": _spearman},
    "mse": {"mse": _mse},
    "mae": {"mae": _mae},
    "glue/mrpc": {"accuracy": _accuracy, "f1": _f1},
    "glue/qqp": {"accuracy": _accuracy, "f1": _f1},
    "glue/stsb": {"pearson": _pearson, "spearmanr": _spearman},
    **{
        f"glue/{name}": _ONE_ACCURACY
        for name in ("sst2", "mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli", "hans")
    },
}

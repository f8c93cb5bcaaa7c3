"""Which 95 % interval a metric gets: the one rule, by what the metric is.

| what a metric is | interval |
| --- | --- |
| a share of examples: accuracy, exact match, all labels correct, precision and recall of a class | Clopper-Pearson, exact |
| F1 of a class, a function of one share | the same, of that share |
| a share over sentences or rows with several items each: entities, words, micro averages, F1 of answers | Korn-Graubard |
| a mean over classes: macro and weighted averages | MOVER of the classes' exact intervals |
| a correlation: Pearson, Spearman, Matthews, kappa | Fisher's z with a robust variance |
| a mean of numbers: the loss, squared and absolute errors | studentized bootstrap; of many rows t with its skewness |
| anything else: metrics of users | bootstrap with exchanged predictions; of many rows a grouped jackknife |

Measured by `scripts/bench_coverage.py`; the table stands in docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hfpipe.evaluation.statistics import bootstrap
from hfpipe.evaluation.statistics.correlations import MOST_CLASSES, correlation_interval
from hfpipe.evaluation.statistics.proportions import class_average, clopper_pearson, clustered, f1_interval, f1_of
from hfpipe.parts.metrics.array_metrics import StatisticMetric
from hfpipe.parts.metrics.averages import ClassAverage, ClassCounts, ClassScore
from hfpipe.parts.metrics.multi_label import SCORES, MultiLabel, count_labels, paired_labels
from hfpipe.parts.metrics.scores import Metric, compute_all, takes_logits
from hfpipe.parts.metrics.sums import Sums, overlap, ratio, share, values_of

Array = np.ndarray[Any, Any]

LEAST_ROWS = 10  # for an interval that rests on more than counts
LEAST_A_CLASS = 5  # references, on average, for one of a mean over classes

EXACT, CLUSTERED, AVERAGED, FISHER = "Clopper-Pearson", "Korn-Graubard", "MOVER", "Fisher's z"
TOO_FEW = "too few rows: {rows}, and it takes at least {least}"


class Interval(NamedTuple):
    """An interval, or why there is none.

    Attributes:
        ends: [low, high] at 95 %; None where there is none.
        method: how it was computed; where there is none, why.
    """

    ends: list[float] | None
    method: str


def intervals_of(
    metrics: Sequence[tuple[str, Metric]],
    predictions: Array,
    references: Array,
    losses: Array,
    weights: Array,
    *,
    seed: int,
) -> dict[str, Interval]:
    """The interval of the loss and of every metric.

    Args:
        metrics: as for `compute_all`.
        predictions: decisions, `[examples]`.
        references: labels, `[examples]`.
        losses: loss of each example, `[examples]`.
        weights: weight of each example in the mean, `[examples]`.
        seed: of what is resampled.
    """
    found = {"loss": _of_sums(Sums(np.stack([losses, weights])), seed)}
    for name, metric in metrics:
        found |= _of_metric(name, metric, predictions, references, seed)
    return found


def split_intervals(found: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    """Intervals as a document has them: `intervals`, `interval_methods`, and of those without one why, `no_interval`."""
    return {
        "intervals": {name: one.ends for name, one in found.items()},
        "interval_methods": {name: one.method for name, one in found.items() if one.ends is not None},
        "no_interval": {name: one.method for name, one in found.items() if one.ends is None},
    }


def exact(hits: int, of: int) -> Interval:
    """The interval of a share of examples; none of a share of nothing."""
    return _between(clopper_pearson(hits, of), EXACT) if of else UNDEFINED


def exact_f1(hits: int, predicted: int, actual: int) -> Interval:
    """The interval of F1 of a class that the examples have or have not; none of a class that does not occur."""
    return _between(f1_interval(hits, predicted, actual), EXACT) if predicted + actual else UNDEFINED


UNDEFINED = Interval(None, "the metric is undefined on these rows")


def _between(ends: tuple[Any, Any], method: str) -> Interval:
    return Interval([float(ends[0]), float(ends[1])], method)


def _of_metric(name: str, metric: Metric, predictions: Array, references: Array, seed: int) -> dict[str, Interval]:
    if isinstance(metric, ClassAverage):
        return {
            metric.name: _of_average(metric.score, metric.counts(predictions, references), weighted=metric.weighted)
        }
    if isinstance(metric, MultiLabel):
        return _of_labels(metric, predictions, references, seed)
    if isinstance(metric, StatisticMetric):
        return _of_statistics(metric, predictions, references)
    sums_of = getattr(metric, "sums", None)
    if sums_of is not None:
        return {key: _of_sums(sums, seed) for key, sums in sums_of(predictions, references).items()}
    return _of_anything(name, metric, predictions, references, seed)


def _of_average(score: ClassScore, counts: ClassCounts | None, *, weighted: bool) -> Interval:
    if counts is None or not counts.occurs.any():
        return UNDEFINED
    each = float(counts.actual.sum() / counts.occurs.sum())
    if each < LEAST_A_CLASS:
        why = f"too few rows: {each:.1f} a class on average, and it takes at least {LEAST_A_CLASS}"
        return Interval(None, why)
    return _between(class_average(score, counts, weighted=weighted), AVERAGED)


def _of_labels(metric: MultiLabel, predictions: Array, references: Array, seed: int) -> dict[str, Interval]:
    predictions, references = paired_labels(predictions, references)
    counts = count_labels(predictions, references)
    found = {key: _of_sums(sums, seed) for key, sums in metric.row_sums(predictions, references).items()}
    for score in SCORES:
        found[f"{score}_macro"] = _of_average(score, counts, weighted=False)
    each = zip(counts.hits.tolist(), counts.predicted.tolist(), counts.actual.tolist(), strict=True)
    names = metric.labels(len(counts.hits))
    return found | {f"{name}_f1": exact_f1(*one) for name, one in zip(names, each, strict=True)}


def _of_statistics(metric: StatisticMetric, predictions: Array, references: Array) -> dict[str, Interval]:
    values, found = metric.compute(predictions=predictions, references=references), {}
    for name, statistic in metric.statistics.items():
        value = values[name]
        if value is None:
            found[name] = UNDEFINED
        elif len(references) < LEAST_ROWS:
            found[name] = too_few(len(references))
        elif statistic.correlates == "kappa" and len(np.unique(references)) > MOST_CLASSES:
            found[name] = Interval(None, f"of a kappa of more than {MOST_CLASSES} classes none is computed")
        else:
            ends = correlation_interval(statistic.correlates, np.asarray(predictions), np.asarray(references), value)
            found[name] = _between(ends, FISHER)
    return found


def too_few(rows: int) -> Interval:
    """No interval, since there are too few rows for one."""
    return Interval(None, TOO_FEW.format(rows=rows, least=LEAST_ROWS))


def _of_sums(sums: Sums, seed: int) -> Interval:
    """By what the score is: a share, an overlap, a mean of numbers, or something else of the sums."""
    with np.errstate(all="ignore"):
        value = values_of({"": sums})[""]
    if value is None:
        return UNDEFINED
    if sums.score is overlap:
        hits = sums.terms[0] / 2
        ends, method = _of_share(hits, sums.terms[1] - hits)
        return _between((f1_of(ends[0]), f1_of(ends[1])), method)
    if sums.score is share or (sums.score is ratio and _is_share(sums.terms)):
        return _between(*_of_share(*sums.terms))
    if sums.terms.shape[1] < LEAST_ROWS:
        return too_few(sums.terms.shape[1])
    if sums.score is ratio:
        return _drawn(*bootstrap.mean_interval(*sums.terms, seed=seed))
    drawn = bootstrap.resampled_sums({"": sums}, seed, bootstrap.SLOW_RESAMPLES)[""]
    return _drawn(bootstrap.percentiles(drawn), "percentile bootstrap")


def _is_share(terms: Array) -> bool:
    return terms.dtype.kind in "biu" and bool(np.isin(terms, (0, 1)).all() and (terms[0] <= terms[1]).all())


def _of_share(hits: Array, of: Array) -> tuple[tuple[Any, Any], str]:
    if of.max() <= 1 and np.isin(hits, (0, 1)).all():
        return clopper_pearson(hits.sum(), of.sum()), EXACT
    return clustered(np.asarray(hits), np.asarray(of)), CLUSTERED


def _of_anything(name: str, metric: Metric, predictions: Array, references: Array, seed: int) -> dict[str, Interval]:
    if takes_logits(metric):
        return {}  # `document` says so of each of its scores
    values = compute_all([(name, metric)], predictions, references)
    if len(references) < LEAST_ROWS:
        return {key: too_few(len(references)) for key in values}
    ends, method = bootstrap.intervals_of_any(name, metric, predictions, references, seed=seed)
    return {key: UNDEFINED if value is None else _drawn(ends.get(key), method) for key, value in values.items()}


def _drawn(ends: list[float] | None, method: str) -> Interval:
    if ends is None:
        return Interval(None, "resampling leaves the metric undefined too often")
    if ends[0] == ends[1]:
        return Interval(None, "the rows show no scatter: every resample has the same value")
    return Interval(ends, method)

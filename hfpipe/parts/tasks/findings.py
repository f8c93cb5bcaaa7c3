"""What stands behind a metric: each class, which is taken for which, how far probabilities can be trusted, where numbers err.

A kind of task adds these to the document of an evaluation (`Task.findings`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# scikit-learn is imported where it is used: no training waits for it before its first step.
Array = np.ndarray[Any, Any]

BINS = 10
Metrics = Mapping[str, float | None]
Intervals = dict[str, list[float] | None]
_MOST_CLASSES = 200  # of a confusion matrix that is written down
_MOST_WITH_INTERVALS = 60  # classes
_POINTS = 500  # of a plot of residuals
_WORST = 10


@dataclass(frozen=True)
class Scored:
    """The rows of a split that count, as they were predicted.

    Attributes:
        predictions: as the task decodes them, `[scored]`.
        references: the labels in the same shape.
        ids: the numbers of these rows in the split, `[scored]`.
        probabilities: of all classes, `[scored, classes]`, where the task has such.
        uncalibrated: the same without the calibration that was fitted, None where none was.
        metrics: of the split, name to number.
        intervals: of these metrics.
        ratio_intervals: intervals of ratios of two sums over the rows, by name: `{name: (numerators, denominators)}`.
        count_intervals: intervals of functions of how often each row occurs, `[resamples, scored] -> [resamples]`.
    """

    predictions: Array
    references: Array
    ids: Array
    probabilities: Array | None
    uncalibrated: Array | None
    metrics: Metrics
    intervals: Mapping[str, list[float] | None]
    ratio_intervals: Callable[[Mapping[str, tuple[Array, Array]]], Intervals]
    count_intervals: Callable[[Mapping[str, Callable[[Array], Array]]], Intervals]


def of_classes(scored: Scored, names: Sequence[str]) -> dict[str, Any]:
    """What a task whose rows have classes adds: `classes`, `ranking` and `calibration`, with their intervals."""
    probabilities, references = scored.probabilities, scored.references
    assert probabilities is not None
    classes = by_class(scored.predictions, references, names, probabilities)
    if len(names) <= _MOST_WITH_INTERVALS:
        _add_intervals(classes, scored)
    found = scored.count_intervals(metrics_by_count(probabilities, references))
    ranked, calibration = ranking(classes), reliability(probabilities, references)
    ranked["intervals"] = {name: found[name] for name in ("roc_auc", "average_precision")}
    calibration["intervals"] = {name: found[name] for name in ("ece", "brier")}
    if scored.uncalibrated is not None:
        before = reliability(scored.uncalibrated, references)
        calibration["before"] = {key: before[key] for key in ("ece", "brier")}
    return {"classes": classes, "ranking": ranked, "calibration": calibration}


def _add_intervals(classes: list[dict[str, Any]], scored: Scored) -> None:
    """Intervals of precision, recall and F1 of each class."""
    predicted, actual = hot(scored.predictions, len(classes)), hot(scored.references, len(classes))
    hits = predicted * actual
    ratios: dict[str, tuple[Array, Array]] = {}
    for k in range(len(classes)):
        ratios[f"precision {k}"] = (hits[:, k], predicted[:, k])
        ratios[f"recall {k}"] = (hits[:, k], actual[:, k])
        ratios[f"f1 {k}"] = (2 * hits[:, k], predicted[:, k] + actual[:, k])
    found = scored.ratio_intervals(ratios)
    for k, one in enumerate(classes):
        one["intervals"] = {name: found[f"{name} {k}"] for name in ("precision", "recall", "f1")}


def by_type(metrics: Metrics, intervals: Mapping[str, list[float] | None]) -> list[dict[str, Any]]:
    """The metrics of each type of entity, or of each tag, from those of seqeval."""
    types = [name.removesuffix("_f1") for name in metrics if name.endswith("_f1")]
    return [
        {
            "name": one,
            **{name: metrics.get(f"{one}_{name}") for name in ("precision", "recall", "f1", "support")},
            "predicted": None,
            "roc_auc": None,
            "average_precision": None,
            "intervals": {name: intervals.get(f"{one}_{name}") for name in ("precision", "recall", "f1")},
        }
        for one in types
    ]


def hot(labels: Array, classes: int) -> Array:
    """Class numbers `[rows]` as 0 and 1, `[rows, classes]`; what is that already stays as it is."""
    return labels if labels.ndim == 2 else (labels[:, None] == np.arange(classes)).astype(np.int64)


def by_class(
    predictions: Array, references: Array, names: Sequence[str], probabilities: Array | None
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class, and how well its probability ranks; None where undefined.

    Args:
        predictions: class numbers, `[rows]`, or 0 and 1, `[rows, classes]`.
        references: the same of the references.
        names: of the classes.
        probabilities: probabilities, `[rows, classes]`, or None.

    Source: `sklearn.metrics.precision_recall_fscore_support`, `roc_auc_score` and `average_precision_score`.
    """
    from sklearn.metrics import precision_recall_fscore_support

    predictions, references = hot(predictions, len(names)), hot(references, len(names))
    columns = range(len(names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is undefined is None, and a warning says nothing more
        scores = [
            precision_recall_fscore_support(references[:, k], predictions[:, k], average="binary", zero_division=np.nan)
            for k in columns
        ]
        ranks = [
            _ranks(references[:, k], probabilities[:, k]) if probabilities is not None else (None, None)
            for k in columns
        ]
    return [
        {
            "name": name,
            "precision": _number(precision),
            "recall": _number(recall),
            "f1": _number(f1),
            "support": int(references[:, k].sum()),
            "predicted": int(predictions[:, k].sum()),
            "roc_auc": ranks[k][0],
            "average_precision": ranks[k][1],
        }
        for k, name, (precision, recall, f1, _) in zip(columns, names, scores, strict=True)
    ]


def confusion(predictions: Array, references: Array, names: Sequence[str]) -> dict[str, Any] | None:
    """How often each class (a row) is predicted as each class (a column); None for very many classes."""
    if len(names) > _MOST_CLASSES:
        return None
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(references, predictions, labels=range(len(names)))
    return {"names": list(names), "counts": counts.tolist()}


def ranking(classes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """ROC-AUC and average precision: of class 1 of two, else the mean over the classes for which they are defined."""
    if len(classes) == 2:
        one = classes[1]
        return {"roc_auc": one["roc_auc"], "average_precision": one["average_precision"], "what": f"of {one['name']!r}"}
    found: dict[str, Any] = {}
    for name in ("roc_auc", "average_precision"):
        defined = [one[name] for one in classes if one[name] is not None]
        found[name] = float(np.mean(defined)) if defined else None
    return {**found, "what": "each class against the others, the mean over the classes"}


def reliability(probabilities: Array, references: Array) -> dict[str, Any]:
    """How far probabilities are what they say: ECE, Brier score, and accuracy by confidence in ten bins of one width.

    Of classes that exclude each other the confidence is the probability of the most probable one. Of classes that may
    hold together every class of every row is a decision of its own, and its confidence that of the more probable side.
    Of two classes the Brier score is that of class 1, of more the sum over the classes.

    Args:
        probabilities: `[rows, classes]`.
        references: class numbers, `[rows]`, or 0 and 1, `[rows, classes]`.

    Source: Guo et al. 2017; Brier 1950.
    """
    confidence, hit = confidences(probabilities, references)
    bins = bins_of(confidence)
    table: list[dict[str, Any]] = []
    gaps = 0.0
    for number in range(BINS):
        inside = bins == number
        count = int(inside.sum())
        sure, accurate = (float(one[inside].mean()) if count else None for one in (confidence, hit))
        gaps += abs(float((confidence - hit)[inside].sum()))
        edges = {"low": number / BINS, "high": (number + 1) / BINS}
        table.append({**edges, "count": count, "confidence": sure, "accuracy": accurate})
    return {"ece": gaps / len(confidence), "brier": float(brier_terms(probabilities, references).mean()), "bins": table}


def confidences(probabilities: Array, references: Array) -> tuple[Array, Array]:
    """How sure each decision is, and whether it is correct, both `[decisions]`."""
    if references.ndim == 1:
        return probabilities.max(axis=1), (probabilities.argmax(axis=1) == references).astype(float)
    return np.maximum(probabilities, 1 - probabilities).ravel(), ((probabilities > 0.5) == references).astype(
        float
    ).ravel()


def bins_of(confidence: Array) -> Array:
    """The bin of each confidence, 0 to 9; a confidence on an edge belongs to the bin above it, 1 to the last."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def brier_terms(probabilities: Array, references: Array) -> Array:
    """The Brier score of each row, `[rows]`."""
    if references.ndim == 1 and probabilities.shape[1] == 2:
        return np.asarray((probabilities[:, 1] - references) ** 2)
    squares = (probabilities - hot(references, probabilities.shape[1])) ** 2
    return np.asarray(squares.sum(axis=1) if references.ndim == 1 else squares.mean(axis=1))


def errors(predictions: Array, references: Array, ids: Array) -> dict[str, Any]:
    """Where a regression errs, in units of the label: mean, median and root mean square error, R², the worst examples.

    Args:
        predictions: `[rows]`.
        references: `[rows]`.
        ids: row numbers in the split, `[rows]`.

    Source: `sklearn.metrics.r2_score` for R², None where the labels are all one number.
    """
    from sklearn.metrics import r2_score

    off = predictions - references
    worst = np.argsort(-np.abs(off), kind="stable")[:_WORST]
    counts, edges = np.histogram(off, bins=20)
    shown = np.linspace(0, len(predictions) - 1, min(_POINTS, len(predictions))).round().astype(int)
    varied = len(references) > 1 and references.min() < references.max()
    return {
        "mean": float(off.mean()),
        "median_absolute": float(np.median(np.abs(off))),
        "rmse": float(np.sqrt((off**2).mean())),
        "r2": float(r2_score(references, predictions)) if varied else None,
        "worst": [
            {
                "id": int(ids[k]),
                "prediction": float(predictions[k]),
                "reference": float(references[k]),
                "said": float(predictions[k]),  # the names of the release before
                "right": float(references[k]),
            }
            for k in worst
        ],
        "residuals": {"edges": edges.tolist(), "counts": counts.tolist()},
        "points": [[float(references[k]), float(predictions[k])] for k in shown],
    }


def metrics_by_count(probabilities: Array, references: Array) -> dict[str, Callable[[Array], Array]]:
    """Functions that compute a metric when each example occurs so often, `[resamples, rows] -> [resamples]`.

    They are what a bootstrap interval of `ranking` and `reliability` needs; with every count 1 they are those metrics.
    """
    classes = probabilities.shape[1]
    held = hot(references, classes)
    ranked = [1] if classes == 2 and references.ndim == 1 else range(classes)
    confidence, hit = confidences(probabilities, references)
    bins, each = bins_of(confidence), len(confidence) // len(references)
    gap = np.zeros((len(references), BINS))
    np.add.at(gap, (np.arange(len(confidence)) // each, bins), confidence - hit)
    terms = brier_terms(probabilities, references)
    aucs, precisions = zip(*(_ranking_by_count(probabilities[:, k], held[:, k]) for k in ranked), strict=True)
    return {
        "roc_auc": lambda counts: _mean_defined([one(counts) for one in aucs]),
        "average_precision": lambda counts: _mean_defined([one(counts) for one in precisions]),
        "ece": lambda counts: np.abs(counts @ gap).sum(axis=1) / (counts.sum(axis=1) * each),
        "brier": lambda counts: (counts @ terms) / counts.sum(axis=1),
    }


def _ranking_by_count(scores: Array, held: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """ROC-AUC and average precision of one class, examples of equal scores counted together."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) > 0]))
    is_positive = held[order] == 1

    def grouped(counts: Array) -> tuple[Array, Array]:
        drawn = counts[:, order]
        return np.add.reduceat(drawn * is_positive, starts, axis=1), np.add.reduceat(
            drawn * ~is_positive, starts, axis=1
        )

    def auc(counts: Array) -> Array:
        yes, no = grouped(counts)
        below = np.cumsum(no, axis=1) - no / 2
        return np.asarray((yes * below).sum(axis=1) / (yes.sum(axis=1) * no.sum(axis=1)))

    def precision(counts: Array) -> Array:
        yes, no = (side[:, ::-1] for side in grouped(counts))
        hits, taken = np.cumsum(yes, axis=1), np.cumsum(yes + no, axis=1)
        shares = np.divide(hits, taken, out=np.zeros_like(hits, dtype=float), where=taken > 0)
        return np.asarray((yes * shares).sum(axis=1) / yes.sum(axis=1))

    return auc, precision


def _mean_defined(columns: Sequence[Array]) -> Array:
    stacked = np.stack(columns)
    defined = np.isfinite(stacked)
    return np.asarray(np.where(defined, stacked, 0).sum(axis=0) / defined.sum(axis=0))


def _ranks(held: Array, probabilities: Array) -> tuple[float | None, float | None]:
    if held.all() or not held.any():
        return None, None
    from sklearn.metrics import average_precision_score, roc_auc_score

    return float(roc_auc_score(held, probabilities)), float(average_precision_score(held, probabilities))


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None

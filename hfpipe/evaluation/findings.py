"""What stands behind a figure: each class, who is taken for whom, how far probabilities can be trusted, where numbers err."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# scikit-learn is imported where it is used: no training waits for it before its first step.
Array = np.ndarray[Any, Any]

BINS = 10
_MOST_CLASSES = 200  # of a confusion matrix that is written down
_POINTS = 500  # of a residual figure
_WORST = 10


def hot(labels: Array, classes: int) -> Array:
    """Class numbers `[rows]` as 0 and 1, `[rows, classes]`; what is that already stays as it is."""
    return labels if labels.ndim == 2 else (labels[:, None] == np.arange(classes)).astype(np.int64)


def by_class(said: Array, right: Array, names: Sequence[str], probabilities: Array | None) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class, and how well its probability ranks; None where undefined.

    Args:
        said: class numbers, `[rows]`, or 0 and 1, `[rows, classes]`.
        right: the same of what is right.
        names: of the classes.
        probabilities: probabilities, `[rows, classes]`, or None.

    Source: `sklearn.metrics.precision_recall_fscore_support`, `roc_auc_score` and `average_precision_score`.
    """
    from sklearn.metrics import precision_recall_fscore_support

    said, right = hot(said, len(names)), hot(right, len(names))
    columns = range(len(names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is undefined is None, and a warning says nothing more
        scores = [
            precision_recall_fscore_support(right[:, k], said[:, k], average="binary", zero_division=np.nan)
            for k in columns
        ]
        ranks = [
            _ranks(right[:, k], probabilities[:, k]) if probabilities is not None else (None, None) for k in columns
        ]
    return [
        {
            "name": name,
            "precision": _number(precision),
            "recall": _number(recall),
            "f1": _number(f1),
            "support": int(right[:, k].sum()),
            "predicted": int(said[:, k].sum()),
            "roc_auc": ranks[k][0],
            "average_precision": ranks[k][1],
        }
        for k, name, (precision, recall, f1, _) in zip(columns, names, scores, strict=True)
    ]


def confusion(said: Array, right: Array, names: Sequence[str]) -> dict[str, Any] | None:
    """How often each class `right` (a row) is taken for each class `said` (a column); None for very many classes."""
    if len(names) > _MOST_CLASSES:
        return None
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(right, said, labels=range(len(names)))
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


def reliability(probabilities: Array, right: Array) -> dict[str, Any]:
    """How far probabilities are what they say: ECE, Brier score, and accuracy by confidence in ten bins of one width.

    Of classes that exclude each other the confidence is the probability of the most probable one. Of classes that may
    hold together every class of every row is a decision of its own, and its confidence that of the more probable side.
    Of two classes the Brier score is that of class 1, of more the sum over the classes.

    Args:
        probabilities: `[rows, classes]`.
        right: class numbers, `[rows]`, or 0 and 1, `[rows, classes]`.

    Source: Guo et al. 2017; Brier 1950.
    """
    confidence, hit = confidences(probabilities, right)
    place = bins_of(confidence)
    table: list[dict[str, Any]] = []
    gaps = 0.0
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        sure, accurate = (float(one[inside].mean()) if count else None for one in (confidence, hit))
        gaps += abs(float((confidence - hit)[inside].sum()))
        edges = {"low": number / BINS, "high": (number + 1) / BINS}
        table.append({**edges, "count": count, "confidence": sure, "accuracy": accurate})
    return {"ece": gaps / len(confidence), "brier": float(brier_terms(probabilities, right).mean()), "bins": table}


def confidences(probabilities: Array, right: Array) -> tuple[Array, Array]:
    """How sure each decision is, and whether it is right, both `[decisions]`."""
    if right.ndim == 1:
        return probabilities.max(axis=1), (probabilities.argmax(axis=1) == right).astype(float)
    return np.maximum(probabilities, 1 - probabilities).ravel(), ((probabilities > 0.5) == right).astype(float).ravel()


def bins_of(confidence: Array) -> Array:
    """The bin of each confidence, 0 to 9; a confidence on an edge belongs to the bin above it, 1 to the last."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def brier_terms(probabilities: Array, right: Array) -> Array:
    """The Brier score of each row, `[rows]`."""
    if right.ndim == 1 and probabilities.shape[1] == 2:
        return np.asarray((probabilities[:, 1] - right) ** 2)
    squares = (probabilities - hot(right, probabilities.shape[1])) ** 2
    return np.asarray(squares.sum(axis=1) if right.ndim == 1 else squares.mean(axis=1))


def errors(said: Array, right: Array, ids: Array) -> dict[str, Any]:
    """Where a regression errs, in units of the label: mean, median and root mean square error, R², the worst examples.

    Args:
        said: `[rows]`.
        right: `[rows]`.
        ids: row numbers in the split, `[rows]`.

    Source: `sklearn.metrics.r2_score` for R², None where the labels are all one number.
    """
    from sklearn.metrics import r2_score

    off = said - right
    worst = np.argsort(-np.abs(off), kind="stable")[:_WORST]
    counts, edges = np.histogram(off, bins=20)
    shown = np.linspace(0, len(said) - 1, min(_POINTS, len(said))).round().astype(int)
    varied = len(right) > 1 and right.min() < right.max()
    return {
        "mean": float(off.mean()),
        "median_absolute": float(np.median(np.abs(off))),
        "rmse": float(np.sqrt((off**2).mean())),
        "r2": float(r2_score(right, said)) if varied else None,
        "worst": [{"id": int(ids[k]), "right": float(right[k]), "said": float(said[k])} for k in worst],
        "residuals": {"edges": edges.tolist(), "counts": counts.tolist()},
        "points": [[float(right[k]), float(said[k])] for k in shown],
    }


def figures_by_count(probabilities: Array, right: Array) -> dict[str, Callable[[Array], Array]]:
    """Functions that compute a figure when each example occurs so often, `[resamples, rows] -> [resamples]`.

    They are what a bootstrap interval of `ranking` and `reliability` needs; with every count 1 they are those figures.
    """
    classes = probabilities.shape[1]
    held = hot(right, classes)
    ranked = [1] if classes == 2 and right.ndim == 1 else range(classes)
    confidence, hit = confidences(probabilities, right)
    place, each = bins_of(confidence), len(confidence) // len(right)
    gap = np.zeros((len(right), BINS))
    np.add.at(gap, (np.arange(len(confidence)) // each, place), confidence - hit)
    terms = brier_terms(probabilities, right)
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
        hits, said = np.cumsum(yes, axis=1), np.cumsum(yes + no, axis=1)
        shares = np.divide(hits, said, out=np.zeros_like(hits, dtype=float), where=said > 0)
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

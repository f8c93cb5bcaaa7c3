"""What stands behind a metric: each class, which is taken for which, how far probabilities can be trusted, where numbers err.

A kind of task adds these to the document of an evaluation (`Task.findings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# scikit-learn is imported where it is used: no training waits for it before its first step.
Array = np.ndarray[Any, Any]

BINS = 10
MOST_RANKED = 5_000_000  # probabilities, of all rows and classes
Metrics = Mapping[str, float | None]
_MOST_CLASSES = 200  # of a confusion matrix that is written down; of more the most confused pairs
_MOST_PAIRS = 200
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
    """

    predictions: Array
    references: Array
    ids: Array
    probabilities: Array | None
    uncalibrated: Array | None
    metrics: Metrics
    intervals: Mapping[str, list[float] | None]


def of_classes(scored: Scored, names: Sequence[str]) -> dict[str, Any]:
    """What a task whose rows have classes adds: `classes`, `ranking` and `calibration`.

    Their intervals are added where the document is built, from the counts in `classes`.
    """
    probabilities, references = scored.probabilities, scored.references
    assert probabilities is not None
    classes = by_class(scored.predictions, references, names, probabilities)
    calibration = reliability(probabilities, references)
    if scored.uncalibrated is not None:
        before = reliability(scored.uncalibrated, references)
        calibration["before"] = {key: before[key] for key in ("ece", "brier")}
    return {"classes": classes, "ranking": ranking(classes, probabilities.size), "calibration": calibration}


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

    Rankings are left out of more than 5 million probabilities, which would all have to be sorted.

    Args:
        predictions: class numbers, `[rows]`, or 0 and 1, `[rows, classes]`.
        references: the same of the references.
        names: of the classes.
        probabilities: probabilities, `[rows, classes]`, or None.
    """
    several, count = references.ndim == 2, len(names)
    hits, predicted, actual = (
        side.sum(axis=0, dtype=np.int64) if several else np.bincount(side, minlength=count)
        for side in (
            (predictions & references, predictions, references)
            if several
            else (references[predictions == references], predictions, references)
        )
    )
    found: list[dict[str, Any]] = []
    for k, name in enumerate(names):
        correct, said, held = int(hits[k]), int(predicted[k]), int(actual[k])
        ranks: tuple[float | None, float | None] = (None, None)
        if probabilities is not None and probabilities.size <= MOST_RANKED and 0 < held < len(references):
            ranks = rank_scores(references[:, k] == 1 if several else references == k, probabilities[:, k])
        found.append(
            {
                "name": name,
                "precision": correct / said if said else None,
                "recall": correct / held if held else None,
                "f1": 2 * correct / (said + held) if said + held else None,
                "support": held,
                "predicted": said,
                "correct": correct,
                "roc_auc": ranks[0],
                "average_precision": ranks[1],
            }
        )
    return found


def rank_scores(held: Array, scores: Array) -> tuple[float, float]:
    """ROC-AUC and average precision of a class that some rows have and others have not, from one sort.

    Source: what `sklearn.metrics.roc_auc_score` and `average_precision_score` compute; rows of equal scores count together.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # the last row ends a group
    yes = np.cumsum(held[order])[ends]
    no = ends + 1 - yes
    new_yes, new_no = np.diff(yes, prepend=0), np.diff(no, prepend=0)
    area = float((new_no * (yes - new_yes / 2)).sum() / (yes[-1] * no[-1]))
    return area, float((new_yes * (yes / (yes + no))).sum() / yes[-1])


def confusion(predictions: Array, references: Array, names: Sequence[str]) -> dict[str, Any]:
    """How often each class (a row) is predicted as each class (a column); of many classes the most confused pairs.

    Returns:
        `names` and `counts`; of more than 200 classes `classes`, how many there are, and `pairs`: `reference`, `prediction`,
        `count` and `of`, how many references the class has.
    """
    classes = len(names)
    coded = references.astype(np.int64) * classes + predictions
    if classes <= _MOST_CLASSES:
        counts = np.bincount(coded, minlength=classes**2).reshape(classes, classes)
        return {"names": list(names), "counts": counts.tolist()}
    support = np.bincount(references, minlength=classes)
    cells, times = np.unique(coded[predictions != references], return_counts=True)
    most = np.lexsort((cells, -times))[:_MOST_PAIRS]
    pairs = [
        {
            "reference": names[cell // classes],
            "prediction": names[cell % classes],
            "count": int(count),
            "of": int(support[cell // classes]),
        }
        for cell, count in zip(cells[most].tolist(), times[most].tolist(), strict=True)
    ]
    return {"classes": classes, "pairs": pairs}


def ranking(classes: Sequence[dict[str, Any]], size: int = 0) -> dict[str, Any]:
    """ROC-AUC and average precision: of class 1 of two, else the mean over the classes for which they are defined.

    Args:
        classes: from `by_class`.
        size: how many probabilities there are; too many are not ranked, and `what` says so.
    """
    if size > MOST_RANKED:
        why = f"not ranked: of more than {MOST_RANKED:,} probabilities ({size:,} here) that is left out"
        return {"roc_auc": None, "average_precision": None, "what": why}
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
    if references.ndim == 2:
        return np.asarray(((probabilities - references) ** 2).mean(axis=1))
    # Σ (p - y)² without a second table of the size of the probabilities
    of_reference = probabilities[np.arange(len(references)), references]
    return np.asarray(np.einsum("rc,rc->r", probabilities, probabilities) - 2 * of_reference + 1)


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

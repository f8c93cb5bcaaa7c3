"""Metrics of one class an example.

A score that its data leave undefined is None, never 0: a score of 0 is a finding about the model, an undefined score is
one about the data. All of them are undefined without examples.
"""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import numpy as np

from hfpipe.errors import RecipeError
from hfpipe.parts.metrics.array_metrics import Statistic, StatisticMetric, SumMetric
from hfpipe.parts.metrics.arrays import shown
from hfpipe.parts.metrics.averages import ClassAverage, ClassScore, count_classes
from hfpipe.parts.metrics.sums import Sums, mean, overlap, share
from hfpipe.recipe.catalog import near

Array = np.ndarray[Any, Any]
Average = Literal["binary", "macro", "micro", "weighted"]


def accuracy() -> SumMetric:
    """The share of predictions that equal their reference: (1/n) Σ [ŷᵢ = yᵢ]."""
    return SumMetric("labels", lambda predictions, references: {"accuracy": mean(predictions == references)})


def precision(average: Average = "binary", pos_label: int = 1) -> SumMetric | ClassAverage:
    """TP / (TP + FP) of a class: how much of what was predicted as the class is of it.

    Undefined for a class that is never predicted. In an average, "macro" or "weighted", such a class counts 0, as with
    scikit-learn's `zero_division=0`: leaving it out would let a model gain by never predicting a hard class.

    Args:
        average: "binary" for the score of `pos_label` alone, or how the classes that occur in the predictions or the
            references are averaged: "macro" (unweighted), "weighted" (by their count in the references) or "micro"
            (from the summed counts, which makes it the accuracy). An average is part of the name: `precision_macro`.
        pos_label: the class that counts as positive with "binary".
    """
    return _class_metric("precision", average, pos_label)


def recall(average: Average = "binary", pos_label: int = 1) -> SumMetric | ClassAverage:
    """TP / (TP + FN) of a class: how much of the class was found.

    Undefined for a class that no reference has. With "macro" such a class counts 0 where it is predicted; with "weighted"
    it weighs nothing. The arguments are those of `precision`.
    """
    return _class_metric("recall", average, pos_label)


def f1(average: Average = "binary", pos_label: int = 1) -> SumMetric | ClassAverage:
    """2 TP / (2 TP + FP + FN) of a class: the harmonic mean of precision and recall, where both exist.

    Undefined only for a class that neither predictions nor references have (TP + FP + FN = 0): with "binary", when the
    positive class is in neither. Source: C. J. van Rijsbergen, Information Retrieval, 1979, chapter 7.
    The arguments are those of `precision`.
    """
    return _class_metric("f1", average, pos_label)


def accuracy_and_f1() -> SumMetric:
    """`accuracy` and the `f1` of class 1, as GLUE scores its paraphrase tasks (MRPC, QQP)."""

    def scores(predictions: Array, references: Array) -> dict[str, Sums]:
        return {"accuracy": mean(predictions == references), "f1": _binary("f1", 1, predictions, references)}

    return SumMetric("labels", scores)


def matthews_correlation() -> StatisticMetric:
    """The correlation of the confusion matrix; in two classes (TP·TN - FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN)).

    In K classes, with c correct of n, tₖ references and pₖ predictions of class k:
    (c n - Σ tₖ pₖ) / √((n² - Σ pₖ²)(n² - Σ tₖ²)). Undefined when a margin is zero, that is when all predictions or all
    references are of one class. Source: J. Gorodkin, Comparing two K-category assignments by a K-category correlation
    coefficient, 2004.
    """
    return StatisticMetric("labels", {"matthews_correlation": Statistic(_matthews_of_any_ids, _matthews, "classes")})


def quadratic_kappa() -> StatisticMetric:
    """Cohen's kappa with quadratic weights, for classes in an order: 1 is perfect, 0 as good as chance, below 0 worse.

    Undefined when predictions and references are all of one and the same class. Source: Cohen 1968, "Weighted kappa";
    `sklearn.metrics.cohen_kappa_score`.
    """
    return StatisticMetric("labels", {"quadratic_kappa": Statistic(_quadratic_kappa, None, "kappa")})


def class_sums(score: ClassScore, predicted: Array, actual: Array) -> Array:
    """What to sum above and below the line of a score of classes, `[2, ...]`, from bool of one shape."""
    hits = predicted & actual
    if score == "f1":
        return np.stack([2 * hits, np.add(predicted, actual, dtype=np.int64)])
    return np.stack([hits, predicted if score == "precision" else actual])


def _binary(score: ClassScore, pos_label: int, predictions: Array, references: Array) -> Sums:
    _check_binary(score, pos_label, predictions, references)
    sums = class_sums(score, predictions == pos_label, references == pos_label)
    return Sums(sums, overlap if score == "f1" else share)


def _class_metric(score: ClassScore, average: Average, pos_label: int) -> SumMetric | ClassAverage:
    if average not in get_args(Average):
        allowed = get_args(Average)
        raise RecipeError(f"unknown average {average!r}{near(str(average), allowed)}", allowed=", ".join(allowed))
    name = score if average == "binary" else f"{score}_{average}"  # no list may show a macro F1 as F1
    if average in ("macro", "weighted"):
        return ClassAverage(name, score, weighted=average == "weighted")

    def scores(predictions: Array, references: Array) -> dict[str, Sums]:
        if average == "micro":  # every wrong example is one FP and one FN, so all three are the accuracy
            return {name: mean(predictions == references)}
        return {name: _binary(score, pos_label, predictions, references)}

    return SumMetric("labels", scores)


def _check_binary(score: str, pos_label: int, predictions: Array, references: Array) -> None:
    classes = np.union1d(predictions, references)
    if len(classes) > 2:
        raise RecipeError(
            f"average 'binary' scores two classes, and the data have {len(classes)}: {shown(classes)}",
            where=f"metric {score!r}",
            allowed="macro, micro or weighted",
            fix=f"Write {{name: {score}, average: macro}} in evaluate.metrics.",
        )
    if len(classes) == 2 and pos_label not in classes:
        raise RecipeError(
            f"pos_label {pos_label} is not among the classes of the data",
            where=f"metric {score!r}",
            allowed=f"{shown(classes)} as pos_label; or average macro, micro or weighted",
        )


def _matthews(predictions: Array, references: Array, axis: int = -1) -> Array:
    """Of class ids without large gaps."""
    examples = references.shape[axis]
    hits = (predictions == references).sum(axis=axis)
    both, predicted_squares, actual_squares = 0, 0, 0
    for label in range(int(max(predictions.max(), references.max())) + 1):  # to sort them all takes five times as long
        predicted, actual = (predictions == label).sum(axis=axis), (references == label).sum(axis=axis)
        both, predicted_squares = both + predicted * actual, predicted_squares + predicted**2
        actual_squares = actual_squares + actual**2
    margins = (examples**2 - np.asarray(predicted_squares, float)) * (examples**2 - np.asarray(actual_squares, float))
    return np.asarray((hits * examples - both) / np.sqrt(margins))


def _matthews_of_any_ids(predictions: Array, references: Array) -> float:
    counts = count_classes(predictions, references)  # once over the examples, whatever the number of classes
    examples, hits = len(references), counts.hits.sum()
    both = (counts.predicted * counts.actual).sum()
    squares = [np.asarray((side**2).sum(), float) for side in (counts.predicted, counts.actual)]
    margins = (examples**2 - squares[0]) * (examples**2 - squares[1])
    return float((hits * examples - both) / np.sqrt(margins))


def _quadratic_kappa(predictions: Array, references: Array) -> float:
    from sklearn.metrics import cohen_kappa_score

    return cast(float, cohen_kappa_score(references, predictions, weights="quadratic"))

"""Scores of a multi-label classification: of each label by itself, and micro and macro over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hfpipe.errors import DataError
from hfpipe.parts.metrics.averages import ClassCounts, ClassScore
from hfpipe.parts.metrics.sums import Sums, finite, mean, overlap, share, values_of

Array = np.ndarray[Any, Any]
SCORES: tuple[ClassScore, ...] = ("precision", "recall", "f1")


class MultiLabel:
    """Precision, recall and F1 over labels that hold or not, and the share of rows with all labels correct.

    `micro` counts every label of every row alike; `macro` is the mean of the labels' own scores, over the labels that
    occur in the references or the predictions. In it an undefined score counts 0, as with scikit-learn's
    `zero_division=0`: a label that is never predicted has a precision of 0, and is not left out. By itself a label's score
    is undefined (None) where nothing was predicted (precision), where it never holds (recall), or both (F1).

    Attributes:
        names: of the labels in order, which the task fills in; None stands for their numbers.
    """

    def __init__(self) -> None:
        self.names: Sequence[str] | None = None

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """Score predicted 0 and 1 against those of the references, both `[rows, labels]`.

        Returns:
            `f1_micro`, `f1_macro` and the same of precision and recall, `subset_accuracy`, and `NAME_f1` of each label.

        Raises:
            DataError: shapes that are not those of labels, or names that are not one a label.
        """
        predictions, references = paired_labels(predictions, references)
        of_rows, counts = values_of(self.row_sums(predictions, references)), count_labels(predictions, references)
        found: dict[str, float | None] = {}
        for score in SCORES:
            found[f"{score}_micro"] = of_rows[f"{score}_micro"]
            found[f"{score}_macro"] = counts.mean(score)
        f1s = np.where(counts.occurs, counts.each("f1"), np.nan)
        found["subset_accuracy"] = of_rows["subset_accuracy"]
        return found | {f"{name}_f1": finite(float(one)) for name, one in zip(self.labels(len(f1s)), f1s, strict=True)}

    def labels(self, count: int) -> list[str]:
        """The name of each of so many labels."""
        names = list(self.names) if self.names is not None else [str(label) for label in range(count)]
        if len(names) != count:
            raise DataError(f"{len(names)} names for {count} labels", where="metric multi_label")
        return names

    def row_sums(self, predictions: Array, references: Array) -> dict[str, Sums]:
        """The sums over rows of the scores that count all labels alike, and of `subset_accuracy`."""
        hits, predicted, actual = (
            side.sum(axis=1) for side in (predictions & references, predictions == 1, references == 1)
        )
        return {
            "precision_micro": Sums(np.stack([hits, predicted]), share),
            "recall_micro": Sums(np.stack([hits, actual]), share),
            "f1_micro": Sums(np.stack([2 * hits, predicted + actual]), overlap),
            "subset_accuracy": mean((predictions == references).all(axis=1)),
        }


def paired_labels(predictions: Any, references: Any) -> tuple[Array, Array]:
    """Both sides as 0 and 1, `[rows, labels]`.

    Raises:
        DataError: other shapes.
    """
    predictions, references = np.asarray(predictions), np.asarray(references)
    if predictions.shape != references.shape or predictions.ndim != 2:
        raise DataError(
            f"predictions of shape {list(predictions.shape)} for references of shape {list(references.shape)}",
            where="metric multi_label",
            allowed="both [rows, labels]",
            fix="For one class a row take accuracy or f1.",
        )
    return (predictions == 1).astype(np.int8), (references == 1).astype(np.int8)


def count_labels(predictions: Array, references: Array) -> ClassCounts:
    """The counts of all labels, of 0 and 1 `[rows, labels]`."""

    def shared(score: ClassScore, weights: Array) -> float:
        wrong = {"precision": predictions > references, "recall": predictions < references}.get(
            score, predictions != references
        )
        return float(((wrong @ weights) ** 2).sum() - (wrong.sum(axis=0) * weights**2).sum())

    sides = (predictions & references, predictions, references)
    hits, said, held = (side.sum(axis=0, dtype=np.int64) for side in sides)
    return ClassCounts(hits, said, held, shared)

"""Scores of a multi-label classification: of each label by itself, and micro and macro over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hfpipe.errors import DataError
from hfpipe.parts.metrics.classification import ClassScore, class_sums
from hfpipe.parts.metrics.sums import Sums, mean, values_of

Array = np.ndarray[Any, Any]


class MultiLabel:
    """Precision, recall and F1 over labels that hold or not, and the share of rows with all labels correct.

    `micro` counts every label of every row alike; `macro` is the mean of the labels' own scores, over the labels for
    which the score is defined. A label's score is undefined (None) where nothing was predicted (precision), where it
    never holds (recall), or both (F1).

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
        return values_of(self.sums(predictions, references))

    def sums(self, predictions: Any, references: Any) -> dict[str, Sums]:
        """The sums of each score by name."""
        predictions, references = np.asarray(predictions), np.asarray(references)
        if predictions.shape != references.shape or predictions.ndim != 2:
            raise DataError(
                f"predictions of shape {list(predictions.shape)} for references of shape {list(references.shape)}",
                where="metric multi_label",
                allowed="both [rows, labels]",
                fix="For one class a row take accuracy or f1.",
            )
        labels = predictions.shape[1]
        names = list(self.names) if self.names is not None else [str(label) for label in range(labels)]
        if len(names) != labels:
            raise DataError(f"{len(names)} names for {labels} labels", where="metric multi_label")
        found: dict[str, Sums] = {}
        scores: tuple[ClassScore, ...] = ("precision", "recall", "f1")
        for name in scores:
            each = class_sums(name, predictions.T == 1, references.T == 1)  # [2, labels, rows]
            found[f"{name}_micro"] = Sums(each.sum(axis=1))
            found[f"{name}_macro"] = Sums(np.concatenate(each), _mean_of_defined)
        found["subset_accuracy"] = mean((predictions == references).all(axis=1))
        return found | {f"{name}_f1": Sums(each[:, label]) for label, name in enumerate(names)}


def _mean_of_defined(sums: Array) -> Array:
    """The mean over the labels for which the ratio is defined, NaN where it is for none."""
    above, below = np.split(sums, 2, axis=-1)
    defined = below > 0
    return np.asarray(np.where(defined, above / below, 0).sum(axis=-1) / defined.sum(axis=-1))

"""Scores of a multi-label classification: of each label by itself, and micro and macro over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hfpipe.errors import DataError

Array = np.ndarray[Any, Any]


class MultiLabel:
    """Precision, recall and F1 over labels that hold or not, and the share of rows with all labels right.

    `micro` counts every label of every row alike; `macro` is the mean of the labels' own figures, over the labels for
    which the figure is defined. A label's figure is undefined (None) where nothing was predicted (precision), where it
    never holds (recall), or both (F1). Source: `sklearn.metrics.precision_recall_fscore_support`.

    Attributes:
        names: of the labels in order, which the task fills in; None stands for their numbers.
    """

    def __init__(self) -> None:
        self.names: Sequence[str] | None = None

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """Score 0 and 1, predicted against right, both `[rows, labels]`.

        Returns:
            `f1_micro`, `f1_macro` and the same of precision and recall, `subset_accuracy`, and `NAME_f1` of each label.

        Raises:
            DataError: shapes that are not those of labels, or names that are not one a label.
        """
        said, is_positive = np.asarray(predictions), np.asarray(references)
        if said.shape != is_positive.shape or said.ndim != 2:
            raise DataError(
                f"predictions of shape {list(said.shape)} for references of shape {list(is_positive.shape)}",
                where="metric multi_label",
                allowed="both [rows, labels]",
                fix="For one class a row take accuracy or f1.",
            )
        names = list(self.names) if self.names is not None else [str(label) for label in range(said.shape[1])]
        if len(names) != said.shape[1]:
            raise DataError(f"{len(names)} names for {said.shape[1]} labels", where="metric multi_label")
        scores: dict[str, float | None] = {}
        own = _three(said, is_positive, None)
        for name, micro, each in zip(
            ("precision", "recall", "f1"), _three(said, is_positive, "micro"), own, strict=True
        ):
            scores[f"{name}_micro"] = _defined(micro)
            scores[f"{name}_macro"] = _defined(np.nanmean(each)) if np.isfinite(each).any() else None
        scores["subset_accuracy"] = float((said == is_positive).all(axis=1).mean()) if len(said) else None
        return scores | {f"{name}_f1": _defined(value) for name, value in zip(names, own[2], strict=True)}


def _three(said: Array, is_positive: Array, average: str | None) -> tuple[Array, Array, Array]:
    """Precision, recall and F1; NaN where undefined."""
    if not len(said):
        nothing = np.full(said.shape[1], np.nan)
        return nothing, nothing, nothing
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(is_positive, said, average=average, zero_division=np.nan)
    return scores[0], scores[1], scores[2]


def _defined(value: Any) -> float | None:
    return float(value) if np.ndim(value) == 0 and np.isfinite(value) else None

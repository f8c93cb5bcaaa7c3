"""Averages over classes, from counts of each class: linear in the examples, whatever the number of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hfpipe.parts.metrics.arrays import paired_arrays
from hfpipe.parts.metrics.sums import finite

Array = np.ndarray[Any, Any]
ClassScore = Literal["precision", "recall", "f1"]


@dataclass(frozen=True)
class ClassCounts:
    """What is counted of each class.

    Attributes:
        hits: examples of the class that are predicted so, `[classes]`.
        predicted: examples that are predicted as the class, `[classes]`.
        actual: examples whose reference is the class, `[classes]`.
        shared_errors: weights of the classes to the sum, over all pairs of classes that one wrong example is an error of,
            of the product of their weights; the kind of errors is the first argument.
    """

    hits: Array
    predicted: Array
    actual: Array
    shared_errors: Callable[[ClassScore, Array], float]

    def parts(self, score: ClassScore) -> tuple[Array, Array]:
        """What is above and below the line of a score, both `[classes]`."""
        if score == "f1":
            return 2 * self.hits, self.predicted + self.actual
        return self.hits, self.predicted if score == "precision" else self.actual

    def each(self, score: ClassScore) -> Array:
        """The score of each class, `[classes]`; 0 where it is undefined, so that no class is left out by silence."""
        above, below = self.parts(score)
        return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)

    @property
    def occurs(self) -> Array:
        """Which classes some reference or prediction has, bool `[classes]`."""
        return np.asarray(self.predicted + self.actual > 0)

    def weights(self, *, weighted: bool) -> Array:
        """How much each class weighs in a mean, `[classes]`, with the sum 1; nothing where it does not occur."""
        weights = self.actual if weighted else self.occurs
        return np.asarray(weights / weights.sum())

    def mean(self, score: ClassScore, *, weighted: bool = False) -> float | None:
        """The mean of a score over the classes that occur; None where none does."""
        if not self.occurs.any():
            return None
        weights = self.actual[self.occurs] if weighted else None
        return finite(float(np.average(self.each(score)[self.occurs], weights=weights)))


def _numbered(ids: Array) -> Array:
    """Class ids as 0, 1, 2, ... in their order; without sorting them all, unless they are far apart."""
    if ids.max(initial=0) > 10 * len(ids):
        return np.asarray(np.unique(ids, return_inverse=True)[1]).ravel()
    return np.asarray((np.cumsum(np.bincount(ids) > 0) - 1)[ids])


def count_classes(predictions: Array, references: Array) -> ClassCounts:
    """The counts of one class an example, of class ids `[examples]`."""
    examples = len(references)
    numbered = _numbered(np.concatenate([predictions, references]))
    predicted, actual = numbered[:examples], numbered[examples:]
    classes, wrong = int(numbered.max(initial=-1)) + 1, predicted != actual

    def shared(score: ClassScore, weights: Array) -> float:
        # A wrong example is one false positive and one false negative: two classes share it in F1, none in the others.
        return 2 * float(weights[predicted[wrong]] @ weights[actual[wrong]]) if score == "f1" else 0.0

    hits, said, held = (np.bincount(side, minlength=classes) for side in (actual[~wrong], predicted, actual))
    return ClassCounts(hits, said, held, shared)


@dataclass(frozen=True)
class ClassAverage:
    """A mean over classes of precision, recall or F1.

    The classes are those that occur in the references or the predictions, as in scikit-learn; a score of a class that is
    undefined, such as the precision of one that is never predicted, counts 0 (`zero_division=0`).

    Attributes:
        name: of the score, such as `f1_macro`.
        score: of each class.
        weighted: by how many references a class has; else all classes weigh the same.
    """

    name: str
    score: ClassScore
    weighted: bool

    def counts(self, predictions: Any, references: Any) -> ClassCounts | None:
        """The counts that the mean is made of; None without examples."""
        predictions, references = paired_arrays(predictions, references, "labels")
        return count_classes(predictions, references) if len(references) else None

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """The mean; None without examples."""
        counts = self.counts(predictions, references)
        return {self.name: None if counts is None else counts.mean(self.score, weighted=self.weighted)}

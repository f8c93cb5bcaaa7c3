"""Metrics of one class id or number an example: of sums over the examples, or of functions that are no such sums."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from hfpipe.parts.metrics.arrays import Inputs, paired_arrays
from hfpipe.parts.metrics.sums import Sums, finite, values_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SumMetric:
    """A metric whose value and whose every resample come from sums over the examples.

    Attributes:
        inputs: what the arrays hold.
        scores: predictions and references, both `[examples]`, to the sums of each score by name; refuses values beyond
            what `inputs` says.
    """

    inputs: Inputs
    scores: Callable[[Array, Array], Mapping[str, Sums]]

    def sums(self, predictions: Any, references: Any) -> Mapping[str, Sums]:
        """The sums of each score by name."""
        predictions, references = paired_arrays(predictions, references, self.inputs)
        with np.errstate(over="ignore"):  # what overflows is undefined
            return self.scores(predictions, references)

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """The scores by name; None where undefined, and all of them without examples."""
        return values_of(self.sums(predictions, references))


class Statistic(NamedTuple):
    """A score that is no function of a few sums.

    Attributes:
        value: of predictions and references, both `[examples]`; NaN where undefined.
        resampled: the same along the last axis, of resamples `[resamples, examples]`, the axis being its third argument;
            None where it can only be computed one resample at a time.
        correlates: what it is a correlation of, which decides its interval.
    """

    value: Callable[[Array, Array], float]
    resampled: Callable[[Array, Array, int], Array] | None
    correlates: Literal["numbers", "ranks", "classes", "kappa"]


@dataclass(frozen=True)
class StatisticMetric:
    """A metric of statistics by name.

    Attributes:
        inputs: what the arrays hold.
        statistics: by the name of the score.
    """

    inputs: Inputs
    statistics: Mapping[str, Statistic]

    @property
    def is_vectorised(self) -> bool:
        """Whether many resamples are computed at once."""
        return all(one.resampled is not None for one in self.statistics.values())

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """The scores by name; None where undefined, and all of them without examples."""
        predictions, references = paired_arrays(predictions, references, self.inputs)
        if not len(references) or not np.isfinite(predictions).all():
            return dict.fromkeys(self.statistics)
        # An undefined score is None: warnings on the way there say nothing more.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {name: finite(one.value(predictions, references)) for name, one in self.statistics.items()}

    def name_scores(self, predictions: Any, references: Any) -> list[str]:
        """The names of the scores, refusing what `compute` would, without importing what computes them."""
        paired_arrays(predictions, references, self.inputs)
        return list(self.statistics)

"""Two models on the same examples: how far apart their figures are, and whether chance alone could do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfpipe.evaluation.statistics.bootstrap import percentiles, resampled, resampled_loss
from hfpipe.evaluation.statistics.significance import Pairs, mcnemar, p_of_resamples
from hfpipe.parts.metrics.metrics import Metric

Array = np.ndarray[Any, Any]

RESAMPLES = 9_999

# Figures that are the share of examples that are right; McNemar's test is about those.
_SHARES = ("accuracy", "subset_accuracy", "exact_match", "has_answer_exact_match", "no_answer_exact_match")


@dataclass(frozen=True)
class Apart:
    """How far a figure of the second model is from that of the first.

    Attributes:
        interval: 95 % interval [low, high] of second minus first, by resampling examples; None where there is none.
        p: two-sided, of the hypothesis that they are equal; by McNemar where `pairs` is there, else of the resamples.
        pairs: the examples on which one alone is right, for a share of right examples.
        resamples: how many there were.
    """

    interval: list[float] | None
    p: float | None
    pairs: Pairs | None
    resamples: int


def compare_metrics(
    metrics: Sequence[tuple[str, Metric]],
    first: Array,
    second: Array,
    references: Array,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Apart]:
    """Compare two sets of predictions, figure by figure, on resamples that have the same examples for both.

    Args:
        metrics: as for `compute_all`.
        first: decisions of the first model, `[examples]`.
        second: decisions of the second, `[examples]`.
        references: labels, `[examples]`.
        seed: of the resampling.
        resamples: how many; of a metric that can only be computed one resample at a time at most 999.

    Returns:
        By the name of the figure; without those that only one side has.
    """
    found: dict[str, Apart] = {}
    for name, metric in metrics:
        sides = [
            resampled([(name, metric)], said, references, seed=seed, resamples=resamples) for said in (first, second)
        ]
        rights = [right_or_wrong(metric, said, references) for said in (first, second)]
        for figure in sides[0]:
            if figure in sides[1]:
                pairs = (
                    mcnemar(*(right[figure] for right in rights)) if all(figure in right for right in rights) else None
                )
                found[figure] = _judged(sides[1][figure] - sides[0][figure], pairs)
    return found


def compare_losses(
    first: tuple[Array, Array], second: tuple[Array, Array], *, seed: int, resamples: int = RESAMPLES
) -> Apart:
    """Compare two mean losses; each side is the losses and the weights of the examples, both `[examples]`."""
    drawn = [resampled_loss(*side, seed=seed, resamples=resamples) for side in (first, second)]
    return _judged(drawn[1] - drawn[0], None)


def right_or_wrong(metric: Metric, predictions: Array, references: Array) -> dict[str, Array]:
    """Whether each example is right, bool `[examples that count]`, for the figures of a metric that are shares of those.

    The share of right words in sentences is none: words of a sentence are not drawn one by one.
    """
    ratios = getattr(metric, "ratios", None)
    if ratios is not None:
        found = {}
        for figure, (above, below) in ratios(predictions, references).items():
            if figure in _SHARES and np.isin(above, (0, 1)).all() and np.isin(below, (0, 1)).all():
                found[figure] = above[below == 1] == 1
        return found
    scores = metric.compute(predictions=predictions, references=references) or {}
    same = predictions == references
    right = same.all(axis=1) if np.ndim(same) == 2 else np.asarray(same)
    return {
        figure: right
        for figure, value in scores.items()
        if figure in _SHARES and value is not None and len(right) and np.isclose(right.mean(), value, rtol=0, atol=1e-9)
    }


def _judged(differences: Array, pairs: Pairs | None) -> Apart:
    p = pairs.p if pairs else p_of_resamples(differences)
    return Apart(percentiles(differences), p, pairs, len(differences))

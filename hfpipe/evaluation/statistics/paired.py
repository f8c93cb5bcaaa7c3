"""Two models on the same examples: the difference of each metric, and whether chance alone could make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfpipe.evaluation.statistics.bootstrap import percentiles, resampled, resampled_loss
from hfpipe.evaluation.statistics.significance import Pairs, mcnemar, p_of_resamples, share_difference
from hfpipe.parts.metrics.scores import Metric
from hfpipe.parts.metrics.sums import RATIOS

Array = np.ndarray[Any, Any]

RESAMPLES = 9_999

# Scores that are the share of examples predicted correctly; McNemar's test is about those.
_SHARES = ("accuracy", "subset_accuracy", "exact_match", "has_answer_exact_match", "no_answer_exact_match")


@dataclass(frozen=True)
class MetricDifference:
    """How a metric of the second model differs from that of the first.

    Attributes:
        interval: 95 % interval [low, high] of second minus first; None where there is none, as where the two are the same
            on every example.
        method: how the interval was computed.
        p: two-sided, of the hypothesis that they are equal; by McNemar where `pairs` is there, else of the resamples.
        pairs: the examples that one alone predicts correctly, for a share of correct examples.
        resamples: how many there were.
    """

    interval: list[float] | None
    method: str
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
) -> dict[str, MetricDifference]:
    """Compare two sets of predictions, score by score, on resamples that have the same examples for both.

    Args:
        metrics: as for `compute_all`.
        first: decisions of the first model, `[examples]`.
        second: decisions of the second, `[examples]`.
        references: labels, `[examples]`.
        seed: of the resampling.
        resamples: how many; as for `resampled`.

    Returns:
        By the name of the score; without those that only one side has.
    """
    found: dict[str, MetricDifference] = {}
    differing = sum(bool(np.any(one != other)) for one, other in zip(first, second, strict=True))
    for name, metric in metrics:
        drawn = [
            resampled([(name, metric)], predictions, references, seed=seed, resamples=resamples)
            for predictions in (first, second)
        ]
        correct = [correct_examples(metric, predictions, references) for predictions in (first, second)]
        for score in drawn[0]:
            if score in drawn[1]:
                are_shares = all(score in side for side in correct)
                pairs = mcnemar(correct[0][score], correct[1][score]) if are_shares else None
                found[score] = _with_p(
                    drawn[1][score] - drawn[0][score], differing, pairs, len(correct[0].get(score, ()))
                )
    return found


def compare_losses(
    first: tuple[Array, Array], second: tuple[Array, Array], *, seed: int, resamples: int = RESAMPLES
) -> MetricDifference:
    """Compare two mean losses; each side is the losses and the weights of the examples, both `[examples]`."""
    drawn = [resampled_loss(*side, seed=seed, resamples=resamples) for side in (first, second)]
    differing = int((first[0] * second[1] != second[0] * first[1]).sum())
    return _with_p(drawn[1] - drawn[0], differing, None, 0)


def correct_examples(metric: Metric, predictions: Array, references: Array) -> dict[str, Array]:
    """Whether each example is predicted correctly, bool `[examples that count]`, for the scores that are shares of those.

    The share of correct words in sentences is none: words of a sentence are not drawn one by one.
    """
    sums_of = getattr(metric, "sums", None)
    if sums_of is not None:
        found = {}
        for name, one in sums_of(predictions, references).items():
            if name in _SHARES and one.score in RATIOS and np.isin(one.terms, (0, 1)).all():
                hits, counted = one.terms
                found[name] = hits[counted == 1] == 1
        return found
    scores = metric.compute(predictions=predictions, references=references) or {}
    same = predictions == references
    correct = same.all(axis=1) if np.ndim(same) == 2 else np.asarray(same)
    return {
        name: correct
        for name, value in scores.items()
        if name in _SHARES
        and value is not None
        and len(correct)
        and np.isclose(correct.mean(), value, rtol=0, atol=1e-9)
    }


def _with_p(differences: Array, differing: int, pairs: Pairs | None, examples: int) -> MetricDifference:
    """The verdict on a difference.

    Args:
        differences: in each resample.
        differing: examples on which the two models are not the same; all that a test can rest on.
        pairs: for a share of correct examples, those that one model alone has correct.
        examples: of such a share.
    """
    if pairs is not None:
        of_shares = share_difference(pairs.only_first, pairs.only_second, examples)
        return MetricDifference(of_shares, "Bonett-Price", pairs.p, pairs, len(differences))
    p = p_of_resamples(differences)
    if p is not None:
        # To exchange the models on these examples gives no rarer outcome: 2 of all ways.
        p = min(1.0, max(p, 2.0 ** (1 - min(differing, 1000))))
    interval = percentiles(differences) if differing else None
    return MetricDifference(interval, "paired bootstrap", p, None, len(differences))

"""95 % intervals of shares and of what is made of them: of examples, of clusters of examples, of classes.

An interval by Clopper and Pearson holds the true share at least 95 times in 100, however few the examples are and also
where all or none of them count.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hfpipe.parts.metrics.averages import ClassCounts, ClassScore

Array = np.ndarray[Any, Any]

ALPHA = 0.05
_UNSEEN = 2  # clusters with an error that are supposed beside those seen, where the errors of a cluster come together


def clopper_pearson(hits: Any, of: Any) -> tuple[Array, Array]:
    """The interval of a share, 0 to 1 where it is one of nothing; arrays of one shape, whole numbers or not.

    Source: C. Clopper and E. Pearson, Biometrika 26, 1934; `scipy.stats.binomtest(...).proportion_ci("exact")`.
    """
    from scipy.special import betaincinv

    hits, of = np.asarray(hits, float), np.asarray(of, float)
    misses = np.maximum(of - hits, 0)
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1e-12), misses + 1, ALPHA / 2), 0.0)
    high = np.where(misses > 0, betaincinv(hits + 1, np.maximum(misses, 1e-12), 1 - ALPHA / 2), 1.0)
    return low, high


def f1_of(share: Any) -> Any:
    """F1 of J = TP / (TP + FP + FN), the share of examples with the class on either side that have it on both."""
    return 2 * share / (1 + share)


def f1_interval(hits: Any, predicted: Any, actual: Any) -> tuple[Array, Array]:
    """The interval of F1 = 2J / (1 + J): that of the share J, of which F1 is a monotone function."""
    low, high = clopper_pearson(hits, np.asarray(predicted) + actual - hits)
    return f1_of(low), f1_of(high)


def clustered(hits: Array, of: Array) -> tuple[float, float]:
    """The interval of the share Σ hits / Σ of over clusters, such as the words of sentences; both `[clusters]`.

    Clopper and Pearson's of as many independent examples as tell as much. How many these are comes from the scatter
    between the clusters; where few clusters show an error, also from the supposition that errors of a cluster come
    together. Source: E. Korn and B. Graubard, Survey Methodology 24, 1998.
    """
    from scipy import stats

    hits, of = hits[of > 0].astype(float), of[of > 0].astype(float)
    clusters, total, misses = len(of), of.sum(), of - hits
    share = hits.sum() / total
    together = (of**2).sum() / total  # the design effect where a cluster is right or wrong as a whole
    seen = min(int((hits > 0).sum()), int((misses > 0).sum()))
    effect = together
    if 0 < share < 1 and clusters > 1:
        scatter = ((hits - share * of) ** 2).sum() * clusters / (clusters - 1)
        effect = (seen * scatter / (total * share * (1 - share)) + _UNSEEN * together) / (seen + _UNSEEN)
    wider = (stats.t.isf(ALPHA / 2, max(clusters - 1, 1)) / stats.norm.isf(ALPHA / 2)) ** 2
    effective = total / max(effect, 1.0) / wider
    low, high = clopper_pearson(share * effective, effective)
    return float(low), float(high)


def class_average(score: ClassScore, counts: ClassCounts, *, weighted: bool) -> tuple[float, float]:
    """The interval of a mean of precision, recall or F1 over classes.

    Two intervals are computed, and the wider side of each counts. One puts together the distances from the classes' own
    scores to the ends of their intervals, as variances are, with the covariance that shared errors make (MOVER). The other
    supposes that all classes are equally hard, and pools them; it is the one that holds where classes have few examples.
    Source: G. Zou and A. Donner, Statistics in Medicine 27, 2008.
    """
    is_f1 = score == "f1"
    weights, hits = counts.weights(weighted=weighted), counts.hits
    of = counts.predicted + counts.actual - hits if is_f1 else counts.parts(score)[1]
    values = counts.each(score)
    mean, errors = float(weights @ values), of - hits
    ends = clopper_pearson(hits, of)
    ends = (f1_of(ends[0]), f1_of(ends[1])) if is_f1 else ends
    reach = []
    for end in ends:
        distance = weights * np.abs(values - end)
        each = distance / np.sqrt(errors + 1)
        # The errors that were not seen: in F1 each would be one of two classes, whichever.
        unseen = (each.sum() ** 2 - (each**2).sum()) / max(len(each) - 1, 1) if is_f1 else 0.0
        reach.append(float(np.sqrt((distance**2).sum() + counts.shared_errors(score, each) + unseen)))
    share = mean / (2 - mean) if is_f1 else mean
    filled = of > 0
    effective = 1 / (weights[filled] ** 2 / of[filled]).sum() / (1 + share if is_f1 else 1)
    pooled = clopper_pearson(share * effective, effective)
    low, high = (f1_of(end) if is_f1 else end for end in pooled)
    if is_f1:  # a function that bends: its mean over classes of few examples lies below that of many
        bend = 2 * share * (1 - share) / (1 + share) ** 3 * float((weights[filled] / of[filled]).sum())
        reach[1], high = reach[1] + bend, high + bend
    return max(0.0, min(mean - reach[0], float(low))), min(1.0, max(mean + reach[1], float(high)))


def newcombe_auc(auc: float, positives: int, negatives: int) -> tuple[float, float]:
    """The interval of an area under the ROC curve, also where the ranking is perfect.

    The areas from which the one seen is not further than 1.96 of their standard errors. Source: R. Newcombe, Statistics in
    Medicine 25, 2006, pages 559 to 573, method 5.
    """
    from scipy import optimize, stats

    z = stats.norm.isf(ALPHA / 2)
    rest = (positives + negatives) / 2 - 1

    def beyond(area: float) -> float:
        spread = 1 + rest * ((1 - area) / (2 - area) + area / (1 + area))
        return float((area - auc) ** 2 - z**2 * area * (1 - area) * spread / (positives * negatives))

    edge = 1e-9  # at 0 and 1 themselves the errors are 0
    inside = min(max(auc, edge), 1 - edge)
    low = optimize.brentq(beyond, edge, inside) if auc > edge and beyond(edge) > 0 else 0.0
    high = optimize.brentq(beyond, inside, 1 - edge) if auc < 1 - edge and beyond(1 - edge) > 0 else 1.0
    return float(low), float(high)

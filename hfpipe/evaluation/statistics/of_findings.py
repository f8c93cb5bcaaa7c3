"""The 95 % intervals of what a kind of task finds: of each class, of the ranking, of the calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

from hfpipe.evaluation.statistics.bootstrap import mean_interval
from hfpipe.evaluation.statistics.intervals import CLUSTERED, LEAST_ROWS, UNDEFINED, Interval, exact, exact_f1, too_few
from hfpipe.evaluation.statistics.proportions import clopper_pearson, clustered, newcombe_auc
from hfpipe.parts.tasks.findings import Scored, brier_terms

_FEWEST = 5  # mistakes, each of which weighs up to 1
NEWCOMBE, OF_POSITIVES = "Newcombe's method 5", "Clopper-Pearson, of the positives"
BIASED = "few rows raise the calibration error itself, so that no interval around it would hold the true one"


def add_intervals(findings: dict[str, Any], scored: Scored, seed: int) -> dict[str, Any]:
    """Add `intervals` to each class that has its counts, and to `ranking` and `calibration`; all from sums and counts.

    Args:
        findings: of a task, changed in place.
        scored: what they were made of.
        seed: of what is resampled.
    """
    classes = findings.get("classes") or []
    for one in classes:
        if "correct" in one:
            correct, predicted, support = one["correct"], one["predicted"], one["support"]
            of_class = {
                "precision": exact(correct, predicted).ends,
                "recall": exact(correct, support).ends,
                "f1": exact_f1(correct, predicted, support).ends,
            }
            one["intervals"] = of_class
    rows = len(scored.references)
    if (ranking := findings.get("ranking")) and "intervals" not in ranking:
        found = {name: _of_ranking(name, classes, rows) for name in ("roc_auc", "average_precision")}
        _write(ranking, found)
    if (calibration := findings.get("calibration")) and "intervals" not in calibration:
        _write(calibration, {"ece": Interval(None, BIASED), "brier": _of_brier(scored, seed)})
    return findings


def _write(part: dict[str, Any], found: dict[str, Interval]) -> None:
    part["intervals"] = {name: one.ends for name, one in found.items()}
    part["interval_methods"] = {name: one.method for name, one in found.items() if one.ends}
    part["no_interval"] = {name: one.method for name, one in found.items() if not one.ends}


def _of_ranking(name: str, classes: list[dict[str, Any]], rows: int) -> Interval:
    """Of one class of two its own; of more the mean of the classes' ends, which holds however they hang together."""
    of = classes[1:] if len(classes) == 2 else classes
    known = [one for one in of if one[name] is not None]
    if not known:
        return UNDEFINED
    if name == "roc_auc":
        ends: list[Any] = [newcombe_auc(one[name], one["support"], rows - one["support"]) for one in known]
    else:  # Source: Boyd, Eng and Page, ECML 2013
        ends = [clopper_pearson(one[name] * one["support"], one["support"]) for one in known]
    low, high = np.mean(np.array(ends, float), axis=0)
    method = NEWCOMBE if name == "roc_auc" else OF_POSITIVES
    return Interval([float(low), float(high)], method + (", the mean over the classes" if len(known) > 1 else ""))


def _of_brier(scored: Scored, seed: int) -> Interval:
    probabilities, references = scored.probabilities, scored.references
    if probabilities is None or len(references) < LEAST_ROWS:
        return too_few(len(references))
    terms = brier_terms(probabilities, references)
    if terms.sum() < _FEWEST and terms.max() <= 1:  # the rare mistakes that weigh most may not be among so few
        low, high = clustered(terms, np.ones(len(terms)))
        return Interval([low, high], CLUSTERED)
    ends, method = mean_interval(terms, np.ones(len(terms)), seed=seed)
    if ends is None or ends[0] == ends[1]:
        return Interval(None, "the rows show no scatter")
    return Interval(ends, method)

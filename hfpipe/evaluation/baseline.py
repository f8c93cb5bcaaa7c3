"""What the best constant prediction scores, metric by metric, and whether a model differs from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hfpipe.evaluation.statistics.intervals import Interval
from hfpipe.parts.metrics.scores import Metric, compute_all
from hfpipe.parts.tasks import Task
from hfpipe.recipe.catalog import greater_is_better
from hfpipe.recipe.schema import Recipe

Array = np.ndarray[Any, Any]

# A constant prediction reaches 1 in these, and no model is worse for that.
_REACHED_BY_ALWAYS = ("recall", "recall_micro", "recall_macro", "recall_weighted")


def best_constants(
    recipe: Recipe, task: Task, metrics: Sequence[tuple[str, Metric]], references: Array
) -> dict[str, Any] | None:
    """What the best constant prediction scores on these very rows, by metric.

    The best one differs from metric to metric: the most frequent class for the accuracy, the positive class for F1, the
    median for the absolute error. Where it is not known which end of a metric is the better one, the task's first counts.

    Returns:
        `what`: the one of the metric that matters, in words; `metrics`, name to number; and `each`, name to words. None where
        a task has no constant prediction.
    """
    candidates = task.constant_predictions(references) if len(references) else []
    if not candidates:
        return None
    scored = [(what, compute_all(metrics, constant, references)) for what, constant in candidates]
    best: dict[str, tuple[float | None, str]] = {}
    for name in scored[0][1]:
        values = [(scores.get(name), what) for what, scores in scored]
        known = [(value, what) for value, what in values if value is not None]
        greater = _direction(recipe, name)
        if greater is None or not known:
            best[name] = values[0]
        else:
            best[name] = (max if greater else min)(known, key=lambda one: one[0])
    each = {name: what for name, (_, what) in best.items()}
    main = _main(recipe, each)
    return {
        "what": each[main] if main else candidates[0][0],
        "metrics": {name: value for name, (value, _) in best.items()},
        "each": each,
    }


def against_baseline(
    recipe: Recipe,
    values: Mapping[str, float | None],
    intervals: Mapping[str, Interval],
    baseline: Mapping[str, Any] | None,
) -> list[str]:
    """Whether the metric that matters differs from the best constant prediction, and which others are no better than theirs."""
    if baseline is None:
        return []
    main = _main(recipe, baseline["metrics"])
    found = []
    for name, other in baseline["metrics"].items():
        value, greater = values.get(name), _direction(recipe, name)
        if value is None or other is None or greater is None:
            continue
        if name != main and (name in _REACHED_BY_ALWAYS or name.endswith(("_precision", "_recall", "_f1"))):
            continue
        what = (baseline.get("each") or {}).get(name, baseline["what"])
        if value == other or (value > other) != greater:
            found.append(f"{name} {value:.4f} is no better than the {other:.4f} of {what}")
        elif name == main and (one := intervals.get(name)) and one.ends and one.ends[0] <= other <= one.ends[1]:
            reached = f"the interval of {name}, {one.ends[0]:.4f} to {one.ends[1]:.4f}, reaches the {other:.4f} of"
            found.append(f"{reached} {what}")
    return found


def _main(recipe: Recipe, names: Mapping[str, Any]) -> str | None:
    """The metric that matters: the recipe's best, else the first."""
    best = recipe.evaluate.best
    return best if best in names else next(iter(names), None)


def _direction(recipe: Recipe, name: str) -> bool | None:
    """Whether a greater value is the better one, as the recipe says of its best metric, or as is known."""
    declared = recipe.evaluate.greater_is_better
    is_main = name == recipe.evaluate.best or recipe.evaluate.best is None
    return declared if declared is not None and is_main else greater_is_better(name)

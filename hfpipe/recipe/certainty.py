"""Whether a recipe's parts can be had and take their arguments, as far as that is certain without importing them.

What is certain needs no torch, which takes seconds to import. Of everything else only the parts themselves can say:
`hfpipe.parts.build.check_parts`. A test holds that whatever is certain here is accepted there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hfpipe.recipe.catalog import ENGINES, LOSSES, METRICS, OPTIMIZERS, SCHEDULES
from hfpipe.recipe.kinds import KINDS, Kind
from hfpipe.recipe.schema import Recipe

Rule = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _from_0(value: Any) -> bool:
    return _number(value) and value >= 0


def _below_1(value: Any) -> bool:
    return _from_0(value) and value < 1


def _above_0(value: Any) -> bool:
    return _number(value) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1_000_000


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _two_below_1(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(one, float) and _below_1(one) for one in value)
    )


# Arguments whose range is the same in every optimizer of the catalog, and far inside of what each takes.
_OPTIMIZER: dict[str, Rule] = {
    "betas": _two_below_1, "eps": _above_0, "momentum": _below_1, "amsgrad": _flag, "maximize": _flag, "centered": _flag,
    "alpha": _below_1, "rho": _below_1, "gamma": _below_1, "lr_decay": _from_0, "initial_accumulator_value": _from_0,
    "momentum_decay": _from_0, "decoupled_weight_decay": _flag,
}  # fmt: skip
_WITHOUT_DECAY = ("rprop",)
_OWN_RANGES = ("adafactor", "rprop", "asgd")  # the same names with other ranges, or ranges that depend on each other
_SCHEDULE: dict[str, dict[str, Rule]] = {
    "linear": {},
    "cosine": {"num_cycles": _above_0},
    "cosine_with_restarts": {"num_cycles": _count},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {"timescale": _count},
    "polynomial": {"power": _above_0},
    "cosine_with_min_lr": {"min_lr_rate": _below_1, "num_cycles": _above_0},
    "reduce_lr_on_plateau": {"factor": lambda value: _above_0(value) and value < 1, "patience": _count},
}
_METRIC: dict[str, Rule] = {
    "average": lambda value: value in ("binary", "micro", "macro", "weighted"),
    "scheme": lambda value: value in ("IOB1", "IOB2", "BILOU"),
}


_ACCURATE = ("sst2", "mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli", "hans")
# The scores of a metric, for the kinds of task that it measures, whatever the classes are.
_OF_CLASSES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("accuracy", "matthews_correlation", "quadratic_kappa")},
    **{f"glue/{name}": ("accuracy",) for name in _ACCURATE},
    **{f"glue/{name}": ("matthews_correlation",) for name in ("cola", "ax")},
}
_OF_TWO_CLASSES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("f1", "precision", "recall")},
    **{f"glue/{name}": ("accuracy", "f1") for name in ("mrpc", "qqp")},
}
_BESIDE: dict[str, dict[str, tuple[str, ...]]] = {  # by the metric that a kind has by default
    "mse": {
        **{name: (name,) for name in ("mse", "mae", "pearson", "spearmanr")},
        "glue/stsb": ("pearson", "spearmanr"),
    },
    "multi_label": {"multi_label": ("f1_micro", "f1_macro", "subset_accuracy")},
    "squad": {"squad": ("exact_match", "f1")},
    "seqeval": {"seqeval": ("precision", "recall", "f1", "accuracy")},
}


def is_certain(recipe: Recipe) -> bool:
    """Whether every part is one of the catalog, with arguments that it is known to take."""
    return (
        recipe.task.kind in KINDS
        and recipe.engine in ENGINES
        and recipe.loss.name in LOSSES
        and recipe.model.architecture is None
        and recipe.model.collate is None
        and _is_certain_optimizer(recipe)
        and _is_certain_schedule(recipe)
        and all(_is_certain_metric(one) for one in recipe.evaluate.metrics)
        and _has_certain_scores(recipe)
    )


def _all_within(rules: Mapping[str, Rule], arguments: Mapping[str, Any]) -> bool:
    return all(name in rules and rules[name](value) for name, value in arguments.items())


def _is_certain_optimizer(recipe: Recipe) -> bool:
    part = recipe.optimizer
    decays = not part.weight_decay or part.name not in _WITHOUT_DECAY
    takes = part.name not in _OWN_RANGES and _all_within(_OPTIMIZER, part.arguments)
    return part.name in OPTIMIZERS and decays and (takes or not part.arguments)


def _is_certain_schedule(recipe: Recipe) -> bool:
    part = recipe.schedule
    if part.name not in SCHEDULES or part.name not in _SCHEDULE or part.warmup >= 1_000_000:
        return False
    if part.name in ("constant", "reduce_lr_on_plateau") and part.warmup:
        return False
    if part.name == "reduce_lr_on_plateau" and (
        recipe.evaluate.every == "never" or recipe.dataset.splits.evaluation is None
    ):
        return False
    if part.name == "polynomial" and recipe.optimizer.lr < 1e-6:  # its end is 1e-7, and it only falls
        return False
    if part.name == "cosine_with_min_lr" and "min_lr_rate" not in part.arguments:
        return False
    return _all_within(_SCHEDULE[part.name], part.arguments)


def _is_certain_metric(metric: Any) -> bool:
    given = {"name": metric} if isinstance(metric, str) else dict(metric)
    return given.pop("name", None) in METRICS and _all_within(_METRIC, given)


def _has_certain_scores(recipe: Recipe) -> bool:
    """Whether the metrics measure the classes that are declared, and one of them gives `evaluate.best`."""
    if recipe.dataset.splits.evaluation is None:
        return True
    spec, best = recipe.task, recipe.evaluate.best
    names = spec.names.values() if isinstance(spec.names, Mapping) else spec.names or ()
    declared = len(set(names)) or (len(spec.label_columns) if len(spec.label_columns) > 1 else 0)
    scores: set[str] = set()
    for metric in recipe.evaluate.metrics:
        found = _scores(metric, spec.traits, declared)
        if found is None and (declared or best is not None or not spec.traits.has_classes):
            return False
        scores.update(found or ())
    return best is None or best == "loss" or best in scores


def _scores(metric: Any, kind: Kind, declared: int) -> tuple[str, ...] | None:
    """The scores that a metric gives for a kind of task, None where only the metric can say it.

    Args:
        metric: as in the recipe.
        kind: of the task.
        declared: how many classes the recipe declares, 0 for none.
    """
    given = {"name": metric} if isinstance(metric, str) else metric
    name, average = given["name"], given.get("average", "binary")
    if kind.metric in _BESIDE:
        return None if kind.is_words and declared else _BESIDE[kind.metric].get(name)
    if name in _OF_TWO_CLASSES:
        if average != "binary":
            return (f"{name}_{average}",)
        return _OF_TWO_CLASSES[name] if declared in (0, 2) and kind.has_classes else None
    return _OF_CLASSES.get(name)

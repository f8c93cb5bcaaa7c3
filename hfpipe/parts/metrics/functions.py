"""Metric functions of users: two signatures, told apart by inspection before the first step.

`(predictions, references)` gets decisions and labels; `compute_metrics(eval_pred)` gets what `transformers.Trainer` would
give it, the logits and the label ids. Both return a dict of names to numbers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfpipe.errors import HfpipeError, RecipeError
from hfpipe.parts.data.columns import IGNORED

Array = np.ndarray[Any, Any]

SIGNATURES = (
    "(predictions, references), with decisions and labels, or compute_metrics(eval_pred), with logits and label ids as "
    "transformers' Trainer gives them; both return a dict of names to numbers"
)
_PAIR = ("predictions", "references")
_REFERENCES = ("references", "reference", "refs", "y_true", "true", "truth", "labels", "label_ids", "targets", "target",
               "gold", "golds", "actual", "expected")  # fmt: skip
_OF_BATCHES = ("compute_result",)


@dataclass(frozen=True)
class FunctionMetric:
    """A user's function as a metric.

    Attributes:
        function: with its further arguments bound.
        where: the metric, for messages.
        takes_logits: whether it is called with an EvalPrediction of logits and label ids, not with decisions.
        by_name: whether its two parameters are called `predictions` and `references`.
    """

    function: Callable[..., Any]
    where: str
    takes_logits: bool
    by_name: bool

    def compute(self, *, predictions: Any = None, references: Any = None) -> Mapping[str, Any]:
        """Scores by name.

        Raises:
            RecipeError: the function fails, with its own words.
        """
        try:
            if self.takes_logits:
                from transformers.trainer_utils import EvalPrediction

                result = self.function(EvalPrediction(predictions=predictions, label_ids=references))
            elif self.by_name:
                result = self.function(predictions=predictions, references=references)
            else:
                result = self.function(predictions, references)
        except HfpipeError:
            raise
        except Exception as error:  # the function is someone's: anything can come out of it
            given = f"{np.shape(predictions)} and {np.shape(references)}"
            raise RecipeError(
                f"it fails with {type(error).__name__}: {error} (called with arrays of the shapes {given})",
                where=self.where,
                allowed=SIGNATURES,
            ) from error
        found: Mapping[str, Any] = result  # compute_all refuses what is no mapping
        return found


def function_metric(function: Callable[..., Any], where: str, arguments: Mapping[str, Any]) -> FunctionMetric | None:
    """A function as a metric, or None where its signature is none of the two that are taken.

    Args:
        function: what is called for each set of predictions.
        where: the metric, for messages.
        arguments: its further arguments, by name.

    Raises:
        RecipeError: labels before predictions, as scikit-learn has them.
    """
    try:
        bound = functools.partial(function, **arguments) if arguments else function
        parameters = inspect.signature(bound).parameters.values()
    except (TypeError, ValueError):
        return None
    free = [one for one in parameters if one.name not in arguments]
    named = {one.name for one in free if one.kind is not one.POSITIONAL_ONLY}
    needed = [one for one in free if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if set(_PAIR) <= named and {one.name for one in needed} <= set(_PAIR):
        return FunctionMetric(bound, where, takes_logits=False, by_name=True)
    if any(one.kind is one.KEYWORD_ONLY or one.name in _OF_BATCHES for one in needed):
        return None
    if len(needed) == 1:
        return FunctionMetric(bound, where, takes_logits=True, by_name=False)
    if len(needed) == 2 and needed[0].name in _REFERENCES:
        raise RecipeError(
            f"it takes ({needed[0].name}, {needed[1].name}), the labels first",
            where=where,
            allowed=SIGNATURES,
            fix="Wrap it: def metric(predictions, references): return {NAME: function(references, predictions)}.",
        )
    return FunctionMetric(bound, where, takes_logits=False, by_name=False) if len(needed) == 2 else None


def given_metric(given: Any, where: str) -> Any:
    """A metric that is given as an object: one with `compute`, or a function of one of the two signatures.

    Raises:
        RecipeError: another signature, or nothing that can be called.
    """
    if not isinstance(given, type) and callable(getattr(given, "compute", None)):
        return given
    found = function_metric(given, where, {}) if callable(given) and not isinstance(given, type) else None
    if found is None:
        raise RecipeError(f"it is {described(given)}", where=where, allowed=SIGNATURES)
    return found


def described(given: Any) -> str:
    """A function with its signature, or what else was given."""
    name = getattr(given, "__name__", None)
    try:
        return f"{name or type(given).__name__}{inspect.signature(given)}"
    except (TypeError, ValueError):
        return repr(given)[:80]


def logits_and_labels(logits: Sequence[Array], labels: Sequence[Any]) -> tuple[Array, Array]:
    """The logits and label ids of some rows as Trainer hands them to `compute_metrics`.

    Args:
        logits: of each row without padding: `[classes]`, or of its scored tokens `[scored, classes]`.
        labels: of each row: a class id or number, 0 and 1 of each class, or `[length]` with IGNORED where no token is
            scored.

    Returns:
        Both with the rows first. Where rows have different lengths, shorter ones are filled: labels with IGNORED, logits of
        tokens with 0, and logits of missing choices with the lowest number there is.
    """
    if len(logits) and logits[0].ndim == 2:  # tokens
        scored = [np.asarray(row)[np.asarray(row) != IGNORED] for row in labels]
        return _filled(logits, 0.0), _filled(scored, IGNORED)
    return _filled(logits, float(np.finfo(np.float32).min)), np.asarray(labels)


def _filled(rows: Sequence[Array], value: float) -> Array:
    """Rows of different lengths as one array, `[rows, longest, ...]`."""
    longest = max(map(len, rows), default=0)
    return np.stack(
        [np.pad(row, [(0, longest - len(row)), *[(0, 0)] * (row.ndim - 1)], constant_values=value) for row in rows]
    )

"""The scores of several metrics under flat names."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from hfpipe.errors import DataError, HfpipeError, RecipeError
from hfpipe.parts.metrics.array_metrics import StatisticMetric
from hfpipe.parts.metrics.sums import finite
from hfpipe.system.text import one_line


class Metric(Protocol):
    """What hfpipe asks of a metric: `compute`, as `evaluate.Metric` has it.

    A metric whose scores are functions of sums over the examples also has `sums`, which gives the same scores and lets
    them be resampled fast: see `hfpipe.parts.metrics.sums`.
    """

    def compute(self, *, predictions: Any = None, references: Any = None) -> Mapping[str, Any] | None:
        """Return the scores by name."""


def takes_logits(metric: Metric) -> bool:
    """Whether a metric is computed from logits and label ids, which no resample and no constant prediction has."""
    return bool(getattr(metric, "takes_logits", False))


def compute_all(
    metrics: Sequence[tuple[str, Metric]],
    predictions: Any,
    references: Any,
    *,
    outputs: tuple[Any, Any] | None = None,
    names_only: bool = False,
) -> dict[str, float | None]:
    """Score the predictions with every metric, under flat names.

    A score that is a mapping or a list, as some scripts return, is spread out: `precisions_0`, `PER_f1`. A score that
    is not finite becomes None.

    Args:
        metrics: pairs of the name in the recipe and the metric.
        predictions: class ids or numbers, `[examples]`.
        references: class ids or numbers, `[examples]`.
        outputs: logits and label ids of the same examples, for functions that take an EvalPrediction; without them these
            are left out.
        names_only: check the values and give each score as None; scipy and scikit-learn are not imported for it.

    Raises:
        RecipeError: two scores of one name, or a score that is not a number.
        DataError: from a metric, where the values are not what it scores.
    """
    scores: dict[str, float | None] = {}
    sources: dict[str, str] = {}
    for name, metric in metrics:
        if takes_logits(metric) and outputs is None:
            continue
        try:
            if takes_logits(metric) and outputs is not None:
                result: Any = metric.compute(predictions=outputs[0], references=outputs[1])
            elif names_only and isinstance(metric, StatisticMetric):
                result = dict.fromkeys(metric.name_scores(predictions, references))
            else:
                result = metric.compute(predictions=predictions, references=references)
        except DataError as error:
            error.where = error.where or f"metric {name!r}"
            raise
        except (HfpipeError, MemoryError, OSError):
            raise
        except Exception as error:  # the class may be anyone's: anything can come out of it
            raise RecipeError(
                f"it fails with {type(error).__name__}: {one_line(error, 300)}",
                where=f"metric {name!r}",
                fix="Mend it, or take another one: evaluate.metrics.",
            ) from error
        if not isinstance(result, Mapping):
            raise RecipeError(
                f"it returned {type(result).__name__}", where=f"metric {name!r}", allowed="a dict of names to numbers"
            )
        for key, value in _flat(result, name):
            if key == "loss":
                raise RecipeError(
                    "it gives 'loss', and so is called the mean loss that hfpipe measures itself",
                    where=f"metric {name!r}",
                    fix="Give the score another name.",
                )
            if key in scores:
                raise RecipeError(
                    f"metrics {sources[key]!r} and {name!r} both give {key!r}",
                    where="evaluate.metrics",
                    allowed="each score once",
                    fix=f"Take {name!r} or {sources[key]!r} out of the recipe.",
                )
            scores[key], sources[key] = None if names_only else value, name
    return scores


def _flat(result: Mapping[str, Any], metric: str) -> Iterator[tuple[str, float | None]]:
    for key, value in result.items():
        if isinstance(value, np.ndarray):
            value = value.tolist()  # of no axis: a number
        if value is None:
            yield key, None
        elif isinstance(value, numbers.Real):
            yield key, finite(float(value))
        elif isinstance(value, Mapping):
            yield from _flat({f"{key}_{inner}": score for inner, score in value.items()}, metric)
        elif isinstance(value, list | tuple):
            yield from _flat({f"{key}_{index}": score for index, score in enumerate(value)}, metric)
        else:
            raise RecipeError(
                f"its score {key!r} is {value!r}", where=f"metric {metric!r}", allowed="a number, or None if undefined"
            )

"""The document of an evaluation: metrics with their intervals, a baseline, what the kind of task finds, slices, every example.

What `finetune` writes about its evaluation split and what `hfpipe evaluate` measures come from here. The keys of the
document are described in docs/evaluation.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from hfpipe.evaluation.baseline import against_baseline, best_constants
from hfpipe.evaluation.examples import LISTED, add_places, add_texts, examples_of, mistakes_of
from hfpipe.evaluation.inference import Predictions, mean_loss_of, outputs_for, raw_rows, scored_rows
from hfpipe.evaluation.slices import slices_of
from hfpipe.evaluation.statistics.intervals import Interval, intervals_of, split_intervals
from hfpipe.evaluation.statistics.of_findings import add_intervals
from hfpipe.parts.data.columns import is_item
from hfpipe.parts.data.formats.files import Places
from hfpipe.parts.metrics.scores import Metric, compute_all
from hfpipe.parts.tasks import Scored, Task, calibrated
from hfpipe.parts.tasks.calibration import NONE, Calibration, fit_temperature, fit_threshold
from hfpipe.parts.tasks.findings import hot
from hfpipe.recipe.schema import Recipe

Array = np.ndarray[Any, Any]
MetricValues = dict[str, float | None]
Intervals = dict[str, Interval]
Metrics = Sequence[tuple[str, Metric]]
Outputs = tuple[Array, Array]

FORMAT = 1
_LEVEL = 0.95
_NO_INTERVAL = Interval(None, "it is no estimate, or computed from logits, which are not drawn again")
_NOTHING_FOUND = dict.fromkeys(("classes", "confusion", "ranking", "calibration", "errors"))


@dataclass(frozen=True)
class SplitEvaluation:
    """A split as it was measured: the document, and the prediction for each example, in the order of the rows."""

    document: dict[str, Any]
    examples: list[dict[str, Any]]

    @property
    def metrics(self) -> MetricValues:
        """Name to number; None where undefined."""
        return dict(self.document["metrics"])


@dataclass(frozen=True)
class EvaluationDocument:
    """What was measured of a split; docs/evaluation.md says more of each key.

    Attributes:
        target: what was measured, as it was named.
        split: the split or slice.
        overrides: what was changed in the recipe for this measurement.
        dataset: what identifies the data, from `parts.data.open.dataset_identity`.
        kind: of the task, as the recipe names it.
        names: the classes in order.
        scheme: how labels mark entities, where they do.
        examples: rows of the split.
        scored: the rows that count.
        metrics: name to number, None where undefined.
        intervals: by the name of the metric.
        baseline: what the best constant prediction scores: `what` and `metrics`, and `each`, which one it is of a metric.
        notices: what a reader of these metrics should know.
        findings: what the kind of task adds.
        slices: the parts of the split that were measured by themselves.
        leak: how many of the scored rows have the text of a training row, and what is measured on the others; None where
            there is no such row, or nobody looked.
        mistakes: those that the model is most certain of, by row; see `evaluation.examples`.
        calibration: how logits became probabilities and decisions.
        examples_per_second: rows over the time of the forward passes.
    """

    target: str
    split: str
    overrides: list[str]
    dataset: str
    kind: str
    names: list[str]
    scheme: str | None
    examples: int
    scored: int
    metrics: MetricValues
    intervals: Intervals
    baseline: dict[str, Any] | None
    notices: list[str]
    findings: dict[str, Any]
    slices: list[dict[str, Any]]
    leak: dict[str, Any] | None
    mistakes: list[dict[str, Any]]
    calibration: Calibration
    examples_per_second: float

    def as_json(self) -> dict[str, Any]:
        """Plain values, with every key that some kind of task adds."""
        own = {key: value for key, value in vars(self).items() if key not in ("findings", "calibration", "intervals")}
        fitted = self.calibration
        return {
            "format": FORMAT,
            **own,
            **split_intervals(self.intervals),
            "remarks": self.notices,  # their key before, for one release
            "level": _LEVEL,
            **_NOTHING_FOUND,
            **self.findings,
            "temperature": fitted.temperature if fitted.fitted_on else None,
            "threshold": list(fitted.thresholds) or None,
            "fitted_on": fitted.fitted_on,
        }


@dataclass(frozen=True)
class _Rows:
    """The rows that count: predictions, references, losses and weights, all `[scored]`."""

    predictions: Array
    references: Array
    losses: Array
    weights: Array

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """All four."""
        return self.predictions, self.references, self.losses, self.weights

    def where(self, inside: Array) -> _Rows:
        """Some of the rows."""
        return _Rows(self.predictions[inside], self.references[inside], self.losses[inside], self.weights[inside])

    def measure(self, metrics: Metrics, outputs: Outputs | None) -> MetricValues:
        """The loss and every metric; `outputs` for those that take logits."""
        total = self.weights.sum()
        loss = float(self.losses.sum() / total) if total else None
        return {"loss": loss, **compute_all(metrics, self.predictions, self.references, outputs=outputs)}

    def intervals(self, metrics: Metrics, names: Iterable[str], seed: int) -> Intervals:
        """The interval of each of these metrics, None where there is none."""
        found = intervals_of(metrics, self.predictions, self.references, self.losses, self.weights, seed=seed)
        return {name: found.get(name, _NO_INTERVAL) for name in names}


def build_document(
    recipe: Recipe,
    task: Task,
    metrics: Metrics,
    predictions: Predictions,
    encoded: datasets.Dataset,
    rows: datasets.Dataset,
    *,
    target: str,
    split: str,
    dataset: str,
    overrides: Sequence[str] = (),
    in_train: Array | None = None,
    places: Places | None = None,
) -> SplitEvaluation:
    """Measure predictions against the labels of a split.

    Args:
        recipe: its seed, slices and best metric.
        task: decides; with the calibration that probabilities go through.
        metrics: as for `compute_all`.
        predictions: of the encoded rows, with losses.
        encoded: the rows as the model reads them.
        rows: the raw rows.
        target: what was measured, as it was named.
        split: the split or slice.
        dataset: from `parts.data.open.dataset_identity`.
        overrides: what was changed in the recipe for this measurement.
        in_train: which raw rows have the text of a training row, `[rows]` of bool; None where nobody looked.
        places: where the raw rows stand, in files that have lines.
    """
    ids, seed = scored_rows(encoded, len(rows)), recipe.seed
    counted = _counted(task, predictions, encoded, rows, ids)
    outputs = functools.partial(outputs_for, metrics, predictions.logits, encoded)
    values: MetricValues = {**counted.measure(metrics, outputs(ids)), "loss": mean_loss_of(predictions)}
    intervals = counted.intervals(metrics, values, seed)
    baseline = best_constants(recipe, task, metrics, counted.references)
    scored = _as_scored(task, predictions.logits, counted, ids, values, intervals)
    measured = functools.partial(_part, ids, counted, metrics, outputs, seed)
    examples = examples_of(task.names, *counted.arrays, ids, scored.probabilities)
    if places is not None:
        add_places(examples, places.as_texts(ids))
    mistakes = mistakes_of(examples, recipe.evaluate.mistakes or LISTED)
    if recipe.evaluate.mistakes:
        add_texts(examples, [one["id"] for one in mistakes], rows, recipe.task.input_columns)
    document = EvaluationDocument(
        target=target,
        split=split,
        overrides=list(overrides),
        dataset=dataset,
        kind=recipe.task.kind,
        names=list(task.names),
        scheme=task.scheme,
        examples=len(rows),
        scored=len(ids),
        metrics=values,
        intervals=intervals,
        baseline=baseline,
        notices=[*_same_for_all(task, counted.predictions), *against_baseline(recipe, values, intervals, baseline)],
        findings=_findings(task, scored, seed, places),
        slices=[
            {"what": one.what, "by": one.by, "value": one.value, **measured(one.rows[ids])}
            for one in slices_of(recipe, task, split, encoded, rows)
        ],
        leak=None if in_train is None else _leak(recipe, in_train[ids], measured),
        mistakes=mistakes,
        calibration=_calibration_of(task),
        examples_per_second=len(rows) / predictions.seconds,
    )
    return SplitEvaluation(document.as_json(), examples)


def _findings(task: Task, scored: Scored, seed: int, places: Places | None) -> dict[str, Any]:
    """What the kind of task adds; the worst errors of a regression with the places of their rows."""
    found = add_intervals(task.findings(scored), scored, seed)
    worst = (found.get("errors") or {}).get("worst", [])
    if worst and places is not None:
        add_places(worst, places.as_texts([one["id"] for one in worst]))
    return found


def _counted(
    task: Task, predictions: Predictions, encoded: datasets.Dataset, rows: datasets.Dataset, ids: Array
) -> _Rows:
    """The rows that count, decided."""
    predicted, references = task.decode(predictions.logits, encoded, rows)
    assert references is not None
    losses, weights = (_by_row(side, encoded, len(rows))[ids] for side in (predictions.losses, predictions.weights))
    return _Rows(predicted, references, losses, weights)


def _as_scored(
    task: Task,
    logits: Sequence[Array],
    counted: _Rows,
    ids: Array,
    values: MetricValues,
    intervals: Intervals,
) -> Scored:
    """What a task looks at for its findings."""
    probabilities, uncalibrated = task.probabilities(logits), None
    if probabilities is not None and _calibration_of(task).fitted_on is not None:
        uncalibrated = calibrated(task, NONE).probabilities(logits)
    return Scored(
        predictions=counted.predictions,
        references=counted.references,
        ids=ids,
        probabilities=_of(probabilities, ids),
        uncalibrated=_of(uncalibrated, ids),
        metrics=values,
        intervals={name: one.ends for name, one in intervals.items()},
    )


def _of(probabilities: Array | None, ids: Array) -> Array | None:
    """Those of some rows; of all rows there is no copy, which may be large."""
    return probabilities if probabilities is None or len(ids) == len(probabilities) else probabilities[ids]


def fit(recipe: Recipe, task: Task, predictions: Predictions, encoded: datasets.Dataset, dataset: str) -> Calibration:
    """Fit what `evaluate.calibrate` and `evaluate.threshold` ask for on the predictions of the calibration split.

    Args:
        recipe: what is asked for.
        task: with probabilities of classes.
        predictions: of the calibration split.
        encoded: its rows as the model reads them, with their labels.
        dataset: from `parts.data.open.dataset_identity`.

    Raises:
        DataError: rows on which a threshold can't be fitted.
    """
    labels, logits = np.asarray(encoded["labels"][:]), np.stack(predictions.logits)
    is_several = labels.ndim > 1  # 0 and 1 for each class
    counted = is_item(labels[:, 0] if is_several else labels)
    labels, logits = labels[counted], logits[counted]
    split, where = recipe.dataset.splits.calibration, recipe.where("evaluate.threshold")
    temperature = fit_temperature(logits, labels) if recipe.evaluate.calibrate else 1.0
    found = Calibration(temperature, (), split, dataset)
    if recipe.evaluate.threshold is None:
        return found
    probabilities = calibrated(task, found).probabilities(list(logits))
    assert probabilities is not None
    actual = hot(labels, len(task.names))
    columns = range(len(task.names)) if is_several else [1]
    thresholds = tuple(fit_threshold(probabilities[:, k], actual[:, k] == 1, task.names[k], where) for k in columns)
    return Calibration(temperature, thresholds, split, dataset)


def _calibration_of(task: Task) -> Calibration:
    return NONE if task.calibration is None else task.calibration


def _by_row(values: Array | None, encoded: datasets.Dataset, rows: int) -> Array:
    assert values is not None
    return np.bincount(raw_rows(encoded, rows), weights=values, minlength=rows)


def _part(
    ids: Array,
    counted: _Rows,
    metrics: Metrics,
    outputs: Callable[[Array], Outputs | None],
    seed: int,
    inside: Array,
) -> dict[str, Any]:
    """The metrics of some of the rows, with their intervals."""
    mine = counted.where(inside)
    values = mine.measure(metrics, outputs(ids[inside])) if inside.any() else {}
    return {
        "examples": int(inside.sum()),
        "metrics": values,
        **split_intervals(mine.intervals(metrics, values, seed) if values else {}),
    }


def _leak(recipe: Recipe, in_train: Array, measured: Callable[[Array], dict[str, Any]]) -> dict[str, Any] | None:
    """What is measured on the rows that are not in the training split, where some are."""
    if not in_train.any():
        return None
    return {"train": recipe.dataset.splits.train, "rows": int(in_train.sum()), **measured(~in_train)}


def _same_for_all(task: Task, predictions: Array) -> list[str]:
    """A model that predicts the same for every example is called that."""
    found = task.degenerate(predictions) if len(predictions) > 1 else None
    return [found] if found else []

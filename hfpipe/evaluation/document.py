"""Everything that is said of a split: figures with their intervals, a baseline, the classes, the slices, every example.

What `finetune` writes about its evaluation split and what `hfpipe evaluate` measures come from here. The keys of the
document are described in docs/evaluation.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from hfpipe.evaluation import findings
from hfpipe.evaluation.baselines import constant_answer
from hfpipe.evaluation.inference import Predictions, mean_loss_of
from hfpipe.evaluation.slices import Slice, cut
from hfpipe.evaluation.statistics.bootstrap import bootstrap_intervals, count_intervals, ratio_intervals
from hfpipe.parts.metrics.metrics import compute_all, greater_is_better
from hfpipe.parts.tasks import IGNORED, Task, calibrated, lengths
from hfpipe.parts.tasks.calibration import NONE, Calibration, fit_temperature, fit_threshold
from hfpipe.recipe.schema import Recipe

Array = np.ndarray[Any, Any]
Figures = dict[str, float | None]
Intervals = dict[str, list[float] | None]
Metrics = Sequence[tuple[str, Any]]

FORMAT = 1
_LEVEL = 0.95
_MOST_CLASSES = 60  # whose figures get intervals


@dataclass(frozen=True)
class SplitEvaluation:
    """A split as it was measured: the document of figures, and what was said of each example, in the order of the rows."""

    document: dict[str, Any]
    examples: list[dict[str, Any]]

    @property
    def metrics(self) -> Figures:
        """Name to number; None where undefined."""
        return dict(self.document["metrics"])


@dataclass(frozen=True)
class _Answers:
    """What was said of the rows that count, and what is right; all `[scored]`."""

    said: Array
    right: Array
    losses: Array
    weights: Array

    def where(self, inside: Array) -> _Answers:
        """Those of some of the rows."""
        return _Answers(self.said[inside], self.right[inside], self.losses[inside], self.weights[inside])

    def figures(self, metrics: Metrics) -> Figures:
        """The loss and every metric."""
        total = self.weights.sum()
        loss = float(self.losses.sum() / total) if total else None
        return {"loss": loss, **compute_all(metrics, self.said, self.right)}

    def intervals(self, metrics: Metrics, names: Iterable[str], seed: int) -> Intervals:
        """The interval of each of these figures, None where there is none."""
        found = bootstrap_intervals(metrics, self.said, self.right, self.losses, self.weights, seed=seed)
        return {name: found.get(name) for name in names}


def dataset_identity(digest: str, recipe: Recipe) -> str:
    """What identifies the data that splits are taken from: their content and their configuration."""
    return hashlib.sha256(f"{digest} {recipe.dataset.name}".encode()).hexdigest()


def slices_of(recipe: Recipe, split: str, encoded: datasets.Dataset, rows: datasets.Dataset) -> list[Slice]:
    """The rows of each slice that the recipe asks for; raises as `parts.slices.cut`."""
    longest = np.zeros(len(rows), np.int64)
    np.maximum.at(longest, _raw_rows(encoded, len(rows)), lengths(encoded))
    where = recipe.where("evaluate.slices")
    return cut(recipe.evaluate.slices, rows, longest, f"{recipe.dataset.path}, split {split}", where)


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
) -> SplitEvaluation:
    """Turn predictions into all that is said of a split.

    Args:
        recipe: its seed, slices and best figure.
        task: decides; with the calibration that probabilities go through.
        metrics: as for `compute_all`.
        predictions: of the encoded rows, with losses.
        encoded: the rows as tokens.
        rows: the raw rows.
        target: what was measured, as it was named.
        split: the split or slice.
        dataset: from `dataset_identity`.
        overrides: what was changed in the recipe for this measurement.
    """
    said, right = task.decode(predictions.logits, encoded, rows)
    assert right is not None
    kind, ids = recipe.task.kind, _scored(recipe, encoded, len(rows))
    losses, weights = (_by_row(side, encoded, len(rows))[ids] for side in (predictions.losses, predictions.weights))
    answers = _Answers(said, right, losses, weights)
    figures: Figures = {**answers.figures(metrics), "loss": mean_loss_of(predictions)}
    intervals = answers.intervals(metrics, figures, recipe.seed)
    probabilities = _chances(kind, task, predictions.logits)
    probabilities = None if probabilities is None else probabilities[ids]
    constant = constant_answer(kind, task.names, right)
    baseline = constant and {"what": constant[0], "metrics": compute_all(metrics, constant[1], right)}
    calibration: Calibration = getattr(task, "calibration", NONE)
    has_classes = kind in ("text-classification", "multi-label-classification")
    classes = _classes(said, right, task.names, probabilities, recipe.seed) if has_classes else None
    if kind == "token-classification":
        classes = _types(figures, intervals)
    document: dict[str, Any] = {
        "format": FORMAT,
        "target": target,
        "split": split,
        "overrides": list(overrides),
        "dataset": dataset,
        "kind": kind,
        "names": list(task.names),
        "scheme": getattr(task, "scheme", None),
        "examples": len(rows),
        "scored": len(right),
        "metrics": figures,
        "intervals": intervals,
        "level": _LEVEL,
        "baseline": baseline,
        "remarks": [
            *_one_answer(kind, task.names, said),
            *_against_baseline(recipe, figures, intervals, baseline),
        ],
        "classes": classes,
        "confusion": findings.confusion(said, right, task.names) if kind == "text-classification" else None,
        "ranking": None,
        "calibration": None,
        "errors": findings.errors(said, right, ids) if kind == "text-regression" else None,
        "slices": [_slice(one, ids, answers, metrics, recipe.seed) for one in slices_of(recipe, split, encoded, rows)],
        "temperature": calibration.temperature if calibration.fitted_on else None,
        "threshold": list(calibration.thresholds) or None,
        "fitted_on": calibration.fitted_on,
        "examples_per_second": len(rows) / predictions.seconds,
    }
    if probabilities is not None:
        document |= _probabilities(probabilities, right, classes, recipe.seed)
        if calibration.fitted_on is not None:
            raw = _chances(kind, calibrated(task, NONE), predictions.logits)
            assert raw is not None
            before = findings.reliability(raw[ids], right)
            document["calibration"]["before"] = {key: before[key] for key in ("ece", "brier")}
    examples: list[dict[str, Any]] = [
        {
            "id": int(number),
            "said": _plain(one),
            "right": _plain(is_positive),
            "loss": float(loss),
            "weight": float(weight),
        }
        for number, one, is_positive, loss, weight in zip(ids, said, right, losses, weights, strict=True)
    ]
    if probabilities is not None:
        for one, row in zip(examples, probabilities, strict=True):
            one["probabilities"] = [round(float(chance), 6) for chance in row]
    return SplitEvaluation(document, examples)


def fit(recipe: Recipe, task: Task, predictions: Predictions, encoded: datasets.Dataset, dataset: str) -> Calibration:
    """Fit what `evaluate.calibrate` and `evaluate.threshold` ask for on the predictions of the calibration split.

    Args:
        recipe: what is asked for.
        task: of one class a text, or of several.
        predictions: of the calibration split.
        encoded: its rows as tokens, with their labels.
        dataset: from `dataset_identity`.

    Raises:
        DataError: rows on which a threshold can't be fitted.
    """
    labels, logits = np.asarray(encoded["labels"][:]), np.stack(predictions.logits)
    several = recipe.task.kind == "multi-label-classification"
    if not several:
        labels, logits = labels[labels != IGNORED], logits[labels != IGNORED]
    split, where = recipe.dataset.splits.calibration, recipe.where("evaluate.threshold")
    temperature = fit_temperature(logits, labels) if recipe.evaluate.calibrate else 1.0
    cooled = Calibration(temperature, (), split, dataset)
    if recipe.evaluate.threshold is None:
        return cooled
    probabilities = (cooled.any_of if several else cooled.one_of)(logits)[1]
    held = findings.hot(labels, len(task.names))
    columns = range(len(task.names)) if several else [1]
    thresholds = tuple(fit_threshold(probabilities[:, k], held[:, k] == 1, task.names[k], where) for k in columns)
    return Calibration(temperature, thresholds, split, dataset)


def _scored(recipe: Recipe, encoded: datasets.Dataset, rows: int) -> Array:
    """The numbers of the rows that count: those of one class a row whose label is ignored do not."""
    if recipe.task.kind == "text-classification":
        return np.flatnonzero(np.asarray(encoded["labels"][:]) != IGNORED)
    return np.arange(rows)


def _raw_rows(encoded: datasets.Dataset, rows: int) -> Array:
    """The raw row of each encoded one: of a long text several encoded rows come from one."""
    return np.asarray(encoded["row"][:]) if "row" in encoded.column_names else np.arange(rows)


def _by_row(values: Array | None, encoded: datasets.Dataset, rows: int) -> Array:
    assert values is not None
    return np.bincount(_raw_rows(encoded, rows), weights=values, minlength=rows)


def _chances(kind: str, task: Any, logits: Sequence[Array]) -> Array | None:
    """The probabilities of all classes, `[rows, classes]`, where an example has such."""
    if kind == "text-classification":
        return np.asarray(task.calibration.one_of(np.stack(logits))[1])
    if kind == "multi-label-classification":
        return np.asarray(task.calibration.any_of(np.stack(logits))[1])
    return None


def _classes(
    said: Array, right: Array, names: Sequence[str], probabilities: Array | None, seed: int
) -> list[dict[str, Any]]:
    """The figures of each class, with intervals for those of precision, recall and F1."""
    table = findings.by_class(said, right, names, probabilities)
    if len(names) > _MOST_CLASSES:
        return table
    here, there = findings.hot(said, len(names)), findings.hot(right, len(names))
    hits = here * there
    ratios: dict[str, tuple[Array, Array]] = {}
    for k in range(len(names)):
        ratios[f"precision {k}"] = (hits[:, k], here[:, k])
        ratios[f"recall {k}"] = (hits[:, k], there[:, k])
        ratios[f"f1 {k}"] = (2 * hits[:, k], here[:, k] + there[:, k])
    found = ratio_intervals(ratios, seed=seed)
    for k, one in enumerate(table):
        one["intervals"] = {name: found[f"{name} {k}"] for name in ("precision", "recall", "f1")}
    return table


def _types(figures: Figures, intervals: Intervals) -> list[dict[str, Any]]:
    """The figures of each type of entity, or of each tag, from those of the metric."""
    types = [name.removesuffix("_f1") for name in figures if name.endswith("_f1")]
    return [
        {
            "name": one,
            **{name: figures.get(f"{one}_{name}") for name in ("precision", "recall", "f1", "support")},
            "predicted": None,
            "roc_auc": None,
            "average_precision": None,
            "intervals": {name: intervals.get(f"{one}_{name}") for name in ("precision", "recall", "f1")},
        }
        for one in types
    ]


def _probabilities(probabilities: Array, right: Array, classes: Any, seed: int) -> dict[str, Any]:
    """`ranking` and `calibration`, with their intervals."""
    found = count_intervals(findings.figures_by_count(probabilities, right), len(right), seed=seed)
    ranking, calibration = findings.ranking(classes), findings.reliability(probabilities, right)
    ranking["intervals"] = {name: found[name] for name in ("roc_auc", "average_precision")}
    calibration["intervals"] = {name: found[name] for name in ("ece", "brier")}
    return {"ranking": ranking, "calibration": calibration}


def _slice(part: Slice, ids: Array, answers: _Answers, metrics: Metrics, seed: int) -> dict[str, Any]:
    """The figures of some of the rows, with their intervals."""
    inside = part.rows[ids]
    mine = answers.where(inside)
    figures = mine.figures(metrics) if inside.any() else {}
    return {
        "what": part.what,
        "by": part.by,
        "value": part.value,
        "examples": int(inside.sum()),
        "metrics": figures,
        "intervals": mine.intervals(metrics, figures, seed) if figures else {},
    }


def _one_answer(kind: str, names: Sequence[str], said: Array) -> list[str]:
    """A model that says the same of every example is called that."""
    if len(said) < 2:
        return []
    every = f"of all {len(said):,} examples"
    if kind == "text-classification" and len(names) > 1 and (said == said[0]).all():
        return [f"the model says {names[int(said[0])]!r} {every}"]
    if kind == "multi-label-classification" and (said == said[0]).all():
        held = [name for name, one in zip(names, said[0], strict=True) if one]
        return [f"the model says {', '.join(held) or 'no label'} {every}"]
    if kind == "multiple-choice" and (said == said[0]).all():
        return [f"the model takes choice {int(said[0])} {every}"]
    if kind == "text-regression" and np.ptp(said) <= 1e-3 * max(1.0, abs(float(said[0]))):
        return [f"the model says about {float(np.mean(said)):.4g} {every}"]
    if kind == "token-classification":
        labels = {label for row in said for label in row}
        return [f"the model says {labels.pop()!r} of every word"] if len(labels) == 1 else []
    if kind == "question-answering" and not any(one["prediction_text"] for one in said):
        return ["the model answers no question"]
    return []


def _against_baseline(
    recipe: Recipe, figures: Mapping[str, Any], intervals: Intervals, baseline: Mapping[str, Any] | None
) -> list[str]:
    """Whether the figure that matters is told from that of a constant answer."""
    if baseline is None:
        return []
    best = recipe.evaluate.best
    name = best if best in baseline["metrics"] else next(iter(baseline["metrics"]), None)
    if name is None or figures.get(name) is None or baseline["metrics"][name] is None:
        return []
    greater = (
        greater_is_better(name) if recipe.evaluate.greater_is_better is None else recipe.evaluate.greater_is_better
    )
    if greater is None:
        return []
    value, other = figures[name], baseline["metrics"][name]
    if value == other or (value > other) != greater:
        return [f"{name} {value:.4f} is no better than the {other:.4f} of {baseline['what']}"]
    interval = intervals.get(name)
    if interval is not None and interval[0] <= other <= interval[1]:
        reached = f"the interval of {name}, {interval[0]:.4f} to {interval[1]:.4f}, reaches the {other:.4f} of"
        return [f"{reached} {baseline['what']}"]
    return []


def _plain(value: Any) -> Any:
    """A decision as JSON has it."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value

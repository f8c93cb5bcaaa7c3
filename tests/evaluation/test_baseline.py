"""The best constant prediction is the best for each metric by itself, and a model that is no better is told."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import hfpipe
from hfpipe.evaluation.baseline import against_baseline, best_constants
from hfpipe.evaluation.statistics.intervals import Interval
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all
from hfpipe.parts.tasks import Task, head_task
from hfpipe.recipe import schema
from hfpipe.recipe.schema import Recipe

RNG = np.random.default_rng(0)


@pytest.fixture
def recipe(recipe_fields: dict[str, Any]) -> Recipe:
    """A recipe whose best metric is its first."""
    return hfpipe.load_recipe(recipe_fields, ["evaluate.best=null"])


def baseline_of(recipe: Recipe, task: Task, references: np.ndarray, *names: Any) -> dict[str, Any]:
    """The baselines of these metrics."""
    metrics = [one if isinstance(one, tuple) else (one, load_metric(one)) for one in names]
    found = best_constants(recipe, task, metrics, references)
    assert found is not None
    return found


def test_always_yes_has_the_best_f1_and_always_no_the_best_accuracy(recipe: Recipe) -> None:
    """At 40 positives of 100 F1's baseline is that of always 'yes', 0.571, and not the 0 of the majority."""
    references = np.array([1] * 40 + [0] * 60)
    task = head_task(schema.Task(text="text"), ("no", "yes"))
    found = baseline_of(recipe, task, references, "accuracy", "f1", "precision")
    assert found["metrics"] == {"accuracy": 0.6, "f1": pytest.approx(4 / 7), "precision": 0.4}
    assert found["each"]["accuracy"] == found["what"] == "always 'no', the most frequent one here"
    assert found["each"]["f1"] == found["each"]["precision"] == "always 'yes'"


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_no_constant_class_does_better(recipe: Recipe, classes: int) -> None:
    """Of every metric of classes, against trying all of them."""
    references = RNG.choice(classes, 50, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    averages = [("f1", load_metric("f1", average=one)) for one in ("macro", "weighted", "micro")]
    averages += [("precision", load_metric("precision", average="macro")), ("accuracy", load_metric("accuracy"))]
    task = head_task(schema.Task(text="text"), tuple("abcd"[:classes]))
    found = baseline_of(recipe, task, references, *averages)["metrics"]
    for name, metric in averages:
        every = [compute_all([(name, metric)], np.full(50, one), references) for one in range(classes)]
        for key in every[0]:
            assert found[key] == pytest.approx(max(one[key] for one in every))


@pytest.mark.parametrize("score", ["f1_micro", "f1_macro", "precision_micro", "precision_macro", "recall_macro",
                                   "subset_accuracy", "c_f1"])  # fmt: skip
def test_no_constant_set_of_labels_does_better(recipe: Recipe, score: str) -> None:
    """Of several labels a row, against trying all 16 sets, on a dozen data sets."""
    spec = schema.Task(kind="multi-label-classification", text="text")
    task, metric = head_task(spec, tuple("abcd")), load_metric("multi_label")
    metric.names = "abcd"
    for _ in range(12):
        references = (RNG.random((30, 4)) < RNG.uniform(0.1, 0.9, 4)).astype(int)
        references[0] = 1  # every label occurs
        found = baseline_of(recipe, task, references, ("multi_label", metric))["metrics"]
        every = [
            compute_all([("multi_label", metric)], np.tile(one, (30, 1)), references)[score]
            for one in product((0, 1), repeat=4)
        ]
        assert found[score] == pytest.approx(max(one for one in every if one is not None))


def test_the_mean_has_the_least_squared_and_the_median_the_least_absolute_error(recipe: Recipe) -> None:
    """Of skewed numbers the two are apart; each metric gets its own."""
    references = RNG.exponential(size=101)
    task = head_task(schema.Task(kind="text-regression", text="text"), ())
    found = baseline_of(recipe, task, references, "mse", "mae", "pearson")
    tried = np.linspace(references.min(), references.max(), 2_001)
    assert found["metrics"]["mse"] <= min(((references - one) ** 2).mean() for one in tried) + 1e-12
    assert found["metrics"]["mae"] <= min(np.abs(references - one).mean() for one in tried) + 1e-12
    assert found["each"]["mse"].startswith("always the mean")
    assert found["each"]["mae"].startswith("always the median")
    assert found["metrics"]["pearson"] is None


def test_a_label_that_begins_an_entity_is_tried_for_every_word(recipe: Recipe) -> None:
    """Always 'O' has the best accuracy of words and no F1 of entities; always 'B-x' has one."""
    references = np.empty(10, object)
    references[:] = [["B-x", "O", "O"]] * 10
    task = head_task(schema.Task(kind="token-classification", text="words"), ("O", "B-x"))
    found = baseline_of(recipe, task, references, ("seqeval", load_metric("seqeval", scheme="IOB2")))
    assert found["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert found["metrics"]["f1"] == pytest.approx(0.5)
    assert found["each"]["f1"] == "always 'B-x'"


def test_questions_are_held_against_the_usual_answer(recipe: Recipe) -> None:
    """Where six of ten answers are 'yes' an exact match of 0.6 is no merit; 'never an answer' is tried, too."""
    references = np.empty(10, object)
    answers = ["Yes.", "yes", "yes", "yes", "yes", "yes", "a red car", "no", "no", None]
    references[:] = [{"answers": {"text": [one] if one else [], "answer_start": [0] if one else []}} for one in answers]
    task = head_task(schema.Task(kind="question-answering", text=["question", "context"]), ())
    found = baseline_of(recipe, task, references, "squad")
    assert found["metrics"]["exact_match"] == 0.6
    assert found["each"]["exact_match"] == "always the answer 'yes'"
    assert found["metrics"]["no_answer_f1"] == 1


def test_a_model_below_always_yes_is_told(recipe: Recipe) -> None:
    """F1 0.475 on random labels is no better than always 'yes', also where F1 is not the first metric."""
    baseline = {"what": "always 'no'", "metrics": {"accuracy": 0.58, "f1": 0.587, "recall": 1.0},
                "each": {"f1": "always 'yes'", "accuracy": "always 'no'", "recall": "always 'yes'"}}  # fmt: skip
    values = {"accuracy": 0.6, "f1": 0.475, "recall": 0.9}
    intervals = {"accuracy": Interval([0.5, 0.7], ""), "f1": Interval([0.4, 0.55], "")}
    assert against_baseline(recipe, values, intervals, baseline) == [
        "the interval of accuracy, 0.5000 to 0.7000, reaches the 0.5800 of always 'no'",
        "f1 0.4750 is no better than the 0.5870 of always 'yes'",
    ]

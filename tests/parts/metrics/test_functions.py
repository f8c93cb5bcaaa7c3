"""Metric functions of users: the two signatures that are taken, and what is refused before the first step."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hfpipe
from hfpipe.errors import RecipeError
from hfpipe.parts.metrics.functions import given_metric, logits_and_labels
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all


def by_pair(predictions: Any, references: Any) -> dict[str, float]:
    """Decisions and labels."""
    return {"agreement": float((predictions == references).mean())}


def compute_metrics(eval_pred: Any) -> dict[str, float]:
    """What people write for transformers' Trainer."""
    logits, labels = eval_pred
    assert logits is eval_pred.predictions
    assert labels is eval_pred.label_ids
    return {"own_accuracy": float((np.argmax(logits, axis=-1) == labels).mean())}


def swapped(y_true: Any, y_pred: Any) -> dict[str, float]:
    """Scikit-learn's order."""
    return {}


def three(predictions: Any, references: Any, rows: Any) -> dict[str, float]:
    """One argument too many."""
    return {}


def batched(eval_pred: Any, compute_result: bool) -> dict[str, float]:
    """Trainer's batch_eval_metrics."""
    return {}


def by_keyword(*, references: Any, predictions: Any) -> dict[str, float]:
    """As evaluate.Metric.compute is called."""
    return by_pair(predictions, references)


def failing(predictions: Any, references: Any) -> dict[str, float]:
    """A mistake of the user's."""
    return {"x": predictions["nothing"]}


def counting(predictions: Any, references: Any, weight: float = 1.0) -> dict[str, float]:
    """With an argument of its own."""
    return {"count": weight * len(predictions)}


MADE_UP = types.ModuleType("own_metrics")
for one in (by_pair, compute_metrics, swapped, three, counting, by_keyword):
    setattr(MADE_UP, one.__name__, one)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "own_metrics", MADE_UP)


PREDICTIONS, REFERENCES = np.array([0, 1, 1]), np.array([0, 1, 0])
LOGITS = np.array([[2.0, 1.0], [0.0, 3.0], [0.0, 1.0]], np.float32)


@pytest.mark.parametrize("function", [by_pair, by_keyword, lambda a, b: by_pair(a, b)])
def test_two_parameters_are_decisions_and_labels(function: Callable[..., Any]) -> None:
    """By position, or by the names predictions and references in any order."""
    pair = [("metrics", given_metric(function, "metrics"))]
    assert compute_all(pair, PREDICTIONS, REFERENCES) == {"agreement": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    "function", [compute_metrics, functools.partial(compute_metrics), lambda p: compute_metrics(p)]
)
def test_one_parameter_is_an_eval_prediction(function: Callable[..., Any]) -> None:
    """It gets logits and label ids, which unpack as a tuple; without logits it is left out, never fed with decisions."""
    pair = [("metrics", given_metric(function, "metrics"))]
    found = compute_all(pair, None, None, outputs=(LOGITS, REFERENCES))
    assert found == {"own_accuracy": pytest.approx(2 / 3)}
    assert compute_all(pair, PREDICTIONS, REFERENCES) == {}


@pytest.mark.parametrize("function", [three, batched, lambda: {}, dict, 3])
def test_another_signature_is_refused(function: Any) -> None:
    """With what was given and both signatures that are taken."""
    with pytest.raises(RecipeError, match=r"compute_metrics\(eval_pred\)"):
        given_metric(function, "metrics")


def test_a_function_that_returns_no_dict_is_refused() -> None:
    """A number alone has no name."""
    pair = [("metrics", given_metric(lambda predictions, references: 0.5, "metrics"))]
    with pytest.raises(RecipeError, match="returned float"):
        compute_all(pair, PREDICTIONS, REFERENCES)


def test_labels_before_predictions_are_refused() -> None:
    """Scikit-learn's order would exchange precision and recall without a word."""
    with pytest.raises(RecipeError, match=r"takes \(y_true, y_pred\), the labels first"):
        given_metric(swapped, "metrics")
    from sklearn.metrics import f1_score

    with pytest.raises(RecipeError, match="labels first"):
        given_metric(f1_score, "metrics")


def test_a_function_that_fails_is_told_with_its_own_words() -> None:
    """No traceback: the error's words, the shapes, and the signatures."""
    with pytest.raises(RecipeError, match=r"fails with IndexError.*shapes \(3,\) and \(3,\)"):
        compute_all([("metrics", given_metric(failing, "metrics"))], PREDICTIONS, REFERENCES)


def test_a_recipe_names_a_function() -> None:
    """`module:function` of both signatures, with arguments; another signature is refused with those that are taken."""
    assert load_metric("own_metrics:by_pair").compute(predictions=PREDICTIONS, references=REFERENCES)
    assert load_metric("own_metrics:by_keyword").compute(predictions=PREDICTIONS, references=REFERENCES)
    counted = load_metric("own_metrics:counting", weight=2.0).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert counted == {"count": 6.0}
    with pytest.raises(RecipeError, match="eval_pred"):
        load_metric("own_metrics:three")
    with pytest.raises(RecipeError, match="labels first"):
        load_metric("own_metrics:swapped")


def test_shorter_rows_are_filled_as_trainer_fills_them() -> None:
    """Labels of tokens with -100; a missing choice gets the lowest logit."""
    logits, labels = logits_and_labels([np.ones((1, 2)), np.ones((2, 2))], [[-100, 1, -100], [0, -100, 1]])
    assert logits.shape == (2, 2, 2)
    assert labels.tolist() == [[1, -100], [0, 1]]
    logits, labels = logits_and_labels([np.ones(3, np.float32), np.ones(2, np.float32)], [2, 0])
    assert logits.argmax(-1).tolist() == [0, 0]
    assert logits[1, 2] == np.finfo(np.float32).min


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_both_signatures_score_a_run(
    recipe_fields: dict[str, Any], tmp_path: Path, no_report: None, engine: str
) -> None:
    """Trained with either function, the run says what hfpipe's accuracy says; slices are scored, intervals left out."""
    fields = {**recipe_fields, "engine": engine, "train": {"max_steps": 2, "precision": "fp32"}}
    names = {"metrics": ["accuracy", "own_metrics:compute_metrics"], "slices": ["label"]}
    named = hfpipe.finetune({**fields, "evaluate": names}, runs_dir=tmp_path)
    given = hfpipe.finetune({**fields, "evaluate": {"slices": ["label"]}}, runs_dir=tmp_path, metrics=compute_metrics)
    assert named.metrics["own_accuracy"] == named.metrics["accuracy"] == given.metrics["own_accuracy"]
    document = named.read_json("evaluations/validation.json") or {}
    assert document["intervals"]["own_accuracy"] is None
    assert len(document["slices"]) == 2
    assert all(one["metrics"]["own_accuracy"] == one["metrics"]["accuracy"] for one in document["slices"])
    measured = hfpipe.evaluate(named)
    assert measured.metrics["own_accuracy"] == measured.metrics["accuracy"]


def test_another_signature_is_refused_before_the_first_step(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """No record of a step is written."""
    with pytest.raises(RecipeError, match="eval_pred"):
        hfpipe.finetune(recipe_fields, runs_dir=tmp_path, metrics=three)
    assert not [
        line for path in tmp_path.rglob("records.jsonl") for line in path.read_text().splitlines() if '"step"' in line
    ]

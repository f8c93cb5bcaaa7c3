"""A kind of task in one file of a user's, examples/own_task.py: nothing in hfpipe is changed for it."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import pytest

import hfpipe
from hfpipe.errors import RecipeError
from hfpipe.recipe import load_recipe, to_yaml
from hfpipe.recipe.kinds import Kind
from hfpipe.runs.evaluations import read_evaluation

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def own_task(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the example, found as a user's module is: its folder is on the path."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import own_task

    return own_task


def recipe_of(own_task: Any, **task: Any) -> dict[str, Any]:
    """The recipe of the example with other fields of `task`."""
    return {**own_task.RECIPE, "dataset": {"path": "parquet"}, "task": {**own_task.RECIPE["task"], **task}}


def test_a_kind_of_ones_own_is_trained_measured_reported_and_predicts(own_task: Any, tmp_path: Path) -> None:
    """Both engines give the same weights, which beat the mean; interval, baseline, its own finding, report, card, file."""
    runs: dict[str, hfpipe.Run] = {}
    for engine in ("loop", "trainer"):
        folder = tmp_path / engine
        folder.mkdir()
        runs[engine] = own_task.main(folder, engine)
    weights = {hashlib.sha256((run.path / "model/model.safetensors").read_bytes()).hexdigest() for run in runs.values()}
    assert len(weights) == 1
    run = runs["loop"]
    document = read_evaluation(run, "validation")
    assert document is not None
    value, (low, high) = document["metrics"]["poisson_deviance"], document["intervals"]["poisson_deviance"]
    assert low < value < high < document["baseline"]["metrics"]["poisson_deviance"]
    assert document["kind"] == "own_task:CountTask"
    assert document["classes"] is None
    assert sum(one["occurs"] for one in document["counts"]) == document["scored"] == 120
    assert sum(one["expected"] for one in document["counts"]) == pytest.approx(120, rel=0.05)
    assert "Always the mean count" in (run.path / "report.html").read_text()
    card = (run.path / "model/README.md").read_text()
    assert "print(outputs.logits.exp().item())" in card
    assert "AutoModelForSequenceClassification.from_pretrained(checkpoint)" in card
    with open(tmp_path / "loop" / f"{run.id}.csv") as file:
        quiet, angry = csv.DictReader(file)
    assert list(quiet) == ["report", "expected_count"]
    assert float(quiet["expected_count"]) < float(angry["expected_count"])


def test_its_fields_are_those_of_its_row(own_task: Any, tmp_path: Path) -> None:
    """Its default, loss and metric stand in the resolved recipe, which is read back to the same recipe."""
    fields = recipe_of(own_task)
    del fields["task"]["largest"]
    recipe = load_recipe(fields)
    assert recipe.task.largest == 1000
    assert (recipe.loss.name, recipe.evaluate.metrics) == ("own_task:poisson", ("own_task:PoissonDeviance",))
    written = tmp_path / "recipe.yaml"
    written.write_text(to_yaml(recipe))
    assert "largest: 1000" in written.read_text()
    assert load_recipe(written) == recipe
    assert load_recipe(written, ["task.largest=7"]).task.largest == 7


@pytest.mark.parametrize(
    ("task", "others", "told"),
    [
        ({"largest": "many"}, {}, "task.largest: input should be a valid integer, got 'many'"),
        ({"larges": 3}, {}, "task.larges: unknown field; did you mean 'largest'?"),
        ({"stride": 3}, {}, "`stride` does nothing with kind: own_task:CountTask; it belongs to question-answering"),
        ({"label": {"column": "complaints", "names": ["a", "b"]}}, {}, "`names` are of classes"),
        ({}, {"loss": {"class_weights": "balanced"}}, "counts are no classes"),
        ({}, {"loss": {"label_smoothing": 0.1}}, "counts are no classes"),
        ({"kind": "own_task:poisson"}, {}, "task.kind: kind of task 'own_task:poisson' has no row"),
        ({"kind": "own_task:Counts"}, {}, "'own_task' has no 'Counts'; did you mean 'CountTask'"),
        ({"kind": "no_such_module:Counts"}, {}, "put its folder on PYTHONPATH"),
    ],
)
def test_mistakes_about_it_are_told(own_task: Any, task: dict[str, Any], others: dict[str, Any], told: str) -> None:
    """As of hfpipe's own kinds: what is not its field, what it refuses, and a name that is none."""
    with pytest.raises(RecipeError) as caught:
        load_recipe({**recipe_of(own_task, **task), **others})
    assert told in str(caught.value)
    assert "unknown field" in told or "unknown field" not in str(caught.value)


def test_a_label_that_is_no_count_is_refused(own_task: Any) -> None:
    """By the class's own check, with the row and its own field in the fix."""
    import datasets

    rows = datasets.Dataset.from_dict({"report": ["a", "b"], "complaints": [1, 7000]})
    task = own_task.CountTask(("report",), "complaints", 1000)
    with pytest.raises(hfpipe.HfpipeError, match=r"label 7000 is no count up to 1000 \(row 1, counted from 0\)"):
        task.check(rows, "d", "task")


def test_a_row_of_its_own_refuses_what_needs_classes() -> None:
    """With nothing but loss, metric and outputs a kind has no classes, and calibrates and stratifies nothing."""
    row = Kind(loss="mse", metric="mse", outputs=("value",))
    assert not any((row.has_classes, row.one_class_a_row, row.several_labels, row.calibratable))

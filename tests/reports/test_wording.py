"""A result in words: the sentences, the numbers, the command, and no path of this machine in any of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from hfpipe.reports import wording
from hfpipe.runs import Run


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.98, "0.9800"), (None, "undefined"), (2367.33, "2,367"), (225, "225"), (100000, "100,000"), (2e-5, "2.00e-05"),
     (0.0, "0.0000"), (12.345, "12.35"), (-0.5, "-0.5000"), ("3/4", "3/4")],
)  # fmt: skip
def test_numbers_have_four_digits(value: Any, shown: str) -> None:
    """Figures, counts, rates and what is undefined are written as a reader expects them."""
    assert wording.number(value) == shown


def test_the_command_is_reported_without_where_it_ran() -> None:
    """Options that say where a run lands and what it is called are left out; an absolute path becomes relative."""
    here = os.path.join(os.getcwd(), "recipes", "mrpc.yaml")
    words = ["/opt/venv/bin/hfpipe", "finetune", here, "train.epochs=1", "--runs-dir", "/home/me/runs", "--name=x"]
    shown = wording.command({"command": [*words, "--json", "dataset.path=/home/me/my data", "--engine", "loop"]})
    assert shown == "hfpipe finetune recipes/mrpc.yaml train.epochs=1 'dataset.path=.../my data' --engine loop"
    assert (
        wording.command({"command": ["/x/hfpipe/cli/app.py", "finetune", "quickstart"]}) == "hfpipe finetune quickstart"
    )
    assert wording.command({"command": ["/home/me/train.py"]}) is None
    assert wording.command({}) is None


@pytest.mark.parametrize(
    ("baseline", "shown"),
    [(0.684, "below the whole interval"), (0.95, "above the whole interval"), (0.80, "may be no better than that")],
)
def test_a_result_is_set_against_the_baseline(baseline: float, shown: str) -> None:
    """The sentence says where the baseline lies, and warns when it lies inside the interval."""
    document = {
        "metrics": {"loss": 0.4, "accuracy": 0.82}, "intervals": {"accuracy": [0.78, 0.86]}, "examples": 408,
        "split": "validation", "level": 0.95, "baseline": {"what": "always 'same'", "metrics": {"accuracy": baseline}},
    }  # fmt: skip
    found = wording.result(document, None)
    assert found is not None
    assert found["name"] == "accuracy"
    assert found["sentences"][0] == "95 % interval 0.7800 to 0.8600, on 408 examples of validation."
    assert found["sentences"][1].startswith("Always 'same', would have 0.")
    assert shown in found["sentences"][1]


def test_a_result_without_anything_beside_it() -> None:
    """Without interval and baseline the number of examples is all there is to say, and without figures nothing."""
    found = wording.result({"metrics": {"loss": 0.4}, "examples": 1, "split": "test", "intervals": None}, "f1")
    assert found == {"name": "loss", "value": 0.4, "sentences": ["measured on 1 example of test."]}
    assert wording.result({"metrics": {}}, "f1") is None


def test_figures_of_the_run_win_over_the_document(dummy_predictions: Callable[..., Run]) -> None:
    """metrics.json holds what the final weights have; the document adds the rest, and a damaged one is told."""
    run = dummy_predictions(document={"metrics": {"accuracy": 0.5}, "examples": 9, "remarks": ["odd"]})
    run.write_json("metrics.json", {"split": "validation", "metrics": {"accuracy": 0.75}, "examples": 12})
    own = wording.own_evaluation(run)
    assert (own["metrics"], own["examples"], own["remarks"]) == ({"accuracy": 0.75}, 12, ["odd"])
    (run.path / "evaluations" / "test.json").write_text("{", encoding="utf-8")
    assert wording.other_evaluations(run) == ({}, ["evaluations/test.json can't be read"])

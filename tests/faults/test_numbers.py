"""Faults of figures: what is best, a metric that is not there, outputs that are no numbers, rates that train nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import hfpipe
from hfpipe.errors import HfpipeError
from hfpipe.parts.model.own_class import require_finite

ENGINES = ("trainer", "loop")


@pytest.fixture
def assert_refused(recipe_fields: dict[str, Any], tmp_path: Path) -> Callable[..., str]:
    """Trains a little, which must end in an error of this exit code before any step, and gives its message."""

    def message(code: int, *overrides: str, runs: int = 0, **parts: Any) -> str:
        folder = tmp_path / "runs"
        with pytest.raises(HfpipeError) as caught:
            hfpipe.finetune(recipe_fields, overrides=["train.max_steps=2", *overrides], runs_dir=folder, **parts)
        assert caught.value.exit_code == code, str(caught.value)
        assert len(list(folder.glob("*"))) == runs
        return str(caught.value)

    return message


OWN_METRIC = """
import datasets, evaluate

class Metric(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(description="share", citation="", features=features)

    def _compute(self, predictions, references):
        return {"share_wrong": sum(a != b for a, b in zip(predictions, references)) / len(references)}
"""


def test_fault_21_the_direction_of_best_is_known_or_asked_for(
    assert_refused: Callable[..., str],
    recipe_fields: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A figure that hfpipe does not know is no best without a direction, exit 2; with one it is followed."""
    (tmp_path / "own_metric.py").write_text(OWN_METRIC, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    own = ["evaluate.metrics=[own_metric:Metric]", "evaluate.best=share_wrong"]
    message = assert_refused(2, *own)
    assert "whether a greater 'share_wrong' is better is not known" in message
    assert "Say evaluate.greater_is_better: true or false." in message
    steps = ["train.max_steps=3", "evaluate.every=1", "optimizer.lr=0.05"]
    for greater, best in (("false", min), ("true", max)):
        overrides = [*own, *steps, f"evaluate.greater_is_better={greater}"]
        run = hfpipe.finetune(recipe_fields, overrides=overrides, runs_dir=tmp_path / "good", name=greater)
        found = [record["metrics"]["share_wrong"] for record in run.records if record["type"] == "evaluation"]
        assert min(found) < max(found)
        assert run.metrics["share_wrong"] == best(found)


@pytest.mark.parametrize(
    ("override", "name"),
    [("evaluate.metrics=[acuracy]", "accuracy"), ("evaluate.best=acuracy", "accuracy")],
)
def test_fault_22_a_misspelt_metric_is_told_before_the_first_step(
    assert_refused: Callable[..., str], override: str, name: str
) -> None:
    """A metric or a best that is not there: exit 2 with the near name, and no run is left behind."""
    assert f"did you mean {name!r}" in assert_refused(2, override)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("engine", ENGINES)
def test_fault_29_outputs_that_are_no_numbers(
    assert_refused: Callable[..., str], tiny_checkpoint: Path, engine: str, value: float
) -> None:
    """Logits that are not finite in an evaluation are exit 6 with the number of rows, and no figure is reported."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint)
    forward = model.classifier.forward
    model.classifier.forward = lambda hidden: forward(hidden) if model.training else forward(hidden) * math.nan + value
    message = assert_refused(6, "evaluate.every=2", runs=1, model=model, engine=engine)
    assert "the model's logits are not finite for 21 of 21 rows, first row 0" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=-1e-5", "greater than or equal to 0"),
        ("optimizer.lr=.nan", "finite"),
        ("optimizer.lr=.inf", "finite"),
        ("schedule.warmup=3", "the warm-up of 3 steps is longer than the run of 2"),
    ],
)
def test_fault_30_rates_that_can_not_be_meant(assert_refused: Callable[..., str], override: str, message: str) -> None:
    """A negative or undefined rate and a warm-up longer than the run are exit 2 before anything is trained."""
    assert message in assert_refused(2, override)


@pytest.mark.parametrize("rate", ["1e18", "1001"])
def test_fault_30_a_rate_out_of_all_proportion(assert_refused: Callable[..., str], rate: str) -> None:
    """A rate beyond any that trains is exit 2 with what is allowed, before any data are read."""
    assert "less than or equal to 1000" in assert_refused(2, f"optimizer.lr={rate}")


def test_fault_30_a_rate_that_breaks_the_weights(assert_refused: Callable[..., str]) -> None:
    """Where an optimizer of one's own takes such steps all the same, it is exit 6 at the step that shows it."""

    def beyond(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=lr * 1e15)

    assert "is nan at step 2" in assert_refused(6, "optimizer.lr=1000", "train.max_steps=12", runs=1, optimizer=beyond)


def test_fault_30_a_rate_of_zero_is_asked_for(
    assert_refused: Callable[..., str], recipe_fields: dict[str, Any], tmp_path: Path
) -> None:
    """A rate of 0 trains nothing: exit 2 with the line that allows it, and then a notice of the run."""
    message = assert_refused(2, "optimizer.lr=0")
    assert "`lr` is 0: no step would change the weights" in message
    assert "optimizer.allow_zero_lr: true" in message
    meant = ["optimizer.allow_zero_lr=true", "optimizer.lr=0", "train.max_steps=1"]
    run = hfpipe.finetune(recipe_fields, overrides=meant, runs_dir=tmp_path)
    assert "optimizer.lr is 0: no step changes the weights" in [record.get("text") for record in run.records]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_named(value: float, dtype: torch.dtype) -> None:
    """One such weight among finite ones is found and named, in every precision; the greatest finite one is none."""
    model = torch.nn.Linear(3, 3).to(dtype)
    model.weight.data[1, 1] = torch.finfo(dtype).max
    require_finite(model, "here", "")
    model.bias.data[2] = value
    with pytest.raises(HfpipeError, match=r"the weights 'bias' are not finite here"):
        require_finite(model, "here", "")

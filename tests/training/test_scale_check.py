"""The scale check of a run: it sees what it must, disturbs nothing, and stops the run."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from hfpipe import finetune, load_recipe
from hfpipe.errors import NumericError
from hfpipe.parts.optim.objective import Objective
from hfpipe.parts.optim.reduction import Tally
from hfpipe.runs import list_runs
from hfpipe.training import scale_check
from hfpipe.training.job import Job
from hfpipe.training.prepare import prepare
from hfpipe.training.scale_check import check_scale, few_examples


@pytest.fixture
def job_of(recipe_fields: dict[str, Any]) -> Callable[..., Job]:
    """The job of the tiny recipe with overrides and parts."""
    return lambda *overrides, **parts: prepare(load_recipe(recipe_fields, overrides), **parts)


@pytest.mark.parametrize("accumulate", [1, 2, 3, 4, 50])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_what_hfpipe_does_passes(job_of: Callable[..., Job], reduction: str, accumulate: int) -> None:
    """The gradient of the micro-batches is the defined one within rounding, class weights and smoothing included."""
    job = job_of(
        f"loss.reduction={reduction}",
        f"train.accumulate={accumulate}",
        "loss.class_weights=[1.0, 3.0]",
        "loss.label_smoothing=0.1",
    )
    found = check_scale(job)
    assert found is not None
    assert found.ok
    assert found.ratio == pytest.approx(1, abs=1e-5)
    assert found.difference < 1e-5
    assert found.examples == 7
    assert found.micro_batches == min(max(accumulate, 2), 4)


def twice(self: Objective, losses: torch.Tensor, tally: Tally, processes: int) -> torch.Tensor:
    """Every scale is doubled, those of one batch too."""
    return 2 * losses.sum() / tally.divisor


def mean_of_means(self: Objective, losses: torch.Tensor, tally: Tally, processes: int) -> torch.Tensor:
    """The stock fault: every micro-batch is divided by its own items."""
    return losses.mean()


def halved_means(self: Objective, losses: torch.Tensor, tally: Tally, processes: int) -> torch.Tensor:
    """The usual cure, right only when all micro-batches are of one size."""
    return losses.mean() / 3


def forgets_the_weights(self: Objective, losses: torch.Tensor, tally: Tally, processes: int) -> torch.Tensor:
    """Class weights are in the losses and not in the divisor."""
    return losses.sum() / tally.num_items


@pytest.mark.parametrize("broken", [twice, mean_of_means, halved_means, forgets_the_weights])
def test_broken_arithmetic_is_seen(
    job_of: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, broken: Callable[..., torch.Tensor]
) -> None:
    """Each way of dividing wrongly fails the check by far."""
    job = job_of("train.accumulate=3", "loss.class_weights=[1.0, 3.0]")
    monkeypatch.setattr(Objective, "backward_value", broken)
    found = check_scale(job)
    assert found is not None
    assert not found.ok
    assert found.difference > 10 * found.allowed


def test_a_count_of_one_micro_batch_is_seen(job_of: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """A tally that stops after the first micro-batch gives a ratio above 1."""
    tally = Objective.tally
    monkeypatch.setattr(Objective, "tally", lambda self, batches: tally(self, list(batches)[:1]))
    found = check_scale(job_of("train.accumulate=2"))
    assert found is not None
    assert not found.ok
    assert found.ratio == pytest.approx(7 / 4, rel=1e-3)


def crowded(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss that looks at how many items are beside it."""
    return F.cross_entropy(logits, targets, reduction="none") * len(targets)


def test_a_loss_that_looks_at_its_neighbours_is_seen(job_of: Callable[..., Job]) -> None:
    """One number per item is not enough: it must not depend on the other items."""
    found = check_scale(job_of("train.accumulate=2", loss=crowded))
    assert found is not None
    assert not found.ok


def test_a_loss_near_zero_is_no_false_alarm(job_of: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding dominates the gradient of a nearly perfect model; a factor of 2 is seen even there."""
    job = job_of("train.accumulate=4")
    with torch.no_grad():
        job.model.classifier.weight.zero_()
        job.model.classifier.bias.copy_(torch.tensor([12.0, 0.0]))
    only_class_0 = job.train_data.filter(lambda row: row["labels"] == 0)
    job = replace(job, train_data=only_class_0)
    found = check_scale(job)
    assert found is not None
    assert found.ok
    assert found.allowed > scale_check.TOLERANCE
    monkeypatch.setattr(Objective, "backward_value", twice)
    again = check_scale(job)
    assert again is not None
    assert not again.ok


def test_no_gradient_is_told(job_of: Callable[..., Job]) -> None:
    """A gradient of 0 can't be compared, and the check says so instead of dividing by it."""
    found = check_scale(job_of("train.accumulate=2", loss=lambda logits, targets: 0.0 * logits.sum(dim=-1)))
    assert found is not None
    assert found.ok
    assert "nothing to compare" in found.text


def test_a_gradient_that_is_not_finite_stops(job_of: Callable[..., Job]) -> None:
    """NaN is no ratio: it is told as such, with exit code 6."""
    job = job_of("train.accumulate=2")
    with torch.no_grad():
        job.model.classifier.bias[0] = float("nan")
    with pytest.raises(NumericError, match="not finite") as caught:
        check_scale(job)
    assert caught.value.exit_code == 6


def test_too_few_rows_are_no_check(job_of: Callable[..., Job]) -> None:
    """One example can't be cut."""
    job = job_of("train.accumulate=2")
    assert check_scale(replace(job, train_data=job.train_data.select([0]))) is None


def test_half_precision_is_checked_in_fp32(job_of: Callable[..., Job]) -> None:
    """The measurement has fp32's rounding though the run is in bf16."""
    found = check_scale(job_of("train.accumulate=2", "train.precision=bf16"))
    assert found is not None
    assert found.difference < 1e-5


def test_the_examples_are_short_and_of_every_class(job_of: Callable[..., Job]) -> None:
    """Short rows cost little, and class weights need more than one class."""
    job = job_of()
    few = few_examples(job, 6)
    assert sorted(few["labels"]) == [0, 0, 0, 1, 1, 1]
    lengths = [len(row) for row in job.train_data["input_ids"]]
    assert max(len(row) for row in few["input_ids"]) < np.median(lengths)


def test_nothing_is_disturbed(job_of: Callable[..., Job]) -> None:
    """Weights, gradients, the mode of every module and all random states are as they were."""
    collator = job_of().collate

    def drawing(rows: list[dict[str, Any]]) -> Any:
        torch.rand(1), random.random(), np.random.rand()  # as a collator of the user's own may
        return collator(rows)

    job = job_of("train.accumulate=2", collate=drawing)
    job.model.bert.embeddings.eval()
    modes = {name: module.training for name, module in job.model.named_modules()}
    weights = {name: value.clone() for name, value in job.model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    check_scale(job)
    assert {name: module.training for name, module in job.model.named_modules()} == modes
    assert all(torch.equal(value, weights[name]) for name, value in job.model.state_dict().items())
    assert all(parameter.grad is None for parameter in job.model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[2], strict=True))
    job.model.eval()
    job.model.train()
    assert job.model.bert.embeddings.training, "train() is the model's own again"


def test_dropout_stays_off_whoever_calls_train(job_of: Callable[..., Job]) -> None:
    """An engine's own train() does not bring dropout into a measurement."""
    model = job_of().model
    with scale_check.dropout_off(model):
        model.train()
        assert not any(module.training for module in model.modules())
    assert model.training


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_a_run_with_the_check_is_the_run_without(
    recipe_fields: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The check is recorded once, before the first step, and changes no bit of the weights."""
    recipe = load_recipe(recipe_fields, ["train.accumulate=2", "train.epochs=1", f"engine={engine}"])
    checked = finetune(recipe, runs_dir=tmp_path, name="checked")
    monkeypatch.setattr(scale_check, "is_due", lambda job: False)
    plain = finetune(recipe, runs_dir=tmp_path, name="plain")
    kinds = [record["type"] for record in checked.records]
    assert kinds.count("check") == 1
    assert kinds.index("check") < kinds.index("step")
    (check,) = [record for record in checked.records if record["type"] == "check"]
    assert check["ok"]
    assert check["ratio"] == pytest.approx(1, abs=1e-5)
    assert "check" not in [record["type"] for record in plain.records]
    weights = [load_file(run.path / "model" / "model.safetensors") for run in (checked, plain)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_one_batch_an_update_needs_no_check(recipe_fields: dict[str, Any], tmp_path: Any) -> None:
    """Without accumulation on one process there is nothing to check, and no time is spent."""
    run = finetune(load_recipe(recipe_fields, ["train.max_steps=1"]), runs_dir=tmp_path)
    assert "check" not in [record["type"] for record in run.records]


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_a_failed_check_stops_the_run(recipe_fields: dict[str, Any], tmp_path: Any, engine: str) -> None:
    """The run ends with exit code 6 before its first step, and keeps the record of why."""
    recipe = load_recipe(recipe_fields, ["train.accumulate=2", f"engine={engine}"])
    with pytest.raises(
        NumericError, match=r"loss scale is off before the first step: .* allowed: .* by itself"
    ) as caught:
        finetune(recipe, runs_dir=tmp_path, loss=crowded)
    assert caught.value.exit_code == 6
    (run,) = list_runs(tmp_path)
    assert run.status == "failed"
    assert [record["type"] for record in run.records if record["type"] != "notice"] == ["check"]
    assert not (run.path / "model").exists()


def test_an_engine_of_the_users_own_is_told_of(recipe_fields: dict[str, Any], tmp_path: Any) -> None:
    """The check can't see into a foreign engine, and the run says so."""
    from hfpipe.training.engines import loop

    def mine(job: Job, emit: Callable[[dict[str, Any]], None]) -> None:
        loop.train(job, emit)

    recipe = load_recipe(recipe_fields, ["train.accumulate=2", "train.max_steps=1"])
    notices = [r["text"] for r in finetune(recipe, engine=mine, runs_dir=tmp_path).records if r["type"] == "notice"]
    assert any("engine is your own" in text for text in notices)


def test_a_model_trained_before_gets_its_precision_again(recipe_fields: dict[str, Any]) -> None:
    """Accelerate leaves a mark on a model that made a second training fp32 whatever was asked for."""
    from hfpipe.training.engines import loop, trainer

    def losses(train: Callable[..., None], job: Job) -> list[float]:
        records: list[dict[str, Any]] = []
        train(job, records.append)
        return [record["loss"] for record in records if record["type"] == "step"]

    few = ["train.max_steps=2", "evaluate.every=never"]
    for train in (trainer.train, loop.train):
        half = load_recipe(recipe_fields, [*few, "train.precision=bf16"])
        expected = losses(train, prepare(half))
        job = prepare(load_recipe(recipe_fields, [*few, "optimizer={lr: 0, allow_zero_lr: true}"]))
        full = losses(train, job)
        assert losses(train, prepare(half, model=job.model)) == expected != full

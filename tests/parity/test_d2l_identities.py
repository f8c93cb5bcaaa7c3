"""Guarantee 5: who divides by the batch, as Dive into Deep Learning teaches it, holds on ragged batches too."""

from __future__ import annotations

import pytest

BASE = [
    "train.max_grad_norm=null",
    "schedule.name=constant",
    "train.batch_size=8",
    "evaluate.every=never",
]  # 8, 8, 8, 3


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_mean_with_sgd_is_sum_with_the_dividing_updater(engine, recipe_for, train_with, data, weight_difference):
    """mean + torch SGD and sum + updater_sgd end with the same weights within rounding: ragged batch, weight decay."""
    base = [*BASE, "optimizer.lr=0.1", "optimizer.weight_decay=0.1"]
    mean, mean_records = train_with(recipe_for("bert", *base, "optimizer.name=sgd"), engine, data)
    summed, sum_records = train_with(
        recipe_for("bert", *base, "loss.reduction=sum", "optimizer.name=updater_sgd"), engine, data
    )
    assert [r["num_items"] for r in mean_records] == [8, 8, 8, 3] * 2
    assert weight_difference(mean, summed) < 2e-7
    assert [r["loss"] for r in mean_records] == pytest.approx([r["loss"] for r in sum_records], abs=1e-6)


def test_nominal_division_drifts_on_the_ragged_batch(recipe_for, train_with, data, weight_difference):
    """sum with lr/B equals mean with lr while batches are full, and drifts from the ragged one on."""
    mean, mean_records = train_with(recipe_for("bert", *BASE, "optimizer.name=sgd", "optimizer.lr=0.1"), "loop", data)
    nominal, records = train_with(
        recipe_for("bert", *BASE, "loss.reduction=sum", "optimizer.name=sgd", "optimizer.lr=0.0125"), "loop", data
    )
    same = [abs(a["loss"] - b["loss"]) < 1e-6 for a, b in zip(mean_records, records, strict=True)]
    assert same[:4] == [True] * 4  # the ragged batch is step 4; its update shows in the loss of step 5
    assert not all(same[4:])
    assert weight_difference(mean, nominal) > 1e-3


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_dividing_twice_is_flagged_with_its_rate(engine, recipe_for, train_with, data, weight_difference):
    """mean + updater_sgd says before it starts which rate it acts like, and SGD at that rate takes the very step."""
    base = [*BASE, "train.max_steps=1", "optimizer.lr=0.1"]
    twice, _ = train_with(recipe_for("bert", *base, "optimizer.name=updater_sgd"), engine, data)
    (notice,) = [text for text in twice.notices if "divided twice" in text]
    assert "optimizer.lr=0.1 acts like 0.0125;" in notice  # 8 items in an update
    once, _ = train_with(recipe_for("bert", *base, "optimizer.name=sgd"), engine, data)
    told, _ = train_with(recipe_for("bert", *base, "optimizer.name=sgd", "optimizer.lr=0.0125"), engine, data)
    assert weight_difference(twice, told) < 1e-8
    assert weight_difference(twice, once) > 1e-3
    assert not [text for text in once.notices if "divided twice" in text]


def test_none_is_summed_for_backward_and_kept_as_a_vector(recipe_for, train_with, data, weight_difference):
    """none trains as sum does, bit for bit, and its record holds every item's loss."""
    overrides = [*BASE, "optimizer.name=updater_sgd", "optimizer.lr=0.1"]
    none, none_records = train_with(recipe_for("bert", *overrides, "loss.reduction=none"), "loop", data)
    summed, sum_records = train_with(recipe_for("bert", *overrides, "loss.reduction=sum"), "loop", data)
    assert weight_difference(none, summed) == 0.0
    for vector, total in zip(none_records, sum_records, strict=True):
        assert len(vector["reduced_loss"]) == vector["num_items"]
        assert sum(vector["reduced_loss"]) == pytest.approx(total["reduced_loss"], rel=1e-6)


def test_clipping_speaks_about_the_mean_gradient(recipe_for, train_with, data, weight_difference):
    """With clipping on, mean + SGD still equals sum + the dividing updater, since the threshold grows with the items."""
    clip = [*BASE[1:], "train.max_grad_norm=0.1", "optimizer.lr=0.1"]
    mean, records = train_with(recipe_for("bert", *clip, "optimizer.name=sgd"), "loop", data)
    summed, _ = train_with(recipe_for("bert", *clip, "optimizer.name=updater_sgd", "loss.reduction=sum"), "loop", data)
    assert min(r["grad_norm"] for r in records) > 0.1  # every step is clipped
    assert weight_difference(mean, summed) < 2e-7


def test_adamw_hides_the_reduction(recipe_for, train_with, data):
    """AdamW divides a constant scale of the gradient away: mean and sum end together, where SGD ends far apart.

    The batches are equal, since a ragged one would change the scale within the run. Left out are the biases of the
    attention keys: softmax makes their gradient 0, and AdamW blows its rounding up.
    """
    overrides = ["train.max_grad_norm=null", "schedule.name=constant", "evaluate.every=never", "train.batch_size=9"]
    tiny_eps = {"adamw": ["optimizer.eps=1e-16"], "sgd": []}  # 1e-8 is not small against a tiny model's gradients

    def distance(optimizer: str) -> float:
        named = [*overrides, "optimizer.lr=1e-3", f"optimizer.name={optimizer}", *tiny_eps[optimizer]]
        mean, summed = (
            train_with(recipe_for("bert", *named, f"loss.reduction={reduction}"), "loop", data)[0].model.state_dict()
            for reduction in ("mean", "sum")
        )
        return max(float((mean[name] - summed[name]).abs().max()) for name in mean if "key.bias" not in name)

    assert distance("adamw") < 1e-6
    assert distance("sgd") > 1e-3

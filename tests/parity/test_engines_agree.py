"""Guarantee 1: trainer and loop are the same training, bit for bit, with dropout on and ragged batches."""

from __future__ import annotations

import itertools

import pytest

from hfpipe.training.engines import loop, trainer
from hfpipe.training.prepare import prepare

FAMILIES = ("bert", "distilbert", "roberta", "deberta-v2", "electra", "modernbert")

# Accumulation, evaluation, loader workers, clipping, optimizer: any two values of two of them meet in some row.
# 27 rows in micro-batches of 4 make 7, the last one ragged; with accumulation 2 and 3 so is the last window of an epoch.
SETTINGS = (
    (1, "1", 0, "1.0", "adamw"),
    (1, "epoch", 2, "0.05", "updater_sgd"),
    (1, "never", 0, "null", "updater_sgd"),
    (2, "1", 0, "0.05", "updater_sgd"),
    (2, "epoch", 0, "null", "adamw"),
    (2, "never", 2, "1.0", "adamw"),
    (3, "1", 2, "null", "adamw"),
    (3, "epoch", 0, "1.0", "updater_sgd"),
    (3, "never", 0, "0.05", "adamw"),
)


def test_every_two_settings_meet():
    """No pair of values of two settings is left out, so that no fault of two together goes unseen."""
    for first, second in itertools.combinations(zip(*SETTINGS, strict=True), 2):
        assert set(zip(first, second, strict=True)) == set(itertools.product(first, second))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("accumulate", "every", "workers", "clip", "optimizer"), SETTINGS)
def test_same_records_and_weights(
    family, accumulate, every, workers, clip, optimizer, recipe_for, assert_engines_agree
):
    """Losses, gradient norms, rates, item counts, evaluations and final weights of the engines differ by exactly 0."""
    recipe = recipe_for(
        family,
        f"train.accumulate={accumulate}",
        f"evaluate.every={every}",
        f"train.workers={workers}",
        f"train.max_grad_norm={clip}",
        f"optimizer.name={optimizer}",
        f"loss.reduction={'sum' if optimizer == 'updater_sgd' else 'mean'}",
    )
    _, loop_records = assert_engines_agree(recipe)
    steps = [record for record in loop_records if record["type"] == "step"]
    assert len(steps) == 2 * -(-7 // accumulate)
    assert sum(record["num_items"] for record in steps) == 2 * 27
    if clip == "0.05":  # every step is clipped
        summed = recipe.loss.reduction == "sum"
        assert min(record["grad_norm"] / (record["divisor"] if summed else 1) for record in steps) > 0.05
    evaluations = [record for record in loop_records if record["type"] == "evaluation"]
    assert len(evaluations) == {"1": len(steps), "epoch": 2, "never": 0}[every]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("batching", ["{bucket: true}", "{by: tokens}", "{by: tokens, tokens: 48, bucket: true}"])
def test_same_with_rows_of_similar_length(batching, accumulate, recipe_for, assert_engines_agree):
    """Updates by length and by tokens, whose sizes differ: the engines differ by exactly 0, and every row counts once."""
    overrides = [f"train.batching={batching}", f"train.accumulate={accumulate}", "evaluate.every=epoch"]
    recipe = recipe_for("bert", *overrides)
    _, loop_records = assert_engines_agree(recipe)
    steps = [record for record in loop_records if record["type"] == "step"]
    assert sum(record["num_items"] for record in steps) == 2 * 27
    assert len({record["num_items"] for record in steps}) > 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_same_with_fast_kernels(
    family, precision, recipe_for, train_with, data, weight_difference, assert_engines_agree
):
    """hfpipe's own dropout and attention are those of both engines: they differ by exactly 0, and are not torch's."""
    overrides = [f"train.precision={precision}", "train.accumulate=2", "evaluate.every=3", "train.workers=2"]
    recipe = recipe_for(family, *overrides, "train.kernels=fast")
    by_loop, _ = assert_engines_agree(recipe)
    with_torch, _ = train_with(recipe_for(family, *overrides), "loop", data)
    assert weight_difference(by_loop, with_torch) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_same_in_bf16(family, recipe_for, train_with, data, weight_difference, assert_engines_agree):
    """Autocast to bfloat16 rounds the same in both engines, and is no fp32 under another name."""
    overrides = ["train.accumulate=2", "evaluate.every=3", "train.max_grad_norm=0.05"]
    recipe = recipe_for(family, *overrides, "train.precision=bf16")
    by_loop, _ = assert_engines_agree(recipe)
    in_fp32, _ = train_with(recipe_for(family, *overrides), "loop", data)
    assert weight_difference(by_loop, in_fp32) > 1e-4


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("loss", ["focal", "mse", "cosine_embedding"])
def test_same_for_other_losses_and_reductions(loss, reduction, recipe_for, assert_engines_agree):
    """Losses other than cross entropy, under every reduction, go the same way through both engines."""
    recipe = recipe_for(
        "bert", f"loss.name={loss}", f"loss.reduction={reduction}", "train.accumulate=2", "optimizer.name=sgd"
    )
    assert_engines_agree(recipe)


@pytest.mark.parametrize("schedule", ["cosine", "reduce_lr_on_plateau"])
def test_same_for_schedules(schedule, recipe_for, assert_engines_agree):
    """A schedule that steps with the optimizer, and one that looks at the evaluation, give the same rates."""
    recipe = recipe_for("bert", f"schedule.name={schedule}", *([] if schedule == "cosine" else ["schedule.patience=0"]))
    assert_engines_agree(recipe)


def test_dropout_is_on(recipe_for, train_with, data, no_dropout, weight_difference):
    """The parity above is not that of a model without dropout: switching dropout off changes the weights."""
    with_dropout, _ = train_with(recipe_for("bert"), "loop", data)
    without, _ = train_with(recipe_for("bert", *no_dropout("bert")), "loop", data)
    assert weight_difference(with_dropout, without) > 1e-4


def test_a_given_model_in_evaluation_mode_is_trained(recipe_for, train_with, data, weight_difference):
    """`from_pretrained` leaves a model without dropout; both engines train it as they train one of their own."""
    recipe = recipe_for("bert", "train.max_steps=3", "dataset.splits.evaluation=null")
    own, _ = train_with(recipe, "loop", data)
    for engine in ("trainer", "loop"):
        given = prepare(recipe, dataset=data).model.eval()
        job, _ = train_with(recipe, engine, data, model=given)
        assert weight_difference(job, own) == 0.0


@pytest.mark.parametrize(("every", "stop"), [("1", 3), ("2", 6), ("3", 3), ("epoch", 4)])
def test_same_when_stopped_early(every, stop, recipe_for, data, weight_difference):
    """Told to stop while an evaluation is emitted, both engines return at once, with the same records and weights."""
    jobs, found = [], []
    for engine in (trainer.train, loop.train):
        records = []
        job = prepare(
            recipe_for("bert", "train.accumulate=2", f"evaluate.every={every}", "train.epochs=4"), dataset=data
        )

        def emit(record, job=job, records=records):
            records.append({key: value for key, value in record.items() if key != "seconds"})
            job.state.stops_early = record["type"] == "evaluation" and record["step"] == stop

        engine(job, emit)
        assert [record["step"] for record in records if record["type"] == "step"] == list(range(1, stop + 1))
        assert records[-1]["type"] == "evaluation"
        jobs.append(job)
        found.append(records)
    assert found[0] == found[1]
    assert weight_difference(*jobs) == 0.0


def test_fraction_of_an_epoch(recipe_for, train_with, data, weight_difference):
    """A run that ends inside an epoch ends at the same step in both engines."""
    recipe = recipe_for("bert", "train.epochs=1.5", "train.accumulate=2", "evaluate.every=3")
    by_trainer, trainer_records = train_with(recipe, "trainer", data)
    by_loop, loop_records = train_with(recipe, "loop", data)
    assert trainer_records == loop_records
    assert [r["step"] for r in loop_records if r["type"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert weight_difference(by_trainer, by_loop) == 0.0

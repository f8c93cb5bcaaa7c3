"""Guarantees 3 and 4: watching a run changes nothing, and what is seen is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hfpipe
from hfpipe.evaluation.inference import mean_loss_of, predict
from hfpipe.parts.tasks import lengths
from hfpipe.system.display import Plain
from hfpipe.training.prepare import prepare

ENGINES = ("trainer", "loop")


@pytest.mark.parametrize("engine", ENGINES)
def test_watching_changes_no_weight(engine, recipe_for, data, tmp_path, capsys):
    """Evaluating, saving, loading with workers and showing progress leave the final weights equal bit for bit."""
    variants = {
        "nothing": ["evaluate.every=never", "checkpoints.every=never"],
        "evaluate every step": ["evaluate.every=1", "evaluate.batch_size=3", "checkpoints.every=never"],
        "evaluate every epoch, save every step": ["evaluate.every=epoch", "checkpoints.every_steps=1"],
        "two workers": ["evaluate.every=2", "checkpoints.every=never", "train.workers=2"],
    }
    weights = {}
    for name, overrides in variants.items():
        recipe = recipe_for("bert", "train.accumulate=2", *overrides)
        display = Plain(seconds=0) if "save" in name else None
        run = hfpipe.finetune(recipe, engine=engine, runs_dir=tmp_path, dataset=data, display=display)
        weights[name] = load_file(run.path / "model" / "model.safetensors")
    for name, found in weights.items():
        for key, value in weights["nothing"].items():
            assert torch.equal(value, found[key]), (name, key)


OBJECTIVES = {
    "mean": ([], {}),
    "class weights": (["loss.class_weights=[0.2, 1.0, 3.0]"], {"weight": [0.2, 1.0, 3.0]}),
    "smoothing": (
        ["loss.class_weights=[0.2, 1.0, 3.0]", "loss.label_smoothing=0.1", "loss.reduction=sum"],
        {"weight": [0.2, 1.0, 3.0], "label_smoothing": 0.1},
    ),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_evaluation_loss_is_the_mean_over_items(objective, recipe_for, data):
    """The evaluation loss is torch's mean over the whole split within 1e-7, for every batch size and any class weights."""
    overrides, options = OBJECTIVES[objective]
    job = prepare(recipe_for("bert", *overrides), dataset=data)
    found = []
    for batch_size in (1, 2, 3, 7, 10, 64):
        predictions = predict(
            job.model,
            job.task,
            job.evaluation_data,
            job.collate,
            batch_size=batch_size,
            precision=job.precision,
            objective=job.objective,
        )
        found.append(mean_loss_of(predictions))
    job.model.eval()
    logits = []
    for row in job.evaluation_data:
        batch = {name: torch.tensor([value]) for name, value in row.items() if name != "labels"}
        with torch.no_grad():
            logits.append(job.model(**batch).logits.double())
    if "weight" in options:
        options = {**options, "weight": torch.tensor(options["weight"], dtype=torch.float64)}
    labels = torch.tensor(job.evaluation_data["labels"][:])
    by_torch = float(torch.nn.functional.cross_entropy(torch.cat(logits), labels, **options))
    assert found == pytest.approx([by_torch] * len(found), abs=1e-7)


def test_predictions_come_back_in_data_order(recipe_for, data):
    """Rows are scored by length, and still every logit stands at the place of its row."""
    job = prepare(recipe_for("bert"), dataset=data)
    assert list(lengths(job.evaluation_data)) != sorted(lengths(job.evaluation_data), reverse=True)
    predictions = predict(
        job.model,
        job.task,
        job.evaluation_data,
        job.collate,
        batch_size=3,
        precision=job.precision,
        objective=job.objective,
    )
    assert job.evaluation_data["labels"][:] == data["validation"]["label"][:]
    job.model.eval()
    for row, logits in zip(job.evaluation_data, predictions.logits, strict=True):
        batch = {name: torch.tensor([value]) for name, value in row.items() if name != "labels"}
        with torch.no_grad():
            alone = job.model(**batch).logits[0].numpy()
        np.testing.assert_allclose(logits, alone, atol=1e-6)


def test_evaluation_leaves_no_trace(recipe_for, data):
    """Predicting restores the training mode and the random state that dropout draws from, whoever draws meanwhile."""
    job = prepare(recipe_for("bert"), dataset=data)

    def drawing(rows):
        torch.rand(3)
        return job.collate(rows)

    job.model.train()
    before = torch.get_rng_state()
    predict(job.model, job.task, job.evaluation_data, drawing, batch_size=4, precision=job.precision)
    assert torch.equal(before, torch.get_rng_state())
    assert job.model.training

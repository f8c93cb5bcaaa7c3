"""Guarantee 2: the same optimizer batch gives the same update, however it is cut into micro-batches."""

from __future__ import annotations

import copy
from typing import Any

import datasets
import pytest
import torch
import torch.nn.functional as F
import transformers

from hfpipe.training.job import Job
from hfpipe.training.prepare import prepare

FAMILIES = ("bert", "distilbert", "roberta", "deberta-v2", "electra", "modernbert")
SPLITS = [(8, 1), (4, 2), (2, 4), (1, 8), (3, 3)]  # micro-batch x accumulation over 8 rows; 3x3 is 3, 3, 2
OBJECTIVES = {
    "mean": ["loss.reduction=mean", "optimizer.name=sgd"],
    "sum": ["loss.reduction=sum", "optimizer.name=updater_sgd"],
    "class weights": ["loss.class_weights=[0.2, 1.0, 3.0]", "optimizer.name=sgd"],
    "smoothing": ["loss.label_smoothing=0.1", "loss.class_weights=balanced", "optimizer.name=sgd"],
}


@pytest.fixture(scope="module")
def eight(data) -> dict[str, datasets.Dataset]:
    """One optimizer batch, every class in it."""
    rows = data["train"].select(range(8))
    assert set(rows["label"]) == {0, 1, 2}
    return {"train": rows}


def by_torch(untrained: Job, objective: str, whole: dict[str, torch.Tensor]) -> tuple[float, dict[str, Any]]:
    """Loss and weights after one step of SGD on torch's own mean over the whole batch, with nothing of hfpipe's parts."""
    model, batch = copy.deepcopy(untrained.model), dict(whole)
    labels = batch.pop("labels")
    counts = torch.bincount(labels)
    options = {
        "class weights": {"weight": torch.tensor([0.2, 1.0, 3.0])},
        "smoothing": {"weight": len(labels) / (len(counts) * counts), "label_smoothing": 0.1},
    }
    loss = F.cross_entropy(model(**batch).logits, labels, **options.get(objective, {}))
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return loss.item(), model.state_dict()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_update_whatever_the_split(family, objective, recipe_for, train_with, eight, no_dropout, weight_difference):
    """Eight examples cut five ways, in both engines: torch's own update, gradient ratio 1 and weights within 1e-6."""
    base = [
        *no_dropout(family),
        *OBJECTIVES[objective],
        "dataset.splits.evaluation=null",
        "train.epochs=1",
        "train.max_grad_norm=null",
        "optimizer.lr=0.1",
    ]
    untrained = prepare(recipe_for(family, *base), dataset=eight)
    whole = untrained.collate([untrained.train_data[row] for row in range(8)])
    loss, weights = by_torch(untrained, objective, whole)
    first = None
    for batch_size, accumulate in SPLITS:
        for engine in ("trainer", "loop"):
            recipe = recipe_for(family, *base, f"train.batch_size={batch_size}", f"train.accumulate={accumulate}")
            job, (step,) = train_with(recipe, engine, eight)
            first = first or step
            assert step["num_items"] == 8
            assert step["grad_norm"] / first["grad_norm"] == pytest.approx(1, abs=1e-6)
            assert step["loss"] == pytest.approx(loss, abs=1e-6)
            found = job.model.state_dict()
            assert max(float((found[name] - weights[name]).abs().max()) for name in weights) < 1e-6
    assert weight_difference(untrained, job) > 1e-4  # the update is no nothing


def test_stock_trainer_is_inflated(recipe_for, eight, no_dropout, tmp_path):
    """A bare Trainer multiplies the gradient by the accumulation: 4.000 at 4. When this fails, upstream has mended it."""

    def gradient_norm(batch_size: int, accumulate: int) -> float:
        job = prepare(recipe_for("bert", *no_dropout("bert"), "dataset.splits.evaluation=null"), dataset=eight)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulate,
            max_steps=1,
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            report_to="none",
            dataloader_pin_memory=False,
            optim="sgd",
        )
        bare = transformers.Trainer(
            model=copy.deepcopy(job.model), args=arguments, train_dataset=job.train_data, data_collator=job.collate
        )
        bare.remove_callback(transformers.trainer_callback.PrinterCallback)
        bare.train()
        return float(bare.state.log_history[0]["grad_norm"])

    torch.manual_seed(0)
    assert gradient_norm(2, 4) / gradient_norm(8, 1) == pytest.approx(4.0, abs=1e-3)

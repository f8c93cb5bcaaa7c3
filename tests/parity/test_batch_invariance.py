"""Guarantee 2: the same optimizer batch gives the same update, however it is cut into micro-batches."""

from __future__ import annotations

import copy

import datasets
import pytest
import torch
import transformers

from hfpipe.job import prepare

FAMILIES = ("bert", "distilbert", "roberta", "deberta-v2", "electra", "modernbert")
SPLITS = [(8, 1), (4, 2), (2, 4), (1, 8), (3, 3)]  # micro-batch x accumulation over 8 rows; 3x3 is 3, 3, 2
OBJECTIVES = {
    "mean": ["loss.reduction=mean"],
    "sum": ["loss.reduction=sum", "optimizer.name=updater_sgd"],
    "class weights": ["loss.class_weights=[0.2, 1.0, 3.0]"],
    "smoothing": ["loss.label_smoothing=0.1", "loss.class_weights=balanced"],
}


@pytest.fixture(scope="module")
def eight(data) -> dict[str, datasets.Dataset]:
    """One optimizer batch, every class in it."""
    rows = data["train"].select(range(8))
    assert set(rows["label"]) == {0, 1, 2}
    return {"train": rows}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_update_whatever_the_split(family, objective, recipe_for, train_with, eight, no_dropout, weight_difference):
    """Eight examples cut several ways, in both engines: gradient ratio 1 within 1e-6, weights within 1e-6."""
    base = [*no_dropout(family), *OBJECTIVES[objective], "dataset.splits.evaluation=null", "train.epochs=1"]
    if "optimizer.name=updater_sgd" not in base:
        base.append("optimizer.name=sgd")
    reference = None
    for batch_size, accumulate in SPLITS if objective == "mean" else SPLITS[::2]:
        for engine in ("trainer", "loop"):
            recipe = recipe_for(
                family, *base, f"train.batch_size={batch_size}", f"train.accumulate={accumulate}", "optimizer.lr=0.1",
                "train.max_grad_norm=null",
            )  # fmt: skip
            job, (step,) = train_with(recipe, engine, eight)
            if reference is None:
                reference = job, step
            first, first_step = reference
            assert step["num_items"] == 8
            assert step["grad_norm"] / first_step["grad_norm"] == pytest.approx(1, abs=1e-6)
            assert step["loss"] == pytest.approx(first_step["loss"], abs=1e-6)
            assert weight_difference(job, first) < 1e-6
    untrained = prepare(recipe_for(family, *base), dataset=eight)
    assert weight_difference(untrained, reference[0]) > 1e-4  # the update is no nothing


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

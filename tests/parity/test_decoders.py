"""Decoders whose tokenizer pads on the left and names no padding token: both guarantees hold for them, too."""

from __future__ import annotations

import pytest
import torch

from hfpipe.training.prepare import prepare

DECODERS = ("gpt2", "llama")


@pytest.mark.parametrize("family", DECODERS)
def test_both_engines_are_the_same_training(family, recipe_for, assert_engines_agree):
    """Bit for bit, with dropout and ragged batches, in bf16 as well."""
    assert_engines_agree(recipe_for(family, "train.accumulate=3"))
    assert_engines_agree(recipe_for(family, "train.accumulate=2", "train.precision=bf16"))


@pytest.mark.parametrize("family", DECODERS)
def test_an_update_is_the_same_however_it_is_cut(family, recipe_for, train_with, data, no_dropout, weight_difference):
    """Eight rows of 3 to 20 words as one batch, row by row, and in between: gradient ratio 1, weights within 1e-6."""
    base = [*no_dropout(family), "dataset.splits.evaluation=null", "train.epochs=1", "train.max_grad_norm=null"]
    base += ["optimizer.name=sgd", "optimizer.lr=0.1"]
    eight = {"train": data["train"].select(range(8))}
    jobs = []
    for batch_size, accumulate in ((8, 1), (3, 3), (1, 8)):
        recipe = recipe_for(family, *base, f"train.batch_size={batch_size}", f"train.accumulate={accumulate}")
        jobs += [train_with(recipe, engine, eight) for engine in ("trainer", "loop")]
    (first, (step,)), untrained = jobs[0], prepare(recipe, dataset=eight)
    for job, (other,) in jobs[1:]:
        assert other["grad_norm"] / step["grad_norm"] == pytest.approx(1, abs=1e-5)
        assert weight_difference(job, first) < 1e-6
    assert weight_difference(untrained, first) > 1e-5
    assert torch.isfinite(torch.tensor(step["loss"]))
    assert len({len(ids) for ids in untrained.train_data["input_ids"]}) > 3
    assert any("names no padding token" in notice for notice in untrained.notices)
    if family == "gpt2":
        assert any("batches are padded on the right" in notice for notice in untrained.notices)

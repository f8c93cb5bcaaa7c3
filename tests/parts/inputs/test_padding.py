"""Padding changes no answer: for every family a row in a batch gets what it gets alone, or the model is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers

import hfpipe
from hfpipe.errors import ModelError
from hfpipe.parts.inputs.padding import check_collate, padded_to, padding_difference, settle_padding
from hfpipe.parts.model.models import load_model, load_processor, open_checkpoint
from hfpipe.recipe import load_recipe

RIGHT = (
    "gpt2",
    "gpt_neo",
    "gpt_bigcode",
    "openai-gpt",
    "ctrl",
    "biogpt",
    "bert",
    "roberta",
)  # positions from the first
EITHER = ("gpt_neox", "gptj", "llama", "mistral", "qwen2", "qwen3", "gemma", "phi", "falcon", "opt", "bloom", "mpt")
ONE_LENGTH = ("fnet", "yoso")


@pytest.fixture(scope="module")
def table(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script that prints the table of families."""
    return script("padding_table")


@pytest.fixture
def loaded(table: ModuleType, tmp_path: Path) -> Callable[..., tuple[Any, Any, datasets.Dataset]]:
    """A tiny classifier of a family, its tokenizer, and encoded rows of several lengths."""

    def load(family: str, **options: Any) -> tuple[Any, Any, datasets.Dataset]:
        folder = table.make_checkpoint(tmp_path / family, family, **options)
        fields = {"dataset": {"path": "./d"}, "task": {"text": "t"}, "model": {"checkpoint": str(folder)}}
        checkpoint = open_checkpoint(load_recipe(fields))
        tokenizer, _ = load_processor(checkpoint, table.TASK)
        model, _ = load_model(checkpoint, table.TASK, (), "")
        return model, tokenizer, table.encoded_rows()

    return load


def apart(model: Any, table: ModuleType, tokenizer: Any, rows: datasets.Dataset, multiple: int | None) -> float:
    """All rows alone and in one batch, by code of this test's own."""
    collate = table.TASK.collator(tokenizer, multiple)
    model.eval()
    with torch.no_grad():
        alone = torch.cat([model(**collate([rows[row]])).logits for row in range(len(rows))])
        together = model(**collate([rows[row] for row in range(len(rows))])).logits
    return float((alone - together).abs().max() / alone.abs().max())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", [*RIGHT, *EITHER, "xlnet"])
def test_a_batch_gives_what_its_rows_give_alone(
    family: str, side: str, loaded: Callable[..., Any], table: ModuleType
) -> None:
    """Whichever side the tokenizer pads on, and with no padding token: it turns only where that changes answers."""
    model, tokenizer, rows = loaded(family, side=side)
    found = settle_padding(model, table.TASK, tokenizer, rows, 64)
    wanted = "right" if family in RIGHT else "left" if family == "xlnet" else side
    assert tokenizer.padding_side == wanted
    assert (found.notice is None) == (wanted == side)
    assert found.multiple is None
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.training
    assert apart(model, table, tokenizer, rows, None) < 1e-5


@pytest.mark.parametrize("family", ONE_LENGTH)
def test_a_model_that_mixes_all_positions_gets_rows_of_one_length(
    family: str, loaded: Callable[..., Any], table: ModuleType
) -> None:
    """Padding changes its answers on either side: every row is padded to max_length, said, and kept in its config."""
    model, tokenizer, rows = loaded(family, side="right")
    found = settle_padding(model, table.TASK, tokenizer, rows, 64)
    assert found.multiple == padded_to(model.config) == 64
    assert "every row is padded to 64 tokens" in str(found.notice)
    assert tokenizer.padding_side == "right"
    if family != "yoso":  # its hashes are drawn anew for every batch
        assert apart(model, table, tokenizer, rows, 64) < 1e-5
    assert settle_padding(model, table.TASK, tokenizer, rows, 32).multiple == 64  # what it was trained with


class Mixing(transformers.BertForSequenceClassification):
    """Answers that depend on the other rows of the batch."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits - outputs.logits.mean(dim=0)
        return outputs


def test_a_model_whose_rows_change_each_other_is_refused(tiny_fields: Callable[..., dict[str, Any]]) -> None:
    """It is found before the first step, exit code 4, and not trained through."""
    torch.manual_seed(0)
    fields = tiny_fields(train={"max_steps": 1, "precision": "fp32"})
    model = Mixing.from_pretrained(fields["model"]["checkpoint"])
    with pytest.raises(
        ModelError, match="Mixing depend on what else is in a batch: two rows alone and together differ"
    ):
        hfpipe.prepare(load_recipe(fields), model=model)


def test_a_collate_that_hides_its_padding_is_refused(tiny_fields: Callable[..., dict[str, Any]]) -> None:
    """Batches made by a function of one's own are tried, too: without a mask the padding is read as words."""
    recipe = load_recipe(tiny_fields(train={"max_steps": 1, "precision": "fp32"}))

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        ids = [row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows]
        return {"input_ids": torch.tensor(ids), "labels": torch.tensor([row["labels"] for row in rows])}

    with pytest.raises(ModelError, match="With a collate of your own, look at that first"):
        hfpipe.prepare(recipe, collate=collate)


def test_the_check_leaves_no_trace(loaded: Callable[..., Any], table: ModuleType) -> None:
    """Modes, random state and weights are as before; and it costs five short forward passes, three of two rows."""
    model, tokenizer, rows = loaded("gpt2", side="right")
    model.transformer.h[0].eval()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    calls: list[torch.Size] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    check_collate(model, table.TASK, table.TASK.collator(tokenizer), rows)
    assert [shape[0] for shape in calls] == [1, 1, 2]
    assert (model.training, model.transformer.h[0].training) == (True, False)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_rows_of_one_length_need_no_padding(loaded: Callable[..., Any], table: ModuleType) -> None:
    """There is nothing to compare, and so no difference."""
    model, tokenizer, rows = loaded("bert")
    assert settle_padding(model, table.TASK, tokenizer, rows.select([0, 0]), 64).difference is None


def test_a_fault_of_the_model_is_told_before_training(loaded: Callable[..., Any], table: ModuleType) -> None:
    """What its forward pass raises is a model error with its words."""
    model, tokenizer, rows = loaded("bert")

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("All examples must have the same number of <eos> tokens.")

    model.forward = broken
    collate = table.TASK.collator(tokenizer)
    with pytest.raises(ModelError, match="fails on two short rows of the data: All examples must have"):
        padding_difference(model, table.TASK, [rows[0], rows[1]], collate, collate)


@pytest.mark.parametrize(("family", "side"), [("gpt2", "left"), ("qwen2", "left"), ("fnet", "right")])
def test_a_run_its_evaluation_its_predictions_and_a_pipeline_agree(
    family: str, side: str, table: ModuleType, tmp_path: Path, pairs_folder: Path, no_report: None
) -> None:
    """Trained without a padding token of its own: answers in batches are those row by row, and those of a stock pipeline."""
    folder = table.make_checkpoint(tmp_path / family, family, side=side)
    fields = {
        "dataset": {"path": str(pairs_folder)},
        "task": {"text": "sentence1"},
        "model": {"checkpoint": str(folder), "fresh": ["score", "classifier"], "max_length": 60},
        "train": {"max_steps": 2, "precision": "fp32", "batch_size": 4, "accumulate": 2},
        "evaluate": {"batch_size": 16},
    }
    run = hfpipe.finetune(fields, runs_dir=tmp_path / "runs", name="one")
    texts = list(datasets.Dataset.from_parquet(str(pairs_folder / "test.parquet"))["sentence1"])
    together = [row["probabilities"]["same"] for row in hfpipe.predict(str(run.path), texts)]
    alone = [hfpipe.predict(str(run.path), [text])[0]["probabilities"]["same"] for text in texts[:4]]
    np.testing.assert_allclose(alone, together[:4], atol=1e-6)
    assert len({len(run_ids) for run_ids in transformers.AutoTokenizer.from_pretrained(folder)(texts)["input_ids"]}) > 3
    assert hfpipe.evaluate(run).metrics["accuracy"] == run.metrics["accuracy"]
    if family != "fnet":  # a pipeline does not know of its one length
        stock = transformers.pipeline("text-classification", str(run.path / "model"), top_k=None)
        answers = [{one["label"]: one["score"] for one in found}["same"] for found in stock(texts, batch_size=10)]
        np.testing.assert_allclose(answers, together, atol=1e-6)

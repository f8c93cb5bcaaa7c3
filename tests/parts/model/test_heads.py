"""Heads compute in fp32 whatever the rest computes in: no logit is rounded to 8 bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import pytest
import torch
import transformers
from torch import nn

import hfpipe
from hfpipe.parts.model.heads import compute_heads_in_fp32, heads_of

FAMILIES = (
    "bert",
    "roberta",
    "deberta-v2",
    "electra",
    "modernbert",
    "gpt2",
    "llama",
    "opt",
    "bart",
    "t5",
    "xlnet",
    "fnet",
)
KINDS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")


@pytest.fixture(scope="module")
def table(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script that makes tiny models of many families."""
    return script("padding_table")


def is_finer_than_bf16(values: torch.Tensor) -> bool:
    """Whether the numbers have more bits than bf16 has."""
    return values.dtype == torch.float32 and not torch.equal(values.bfloat16().float(), values)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_under_autocast_have_all_their_bits(family: str, table: ModuleType) -> None:
    """With bf16 the body of every family computes in it, and what the head puts out does not."""
    torch.manual_seed(0)
    config = table.tiny_config(family)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 3]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = model(ids).logits
        compute_heads_in_fp32(model)
        kept = model(ids).logits
    assert not is_finer_than_bf16(rounded.float())
    assert is_finer_than_bf16(kept)
    assert torch.allclose(rounded.float(), kept, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_head_is_found(kind: str, table: ModuleType) -> None:
    """Classes of rows and of tokens, spans and choices."""
    torch.manual_seed(0)
    model = getattr(transformers, f"AutoModelFor{kind}").from_config(table.tiny_config("bert")).eval()
    compute_heads_in_fp32(model)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = model(ids[None] if kind == "MultipleChoice" else ids)
    assert all(is_finer_than_bf16(value) for name, value in outputs.items() if "logits" in name)


class Own(nn.Module):
    """A model that has nothing of transformers'."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(values))


def test_a_model_without_a_named_body_has_its_last_layer_as_head() -> None:
    """Twice is once; a copy of the model computes with its own weights; a model in half precision gets a head in fp32."""
    model = Own().bfloat16()
    assert heads_of(model) == [model.last]
    for _ in range(2):
        compute_heads_in_fp32(model)  # type: ignore[arg-type]
    assert (model.first.weight.dtype, model.last.weight.dtype) == (torch.bfloat16, torch.float32)
    values = torch.randn(3, 8).bfloat16()
    answers = model(values)
    assert is_finer_than_bf16(answers)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.last.weight.zero_()
    assert torch.equal(model(values), answers)
    assert torch.equal(other(values), other.last.bias.expand(3, 2))
    assert model.double()(values.double()).dtype == torch.float64


@pytest.mark.parametrize("kernels", ["fast", "torch"])
def test_years_are_not_predicted_in_steps_of_eight(
    kernels: str, tiny_checkpoint: Path, tmp_path: Path, no_report: None
) -> None:
    """1956 to 2026 in bf16, trained, evaluated and predicted; both engines to the same bits."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(
        tiny_checkpoint, num_labels=1, problem_type="regression", initializer_range=0.5
    )
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.mul_(10)
        model.classifier.bias.fill_(1990)
    model.save_pretrained(tmp_path / "years")
    transformers.AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / "years")
    vocabulary = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint).get_vocab()
    words = sorted(vocabulary, key=vocabulary.__getitem__)[5:75]
    rows = [{"text": word, "year": 1956.0 + number} for number, word in enumerate(words)]
    data = {"train": datasets.Dataset.from_list(rows), "validation": datasets.Dataset.from_list(rows[::3])}
    fields = {
        "dataset": {"path": "given"},
        "task": {"kind": "text-regression", "text": "text", "label": "year"},
        "model": {"checkpoint": str(tmp_path / "years")},
        "optimizer": {"lr": 1e-3},
        "train": {"max_steps": 2, "precision": "bf16", "kernels": kernels},
    }
    found = {}
    for engine in ("trainer", "loop"):
        run = hfpipe.finetune(fields, engine=engine, dataset=data, runs_dir=tmp_path, name=engine)
        found[engine] = [row["value"] for row in run.predict([row["text"] for row in rows])]
        record = [one for one in run.records if one["type"] == "evaluation"][-1]
        assert record["metrics"]["loss"] == pytest.approx(
            np.mean([(value - row["year"]) ** 2 for value, row in list(zip(found[engine], rows, strict=True))[::3]]),
            rel=1e-4,
        )
    assert found["trainer"] == found["loop"]
    values = np.array(found["loop"])
    assert np.ptp(values) > 8
    assert len({*np.round(values, 2)}) > 60  # in steps of 8 there would be a handful

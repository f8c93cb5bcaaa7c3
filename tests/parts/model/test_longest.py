"""The longest input is the one that the model takes, whatever its configuration says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

import hfpipe
from hfpipe.parts.model import longest
from hfpipe.parts.model.longest import longest_that_works

SIZES = {
    "vocab_size": 60,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 66,
}
# fmt: off
BEHIND_PADDING = [
    "roberta", "roberta-prelayernorm", "data2vec-text", "longformer", "camembert", "xlm-roberta", "mpnet",
    "xlm-roberta-xl", "ibert", "luke",
]
# fmt: on
# fmt: off
AS_TOLD = [
    "bert", "nystromformer", "big_bird", "electra", "albert", "distilbert", "gpt2", "opt", "bart", "xlm",
    "openai-gpt",
]
# fmt: on


def config_of(family: str, **fields: Any) -> Any:
    """A tiny configuration."""
    config = AutoConfig.for_model(family)
    for name, value in {**SIZES, **fields}.items():
        if hasattr(config, name):
            setattr(config, name, value)
    for name in ("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"):
        if hasattr(config, name):
            setattr(config, name, 1)
    if family == "albert":
        config.embedding_size = 8
    if family == "longformer":
        config.attention_window = [8, 8]
    if family in ("luke",):
        config.entity_vocab_size = 4
    return config


@pytest.mark.parametrize("family", [*BEHIND_PADDING, *AS_TOLD])
def test_what_is_found_works_and_one_more_does_not(family: str) -> None:
    """Against the real model of every family: that many tokens go through it, and one more fails."""
    config = config_of(family)
    found = longest_that_works(config, 80)
    offset = (config.pad_token_id or 0) + 1 if family in BEHIND_PADDING else 0
    assert found == config.max_position_embeddings - offset
    model = AutoModel.from_config(config).eval()
    ids = torch.full((1, found + 1), 5)
    with torch.no_grad():
        model(input_ids=ids[:, :found])
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=ids)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox", "bloom", "t5", "mistral"])
def test_positions_without_a_table_have_no_end(family: str) -> None:
    """Rotary, ALiBi and relative positions take what is wanted."""
    config = config_of(family, num_key_value_heads=2, head_dim=4, d_model=8, num_layers=1, num_heads=2, d_kv=4, d_ff=16)
    assert longest_that_works(config, 700) == 700


def test_a_trial_draws_nothing_and_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream of random numbers goes on as if nothing had been tried, and a second question costs no model."""
    made: list[Any] = []
    monkeypatch.setattr(
        longest, "_without_weights", lambda config, build=longest._without_weights: made.append(1) or build(config)
    )
    state = torch.get_rng_state()
    config = config_of("roberta", vocab_size=61)
    assert [longest_that_works(config, 66) for _ in range(2)] == [64, 64]
    assert len(made) == 1
    assert torch.equal(state, torch.get_rng_state())
    assert longest_that_works(config_of("roberta"), longest.LONGEST_TRIED + 1) == longest.LONGEST_TRIED + 1  # believed


def test_a_trial_of_a_large_model_touches_none_of_its_weights() -> None:
    """7 billion weights, 28 GB in fp32, and the process grows by less than 3 GB."""
    program = (
        "import resource\n"
        "from transformers import AutoConfig\n"
        "from hfpipe.parts.model.longest import longest_that_works\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(longest_that_works(AutoConfig.for_model('llama'), 512))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path.cwd())
    works, megabytes = map(int, done.stdout.split())
    assert works == 512
    assert megabytes < 3000


def test_long_texts_are_trained_and_predicted(
    tiny_checkpoint: Path, tmp_path: Path, pairs_folder: Path, no_report: None
) -> None:
    """A checkpoint that counts from behind the padding token, whose name hfpipe does not know, with texts of 200 words."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path / "prelayernorm"
    config = config_of("roberta-prelayernorm", vocab_size=130, pad_token_id=0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint, model_max_length=10**30)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    data = tmp_path / "long.jsonl"
    words = " ".join(["bak", "cel", "dim"] * 70)
    data.write_text("".join(f'{{"text": "{"fop " * (row % 2)}{words}", "label": {row % 2}}}\n' for row in range(12)))
    fields = {
        "dataset": {"path": "jsonl", "data_files": str(data), "splits": {"hold_out": 4}},
        "task": {"text": "text"},
        "model": {"checkpoint": str(folder), "fresh": ["classifier"], "max_length": 66},
        "train": {"max_steps": 1, "precision": "fp32"},
    }
    run = hfpipe.finetune(fields, runs_dir=tmp_path / "runs")
    notices = [one["text"] for one in run.records if one["type"] == "notice"]
    assert "model.max_length is 66, and the model takes 65 tokens: 65 it is" in notices
    assert len(run.predict([words])) == 1

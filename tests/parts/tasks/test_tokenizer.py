"""The tokenizer of a checkpoint: which token pads, and what has to be installed to read it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, BertConfig, PreTrainedTokenizerFast, XLMRobertaConfig

import hfpipe
from hfpipe.errors import ModelError
from hfpipe.parts.tasks import tokenizer as module
from hfpipe.parts.tasks.tokenizer import agree_on_padding, load_tokenizer

WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]


@pytest.fixture
def tokenizer(tiny_checkpoint: Path) -> Callable[..., PreTrainedTokenizerFast]:
    """The tiny tokenizer with other special tokens: [PAD], [UNK], [CLS], [SEP], [MASK] are 0 to 4."""

    def make(**tokens: str | None) -> PreTrainedTokenizerFast:
        return AutoTokenizer.from_pretrained(tiny_checkpoint, **tokens)

    return make


@pytest.mark.parametrize(
    ("tokens", "models", "rows", "padded", "notice"),
    [
        ({}, 0, 130, 0, None),
        ({}, None, 130, 0, None),
        ({"pad_token": None}, 0, 130, 0, "names no padding token, its model with token 0: '[PAD]' (0)"),
        ({"pad_token": None}, None, 130, 0, "names no padding token, its model none: '[PAD]' (0)"),
        ({"pad_token": None}, -1, 130, 0, "its model with token -1: '[PAD]' (0)"),
        ({"pad_token": "[MASK]"}, 1, 130, 1, "pads with token 4, its model with token 1: '[UNK]' (1)"),
        ({"pad_token": "[MASK]"}, 77, 130, 4, "pads with token 4, its model with token 77: '[MASK]' (4)"),
        ({"pad_token": None}, 77, 130, 0, "names no padding token, its model with token 77: '[PAD]' (0)"),
        ({"pad_token": "<new>"}, None, 130, 0, "pads with token 130, its model none: '[PAD]' (0)"),
    ],
)
def test_tokenizer_and_model_agree_on_the_padding_token(
    tokenizer: Callable[..., Any],
    tokens: dict[str, Any],
    models: int | None,
    rows: int,
    padded: int,
    notice: str | None,
) -> None:
    """The model's where it is a special token, since positions may follow from it; else the tokenizer's; else one there is."""
    config = BertConfig(vocab_size=rows, pad_token_id=models)
    made = tokenizer(**tokens)
    said = agree_on_padding(made, config, "'x'", "here")
    assert made.pad_token_id == config.pad_token_id == padded
    assert (said is None) == (notice is None)
    assert notice is None or notice in str(said)
    assert notice is None or str(said).endswith("is what both pad with here, masked; the embeddings stay as they are")
    assert agree_on_padding(made, config, "'x'", "here") is None


def test_without_a_name_for_padding_the_end_of_a_text_stands_for_it() -> None:
    """As GPT-2 and Llama have none; and without any special token it is refused."""
    from tokenizers import Tokenizer, models

    rules = Tokenizer(models.WordLevel({word: row for row, word in enumerate(["a", "b", "<end>"])}, unk_token="a"))
    made = PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<end>")
    config = AutoConfig.for_model("llama", vocab_size=3, pad_token_id=None, eos_token_id=1)
    assert "'<end>' (2) is what both pad with" in str(agree_on_padding(made, config, "'x'", "here"))
    assert (made.pad_token, config.pad_token_id, config.eos_token_id) == ("<end>", 2, 2)
    bare = PreTrainedTokenizerFast(tokenizer_object=rules)
    with pytest.raises(ModelError, match="no token that could stand for one"):
        agree_on_padding(bare, AutoConfig.for_model("llama", vocab_size=3, pad_token_id=None), "'x'", "here")


def test_a_padding_token_without_an_embedding_is_replaced(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Many add one to a tokenizer and not to the model: it is the only entry too many, and another token stands for it."""
    AutoTokenizer.from_pretrained(tiny_checkpoint, pad_token="<added>").save_pretrained(tmp_path)
    config = BertConfig(vocab_size=130, pad_token_id=None)
    made = load_tokenizer(tmp_path, config, "x", "here")
    assert len(made) == 131
    agree_on_padding(made, config, "'x'", "here")
    assert made.pad_token_id == config.pad_token_id == 0


@pytest.fixture
def sentencepiece_only(tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint folder with a real sentencepiece model, made here, and nothing else of a tokenizer."""
    trainer = pytest.importorskip(
        "sentencepiece", reason="sentencepiece is not installed: pip install 'hfpipe[tokenizers]'"
    )
    pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install 'hfpipe[tokenizers]'")

    def make(file: str, config: Any) -> Path:
        random = Random(0)
        lines = (" ".join(random.choices(WORDS, k=8)) for _ in range(400))
        written = io.BytesIO()
        options = {"vocab_size": 140, "hard_vocab_limit": False, "minloglevel": 2}
        trainer.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=written, **options)
        (tmp_path / file).write_bytes(written.getvalue())
        config.save_pretrained(tmp_path)
        return tmp_path

    return make


def test_a_sentencepiece_model_alone_is_read(sentencepiece_only: Callable[..., Path]) -> None:
    """With the packages there, a checkpoint of XLM-R's kind needs no tokenizer.json."""
    folder = sentencepiece_only("sentencepiece.bpe.model", XLMRobertaConfig(vocab_size=400))
    made = load_tokenizer(folder, XLMRobertaConfig(vocab_size=400), "x", "here")
    assert made.decode(made("bak cel dim")["input_ids"], skip_special_tokens=True) == "bak cel dim"


@pytest.mark.parametrize("absent", [("sentencepiece",), ("google.protobuf",), ("sentencepiece", "google.protobuf")])
def test_what_reads_it_is_named_where_it_is_missing(
    absent: tuple[str, ...], sentencepiece_only: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages that help, and hfpipe's own extra; not tiktoken, which does not."""
    folder = sentencepiece_only("sentencepiece.bpe.model", XLMRobertaConfig(vocab_size=400))
    for name in [*sys.modules]:
        if name.split(".")[0] == "sentencepiece" or name.startswith("google.protobuf"):
            monkeypatch.delitem(sys.modules, name)
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(module, "_is_installed", lambda name: name not in absent)
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder, XLMRobertaConfig(vocab_size=400), "x", "here")
    message = str(caught.value)
    packages = [{"google.protobuf": "protobuf"}.get(name, name) for name in absent]
    assert f"sentencepiece.bpe.model), and {' and '.join(packages)} can't be imported" in message
    assert "pip install 'hfpipe[tokenizers]'" in message
    assert "tiktoken" not in message


def test_a_trained_tokenizer_keeps_how_it_was_used(
    tiny_fields: Callable[..., dict[str, Any]], tmp_path: Path, tiny_checkpoint: Path, no_report: None
) -> None:
    """Its padding token and that special tokens in texts are text are saved, in tokenizer and configuration."""
    folder = tmp_path / "no_pad"
    AutoTokenizer.from_pretrained(tiny_checkpoint, pad_token=None).save_pretrained(folder)
    for file in ("model.safetensors", "config.json"):
        (folder / file).write_bytes((tiny_checkpoint / file).read_bytes())
    fields = tiny_fields(model={"checkpoint": str(folder)}, train={"max_steps": 1, "precision": "fp32"})
    run = hfpipe.finetune(fields, runs_dir=tmp_path / "runs")
    saved = AutoTokenizer.from_pretrained(run.path / "model")
    assert (saved.pad_token, saved.split_special_tokens) == ("[PAD]", True)
    assert json.loads((run.path / "model" / "config.json").read_text())["pad_token_id"] == 0

"""Checkpoints: what is missing, foreign or dangerous is refused, and the head starts the same from the same seed."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import set_seed
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    T5Config,
)

from hfpipe.errors import HfpipeError, ModelError, RecipeError, RefusedError
from hfpipe.parts.model.models import Checkpoint, load_model, load_processor, longest_input, open_checkpoint
from hfpipe.parts.tasks import TextTask
from hfpipe.parts.tasks.classes import Classes
from hfpipe.parts.tasks.numbers import NumberTask
from hfpipe.recipe import load_recipe

TASK = TextTask(("text",), "label", Classes(("no", "yes")))


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint folder to damage."""
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def headed(tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a checkpoint with a head for these classes."""

    def make(*names: str, **config: Any) -> Path:
        folder = tmp_path / "headed"
        shutil.copytree(tiny_checkpoint, folder)
        if names:
            config["id2label"] = dict(enumerate(names))
            config["label2id"] = {name: row for row, name in enumerate(names)}
        torch.manual_seed(7)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, **config)
        model.save_pretrained(folder)
        return folder

    return make


def opened(folder: Path, **model: Any) -> Checkpoint:
    """The checkpoint of a recipe that names this folder."""
    fields = {"dataset": {"path": "./d"}, "task": {"text": "t"}, "model": {"checkpoint": str(folder), **model}}
    return open_checkpoint(load_recipe(fields))


def told(kind: type[HfpipeError], call: Callable[[], object]) -> str:
    """What the error of this kind says."""
    with pytest.raises(kind) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def rewrite(folder: Path, **fields: Any) -> None:
    """Change fields of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_checkpoint_is_opened_and_identified(tiny_checkpoint: Path, copy: Path) -> None:
    """A folder has no commit; its weights are identified by their content, wherever they lie."""
    first, second = opened(tiny_checkpoint), opened(copy)
    assert (first.commit, first.config.model_type) == (None, "bert")
    assert first.weights_digest == second.weights_digest
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert opened(copy).weights_digest != first.weights_digest


def test_missing_tokenizer_files_are_refused(copy: Path) -> None:
    """A tokenizer made up for want of files, which would turn every word into [UNK], is refused."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    assert "its files are missing" in told(ModelError, lambda: load_processor(opened(copy), TASK))


def test_a_broken_tokenizer_file_is_told(copy: Path) -> None:
    """A tokenizer.json that is cut short is a model error."""
    (copy / "tokenizer.json").write_text("{")
    assert "the tokenizer of" in told(ModelError, lambda: load_processor(opened(copy), TASK))


def test_a_vocabulary_larger_than_the_embeddings_is_refused(copy: Path) -> None:
    """A tokenizer of another checkpoint would index beyond the embeddings."""
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens(["one", "two"])
    tokenizer.save_pretrained(copy)
    assert "has 132 entries, and the embeddings only 130 rows" in told(
        ModelError, lambda: load_processor(opened(copy), TASK)
    )


def test_a_tokenizer_without_padding_takes_the_token_that_its_model_pads_with(copy: Path) -> None:
    """Which one, and that no embedding is added, is said; the tokenizer that a run saves has it."""
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": None}))
    tokenizer, notice = load_processor(opened(copy), TASK)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", 0)
    assert notice is not None
    assert "names no padding token, its model with token 0: '[PAD]' (0) is what both pad with here" in notice


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt"])
def test_weights_in_a_pickle_are_refused_for_security(copy: Path, pickle: str) -> None:
    """Weights that could run code are never loaded, exit code 7; without any weights it is a model error."""
    (copy / "model.safetensors").rename(copy / pickle)
    message = told(RefusedError, lambda: opened(copy))
    assert pickle in message
    assert RefusedError.exit_code == 7
    (copy / pickle).unlink()
    assert "has no *.safetensors" in told(ModelError, lambda: opened(copy))


def test_code_of_a_checkpoint_is_refused_for_security(copy: Path) -> None:
    """A checkpoint with auto_map is refused, exit code 7, and its code is not run."""
    marker = copy / "ran"
    (copy / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    rewrite(copy, auto_map={"AutoModelForSequenceClassification": "evil.Model", "AutoConfig": "evil.Config"})
    assert "brings code of its own (auto_map)" in told(RefusedError, lambda: opened(copy))
    assert not marker.exists()


def test_code_of_a_tokenizer_is_not_run(copy: Path) -> None:
    """An auto_map in the tokenizer's configuration runs nothing either."""
    marker = copy / "ran"
    (copy / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    path = copy / "tokenizer_config.json"
    mapped = {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}, "tokenizer_class": "T"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **mapped}))
    with contextlib.suppress(HfpipeError):
        load_processor(opened(copy), TASK)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "has no config.json"),
        ("{", "is not JSON"),
        ("[]", "is not a mapping"),
        ("{}", "has no model_type"),
        ('{"model_type": "nothing_known"}', "nothing_known"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_told(copy: Path, config: str | None, message: str) -> None:
    """Each way in which a configuration can be missing or broken has its sentence."""
    (copy / "config.json").unlink()
    if config is not None:
        (copy / "config.json").write_text(config)
    assert message in told(ModelError, lambda: opened(copy))


def test_weights_cut_short_are_told(copy: Path) -> None:
    """A model.safetensors that was not written to its end is a model error."""
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    told(ModelError, lambda: load_model(opened(copy), TASK, (), "model.fresh"))


def test_missing_weights_are_refused_unless_declared(copy: Path) -> None:
    """A weight that the checkpoint should have must be declared as fresh; then it is named in the run."""
    from safetensors.torch import load_file, save_file

    name = "encoder.layer.1.output.dense.weight"
    weights = load_file(copy / "model.safetensors")
    del weights[name]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    message = told(ModelError, lambda: load_model(opened(copy), TASK, (), "r.yaml:3:1: model.fresh"))
    assert f"lacks bert.{name}" in message
    assert "r.yaml:3:1: model.fresh" in message
    _, fresh = load_model(opened(copy), TASK, ("bert.encoder.layer.1",), "model.fresh")
    assert fresh == [f"bert.{name}", "classifier.bias", "classifier.weight"]


def test_half_a_head_is_refused(headed: Callable[..., Path]) -> None:
    """A checkpoint that says it has a head must have all of it."""
    from safetensors.torch import load_file, save_file

    folder = headed("no", "yes")
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "lacks classifier.weight" in told(ModelError, lambda: load_model(opened(folder), TASK, (), "model.fresh"))
    assert load_model(opened(folder), TASK, ("classifier",), "model.fresh")[1] == ["classifier.weight"]


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    """A configuration that doesn't fit the weights would train random ones."""
    rewrite(copy, intermediate_size=64)
    assert "lacks bert.encoder.layer.0.intermediate.dense" in told(
        ModelError, lambda: load_model(opened(copy), TASK, (), "model.fresh")
    )


def test_the_fresh_head_is_named_and_seeded(tiny_checkpoint: Path) -> None:
    """The head that a checkpoint lacks is named, the same from the same seed, and another from another."""
    heads = []
    for seed in (1, 1, 2):
        set_seed(seed)
        model, fresh = load_model(opened(tiny_checkpoint), TASK, (), "model.fresh")
        assert fresh == ["classifier.bias", "classifier.weight"]
        assert model.training
        heads.append(model.classifier.weight.detach().clone())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert model.config.label2id == {"no": 0, "yes": 1}


def test_a_head_of_the_same_classes_is_kept(headed: Callable[..., Path]) -> None:
    """A checkpoint that was fine-tuned on these classes goes on from its head."""
    folder = headed("no", "yes")
    model, fresh = load_model(opened(folder), TASK, (), "model.fresh")
    assert fresh == []
    torch.manual_seed(7)
    assert torch.equal(model.classifier.weight, BertForSequenceClassification.from_pretrained(folder).classifier.weight)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "c"), "['a', 'b', 'c'], and the data have ['no', 'yes']"),
        (("yes", "no"), "['yes', 'no'], and the data have ['no', 'yes']"),
        (("No", "Yes"), "['No', 'Yes'], and the data have ['no', 'yes']"),
    ],
)
def test_a_head_of_other_classes_is_refused(headed: Callable[..., Path], names: tuple[str, ...], message: str) -> None:
    """More classes, another order or other names are an error that shows both lists."""
    assert message in told(ModelError, lambda: load_model(opened(headed(*names)), TASK, (), "model.fresh"))


@pytest.mark.parametrize("names", [("a", "b", "c"), ("yes", "no")])
def test_a_head_of_other_classes_declared_fresh_starts_anew(
    headed: Callable[..., Path], names: tuple[str, ...]
) -> None:
    """A declared head really is fresh, also where the old one has the right shape but the wrong classes."""
    folder = headed(*names)
    old = BertForSequenceClassification.from_pretrained(folder).classifier.weight.detach().clone()
    set_seed(3)
    model, fresh = load_model(opened(folder), TASK, ("classifier",), "model.fresh")
    assert fresh == ["classifier.bias", "classifier.weight"]
    assert model.classifier.weight.shape == (2, 32)
    assert old.shape != (2, 32) or not torch.equal(model.classifier.weight, old)
    assert not model.classifier.bias.any()
    assert model.config.id2label == {0: "no", 1: "yes"}


def test_a_regression_has_one_output(tiny_checkpoint: Path) -> None:
    """A task of numbers gets a head with a single output."""
    model, _ = load_model(opened(tiny_checkpoint), NumberTask(("text",), "label"), (), "model.fresh")
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")
    assert model.classifier.weight.shape == (1, 32)


@pytest.mark.parametrize(
    ("config", "model_max_length", "wanted", "expected"),
    [
        (BertConfig(max_position_embeddings=66), 64, None, 64),
        (BertConfig(max_position_embeddings=66), 512, None, 66),
        (BertConfig(max_position_embeddings=66), 10**30, 7, 66),
        (RobertaConfig(max_position_embeddings=66, pad_token_id=1), 10**30, None, 64),
        (RobertaConfig(max_position_embeddings=66, pad_token_id=0), 512, 80, 65),
        (T5Config(), 10**30, None, None),
        (T5Config(), 10**30, 600, None),
    ],
)
def test_the_longest_input_is_bounded_by_the_model(
    tiny_checkpoint: Path, config: Any, model_max_length: int, wanted: int | None, expected: int | None
) -> None:
    """The bound is the least of what the model takes and the tokenizer's own."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint, model_max_length=model_max_length)
    checkpoint = Checkpoint("x", tiny_checkpoint, None, config, "", "here")
    assert longest_input(checkpoint, tokenizer, wanted) == expected


def test_the_configuration_may_be_changed_by_its_names(tiny_checkpoint: Path) -> None:
    """`model.config` reaches the model; an unknown name gets the near one."""
    checkpoint = opened(tiny_checkpoint, config={"hidden_dropout_prob": 0.0})
    model, _ = load_model(checkpoint, TASK, (), "model.fresh")
    assert model.bert.embeddings.dropout.p == 0.0
    message = told(RecipeError, lambda: opened(tiny_checkpoint, config={"hidden_dropout": 0.0}))
    assert "did you mean 'hidden_dropout_prob'" in message


def test_a_revision_of_a_local_folder_is_refused(tiny_checkpoint: Path) -> None:
    """A revision that would do nothing is told."""
    assert "Remove `revision`" in told(RecipeError, lambda: opened(tiny_checkpoint, revision="main"))

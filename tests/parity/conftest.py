"""Six tiny random model families, and one small data set in memory, for the tests of the numerics."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel

from hfpipe.recipe import Recipe, load_recipe
from hfpipe.training.engines import loop, trainer
from hfpipe.training.job import Job
from hfpipe.training.prepare import prepare

WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
BYTES = [*VOCABULARY[:5], *sorted(pre_tokenizers.ByteLevel.alphabet())]
CLASSES = ["one", "two", "three"]
ENGINES = {"trainer": trainer.train, "loop": loop.train}
FAMILIES = ("bert", "distilbert", "roberta", "deberta-v2", "electra", "modernbert")
DECODERS = ("gpt2", "llama")
HEADS = ["classifier", "pre_classifier", "head", "score"]


def _config(family: str) -> transformers.PretrainedConfig:
    common = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 66,
        "pad_token_id": 0,
        "num_labels": len(CLASSES),
    }
    if family == "bert":
        return transformers.BertConfig(**common)
    if family == "distilbert":
        return transformers.DistilBertConfig(**common, dim=32, n_layers=2, n_heads=2, hidden_dim=48)
    if family == "roberta":
        return transformers.RobertaConfig(**common)
    if family == "deberta-v2":
        return transformers.DebertaV2Config(
            **common, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16
        )
    if family == "electra":
        return transformers.ElectraConfig(**common, embedding_size=32)
    if family in DECODERS:
        more = {"num_key_value_heads": 1, "attention_dropout": 0.1} if family != "gpt2" else {}
        common |= {"vocab_size": len(BYTES), "pad_token_id": None}
        config = transformers.AutoConfig.for_model(family, **{**common, **more})
        config.bos_token_id, config.eos_token_id = 2, 3
        return config
    dropouts = {f"{place}_dropout": 0.1 for place in ("attention", "embedding", "mlp", "classifier")}
    ids = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return transformers.ModernBertConfig(**common, **dropouts, **ids)


def _tokenizer(family: str) -> transformers.PreTrainedTokenizerFast:
    if family in DECODERS:
        backend = Tokenizer(BPE({token: index for index, token in enumerate(BYTES)}, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        special = {"unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]", "padding_side": "left"}
        return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **special)
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **special)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Bit parity needs the same number of threads everywhere, and tiny models need only one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny random checkpoint of a family, with dropout as the family has it by default."""
    made: dict[str, str] = {}

    def checkpoint(family: str) -> str:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            transformers.AutoModelForSequenceClassification.from_config(_config(family)).save_pretrained(folder)
            _tokenizer(family).save_pretrained(folder)
            made[family] = str(folder)
        return made[family]

    return checkpoint


def rows(count: int, seed: int = 0) -> datasets.Dataset:
    """Random word rows of 3 to 20 words in three classes."""
    rng = random.Random(seed)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=CLASSES)})
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 20))) for _ in range(count)]
    return datasets.Dataset.from_dict(
        {"text": texts, "label": [rng.randrange(3) for _ in range(count)]}, features=features
    )


@pytest.fixture(scope="session")
def data() -> dict[str, datasets.Dataset]:
    """27 rows to train on, so that every batch size of the tests leaves a ragged last batch, and 10 to evaluate on."""
    return {"train": rows(27), "validation": rows(10, seed=1)}


@pytest.fixture(scope="session")
def recipe_for(checkpoints: Callable[[str], str]) -> Callable[..., Recipe]:
    """A recipe for a family with overrides; fp32, a fresh head, two epochs of micro-batches of 4."""

    def recipe(family: str, *overrides: str) -> Recipe:
        fields = {
            "dataset": {"path": "given"},
            "task": {"text": "text"},
            "model": {"checkpoint": checkpoints(family), "fresh": HEADS},
            "optimizer": {"lr": 1e-3},
            "train": {"epochs": 2, "batch_size": 4, "precision": "fp32"},
        }
        return load_recipe(fields, overrides)

    return recipe


@pytest.fixture(scope="session")
def no_dropout() -> Callable[[str], list[str]]:
    """The overrides that switch every dropout of a family off."""

    def overrides(family: str) -> list[str]:
        config = _config(family)
        names = [name for name, value in config.to_dict().items() if "drop" in name and isinstance(value, float)]
        assert names
        return [f"model.config.{name}=0.0" for name in names]

    return overrides


@pytest.fixture(scope="session")
def train_with() -> Callable[..., tuple[Job, list[dict[str, Any]]]]:
    """Prepare a recipe, train it with an engine, and return the job and its records, without the timings.

    With `double` the model computes in float64, where the last digits of a processor's fp32 kernels play no part.
    """

    def train(
        recipe: Recipe, engine: str, data: dict[str, datasets.Dataset], *, double: bool = False, **parts: Any
    ) -> tuple[Job, list[dict[str, Any]]]:
        job = prepare(recipe, dataset=data, **parts)
        if double:
            job.model.double()
        records: list[dict[str, Any]] = []
        ENGINES[engine](job, records.append)
        for record in records:
            record.pop("seconds", None)
        return job, records

    return train


@pytest.fixture(scope="session")
def weight_difference() -> Callable[[Job, Job], float]:
    """The largest absolute difference between the weights of two jobs."""

    def difference(first: Job, second: Job) -> float:
        ours, theirs = first.model.state_dict(), second.model.state_dict()
        assert ours.keys() == theirs.keys()
        return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)

    return difference


@pytest.fixture
def assert_engines_agree(
    train_with: Callable[..., tuple[Job, list[dict[str, Any]]]],
    data: dict[str, datasets.Dataset],
    weight_difference: Callable[[Job, Job], float],
) -> Callable[[Recipe], tuple[Job, list[dict[str, Any]]]]:
    """Train a recipe with both engines, whose records and weights must differ by exactly 0: the loop's job and records."""

    def train(recipe: Recipe) -> tuple[Job, list[dict[str, Any]]]:
        (by_trainer, of_trainer), (by_loop, of_loop) = (train_with(recipe, engine, data) for engine in ENGINES)
        assert of_trainer == of_loop
        assert weight_difference(by_trainer, by_loop) == 0.0
        return by_loop, of_loop

    return train


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what a test writes."""
    return tmp_path_factory.mktemp("scratch")

"""What holds for every test: one thread, no network, a Hugging Face cache of its own, real data only on request."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

REALDATA_HOME = os.environ.get("HFPIPE_REALDATA_HOME")

# Before the first import of torch or of the Hub's libraries, which read these once. One thread, because two workers
# share the cores and because sums in another order differ in the last bit.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg")
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1")

_own_home = None if REALDATA_HOME else tempfile.TemporaryDirectory(prefix="hfpipe-tests-")
os.environ["HF_HOME"] = REALDATA_HOME or _own_home.name
for narrower in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HF_TOKEN"):
    os.environ.pop(narrower, None)  # each would win over HF_HOME


_imported = 0


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what can't run here, with the reason; keep what was imported out of the collector's sight.

    Every training ends with full collections, and each would walk through all that torch and transformers made at import:
    half of the time of the whole suite.
    """
    global _imported
    if len(sys.modules) > _imported + 20:
        gc.collect()
        gc.freeze()
        _imported = len(sys.modules)
    if item.get_closest_marker("realdata") and not REALDATA_HOME:
        pytest.skip("HFPIPE_REALDATA_HOME names no Hugging Face cache with the real data")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip(
                f"torch {torch.__version__} finds no CUDA device here; scripts/gpu_check.sh runs these where there is one"
            )


def pytest_unconfigure() -> None:
    """Remove the cache that this process made for itself."""
    if _own_home is not None:
        _own_home.cleanup()


_WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer BERT without a head, and a word-level tokenizer of its 130 entries."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS]
    rules = Tokenizer(models.WordLevel({word: row for row, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    columns = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=rules, model_max_length=64, model_input_names=columns, **special
    ).save_pretrained(folder)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=66, pad_token_id=0, **layers)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs() -> dict[str, list[dict[str, Any]]]:
    """Rows of sentence pairs by split; 1 means that both sentences begin with the same word."""
    random = Random(0)
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, rows in (("train", 44), ("validation", 21), ("test", 10)):
        splits[split] = []
        for row in range(rows):
            first = random.choices(_WORDS, k=random.randint(3, 9))
            second = [first[0] if row % 2 else "bak", *random.choices(_WORDS, k=random.randint(2, 9))]
            pair = {"sentence1": " ".join(first), "sentence2": " ".join(second)}
            splits[split].append({**pair, "label": -1 if split == "test" else row % 2, "idx": row})
    return splits


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory, pairs: dict[str, list[dict[str, Any]]]) -> Path:
    """A local data set as the Hub has them: parquet files, and a README with configurations and class names."""
    folder = tmp_path_factory.mktemp("data") / "pairs"
    write_data_folder(folder, pairs)
    return folder


def write_data_folder(folder: Path, splits: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write a parquet file a split, and a README that names the files and the classes."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}.parquet")
    files = "".join(f"  - {{split: {split}, path: {split}.parquet}}\n" for split in splits)
    columns = "".join(f"  - {{name: {name}, dtype: string}}\n" for name in ("sentence1", "sentence2"))
    columns += "  - {name: label, dtype: {class_label: {names: {'0': other, '1': same}}}}\n"
    columns += "  - {name: idx, dtype: int64}\n"
    described = f"configs:\n- config_name: default\n  data_files:\n{files}dataset_info:\n  features:\n{columns}"
    (folder / "README.md").write_text(f"---\n{described}---\nPairs.\n", encoding="utf-8")


@pytest.fixture
def data_folder() -> Callable[[Path, Mapping[str, list[dict[str, Any]]]], None]:
    """Writes a data set as `pairs_folder` is one."""
    return write_data_folder


@pytest.fixture(scope="session")
def tiny_fields(pairs_folder: Path, tiny_checkpoint: Path) -> Callable[..., dict[str, Any]]:
    """The fields of a recipe on pairs, with the sections that are given."""

    def fields(**sections: Any) -> dict[str, Any]:
        return {
            "name": "tiny",
            "dataset": {"path": str(pairs_folder)},
            "task": {"text": ["sentence1", "sentence2"]},
            "model": {"checkpoint": str(tiny_checkpoint)},
            "optimizer": {"lr": 1e-3},
            **sections,
        }

    return fields


@pytest.fixture(scope="session")
def two_epochs(tiny_fields: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The fields of a recipe that trains in a second: 6 steps an epoch, 2 epochs, the last batch ragged."""

    def fields(best: str = "accuracy") -> dict[str, Any]:
        train = {"epochs": 2, "batch_size": 8, "precision": "fp32"}
        return tiny_fields(train=train, evaluate={"metrics": ["accuracy", "f1"], "best": best})

    return fields


@pytest.fixture
def recipe_fields(two_epochs: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The same, as nearly all tests take them."""
    return two_epochs()


@pytest.fixture(scope="module")
def pairs_run(tiny_fields: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of one step, whose classes are called other and same."""
    import hfpipe

    fields = tiny_fields(train={"max_steps": 1, "precision": "fp32"}, evaluate={"every": "never"}, engine="loop")
    return hfpipe.finetune(fields, runs_dir=tmp_path_factory.mktemp("runs"), name="pairs")


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's figures take longer than these runs, and say nothing of them."""
    monkeypatch.setattr("hfpipe.reports.write_report", lambda run: None)


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """A script of scripts/ as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent / "scripts" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)  # its dataclasses look their own module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def telling_apart() -> Callable[[Any, list[Any]], Any]:
    """Gives a run a head whose classes are equally likely over some rows, so that these get different labels."""
    import numpy as np
    import torch
    from safetensors.torch import load_file, save_file

    from hfpipe.system.manifest import digests

    def change(run: Any, rows: list[Any]) -> Any:
        weights = run.path / "model" / "model.safetensors"
        shares = np.array([[*row["probabilities"].values()] for row in run.predict(rows)])
        tensors = load_file(weights)
        tensors["classifier.bias"] -= torch.tensor(np.log(shares).mean(axis=0), dtype=torch.float32)
        save_file(tensors, weights, metadata={"format": "pt"})
        run.update_metadata(model=digests(run.path / "model"))
        return run

    return change


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be exactly one JSON object."""
        found = json.loads(self.out)
        assert isinstance(found, dict), self.out
        return found


@pytest.fixture
def hfpipe_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `hfpipe ARGUMENTS` in this process, through the entry point of the script."""
    from hfpipe.cli import app as cli

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["hfpipe", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code
        printed = capsys.readouterr()
        return Outcome(0 if code is None else int(code), printed.out, printed.err)

    return run

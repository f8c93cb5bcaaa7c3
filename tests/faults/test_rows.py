"""Faults of classes, lengths, checkpoints and caches; each test bears the number of its fault.

The faults 48, 53 and 56 (an unknown language) are in parts/inputs/test_audit.py, 31 to 47, 49, 51, 52, 55 and 60 in
faults/test_data.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers

import hfpipe
from hfpipe.errors import DataError, HfpipeError, ModelError
from hfpipe.evaluation.prediction.predict import predict
from hfpipe.parts.inputs import tokenized
from hfpipe.parts.inputs.rows import read_rows
from hfpipe.recipe import Recipe, load_recipe
from hfpipe.system import manifest
from hfpipe.training.prepare import prepare

TEXTS = ["bak bal", "bam ban", "bap bek", "bel bem", "ben bep", "bik bil", "bim bin", "bip bok"]


def rows(labels: list[int], names: list[str], texts: list[str] | None = None) -> datasets.Dataset:
    """Rows with these classes."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict({"text": texts or TEXTS[: len(labels)], "label": labels}, features=features)


def recipe_for(checkpoint: Path, *overrides: str) -> Recipe:
    """A recipe of one step for rows with `text` and `label`."""
    fields = {
        "dataset": {"path": "given"},
        "task": {"text": "text"},
        "model": {"checkpoint": str(checkpoint)},
        "train": {"max_steps": 1, "batch_size": 4, "precision": "fp32"},
    }
    return load_recipe(fields, overrides)


def data(labels: list[int] | None = None, names: list[str] | None = None) -> dict[str, datasets.Dataset]:
    """A training and a validation split."""
    classes = names or ["no", "yes"]
    other = rows([1, 0], classes, ["bom bon", "bop buk"])
    return {"train": rows(labels or [0, 1] * 4, classes), "validation": other}


def test_fault_50_classes_in_another_order_in_another_split(tiny_checkpoint: Path) -> None:
    """A validation split that numbers the classes otherwise is refused with both orders, exit 3."""
    given = data() | {"validation": rows([1, 0], ["yes", "no"])}
    with pytest.raises(DataError, match=r"\['yes', 'no'\]; allowed: \['no', 'yes'\], as in training") as caught:
        read_rows(recipe_for(tiny_checkpoint), dataset=given)
    assert caught.value.exit_code == 3


def test_fault_50_classes_in_another_order_in_the_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint whose head was trained for the classes in another order is refused, unless the recipe declares it."""
    run = hfpipe.finetune(recipe_for(tiny_checkpoint), runs_dir=tmp_path, name="first", dataset=data())
    swapped = data(names=["yes", "no"])
    with pytest.raises(ModelError, match=r"a head for the classes \['no', 'yes'\]") as caught:
        prepare(recipe_for(run.path / "model"), dataset=swapped)
    assert caught.value.exit_code == 4
    declared = recipe_for(run.path / "model", "task.label={column: label, names: [no, yes]}")
    job = prepare(declared, dataset=swapped)
    assert job.train_data["labels"][:] == [1, 0] * 4  # the data's 0 is yes, and that is the head's 1


@pytest.mark.parametrize("wanted", [None, 64, 1000])
def test_fault_54_no_input_is_longer_than_the_model_takes(wanted: int | None, tiny_checkpoint: Path) -> None:
    """A text of 500 words is cut at the model's own bound whatever the tokenizer or the recipe says, and it is told."""
    config = transformers.AutoConfig.from_pretrained(tiny_checkpoint)
    long = data() | {"train": rows([0, 1], ["no", "yes"], [" ".join(TEXTS * 32), "bak"])}
    changes = [] if wanted is None else [f"model.max_length={wanted}"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.model_max_length = int(1e30)  # as a tokenizer without that setting has it
    job = prepare(recipe_for(tiny_checkpoint, *changes), dataset=long, tokenizer=tokenizer)
    longest = max(len(row) for row in job.train_data["input_ids"])
    assert longest == min(wanted or 10**9, config.max_position_embeddings)
    assert any("1 of 2 inputs reach max_length" in notice for notice in job.notices)


def test_fault_57_a_head_for_other_classes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A head of two classes under data of three is refused; declared fresh, it starts anew and the run says so."""
    run = hfpipe.finetune(recipe_for(tiny_checkpoint), runs_dir=tmp_path, name="two", dataset=data())
    three = data([0, 1, 2, 0, 1, 2, 0, 1], ["a", "b", "c"])
    with pytest.raises(ModelError, match="has a head for the classes") as caught:
        prepare(recipe_for(run.path / "model"), dataset=three)
    assert caught.value.exit_code == 4
    job = prepare(recipe_for(run.path / "model", "model.fresh=[classifier]"), dataset=three)
    assert job.fresh == ["classifier.bias", "classifier.weight"]
    assert any("freshly initialised from seed 42: classifier.bias" in notice for notice in job.notices)


def test_fault_57_a_language_model_as_a_classifier(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """What a checkpoint of masked language modelling lacks starts fresh only when declared: from the seed, and named."""
    config = transformers.AutoConfig.from_pretrained(tiny_checkpoint)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "mlm")
    transformers.AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / "mlm")
    with pytest.raises(ModelError, match=r"lacks bert\.pooler\.dense\.bias, bert\.pooler\.dense\.weight") as caught:
        prepare(recipe_for(tmp_path / "mlm"), dataset=data())
    assert caught.value.exit_code == 4
    declared = recipe_for(tmp_path / "mlm", "model.fresh=[bert.pooler]")
    first, again = (prepare(declared, dataset=data()) for _ in range(2))
    assert {"classifier.bias", "classifier.weight", "bert.pooler.dense.weight"} <= set(first.fresh)
    assert (first.model.classifier.weight == again.model.classifier.weight).all()


def test_fault_56_the_vocabulary_of_a_run_is_permuted(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A run whose saved tokenizer no longer is the one that it was trained with is not measured and labels nothing."""
    data_file = tmp_path / "rows.csv"
    data_file.write_text("text,label\n" + "".join(f"{text},{row % 2}\n" for row, text in enumerate(TEXTS)))
    files = f"dataset={{path: csv, data_files: {{train: {data_file}, validation: {data_file}}}}}"
    run = hfpipe.finetune(recipe_for(tiny_checkpoint, files), runs_dir=tmp_path / "runs", name="whole")
    assert hfpipe.evaluate(run).examples == len(TEXTS)
    saved = run.path / "model" / "tokenizer.json"
    rules = json.loads(saved.read_text())
    vocabulary = rules["model"]["vocab"]
    vocabulary["bak"], vocabulary["bup"] = vocabulary["bup"], vocabulary["bak"]
    saved.write_text(json.dumps(rules))
    for use in (hfpipe.evaluate, lambda changed: predict(changed, data_file)):
        with pytest.raises(
            ModelError, match=r"tokenizer\.json has changed: it is not the one that run 'whole' wrote"
        ) as caught:
            use(run)
        assert caught.value.exit_code == 4


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the folder where it keeps tokens."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "hfpipe" / "tokens"


def test_fault_58_older_code_has_its_own_tokens(
    tiny_checkpoint: Path, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier version of the tokenizing code left in the cache is not served to this one."""
    recipe, given = recipe_for(tiny_checkpoint), data()
    read_rows(recipe, dataset=given)
    assert read_rows(recipe, dataset=given).encoded["train"].seconds is None
    monkeypatch.setattr(tokenized, "digest_of_code", lambda *paths: "the next version")
    assert read_rows(recipe, dataset=given).encoded["train"].seconds is not None


def _altered(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_altered, "data.arrow has changed since it was written"),
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "data.arrow has "),
        (lambda file: file.unlink(), "data.arrow is missing"),
        (lambda file: (file.parent / "manifest.json").write_text("{"), "manifest.json has changed"),
    ],
    ids=["altered", "truncated", "deleted", "manifest"],
)
def test_fault_59_damaged_tokens_are_made_again(damage: Any, told: str, tiny_checkpoint: Path, tokens: Path) -> None:
    """An altered, truncated or deleted file of the cache is found, made again once, and told as a notice."""
    recipe, given = recipe_for(tiny_checkpoint), data()
    sound = read_rows(recipe, dataset=given).encoded["train"].data[:]
    for file in tokens.glob("*/data.arrow"):
        damage(file)
    job = prepare(recipe, dataset=given)
    assert job.train_data[:] == sound
    assert [one for one in job.notices if one.startswith(f"the cached tokens of train were made again: {told}")]
    assert not [notice for notice in prepare(recipe, dataset=given).notices if "made again" in notice]


def test_a_broken_write_leaves_no_half_cache(
    tiny_checkpoint: Path, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends while it tokenizes leaves nothing that a later run would take for whole."""

    def stop(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(manifest, "write", stop)
        patched.setattr(tokenized, "digest_of_code", lambda *paths: "x")
        with pytest.raises((KeyboardInterrupt, HfpipeError)):
            read_rows(recipe_for(tiny_checkpoint), dataset=data())
    assert list(tokens.iterdir()) == []
    shutil.rmtree(tokens)

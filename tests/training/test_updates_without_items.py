"""An update in which no label counts: its rows are told before the first step, it changes nothing, and no run ends at it."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from stopped import Dying, Killed, digest, records

import hfpipe
from hfpipe.errors import DataError
from hfpipe.parts.inputs.buckets import shuffled

ENGINES = ("trainer", "loop")
WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]

pytestmark = pytest.mark.usefixtures("no_report")


def tokens(empty: set[int], rows: int = 9) -> list[dict[str, Any]]:
    """Sentences of words with a class each; these rows have no word."""
    draw = random.Random(1)
    texts = [[] if row in empty else draw.choices(WORDS, k=draw.randint(2, 6)) for row in range(rows)]
    return [{"tokens": text, "tags": ["O" if word < "d" else "B-x" for word in text]} for text in texts]


def classes(empty: set[int], rows: int = 9) -> list[dict[str, Any]]:
    """Texts of a class; these rows have the label -100."""
    draw = random.Random(1)
    return [
        {"text": " ".join(draw.choices(WORDS, k=4)), "label": -100 if row in empty else row % 2} for row in range(rows)
    ]


def fields(folder: Path, checkpoint: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A recipe of two epochs over the rows in batches of four, so that the last update of an epoch has one row."""
    folder.mkdir(exist_ok=True)
    whole = [row for row in rows if row.get("tokens") != [] and row.get("label") != -100]
    for name, part in (("train", rows), ("validation", whole)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    of_tokens = "tokens" in rows[0]
    return {
        "dataset": {"path": "json", "data_files": {s: str(folder / f"{s}.jsonl") for s in ("train", "validation")}},
        "task": {"kind": "token-classification", "text": "tokens", "label": "tags"}
        if of_tokens
        else {"text": "text", "label": {"column": "label", "names": ["no", "yes"]}},
        "model": {"checkpoint": str(checkpoint)},
        "optimizer": {"lr": 1e-3, "weight_decay": 0.1},
        "train": {"epochs": 2, "batch_size": 4, "precision": "fp32"},
        "evaluate": {"metrics": ["accuracy"] if not of_tokens else []},
        "checkpoints": {"every": "never", "every_steps": 1},
    }


@pytest.mark.parametrize("make", [tokens, classes])
def test_both_engines_pass_it_and_a_resume_crosses_it(make: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The rows are told; the step is counted, moves the schedule and nothing else; all steps are those of the whole run.

    The empty row stands alone in the last update of the second epoch, step 6 of 6; with three more steps of a row each it
    stands somewhere in the middle.
    """
    last = int(shuffled(9, 42, 0)[-1])
    recipe = fields(tmp_path / "data", tiny_checkpoint, make({last}))
    runs = {}
    for engine in ENGINES:
        run = runs[engine] = hfpipe.finetune(recipe, engine=engine, runs_dir=tmp_path, name=f"{engine}-whole")
        steps = [record for record in run.records if record["type"] == "step"]
        assert [step["step"] for step in steps] == list(range(1, 7))
        assert [step["num_items"] for step in steps].count(0) == 1
        skipped = steps[2]
        assert (skipped["loss"], skipped["num_items"], skipped["skipped"]) == (None, 0, "no label in it counts")
        assert steps[3]["lr"] < skipped["lr"]  # the schedule goes on over the same steps
        assert run.metadata["skipped_steps"] == {"not_finite": 0, "by_scaler": 0, "without_items": 1}
        told = [record["text"] for record in run.records if record["type"] == "notice"]
        assert any(f"without a label that counts: 1 of 9 (number {last}, from 0)" in text for text in told)
        assert "1 update had no label that counts, and changed nothing" in told
    assert records(runs["trainer"]) == records(runs["loop"])
    assert digest(runs["trainer"]) == digest(runs["loop"])
    for engine in ENGINES:
        for dies_at in (3, 4):
            with pytest.raises(Killed):
                hfpipe.finetune(
                    recipe, engine=engine, runs_dir=tmp_path, name=f"{engine}-{dies_at}", display=Dying(dies_at)
                )
            resumed = hfpipe.finetune(resume=tmp_path / f"{engine}-{dies_at}")
            assert digest(resumed) == digest(runs["loop"])
            assert records(resumed) == records(runs["loop"])


def test_the_weights_and_the_optimizer_stay_as_they_are(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Not even the weight decay or the momentum of Adam moves a weight in such a step."""
    last = int(shuffled(9, 42, 0)[-1])
    recipe = fields(tmp_path / "data", tiny_checkpoint, classes({last}))
    run = hfpipe.finetune(
        recipe,
        runs_dir=tmp_path,
        name="kept",
        overrides=["checkpoints.keep_last=9", "checkpoints.keep_state=true", "evaluate.every=never"],
    )
    from safetensors.torch import load_file

    def state(step: int, name: str) -> dict[str, torch.Tensor]:
        return dict(load_file(run.path / "checkpoints" / f"step-{step:08d}" / name))

    for name in ("model.safetensors", "optimizer.safetensors"):
        before, after, later = (state(step, name) for step in (2, 3, 4))
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert not all(torch.equal(after[key], later[key]) for key in after)


@pytest.mark.parametrize("optimizer", ["updater_sgd", "sgd"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_it_is_passed_whatever_divides(optimizer: str, reduction: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Updates of one row each, half of them empty, accumulation and another reduction: no division by zero."""
    recipe = fields(tmp_path / "data", tiny_checkpoint, tokens({0, 2, 4, 6}))
    overrides = [f"optimizer.name={optimizer}", f"loss.reduction={reduction}", "train.epochs=1", "train.batch_size=1"]
    runs = [
        hfpipe.finetune(recipe, engine=engine, runs_dir=tmp_path, name=engine, overrides=overrides)
        for engine in ENGINES
    ]
    assert digest(runs[0]) == digest(runs[1])
    norms = [record["grad_norm"] for record in runs[0].records if record["type"] == "step"]
    assert sum(norm == 0 for norm in norms) == 4
    assert all(math.isfinite(norm) for norm in norms)


def test_classes_of_weight_zero_make_no_item_either(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """An update of nothing but a class that weighs 0 changes nothing, as one without labels."""
    recipe = fields(tmp_path / "data", tiny_checkpoint, classes(set()))
    overrides = ["loss.class_weights=[0.0, 1.0]", "train.batch_size=1", "train.epochs=1"]
    runs = [
        hfpipe.finetune(recipe, engine=engine, runs_dir=tmp_path, name=engine, overrides=overrides)
        for engine in ENGINES
    ]
    assert digest(runs[0]) == digest(runs[1])
    assert runs[0].metadata["skipped_steps"]["without_items"] == 5


def test_a_stream_passes_it_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """What no one could see before is met at its step, in both engines, and the run goes on."""
    recipe = fields(tmp_path / "data", tiny_checkpoint, classes({1, 3, 5, 7}))
    for split in ("train", "validation"):
        rows = datasets.Dataset.from_json(str(tmp_path / "data" / f"{split}.jsonl"), cache_dir=str(tmp_path / "cache"))
        rows.to_parquet(tmp_path / "data" / f"{split}.parquet")
    files = {split: str(tmp_path / "data" / f"{split}.parquet") for split in ("train", "validation")}
    recipe |= {"dataset": {"path": "parquet", "data_files": files, "streaming": True}}
    overrides = ["train.max_steps=9", "train.batch_size=1"]
    runs = [
        hfpipe.finetune(recipe, engine=engine, runs_dir=tmp_path, name=engine, overrides=overrides)
        for engine in ENGINES
    ]
    assert digest(runs[0]) == digest(runs[1])
    assert records(runs[0]) == records(runs[1])
    assert runs[0].metadata["skipped_steps"]["without_items"] == 4


def test_rows_of_which_none_counts_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Nothing but words that the tokenizer makes nothing of is no training."""
    recipe = fields(tmp_path / "data", tiny_checkpoint, tokens({0}))
    (tmp_path / "data" / "train.jsonl").write_text('{"tokens": [" "], "tags": ["O"]}\n' * 3, encoding="utf-8")
    declared = ["task.label={column: tags, names: [O, B-x]}"]
    with pytest.raises(DataError, match="no input has a label that counts"):
        hfpipe.finetune(recipe, runs_dir=tmp_path, name="none", overrides=declared)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("numbers", [[-100.0, 2.0, -100.0, 5.5, -100.0]])
def test_a_regression_learns_and_is_measured_on_minus_100(
    numbers: list[float], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """-100.0 is a number like others: an item of every update, a row of the evaluation, and it is predicted."""
    rows = [{"text": WORDS[row], "label": number} for row, number in enumerate(numbers)]
    recipe = fields(tmp_path / "data", tiny_checkpoint, rows)
    (tmp_path / "data" / "validation.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    recipe["task"] = {"kind": "text-regression", "text": "text"}
    recipe["evaluate"] = {}
    run = hfpipe.finetune(recipe, runs_dir=tmp_path, name="numbers")
    assert [record["num_items"] for record in run.records if record["type"] == "step"] == [4, 1, 4, 1]
    document = run.read_json("evaluations/validation.json")
    assert (document["examples"], document["scored"]) == (5, 5)
    lines = (run.path / "evaluations" / "validation.examples.jsonl").read_text().splitlines()
    assert [json.loads(line)["reference"] for line in lines] == numbers
    assert run.metrics["mse"] > 1000

"""Training on a stream: the rows it takes, the steps it makes, what it refuses, and that both engines agree on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import hfpipe
from hfpipe.errors import DataError, RecipeError
from hfpipe.evaluation.prediction.predict import predict
from hfpipe.parts.data.streams import open_stream
from hfpipe.parts.inputs.streams import StreamLoader
from hfpipe.recipe import Recipe, load_recipe
from hfpipe.training.prepare import prepare

WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The datasets library rests for five seconds after each pass over several parquet files."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def parquet(file: Path, count: int, label: Any = None, first: int = 0) -> Path:
    """A file of rows whose texts are all different."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": label or datasets.ClassLabel(names=["no", "yes"])}
    )
    texts = [f"{WORDS[row % 125]} {WORDS[(row * 7 + row // 125) % 125]}" for row in range(first, first + count)]
    rows = {"text": texts, "label": [row % 2 for row in range(count)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    return file


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """50 rows to train on in two files, and 10 to evaluate on."""
    return {
        "train": str(parquet(tmp_path / "a.parquet", 25).with_name("*.parquet")),
        "validation": str(parquet(tmp_path / "a.parquet", 25).parent / "v" / "v.parquet"),
    } | {"made": str(_made(tmp_path))}


def _made(folder: Path) -> Path:
    parquet(folder / "b.parquet", 25, first=25)
    (folder / "v").mkdir()
    return parquet(folder / "v" / "v.parquet", 10, first=60)


def recipe_for(files: dict[str, str], checkpoint: Path, *overrides: str) -> Recipe:
    """A streamed recipe of six steps of eight rows."""
    fields = {
        "dataset": {
            "path": "parquet",
            "data_files": {"train": files["train"], "validation": files["validation"]},
            "streaming": True,
            "shuffle_buffer": 16,
        },
        "task": {"text": "text"},
        "model": {"checkpoint": str(checkpoint)},
        "optimizer": {"lr": 1e-3},
        "train": {"max_steps": 6, "batch_size": 8, "precision": "fp32"},
    }
    return load_recipe(fields, overrides)


def texts_of(loader: Any, job: Any) -> list[list[str]]:
    """The texts of each micro-batch."""
    return [[job.tokenizer.decode(row, skip_special_tokens=True) for row in batch["input_ids"]] for batch in loader]


def test_a_pass_takes_every_row_once_in_an_order_of_the_seed(files: dict[str, str], tiny_checkpoint: Path) -> None:
    """Seven micro-batches of 8 are the 50 rows, each once, shuffled by the seed; then the stream begins anew."""
    recipe = recipe_for(files, tiny_checkpoint, "train.max_steps=14")
    job = prepare(recipe)
    assert isinstance(job.loader, StreamLoader)
    batches = texts_of(job.loader, job)
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 8, 2] * 2
    first, second = [[text for batch in part for text in batch] for part in (batches[:7], batches[7:])]
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 50
    assert first != second != sorted(second)
    assert texts_of(job.loader, job) == batches
    other = prepare(recipe_for(files, tiny_checkpoint, "train.max_steps=14", "seed=7"))
    assert texts_of(other.loader, other) != batches


def test_two_processes_share_the_rows_of_one(files: dict[str, str], tiny_checkpoint: Path) -> None:
    """A micro-step of two processes has the rows that one process with twice the batch has; a spare one gets a blank."""
    job = prepare(recipe_for(files, tiny_checkpoint, "train.max_steps=4", "train.batch_size=16"))
    whole = texts_of(job.loader, job)
    recipe = recipe_for(files, tiny_checkpoint, "train.max_steps=4", "train.batch_size=8")
    stream = open_stream(recipe).stream("train", "here")
    shares = [
        StreamLoader(stream, recipe, job.task, job.tokenizer, 64, job.collate, rank=rank, processes=2)
        for rank in (0, 1)
    ]
    together = [a + b for a, b in zip(*(texts_of(share, job) for share in shares), strict=True)]
    assert together == whole
    one_each = recipe_for(files, tiny_checkpoint, "train.max_steps=1", "train.batch_size=1")
    first, last = (
        next(iter(StreamLoader(stream, one_each, job.task, job.tokenizer, 64, job.collate, rank=rank, processes=60)))
        for rank in (0, 59)
    )
    assert first["labels"].tolist() != [-100]
    spare = StreamLoader(stream, one_each, job.task, job.tokenizer, 64, job.collate, rank=59, processes=60)
    next(iter(spare))
    assert spare.examples == 50  # a blank is no example
    assert last["labels"].tolist() == [-100]  # 50 rows for 60 processes


@pytest.mark.parametrize("workers", [0, 1])
def test_both_engines_take_the_same_steps(
    files: dict[str, str], tiny_checkpoint: Path, tmp_path: Path, workers: int
) -> None:
    """Trainer and loop end with the same weights, bit for bit, dropout on, with and without a worker."""
    runs = [
        hfpipe.finetune(
            recipe_for(files, tiny_checkpoint, f"train.workers={workers}", "train.accumulate=2"),
            engine=engine,
            runs_dir=tmp_path,
            name=engine,
        )
        for engine in ("trainer", "loop")
    ]
    first, second = (run.model().state_dict() for run in runs)
    assert all(torch.equal(first[key], second[key]) for key in first)
    records = [[record for record in run.records if record["type"] == "step"] for run in runs]
    assert records[0] == records[1]
    assert len(records[0]) == 6
    summary = runs[0].read_json("metrics.json")
    # Of 50 rows a pass: micro-batches of 8, the seventh of 2, and twelve of them in six steps.
    assert [record["examples"] for record in records[0]] == [16, 32, 48, 50 + 8, 50 + 24, 50 + 40]
    assert summary["trained_examples"] == 90
    assert summary["examples"] == 10
    measured = hfpipe.evaluate(runs[0])
    assert measured.metrics == runs[0].metrics
    assert len(predict(runs[0], Path(files["validation"]))) == 10
    assert any("its first 50 rows are what is looked at here" in r["text"] for r in runs[0].records if "text" in r)


def test_a_slice_of_a_stream(files: dict[str, str], tiny_checkpoint: Path) -> None:
    """A slice by row numbers skips and takes; one by percent is refused, since the length is not known."""
    source = open_stream(recipe_for(files, tiny_checkpoint))
    assert len(source.split("train[10:14]", "here")) == 4
    assert source.split("train[10:14]", "here")["text"][:] == source.split("train", "here")["text"][10:14]
    with pytest.raises(RecipeError, match="needs the length of the split"):
        source.stream("train[:10%]", "here")
    with pytest.raises(DataError, match="has no split 'trian'; did you mean 'train'"):
        source.stream("trian", "here")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train.max_steps=null", "`train.max_steps` is missing"),
        ("dataset.splits.hold_out=0.1", "`dataset.splits.hold_out` needs the whole split"),
        ("loss.class_weights=balanced", "give them as a list"),
        ("train.workers=2", "would each read the whole stream"),
        ("dataset.streaming=false", "`dataset.shuffle_buffer` does nothing"),
    ],
)
def test_what_a_stream_can_not_do_is_refused(
    change: str, told: str, files: dict[str, str], tiny_checkpoint: Path
) -> None:
    """Whatever needs the whole split is refused where the recipe is read."""
    changes = [change] if "hold_out" not in change else [change, "dataset.splits.evaluation=held_out"]
    with pytest.raises(RecipeError, match=told):
        recipe_for(files, tiny_checkpoint, *changes)


def test_classes_that_only_the_first_rows_show_must_be_declared(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Whole numbers without class names may have others further on: they are declared, or refused."""
    file = str(parquet(tmp_path / "n.parquet", 20, datasets.Value("int64")))
    files = {"train": file, "validation": file}
    with pytest.raises(RecipeError, match=r"Declare them: label: \{column: label, names: \[0, 1\]\}"):
        prepare(recipe_for(files, tiny_checkpoint))
    job = prepare(recipe_for(files, tiny_checkpoint, "task.label={column: label, names: [no, yes]}"))
    assert job.task.names == ("no", "yes")


def test_a_bad_row_far_down_the_stream_stops_the_run(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """A label outside the classes after the rows that were looked at is an error when it is read, not a wrong step."""
    rows = {"text": ["bak bal"] * 1500, "label": [0, 1] * 749 + [0, 5]}
    file = tmp_path / "late.parquet"
    datasets.Dataset.from_dict(rows).to_parquet(file)
    files = {"train": str(file), "validation": str(file)}
    recipe = recipe_for(
        files,
        tiny_checkpoint,
        "task.label={column: label, names: [no, yes]}",
        "dataset.splits.evaluation=validation[:100]",
        "train.max_steps=300",
    )
    with pytest.raises(DataError, match="label 5 is outside the 2 classes"):
        hfpipe.finetune(recipe, runs_dir=tmp_path / "runs")

"""From a file as it is published or exported to a trained run, its evaluation and its predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hfpipe


@pytest.fixture
def train(tiny_checkpoint: Path, tmp_path: Path, no_report: None) -> Any:
    """Trains two steps on the files in the test's folder."""

    def run(task: dict[str, Any], metric: str, **dataset: Any) -> hfpipe.Run:
        fields = {
            "dataset": dataset,
            "task": task,
            "model": {"checkpoint": str(tiny_checkpoint)},
            "train": {"max_steps": 2, "batch_size": 4, "precision": "fp32"},
            "evaluate": {"metrics": [metric], "every": "never"},
            "engine": "loop",
        }
        (tmp_path / "recipe.yaml").write_text(json.dumps(fields))
        return hfpipe.finetune(tmp_path / "recipe.yaml", runs_dir=tmp_path / "runs")

    return run


@pytest.mark.parametrize("version", ["1.1", "v2.0"])
def test_squad_files_train_and_measure_question_answering(train: Any, tmp_path: Path, version: str) -> None:
    """Both versions as they are published: the impossible questions count as such, and the same file is predicted."""
    qas: list[dict[str, Any]] = [
        {"id": "a", "question": "bel", "answers": [{"text": "bel", "answer_start": 4}]},
        {"id": "b", "question": "fum", "answers": [{"text": "fum", "answer_start": 8}]},
    ]
    if version == "v2.0":
        qas = [{**one, "is_impossible": False} for one in qas]
        wrong = [{"text": "bak", "answer_start": 0}]
        qas.append({"id": "c", "question": "dop", "answers": [], "plausible_answers": wrong, "is_impossible": True})
    paragraphs = [{"context": "bak bel fum", "qas": qas}] * 3
    document = {"version": version, "data": [{"title": "T", "paragraphs": paragraphs}]}
    for split in ("train", "dev"):
        (tmp_path / f"{split}.json").write_text(json.dumps(document))
    task = {"kind": "question-answering", "text": ["question", "context"], "label": "answers", "stride": 8}
    run = train(task, "squad", path="json", data_files={"train": "train.json", "validation": "dev.json"})
    assert len(run.read_json("audit.json")["splits"]) == 2
    assert {"exact_match", "f1"} <= set(run.metrics)
    assert ("no_answer_f1" in run.metrics) == (version == "v2.0")
    told = [record["text"] for record in run.records if record["type"] == "notice"]
    assert any("each question is a row" in text for text in told)
    assert hfpipe.evaluate(run).metrics == run.metrics
    assert len(run.predict(tmp_path / "dev.json")) == 3 * len(qas)


def test_conll_files_train_and_measure_token_classification(train: Any, tmp_path: Path) -> None:
    """A folder of train.conll and dev.conll is trained on with its tags, its entities are measured, and sentences predicted."""
    for split in ("train", "dev"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split}.conll").write_text(
            "-DOCSTART- O\n\n" + "bak B-X\nbel I-X\nfum O\n\ndop O\n\n" * 6
        )
    task = {"kind": "token-classification", "text": "tokens", "label": "ner"}
    run = train(task, "seqeval", path="./data")
    assert run.metrics["X_support"] == 6
    assert hfpipe.evaluate(run).metrics == run.metrics
    (row,) = run.predict(["bak bel, fum."])
    assert row["words"] == ["bak", "bel", ",", "fum", "."]
    assert row["offsets"] == [[0, 3], [4, 7], [7, 8], [9, 12], [12, 13]]


def test_a_spreadsheet_of_another_country_trains_a_regression(train: Any, tmp_path: Path) -> None:
    """Semicolons, decimal commas and UTF-16: exported as it is, and measured on a file of the same kind."""
    lines = "text;value\r\n" + "".join(f'"bak bel fum dop bak bel; fum";{n},5\r\n' for n in range(8))
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_bytes(lines.encode("utf-16"))
    task = {"kind": "text-regression", "text": "text", "label": "value"}
    files = {"train": "train.csv", "validation": "test.csv"}
    run = train(task, "mae", path="csv", data_files=files, separator=";", decimal=",")
    measured = hfpipe.evaluate(run)
    assert measured.metrics == run.metrics
    values = [row["value"] for row in run.predict(tmp_path / "test.csv")]
    assert measured.metrics["mae"] == pytest.approx(
        sum(abs(one - n - 0.5) for n, one in enumerate(values)) / 8, abs=1e-4
    )

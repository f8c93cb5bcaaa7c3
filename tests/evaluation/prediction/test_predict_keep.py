"""`hfpipe predict --keep` and `predict(..., keep=...)`: columns of the input beside the labels."""

from __future__ import annotations

import csv
import datetime
import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import hfpipe
from hfpipe.errors import DataError, RecipeError
from hfpipe.evaluation.prediction import predict_rows as prediction
from hfpipe.evaluation.prediction.predict import predict_file

ROWS = [
    {"id": f"00{row}", "sentence1": "bak cek", "sentence2": f"b{'aeiou'[row % 5]}k", "old": None} for row in range(11)
]


@pytest.fixture
def run(pairs_run: hfpipe.Run) -> hfpipe.Run:
    """A run on pairs."""
    return pairs_run


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a file of the format that its ending says."""
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_columns_are_copied_into_every_row(
    run: hfpipe.Run, tmp_path: Path, form: str, hfpipe_command: Callable[..., Any]
) -> None:
    """Before the labels, which are the same as without, in all formats of input and output and in any chunk."""
    source = written(tmp_path / f"rows.{form}", ROWS)
    plain = hfpipe.predict(run, source)
    nothing = "" if form == "csv" else None
    expected = [
        {"id": row["id"], "old": nothing, "sentence2": row["sentence2"], **said}
        for row, said in zip(ROWS, plain, strict=True)
    ]
    given = ["--keep", "id,old", "--keep", "sentence2", "--keep", "id"]
    printed = [json.loads(line) for line in hfpipe_command("predict", run.path, source, *given).out.splitlines()]
    assert [list(row) for row in printed] == [["id", "old", "sentence2", "label", "score", "probabilities"]] * 11
    assert printed == expected
    assert hfpipe.predict(run, source, keep=["id", "old", "sentence2"], chunk_rows=2)[3]["id"] == "003"
    for ending in ("jsonl", "csv", "parquet"):
        output = tmp_path / f"out.{ending}"
        assert hfpipe_command("predict", run.path, source, *given, "--output", output).code == 0
        if ending == "jsonl":
            assert [json.loads(line) for line in output.read_text().splitlines()] == expected
        elif ending == "csv":
            with open(output, newline="") as file:
                found = list(csv.DictReader(file))
            assert [(row["id"], row["old"], row["label"]) for row in found] == [
                (row["id"], "", row["label"]) for row in expected
            ]
        else:
            table = pa.parquet.read_table(output)
            assert table.column_names[:4] == ["id", "old", "sentence2", "label"]
            assert table.column("old").to_pylist() == [nothing] * 11


def test_rows_in_memory_keep_columns(run: hfpipe.Run) -> None:
    """From Python the same, for mappings; a text has no column to keep."""
    assert [row["id"] for row in run.predict(ROWS, keep=["id"])] == [row["id"] for row in ROWS]
    with pytest.raises(RecipeError, match=r"row 0 \(counted from 0\) has no column 'id'"):
        run.predict([("bak", "cek")], keep=["id"])


def test_values_that_json_has_no_word_for(run: hfpipe.Run, tmp_path: Path) -> None:
    """A date of parquet becomes its text and what is no number null; half a surrogate pair is told with its row."""
    when = datetime.datetime(2026, 1, 2, 3, 4, 5)
    rows = [{**row, "when": when, "share": math.nan, "tags": [1, 2]} for row in ROWS]
    (found, *_) = hfpipe.predict(run, written(tmp_path / "rows.parquet", rows), keep=["when", "share", "tags"])
    assert [found["when"], found["share"], found["tags"]] == ["2026-01-02 03:04:05", None, [1, 2]]
    broken = written(tmp_path / "rows.jsonl", [ROWS[0], {**ROWS[1], "id": "\ud800"}])
    with pytest.raises(DataError, match=r"rows\.jsonl:2: 'id' has half of a surrogate pair"):
        hfpipe.predict(run, broken, keep=["id"])


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_column_that_is_not_there(run: hfpipe.Run, tmp_path: Path, form: str, hfpipe_command: Any) -> None:
    """Exit 2 with the near names, before weights are loaded."""
    source = written(tmp_path / f"rows.{form}", ROWS)
    done = hfpipe_command("predict", run.path, source, "--keep", "sentence")
    assert done.code == 2
    assert f"--keep: {source} has no column 'sentence'; did you mean 'sentence2' or 'sentence1'" in done.err
    assert "allowed: id, sentence1, sentence2, old" in done.err
    assert "loading" not in done.err


@pytest.mark.parametrize("name", ["label", "score", "probabilities", "probability_same"])
def test_a_column_under_a_name_that_is_taken(run: hfpipe.Run, tmp_path: Path, name: str, hfpipe_command: Any) -> None:
    """Exit 2: what the input says and what the model says are not mixed up."""
    source = written(tmp_path / "rows.jsonl", [{**row, name: 1} for row in ROWS])
    done = hfpipe_command("predict", run.path, source, "--keep", name)
    assert done.code == 2
    assert f"--keep: {name!r} is the name of a column that hfpipe writes itself" in done.err


def test_glue_keeps_nothing(run: hfpipe.Run, hfpipe_command: Any) -> None:
    """The server's files have columns of their own: exit 2."""
    done = hfpipe_command("predict", run.path, "--glue", "--keep", "id")
    assert done.code == 2
    assert "--keep does nothing with --glue" in done.err


def test_other_kept_values_are_another_input(run: hfpipe.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that was stopped goes on only with the same kept columns, and the same values in them."""
    output, source = tmp_path / "out.jsonl", written(tmp_path / "rows.jsonl", ROWS)
    chunks, label = [0], prediction.predict_chunk

    def stops(*arguments: Any) -> Any:
        chunks[0] += 1
        if chunks[0] == 2:
            raise DataError("stopped here")
        return label(*arguments)

    monkeypatch.setattr(prediction, "predict_chunk", stops)
    with pytest.raises(DataError, match="stopped here"):
        predict_file(run, source, output, keep=["id"])
    with pytest.raises(RecipeError, match="it was started with another set of options"):
        predict_file(run, source, output, keep=["old"])
    written(source, [{**ROWS[0], "id": "changed"}, *ROWS[1:]])
    with pytest.raises(RecipeError, match="its first 8 rows are not those of INPUT"):
        predict_file(run, source, output, keep=["id"])
    written(source, ROWS)
    assert predict_file(run, source, output, keep=["id"]).resumed == 8
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == [row["id"] for row in ROWS]


def test_an_output_without_rows_has_the_kept_columns(run: hfpipe.Run, tmp_path: Path) -> None:
    """Its header names them."""
    (tmp_path / "rows.csv").write_text("id,sentence1,sentence2\n")
    predict_file(run, tmp_path / "rows.csv", tmp_path / "out.csv", keep=["id"])
    assert (tmp_path / "out.csv").read_text() == "id,label,score,probability_other,probability_same\n"


def test_types_that_json_does_not_have(run: hfpipe.Run) -> None:
    """Numbers of numpy stay numbers, dates and decimals become their text; what has no word in JSON is told with its row."""
    row = {"sentence1": "bak", "sentence2": "bal"}
    values = {"number": np.int64(5), "share": np.float32("nan"), "many": np.array([1, 2]), "cost": Decimal("1.5")}
    (told,) = run.predict([{**row, **values, "day": datetime.date(2026, 1, 2)}], keep=[*values, "day"])
    assert [told[name] for name in (*values, "day")] == [5, None, [1, 2], "1.5", "2026-01-02"]
    with pytest.raises(DataError, match="'raw' is bytes, which JSON has no word for"):
        run.predict([{**row, "raw": b"xy"}], keep=["raw"])

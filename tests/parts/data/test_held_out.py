"""A run on a csv file without an evaluation split: rows are set aside, and every command sees the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hfpipe
from hfpipe.errors import DataError, RecipeError
from hfpipe.evaluation.prediction.predict import predict
from hfpipe.recipe import load_recipe, with_overrides
from hfpipe.training.prepare import prepare


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, pairs: dict[str, list[dict[str, Any]]]):
    """Three steps on 33 of 44 rows of a Latin-1 file with semicolons; the other 11 are held out."""
    folder = tmp_path_factory.mktemp("held")
    lines = [f"{row['sentence1']};{row['sentence2']};{'ja' if row['label'] else 'nö'}" for row in pairs["train"]]
    (folder / "rows.csv").write_text("\n".join(["one;two;verdict", *lines]), encoding="latin-1")
    recipe = {
        "dataset": {
            "path": "csv",
            "data_files": str(folder / "rows.csv"),
            "encoding": "latin-1",
            "separator": ";",
            "splits": {"hold_out": 0.25, "stratify": True},
        },
        "task": {"text": ["one", "two"], "label": "verdict"},
        "model": {"checkpoint": str(tiny_checkpoint)},
        "train": {"max_steps": 3, "batch_size": 8, "precision": "fp32"},
    }
    return hfpipe.finetune(recipe, engine="loop", runs_dir=folder / "runs")


def test_the_held_out_rows_are_measured(run) -> None:
    """The run and both ways of evaluating it measure the same eleven rows, and the saved recipe says which."""
    assert run.recipe.dataset.splits.evaluation == "held_out"
    by_name, by_role = hfpipe.evaluate(run, split="held_out"), hfpipe.evaluate(run)
    assert by_name.examples == by_role.examples == 11
    assert by_name.metrics == by_role.metrics
    assert by_name.metrics["loss"] == pytest.approx(run.metrics["loss"], rel=1e-6)
    assert hfpipe.evaluate(run, split="train").examples == 33


def test_a_split_that_is_not_there_suggests_to_hold_out(run) -> None:
    """Where a recipe evaluates on a split that the data lack, the error says how to make one; --split names what there is."""
    with pytest.raises(DataError, match=r"has no split 'validation'; allowed: train\. .*hold_out=0\.1"):
        prepare(with_overrides(run.recipe, ["dataset.splits={train: train}"]))
    with pytest.raises(DataError, match=r"has no split 'validation'; allowed: train, held_out$"):
        hfpipe.evaluate(run, split="validation")


def test_files_to_predict_are_read_whole_and_by_their_own_format(run, tmp_path: Path) -> None:
    """No row to predict is held out; a csv file is read as the recipe's was, another format by its own rules."""
    (tmp_path / "new.csv").write_text("one;two\n" + "bak bal;bam\n" * 5, encoding="latin-1")
    (tmp_path / "new.jsonl").write_text('{"one": "bak bal", "two": "bam"}\n' * 5)
    found = [predict(run, tmp_path / name) for name in ("new.csv", "new.jsonl")]
    assert [len(rows) for rows in found] == [5, 5]
    assert {row["label"] for rows in found for row in rows} <= {"ja", "nö"}
    (tmp_path / "comma.csv").write_text("one,two\nbak bal,bam\n")
    assert len(predict(run, tmp_path / "comma.csv", overrides=["dataset.separator=','"])) == 1


def test_other_data_are_measured_whole(run, tmp_path: Path) -> None:
    """A run that held rows out is measured on all rows of another file, whose split is named, and never on a part."""
    (tmp_path / "other.csv").write_text("one;two;verdict\n" + "bak bal;bam;ja\nbam;ban;nö\n" * 5, encoding="latin-1")
    other = [f"dataset.data_files={tmp_path / 'other.csv'}"]
    assert hfpipe.evaluate(run, overrides=other, split="train").examples == 10
    with pytest.raises(RecipeError, match="no evaluation split"):
        hfpipe.evaluate(run, overrides=other)


def test_a_bad_row_has_the_number_that_it_has_in_the_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Rows are counted before any is held out, so that the row of an error can be found."""
    lines = [f'{{"text": "bak bal", "label": {row % 2}}}' for row in range(20)]
    lines[17] = '{"text": null, "label": 1}'
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    fields = {
        "dataset": {"path": "jsonl", "data_files": str(tmp_path / "rows.jsonl"), "splits": {"hold_out": 0.5}},
        "task": {"text": "text"},
        "model": {"checkpoint": str(tiny_checkpoint)},
    }
    with pytest.raises(DataError, match=r"column 'text' has no text \(row 17, counted from 0\)"):
        prepare(load_recipe(fields))

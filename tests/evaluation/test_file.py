"""`hfpipe evaluate RUN FILE`: a file measured as `predict` reads it, by its own name, with its own columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hfpipe
from hfpipe.errors import DataError, RecipeError

Pairs = dict[str, list[dict[str, Any]]]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a file of the format that its ending says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return path
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def named(rows: list[dict[str, Any]], **columns: str) -> list[dict[str, Any]]:
    """The rows with other names of columns, and the names of the classes for their numbers."""
    classes = {0: "other", 1: "same"}
    plain = [{**row, "label": classes[row["label"]]} for row in rows]
    return [{columns.get(key, key): value for key, value in row.items()} for row in plain]


def test_a_file_is_measured_as_the_split_that_it_holds(pairs_run: hfpipe.Run, pairs: Pairs, tmp_path: Path) -> None:
    """The rows of the evaluation split in a csv, with the classes by name, give its metrics; the set is called by the file."""
    file = write(tmp_path / "test.csv", named(pairs["validation"]))
    found, split = hfpipe.evaluate(pairs_run, file), hfpipe.evaluate(pairs_run)
    assert found.metrics == pytest.approx(split.metrics)
    assert (found.split, found.examples) == ("test.csv", 21)
    stored = next(path for path in (pairs_run.path / "evaluations").glob("test.csv-*.json"))
    document = json.loads(stored.read_text())
    assert document["split"] == "test.csv"
    assert document["metrics"] == found.metrics
    assert str(tmp_path) not in stored.read_text()


def test_other_columns_are_named(pairs_run: hfpipe.Run, pairs: Pairs, tmp_path: Path, hfpipe_command: Any) -> None:
    """--text and --label, once with a comma or several times, from the command line and from Python; overrides go on."""
    rows = named(pairs["validation"], sentence1="first", sentence2="second", label="verdict")
    file = write(tmp_path / "other.jsonl", rows)
    arguments = ("evaluate", pairs_run.path, file, "--label", "verdict", "--json")
    once = hfpipe_command(*arguments, "--text", "first,second", "evaluate.batch_size=7").json
    twice = hfpipe_command(*arguments, "--text", "first", "--text", "second").json
    plain = hfpipe_command("evaluate", pairs_run.path, "evaluate.batch_size=7", "--json").json
    assert once["split"] == twice["split"] == "other.jsonl"
    assert once["metrics"] == pytest.approx(plain["metrics"])
    assert twice["metrics"] == pytest.approx(plain["metrics"])
    found = hfpipe.evaluate(pairs_run, str(file), text=["first", "second"], label="verdict")
    assert found.metrics == pytest.approx(plain["metrics"])
    predicted = hfpipe_command("predict", pairs_run.path, file, "--text", "first,second")
    assert len(predicted.out.splitlines()) == 21
    shown = hfpipe_command("evaluate", pairs_run.path, file, "--text", "first,second", "--label", "verdict")
    assert "21 examples of other.jsonl" in shown.out


def test_two_files_of_one_name_are_two_evaluations(pairs_run: hfpipe.Run, pairs: Pairs, tmp_path: Path) -> None:
    """What is stored goes by the content of the file, wherever it lies."""
    before = set((pairs_run.path / "evaluations").glob("*.json"))
    for folder, rows in (("a", pairs["validation"]), ("b", pairs["validation"][:9]), ("c", pairs["validation"])):
        (tmp_path / folder).mkdir()
        hfpipe.evaluate(pairs_run, write(tmp_path / folder / "set.csv", named(rows)))
    assert len(set((pairs_run.path / "evaluations").glob("*.json")) - before) == 2


@pytest.mark.parametrize(
    ("name", "options", "error", "told"),
    [
        ("nothing.csv", {}, DataError, "no file 'nothing.csv'"),
        ("-", {}, RecipeError, "standard input is not measured"),
        ("rows.txt", {}, RecipeError, "a line of text has no label"),
        ("rows.xyz", {}, RecipeError, "--input-format"),
        ("rows.csv", {"split": "train"}, RecipeError, "a file is measured whole"),
    ],
)
def test_what_is_no_labelled_file_is_refused(
    pairs_run: hfpipe.Run, name: str, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    """Before anything is loaded."""
    with pytest.raises(error, match=told):
        hfpipe.evaluate(pairs_run, name, **options)


def test_labels_of_another_kind_are_told_with_the_file(pairs_run: hfpipe.Run, pairs: Pairs, tmp_path: Path) -> None:
    """A column that is not there and a class that is none name the file, not a split of it."""
    file = write(tmp_path / "test.csv", [{**row, "label": "maybe"} for row in pairs["validation"]])
    with pytest.raises(DataError, match=r"test.csv: label 'maybe' is outside the 2 classes"):
        hfpipe.evaluate(pairs_run, file)
    with pytest.raises(DataError, match=r"test.csv: no column 'verdict'"):
        hfpipe.evaluate(pairs_run, file, label="verdict")


def test_numbers_in_a_file_are_told_as_what_they_are_taken_for(
    pairs_run: hfpipe.Run, pairs: Pairs, tmp_path: Path, hfpipe_command: Any
) -> None:
    """0 and 1 for classes that have names: the run says which is which; a file with the names needs no word."""
    told = "'label' holds numbers, which are taken for the classes in their order: 0 for 'other', 1 for 'same'"
    by_number = write(tmp_path / "numbers.jsonl", pairs["validation"])
    assert told in " ".join(hfpipe_command("evaluate", pairs_run.path, by_number).err.split())
    by_name = write(tmp_path / "names.jsonl", named(pairs["validation"]))
    assert "holds numbers" not in hfpipe_command("evaluate", pairs_run.path, by_name).err
    flags = write(tmp_path / "flags.jsonl", [{**row, "label": bool(row["label"])} for row in pairs["validation"]])
    with pytest.raises(DataError, match=r'holds bool.*Declare what each value means.*"false": NAME'):
        hfpipe.evaluate(pairs_run, flags)


def test_counted_class_weights_are_not_those_of_the_file(
    recipe_fields: dict[str, Any], pairs: Pairs, tmp_path: Path, no_report: None, hfpipe_command: Callable[..., Any]
) -> None:
    """A file's own counts would change the loss without a word: it has none, and that is said."""
    fields = {**recipe_fields, "loss": {"class_weights": "balanced"}, "train": {"max_steps": 1, "precision": "fp32"}}
    run = hfpipe.finetune(fields, runs_dir=tmp_path)
    file = write(tmp_path / "test.csv", named(pairs["validation"]))
    done = hfpipe_command("evaluate", run.path, file, "--json")
    assert "without class weights" in done.err
    plain = hfpipe.evaluate(run, file, overrides=["loss.class_weights=[1, 1]"])
    assert done.json["metrics"]["loss"] == pytest.approx(plain.metrics["loss"])

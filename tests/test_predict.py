"""`hfpipe predict` labels rows of a file with what was trained."""

from __future__ import annotations

import json

import pytest

import hfpipe
from hfpipe.errors import DataError, RecipeError
from hfpipe.pipeline import predict


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of the quickstart."""
    recipe = hfpipe.load_recipe("quickstart", overrides=["train.max_steps=40", "evaluate.every=never"])
    return hfpipe.finetune(recipe, engine="loop", runs_dir=tmp_path_factory.mktemp("runs"))


def test_rows_are_labelled_in_order_without_a_label(run, tmp_path):
    """Every row of a jsonl file gets a class of the data, with probabilities that sum to 1, in the order of the file."""
    same = "The old king sang while the sad nurse ran today."
    other = "The old nurse sang while the sad king ran today."
    pairs = [(same, same), (same, other), (other, other)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"sentence1": a, "sentence2": b}) + "\n" for a, b in pairs))
    found = predict(run, file)
    alone = []
    for number, (a, b) in enumerate(pairs):
        single = tmp_path / f"{number}.jsonl"
        single.write_text(json.dumps({"sentence1": a, "sentence2": b}) + "\n")
        alone += predict(run, single)
    assert [row["label"] for row in found] == [row["label"] for row in alone]
    for row, by_itself in zip(found, alone, strict=True):
        assert set(row["probabilities"]) == {"not_equivalent", "equivalent"}
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["score"] == max(row["probabilities"].values()) == row["probabilities"][row["label"]]
        assert row["score"] == pytest.approx(by_itself["score"], abs=1e-6)


def test_a_missing_column_is_named(run, tmp_path):
    """A file without a text column of the recipe is refused with the column's name."""
    file = tmp_path / "one.csv"
    file.write_text("sentence1\nhello\n")
    with pytest.raises(DataError, match="no column 'sentence2'"):
        predict(run, file)


def test_an_unknown_kind_of_file_is_refused(run, tmp_path):
    """A file whose ending says nothing is refused with the endings that do."""
    with pytest.raises(RecipeError, match=r"allowed: a \.csv, \.json, \.jsonl or \.parquet file"):
        predict(run, tmp_path / "rows.txt")


def test_what_is_missing_is_told_before_any_weights_are_loaded(run, tmp_path, hfpipe_command):
    """A file that is not there, and a folder for the output that is not, are told as the arguments they are."""
    missing = hfpipe_command("predict", run.path, tmp_path / "rows.csv")
    assert missing.code == 3
    assert missing.err.startswith("INPUT: no file ")
    file = tmp_path / "one.csv"
    file.write_text("sentence1,sentence2\nhello,hello\n")
    nowhere = hfpipe_command("predict", run.path, file, "--output", tmp_path / "nowhere" / "out.jsonl")
    assert nowhere.code == 2
    assert nowhere.err.startswith("--output: no folder ")

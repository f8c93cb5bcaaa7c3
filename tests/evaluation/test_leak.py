"""Evaluation rows that stand in the training split: every place that shows the figure qualifies it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hfpipe
from hfpipe.runs.evaluations import read_evaluation, read_examples

KNOWN = 9  # rows of the evaluation split that are put into the training split


@pytest.fixture
def leaking(recipe_fields: dict[str, Any], tmp_path: Path, pairs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The tiny recipe on files whose training split has the first nine texts of the evaluation split, one
    relabelled and one in capitals with other white space."""
    rows = {"train": [*pairs["train"], *pairs["validation"][:KNOWN]], "validation": pairs["validation"]}
    first = rows["train"][-KNOWN]
    rows["train"][-KNOWN] = {**first, "sentence1": f" {first['sentence1'].upper().replace(' ', '  ')}"}
    rows["train"][-1] = {**rows["train"][-1], "label": 1 - rows["train"][-1]["label"]}
    for split, part in rows.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    files = {split: f"{tmp_path}/{split}.jsonl" for split in rows}
    data = {"path": "json", "data_files": files, "splits": {"train": "train", "evaluation": "validation"}}
    return {**recipe_fields, "dataset": data}


def test_a_leak_stands_beside_the_figure_wherever_it_is_shown(
    leaking: dict[str, Any], tmp_path: Path, hfpipe_command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The document has the metrics of the other rows, as by hand; so have the page, the card, and both commands."""
    (tmp_path / "r.json").write_text(json.dumps(leaking))
    done = hfpipe_command("finetune", tmp_path / "r.json", "--runs-dir", tmp_path / "runs", "--name", "one")
    assert done.code == 0, done.err
    run = hfpipe.Run(tmp_path / "runs" / "one")
    document = read_evaluation(run, "validation")
    others = [one for one in read_examples(run, "validation") if one["id"] >= KNOWN]
    leak = document["leak"]
    assert (leak["train"], leak["rows"], leak["examples"]) == ("train", KNOWN, 12)
    by_hand = np.mean([one["prediction"] == one["reference"] for one in others])
    assert leak["metrics"]["accuracy"] == pytest.approx(by_hand)
    assert leak["metrics"]["loss"] == pytest.approx(np.mean([one["loss"] for one in others]))
    assert leak["intervals"]["accuracy"][0] <= by_hand <= leak["intervals"]["accuracy"][1]
    assert hfpipe.evaluate(run).document["leak"] == leak
    assert run.read_json("metrics.json")["leak"] == leak
    sentence = f"9 of these 21 examples have the text of a row of train; on the 12 others accuracy is {by_hand:.4f}"
    assert sentence in done.out
    assert sentence in (run.path / "model" / "README.md").read_text()
    assert "9 of the 21 examples stand in the training data" in (run.path / "model" / "README.md").read_text()
    page = (run.path / "report.html").read_text()
    lead = page[page.index('class="lead"') : page.index("<table")]
    assert "accuracy, with 9 of 21 examples that train has too" in lead
    assert f'<span class="value">{by_hand:.4f}</span><span class="name">accuracy, on the 12 examples' in lead
    assert sentence in " ".join(hfpipe_command("evaluate", run.path).out.split())
    assert "9 of them with the text of a row of train" in hfpipe_command("runs", "show", run.path).out


def test_without_a_leak_nothing_is_said(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """No row of the evaluation split is in train, and of training rows nobody asks it."""
    run = hfpipe.finetune(recipe_fields, runs_dir=tmp_path)
    assert read_evaluation(run, "validation")["leak"] is None
    assert "leak" not in run.read_json("metrics.json")
    assert hfpipe.evaluate(run, split="train[:5]").document["leak"] is None
    assert "that train has too" not in (run.path / "report.html").read_text()


def test_a_leak_of_all_rows_leaves_no_figure(leaking: dict[str, Any], tmp_path: Path) -> None:
    """Where every row is known, the page says that none is left."""
    run = hfpipe.finetune(leaking, overrides=["dataset.splits.evaluation=validation[:9]"], runs_dir=tmp_path)
    page = (run.path / "report.html").read_text()
    assert "no other example is left" in page
    assert page.count('class="lead"') == 1


def test_a_leak_qualifies_the_mean_of_the_seeds(leaking: dict[str, Any], tmp_path: Path) -> None:
    """The page of a group has the mean on the other rows beside the mean."""
    group = hfpipe.finetune_seeds(leaking, seeds=[1, 2], runs_dir=tmp_path)
    leak = group.summary["leak"]
    wanted = np.mean([run.read_json("metrics.json")["leak"]["metrics"]["accuracy"] for run in group.runs.values()])
    assert leak["metrics"]["accuracy"]["mean"] == pytest.approx(wanted)
    page = (group.path / "report.html").read_text()
    assert "mean accuracy on the examples that train does not have" in page
    assert "9 of 21 examples have the text of a row of train" in page


def test_a_file_is_held_against_the_rows_that_were_trained_on(
    leaking: dict[str, Any],
    tmp_path: Path,
    pairs: dict[str, list[dict[str, Any]]],
    hfpipe_command: Callable[..., Any],
) -> None:
    """A file with other names of columns, five of whose rows the run was trained on; gone training data are told."""
    run = hfpipe.finetune(leaking, runs_dir=tmp_path / "runs")
    rows = [{**row, "first": row["sentence1"]} for row in [*pairs["train"][:5], *pairs["validation"][KNOWN:]]]
    for row in rows:
        del row["sentence1"]
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    leak = hfpipe.evaluate(run, file, text=["first", "sentence2"]).document["leak"]
    assert (leak["rows"], leak["examples"]) == (5, 12)
    (tmp_path / "train.jsonl").unlink()
    found = hfpipe_command("evaluate", run.path, file, "--text", "first,sentence2")
    assert found.code == 0, found.err
    assert "whether the training data have some of these rows too is not known" in found.err

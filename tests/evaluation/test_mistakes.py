"""The mistakes that a model is most certain of: listed by row and class, and with their texts where that is asked."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hfpipe
from hfpipe.evaluation.examples import mistakes_of
from hfpipe.runs.evaluations import file_name, read_evaluation, read_examples


def test_the_most_certain_mistakes_come_first(
    recipe_fields: dict[str, Any], tmp_path: Path, pairs: dict[str, list[dict[str, Any]]]
) -> None:
    """As by hand from the examples, whose classes have names; without being asked no text of the data is kept."""
    run = hfpipe.finetune(recipe_fields, runs_dir=tmp_path)
    document, examples = read_evaluation(run, "validation"), read_examples(run, "validation")
    names = document["names"]
    wrong = [one for one in examples if one["prediction"] != one["reference"]]
    wrong.sort(key=lambda one: -max(one["probabilities"]))
    assert wrong
    assert [one["id"] for one in document["mistakes"]] == [one["id"] for one in wrong[:10]]
    assert all(one["reference_name"] == names[one["reference"]] for one in examples)
    first = document["mistakes"][0]
    assert first["prediction"] == names[wrong[0]["prediction"]]
    assert first["probability"] == max(wrong[0]["probabilities"])
    texts = [row["sentence1"] for row in pairs["validation"]]
    kept = "".join(path.read_text() for path in (run.path / "evaluations").iterdir())
    assert not any(text in kept for text in texts)
    page = (run.path / "report.html").read_text()
    assert "<h2>Mistakes</h2>" in page
    assert not any(text in page for text in texts)


def test_texts_are_kept_by_choice(
    recipe_fields: dict[str, Any], tmp_path: Path, pairs: dict[str, list[dict[str, Any]]]
) -> None:
    """With `evaluate.mistakes: 3` the texts of three stand in the examples and on the page, and of no other row."""
    run = hfpipe.finetune(recipe_fields, overrides=["evaluate.mistakes=3"], runs_dir=tmp_path)
    document, examples = read_evaluation(run, "validation"), read_examples(run, "validation")
    listed = [one["id"] for one in document["mistakes"]]
    assert len(listed) == 3
    with_text = {one["id"]: one["text"] for one in examples if "text" in one}
    assert sorted(with_text) == sorted(listed)
    row = pairs["validation"][listed[0]]
    assert with_text[listed[0]] == {"sentence1": row["sentence1"], "sentence2": row["sentence2"]}
    assert "sentence1" not in (run.path / "evaluations" / "validation.json").read_text()  # what push uploads
    page = (run.path / "report.html").read_text()
    assert f"<p>{row['sentence1']}</p>" in page


@pytest.mark.parametrize("losses", [[0.1, 3.0, 2.0, 5.0]])
def test_without_probabilities_the_loss_tells(losses: list[float]) -> None:
    """Rows of several labels, or of words: the highest loss first, and what is right is no mistake."""
    predictions = [[0, 1], [1, 1], [1, 0], [0, 0]]
    examples = [
        {"id": number, "prediction": prediction, "reference": [0, 0], "loss": loss}
        for number, (prediction, loss) in enumerate(zip(predictions, losses, strict=True))
    ]
    assert [one["id"] for one in mistakes_of(examples, 2)] == [1, 2]


def test_the_report_names_its_subject_and_shows_the_recipe_as_it_was_written(
    recipe_fields: dict[str, Any], tmp_path: Path, hfpipe_command: Callable[..., Any]
) -> None:
    """Checkpoint and data stand in the header; what was given stands open, every default folded; nothing else differs."""
    run = hfpipe.finetune(recipe_fields, overrides=["train.max_steps=4"], runs_dir=tmp_path)
    page = (run.path / "report.html").read_text()
    head = page[page.index("<h1>") : page.index("<h2>")]
    checkpoint = Path(recipe_fields["model"]["checkpoint"]).name
    assert f"{checkpoint} on " in head
    assert str(tmp_path) not in page
    written = run.metadata["written"]
    assert "max_steps: 4" in written
    assert "label_smoothing" not in written
    assert "label_smoothing" in page[page.index("<details>") : page.index("</details>")]
    assert "label_smoothing" not in page[: page.index("<details>")]
    # An override from the command line and a seed of a group change no default into something that was given.
    assert hfpipe.load_recipe(run.path / "recipe.yaml") == run.recipe


@pytest.mark.parametrize("held_out", [False, True])
def test_an_example_says_where_it_stands(
    recipe_fields: dict[str, Any], tmp_path: Path, pairs: dict[str, list[dict[str, Any]]], held_out: bool
) -> None:
    """File and line of each row, of several files, a slice and rows that were held out, with fields of several lines."""
    rows = [{**row, "sentence2": f"{row['sentence2']}\nand more"} for row in pairs["train"]]
    for name, part in (("a.csv", rows[:20]), ("b.csv", rows[20:])):
        with open(tmp_path / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(part)
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    splits = {"train": "train", "hold_out": 0.4} if held_out else {"train": "train[:10]", "evaluation": "train[15:]"}
    task = {**recipe_fields["task"], "label": {"column": "label", "names": ["0", "1"]}}
    data = {"path": "csv", "data_files": files, "splits": splits}
    run = hfpipe.finetune({**recipe_fields, "dataset": data, "task": task}, runs_dir=tmp_path / "runs")
    split = run.read_json("metrics.json")["split"]
    examples = read_examples(run, file_name(split))
    assert examples
    lines = {name: (tmp_path / name).read_text().split("\n") for name in ("a.csv", "b.csv")}
    held = hfpipe.prepare(run.recipe).evaluation_rows
    for one in examples:
        name, line = one["place"].split(":")
        assert held[one["id"]]["sentence1"] in lines[name][int(line) - 1]
    assert {one["place"].split(":")[0] for one in examples} == {"a.csv", "b.csv"}
    assert (
        f">{read_evaluation(run, file_name(split))['mistakes'][0]['place']}<" in (run.path / "report.html").read_text()
    )
    again = hfpipe.evaluate(run)
    assert again.document["mistakes"] == read_evaluation(run, file_name(split))["mistakes"]


def test_the_worst_errors_of_a_regression_say_where_they_stand(
    recipe_fields: dict[str, Any], tmp_path: Path, pairs: dict[str, list[dict[str, Any]]], hfpipe_command: Any
) -> None:
    """File and line of held-out rows, on the page and on the terminal, not their numbers among the held-out ones."""
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["sentence1", "price"])
        writer.writeheader()
        writer.writerows({"sentence1": row["sentence1"], "price": number} for number, row in enumerate(pairs["train"]))
    task = {"kind": "text-regression", "text": "sentence1", "label": "price"}
    data = {"path": "csv", "data_files": str(tmp_path / "a.csv"), "splits": {"train": "train", "hold_out": 0.4}}
    fields = {**recipe_fields, "dataset": data, "task": task, "evaluate": {"metrics": ["mse"], "best": "mse"}}
    run = hfpipe.finetune(fields, runs_dir=tmp_path / "runs")
    worst = read_evaluation(run, "held_out")["errors"]["worst"]
    assert [one["place"] for one in worst] == [f"a.csv:{int(one['reference']) + 2}" for one in worst]
    assert f">{worst[0]['place']}<" in (run.path / "report.html").read_text()
    shown = " ".join(hfpipe_command("evaluate", run.path).out.split())
    assert f"the worst at {worst[0]['place']}, {worst[1]['place']}" in shown
    # the data lie elsewhere: what the message says leads to the same held-out rows
    moved = (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    refused = hfpipe_command("evaluate", run.path, f"dataset.data_files={moved}")
    assert "dataset.splits.evaluation=held_out dataset.splits.hold_out=SHARE" in " ".join(refused.err.split())
    again = [f"dataset.data_files={moved}", "dataset.splits.evaluation=held_out", "dataset.splits.hold_out=0.4"]
    assert hfpipe.evaluate(run, overrides=again).metrics == run.metrics

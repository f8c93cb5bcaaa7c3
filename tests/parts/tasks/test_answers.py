"""Multiple choice as people have it: keys, letters, numbers from one, values of one's own, and choices of uneven number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import hfpipe
from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.tasks import make_task, outputs_of, pinned
from hfpipe.parts.tasks.choices import ChoiceTask
from hfpipe.recipe import load_recipe
from hfpipe.recipe.schema import Label, Task

CHOICES = [["red", "blue", "pink"], ["pink", "red"], ["red", "blue", "green", "pink"]]
RIGHT = [2, 0, 1]


def spec(**label: Any) -> Task:
    """A task whose choices are the column choices, and whose answers are the column answer."""
    given = Label(column="answer", **label) if label else "answer"
    return Task(kind="multiple-choice", text=("question",), choices=("choices",), label=given)


def table(choices: list[Any], answers: list[Any], feature: Any = None) -> datasets.Dataset:
    """Rows with these choices and answers."""
    rows = datasets.Dataset.from_dict({"question": ["bak bal"] * len(choices), "choices": choices, "answer": answers})
    return rows if feature is None else rows.cast_column("answer", feature)


@pytest.fixture
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tiny checkpoint's own."""
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


def checked(rows: datasets.Dataset, task: Task | None = None) -> ChoiceTask:
    """The checked task of these rows."""
    made = make_task(task or spec(), rows, "d", "task")
    made.check(rows, "d", "task")
    assert isinstance(made, ChoiceTask)
    return made


def labels_of(task: ChoiceTask, rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The encoded labels."""
    return list(task.encode(rows[:], tokenizer, 32, True)["labels"])


SHAPES: dict[str, list[Any]] = {
    "lists": CHOICES,
    "ARC": [{"text": texts, "label": list("ABCD"[: len(texts)])} for texts in CHOICES],
    "stems": [[{"text": text, "label": "ABCD"[k]} for k, text in enumerate(texts)] for texts in CHOICES],
    "options": [dict(zip("ABCD", [*texts, None, None], strict=False)) for texts in CHOICES],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("answers", "label"),
    [
        ([2, 0, 1], {}),
        ([3, 1, 2], {}),
        (["C", "A", "B"], {}),
        (["pink", "pink", "blue"], {}),
        (["three", "one", "two"], {"names": ("one", "two", "three", "four")}),
        ([30, 10, 20], {"names": {"10": "first", "20": "second", "30": "third"}}),
        (["C", "A", "B"], {"names": ("A", "B", "C", "D")}),
    ],
    ids=["from 0", "from 1", "letters", "texts", "names", "mapping", "named letters"],
)
def test_every_answer_of_every_shape_means_the_same_choice(
    shape: str, answers: list[Any], label: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Choices of uneven number as lists, structs of lists, lists of structs and structs, answered in every way."""
    rows = table(SHAPES[shape], answers)
    task = checked(rows, spec(**label))
    assert labels_of(task, rows, tokenizer) == RIGHT
    encoded = task.encode(rows[:], tokenizer, 32, True)
    assert [len(ids) for ids in encoded["input_ids"]] == [3, 2, 4]
    told = task.format_predictions([np.eye(len(c))[k] for c, k in zip(CHOICES, RIGHT, strict=True)], rows, rows)
    assert [one["text"] for one in told] == ["pink", "pink", "blue"]


def test_keys_of_the_rows_win(tokenizer: PreTrainedTokenizerBase) -> None:
    """ARC has rows with the keys 1 to 4 among those with letters: each answer means its own row's key."""
    choices = [{"text": ["red", "blue"], "label": ["A", "B"]}, {"text": ["red", "blue"], "label": ["1", "2"]}]
    rows = table(choices, ["B", "1"])
    task = checked(rows)
    assert (task.form, labels_of(task, rows, tokenizer)) == ("keys", [1, 0])
    assert "key of the right choice" in task.reading
    with pytest.raises(DataError, match=r"label 'C' is not the key of the right choice in its row \(row 0"):
        task.check(table(choices, ["C", "1"]), "d", "task")


@pytest.mark.parametrize(
    ("answers", "first", "second"),
    [([1, 2, 1], "from_zero", "from_one"), (["1", "1", "2"], "from_zero", "from_one")],
)
def test_numbers_that_could_be_counted_from_0_or_1_are_refused(
    answers: list[Any], first: str, second: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Neither a 0 nor the number of choices tells: both ways to say it are in the message, and both work."""
    rows = table([["red", "blue", "pink"]] * 3, answers)
    with pytest.raises(DataError, match=f"form: {first}.*form: {second}") as refused:
        checked(rows)
    assert refused.value.exit_code == 3
    wanted = [int(one) for one in answers]
    assert labels_of(checked(rows, spec(form=first)), rows, tokenizer) == wanted
    assert labels_of(checked(rows, spec(form=second)), rows, tokenizer) == [one - 1 for one in wanted]


def test_a_class_label_is_counted_from_0(tokenizer: PreTrainedTokenizerBase) -> None:
    """MMLU's answers are classes called A to D: 1 and 2 alone are no doubt."""
    rows = table([["red", "blue", "pink", "gol"]] * 2, [1, 2], datasets.ClassLabel(names=list("ABCD")))
    assert labels_of(checked(rows), rows, tokenizer) == [1, 2]


def test_letters_that_are_texts_elsewhere_are_refused() -> None:
    """A letter that is also the text of another choice could be meant both ways."""
    with pytest.raises(DataError, match=r"form: letters.*form: text"):
        checked(table([["B", "A"], ["A", "B"]], ["A", "B"]))


@pytest.mark.parametrize(
    ("answers", "label", "told"),
    [
        (["A", "B", "E"], {}, "label 'E' is not the letter of the right choice, A for the first (row 2"),
        ([0, 2, 1], {}, "label 2 is outside the 2 choices, counted from 0 (row 1"),
        (["A", "", "B"], {}, "no label (row 1"),
        (["A", None, "B"], {}, "label: {column: answer, missing: ignore}"),
        (["x", "y", "y"], {"names": ("x", "z")}, "label 'y' is not one of the values in label.names (rows 1, 2"),
    ],
)
def test_answers_that_are_none_are_refused(answers: list[Any], label: dict[str, Any], told: str) -> None:
    """With their rows; a number may be right in one row and none of the choices of another."""
    with pytest.raises(DataError) as refused:
        checked(table(CHOICES, answers), spec(**label))
    assert told in str(refused.value)


def test_missing_answers_may_be_left_out(tokenizer: PreTrainedTokenizerBase) -> None:
    """They are no items, and no examples of a metric."""
    rows = table(CHOICES, ["C", " ", "B"])
    task = checked(rows, spec(missing="ignore"))
    assert labels_of(task, rows, tokenizer) == [2, -100, 1]
    encoded = datasets.Dataset.from_dict({"labels": [2, -100, 1]})
    predictions, references = task.decode([np.eye(3)[2], np.eye(2)[0], np.eye(4)[3]], encoded, rows)
    assert (predictions.tolist(), references.tolist()) == ([2, 3], [2, 1])  # type: ignore[union-attr]


def test_columns_may_be_empty_at_the_end(tokenizer: PreTrainedTokenizerBase) -> None:
    """A CSV's empty fifth column is no choice; an empty one between two others is refused."""
    columns = {"a": ["red", "red"], "b": ["blue", "blue"], "c": ["pink", ""], "d": ["", None]}
    rows = datasets.Dataset.from_dict({"question": ["bak"] * 2, **columns, "answer": ["C", "B"]})
    task = Task(kind="multiple-choice", text=("question",), choices=("a", "b", "c", "d"), label="answer")
    assert labels_of(checked(rows, task), rows, tokenizer) == [2, 1]
    hole = rows.remove_columns("b").add_column("b", ["", "blue"])
    with pytest.raises(DataError, match=r"a choice has no text \(row 0"):
        checked(hole, task)


def test_choices_that_fill_a_batch_up_get_the_lowest_logit(tokenizer: PreTrainedTokenizerBase) -> None:
    """They stand behind the real ones, have one token, and are no logits of a row."""
    rows = table(CHOICES, ["C", "A", "B"])
    task = checked(rows)
    encoded = task.encode(rows[:], tokenizer, 32, True)
    listed = [{name: values[row] for name, values in encoded.items()} for row in range(3)]
    batch = task.collator(tokenizer)(listed)
    assert list(batch["input_ids"].shape[:2]) == [3, 4]
    logits = outputs_of({"logits": torch.ones(3, 4)}, batch)
    assert (logits > 0).tolist() == [[True, True, True, False], [True, True, False, False], [True] * 4]
    assert [len(row) for row in task.unpad_logits(logits, batch)] == [3, 2, 4]
    alone = task.collator(tokenizer)(listed[1:2])
    assert torch.equal(alone["input_ids"][0], batch["input_ids"][1, :2, : alone["input_ids"].shape[2]])
    assert outputs_of({"logits": torch.ones(1, 2)}, alone).tolist() == [[1, 1]]


def fields(path: Path, checkpoint: Path, **more: Any) -> dict[str, Any]:
    """A recipe of one step on a file of choices of uneven number."""
    shape = SHAPES["ARC"]
    rows = [
        {"question": "bak bal bam ban bap bek bel bem ben", "choices": shape[k % 3], "answer": "CAB"[k % 3]}
        for k in range(12)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {
        "dataset": {"path": "jsonl", "data_files": str(path), "splits": {"train": "train", "evaluation": "train[:5]"}},
        "task": {"kind": "multiple-choice", "text": "question", "choices": "choices", "label": "answer"},
        "model": {"checkpoint": str(checkpoint)},
        "train": {"max_steps": 1, "precision": "fp32", "batch_size": 5},
        **more,
    }


@pytest.mark.parametrize(
    "loss", [{"label_smoothing": 0.1}, {"name": "earth_mover"}, {"name": "focal"}, {"name": "cross_entropy"}]
)
def test_a_loss_that_counts_missing_choices_is_refused(
    loss: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Smoothing over choices that are not there, or a distance to them, would be a number of nothing."""
    recipe = load_recipe(fields(tmp_path / "rows.jsonl", tiny_checkpoint, loss=loss))
    if loss.get("name") in ("focal", "cross_entropy"):
        assert hfpipe.prepare(recipe).task.kind.loss == "cross_entropy"
        return
    with pytest.raises(RecipeError, match="counts all choices of a batch"):
        hfpipe.prepare(recipe)


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_arc_from_file_to_prediction(engine: str, tiny_checkpoint: Path, tmp_path: Path, no_report: None) -> None:
    """A run on structs of uneven number is trained, evaluated again, audited and predicted, without a label and with."""
    run = hfpipe.finetune(fields(tmp_path / "rows.jsonl", tiny_checkpoint, engine=engine), runs_dir=tmp_path)
    assert run.status == "finished"
    again = hfpipe.evaluate(run)
    assert again.metrics == pytest.approx({name: run.metrics[name] for name in again.metrics})
    assert hfpipe.evaluate(run, tmp_path / "rows.jsonl").examples == 12
    found = run.predict([{"question": "bak", "choices": one} for one in SHAPES["ARC"]])
    assert [len(one["probabilities"]) for one in found] == [3, 2, 4]
    assert run.predict(tmp_path / "rows.jsonl")[1]["text"] in CHOICES[1]
    notices = [one["text"] for one in run.records if one["type"] == "notice"]
    assert any("'answer' holds the key of the right choice" in text for text in notices)


def test_a_form_that_was_found_is_pinned() -> None:
    """A few rows of a split, or a file to evaluate, are read as the whole split was."""
    task = checked(table([["red", "blue", "pink"]] * 3, [3, 1, 2]))
    assert pinned(spec(), task) == ['task.label={"column": "answer", "form": "from_one"}']

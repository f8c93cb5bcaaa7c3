"""A recipe from data: what is guessed, what is asked for, and that the recipe trains."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.tasks.draft import TINY, Draft, draft_recipe, write_draft
from hfpipe.recipe import load_recipe

WORDS = ["bak", "bal", "bam", "ban", "bap", "bar", "bas", "bat", "cek", "cel", "cem", "cen", "cep"]


def texts(count: int = 40) -> list[str]:
    """Different texts of five words."""
    return [" ".join(WORDS[(row + 3 * word) % len(WORDS)] for word in range(4)) + f" {row}" for row in range(count)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes columns into a file of this folder, without a Hub and with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hfpipe.system.hub.detect_offline", lambda notice: True)
    monkeypatch.setattr("hfpipe.system.hub.snapshot", lambda *arguments: None)

    def written(name: str, **columns: Any) -> str:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), name)
        elif name.endswith(".jsonl"):
            Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            with open(name, "w", newline="") as file:
                separator = "\t" if name.endswith(".tsv") else ";" if "semicolon" in name else ","
                writer = csv.DictWriter(file, columns, delimiter=separator)
                writer.writeheader()
                writer.writerows(rows)
        return name

    return written


def cycle(*values: Any) -> list[Any]:
    """Forty values."""
    return [values[row % len(values)] for row in range(40)]


SHORT = [text.split()[:3] for text in texts()]
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a text and classes": (
        "my.csv", {"id": range(40), "message": texts(), "area": cycle("food", "price", "staff")},
        {"kind": "text-classification", "text": "message", "label": "area"},
    ),
    "a text whose values repeat, by its name": (
        "my.csv", {"Text": [text[:3] for text in texts()], "Area": cycle("food", "price", "staff")},
        {"kind": "text-classification", "text": "Text", "label": "Area"},
    ),
    "classes counted from 0, as text": (
        "my.csv", {"text": texts(), "label": cycle("0", "1", "2")},
        {"kind": "text-classification", "text": "text", "label": "label"},
    ),
    "numbers with fractions, as text": (
        "my.tsv", {"text": texts(), "price": [f"{row / 7:.2f}" for row in range(40)]},
        {"kind": "text-regression", "text": "text", "label": "price"},
    ),
    "true and false": (
        "my.jsonl", {"review": texts(), "spam": cycle(True, False)},
        {"kind": "text-classification", "text": "review",
         "label": {"column": "spam", "names": {"false": "false", "true": "true"}}},
    ),
    "a pair": (
        "my.parquet", {"premise": texts(), "hypothesis": texts()[::-1], "label": cycle(0, 1, 2)},
        {"kind": "text-classification", "text": ["premise", "hypothesis"], "label": "label"},
    ),
    "lists of classes": (
        "my.jsonl", {"text": texts(), "labels": cycle(["a"], ["b", "c"], [])},
        {"kind": "multi-label-classification", "text": "text", "label": "labels"},
    ),
    "a label for each word": (
        "my.jsonl", {"tokens": SHORT, "ner_tags": cycle(["O", "B-X", "I-X"], ["O", "O", "B-Y"])},
        {"kind": "token-classification", "text": "tokens", "label": "ner_tags"},
    ),
    "parts of speech": (
        "my.jsonl", {"tokens": SHORT, "tags": cycle(["NN", "VB", "NN"])},
        {"kind": "token-classification", "scheme": "none", "text": "tokens", "label": "tags"},
    ),
    "answers": (
        "my.jsonl",
        {"question": texts(), "context": texts(), "answers": [{"text": [text[:3]], "answer_start": [0]} for text in texts()]},
        {"kind": "question-answering", "stride": 16, "text": ["question", "context"], "label": "answers"},
    ),
    "choices": (
        "my.jsonl", {"question": texts(), "choices": cycle(["bak", "bal"], ["bam", "ban"]), "answer": cycle(0, 1)},
        {"kind": "multiple-choice", "choices": "choices", "text": "question", "label": "answer"},
    ),
    "choices of different number with keys, as in ARC": (
        "my.jsonl",
        {"id": range(40), "question": texts(), "answerKey": cycle("A", "2"),
         "choices": cycle({"text": ["a", "b"], "label": ["A", "B"]}, {"text": ["a", "b", "c"], "label": ["1", "2", "3"]})},
        {"kind": "multiple-choice", "choices": "choices", "text": "question", "label": "answerKey"},
    ),
    "choices in numbered columns": (
        "my.jsonl", {"goal": texts(), "sol1": texts(), "sol2": texts()[::-1], "label": cycle(0, 1)},
        {"kind": "multiple-choice", "choices": ["sol1", "sol2"], "text": "goal", "label": "label"},
    ),
    "choices in lettered columns, one of them numbers": (
        "my.csv",
        {"question": texts(), "A": cycle("one", "two"), "B": cycle("2", "3"), "C": cycle("x"), "answer": cycle("B", "C")},
        {"kind": "multiple-choice", "choices": ["A", "B", "C"], "text": "question", "label": "answer"},
    ),
    "a passage before the question of choices": (
        "my.jsonl",
        {"context": texts(), "question": texts()[::-1], "answerA": texts(), "answerB": texts(), "label": cycle("1", "2")},
        {"kind": "multiple-choice", "choices": ["answerA", "answerB"], "text": ["context", "question"], "label": "label"},
    ),
    "lists that are written in a csv": (
        "my.csv", {"text": texts(), "labels": cycle('["a", "b"]', "['c']", "[]")},
        {"kind": "multi-label-classification", "text": "text", "label": "labels"},
    ),
    "0 and 1 in the fields of an object": (
        "my.jsonl", {"text": texts(), "labels": cycle({"a": 0, "b": 1}, {"a": 1, "b": 0})},
        {"kind": "multi-label-classification", "text": "text", "label": "labels"},
    ),
    "classes with commas that never come again": (
        "my.csv", {"text": texts(), "city": cycle("Albany, NY", "Reno, NV")},
        {"kind": "text-classification", "text": "text", "label": "city"},
    ),
    "whole numbers with missing ones between them, as pandas holds them": (
        "my.parquet", {"text": texts(), "label": cycle(0.0, 1.0, None, float("nan"))},
        {"kind": "text-classification", "text": "text", "label": {"column": "label", "names": {"0": "0", "1": "1"}}},
    ),
    "infinity": (
        "my.parquet", {"text": texts(), "label": cycle(0.0, 1.0, float("inf"))},
        {"kind": "text-regression", "text": "text", "label": "label"},
    ),
    "an article, and a short question of choices": (
        "my.jsonl",
        {"article": texts(), "question": cycle("who", "why"), "options": cycle(["a", "b"]), "answer": cycle("A", "B")},
        {"kind": "multiple-choice", "choices": "options", "text": ["article", "question"], "label": "answer"},
    ),
    "two texts with numbers are a pair, no choices": (
        "my.csv", {"text1": texts(), "text2": texts()[::-1], "label": cycle(0, 1)},
        {"kind": "text-classification", "text": ["text1", "text2"], "label": "label"},
    ),
    "a semicolon between fields": (
        "semicolon.csv", {"message": texts(), "area": cycle("food", "price")},
        {"kind": "text-classification", "text": "message", "label": "area"},
    ),
}  # fmt: skip


ASKED: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "names with bars between them": (
        {"text": texts(), "labels": cycle("a|b", "b", "c|a", "c")}, [],
        ["several classes a row, such as 'a|b'", "multi-label", 'separator: "|"', "--kind text-classification"],
    ),
    "no header": (
        {"bak bal bam ban": texts(), "bad": cycle("good", "bad")}, [],
        ["'bad' is called like one of its values", "Write a line with the names", "--label bad"],
    ),
    "no header, and a word a line": (
        {"EU": cycle("EU", "the", "Ann"), "B-ORG": cycle("B-ORG", "O", "B-PER")}, [], ["dataset.path=conll"],
    ),
    "a decimal comma": (
        {"text": texts(), "price": [f"1.{row:03},5" for row in range(40)]}, [], ["dataset.decimal=, dataset.thousands=."],
    ),
    "few numbers with a decimal comma": (
        {"text": texts(), "stars": cycle("3,5", "4,0", "4,5")}, [], ["dataset.decimal=,", "--kind text-classification"],
    ),
    "choices that are nowhere": (
        {"text": texts(), "label": cycle("a", "b")}, ["task.kind=multiple-choice"], ["task.choices=COLUMN"],
    ),
    "a name with a space": (
        {"Sentence #": cycle("a", "b"), "Tag": cycle("x", "y"), "text": texts()}, [], ["--label 'Sentence #'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_what_can_be_read_in_two_ways_is_asked_for(case: str, data: Callable[..., str]) -> None:
    """Nothing is trained on another task than the data are for, without a word; what to pass stands in the message."""
    columns, overrides, expected = ASKED[case]
    with pytest.raises(DataError) as caught:
        draft_recipe(data("my.csv", **columns), overrides=overrides)
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize("numbers", [[f"{row},5" for row in range(40)], cycle("3,5", "4,0", "1.250,5")])
def test_numbers_with_a_decimal_comma_are_a_regression_once_it_is_said(data: Callable[..., str], numbers: Any) -> None:
    """The hint of the message can be typed as it stands, and leads to a recipe."""
    name = data("semicolon.csv", text=texts(), price=numbers)
    draft = draft_recipe(name, overrides=["dataset.decimal=,", "dataset.thousands=."])
    assert draft.fields["task"] == {"kind": "text-regression", "text": "text", "label": "price"}
    assert draft.recipe.dataset.decimal == ","


def test_a_file_of_another_ending_is_what_it_is_said_to_be(data: Callable[..., str]) -> None:
    """A text file, and one without an ending of a format, ask for their format and take it."""
    for name in ("my.txt", "eng.train"):
        Path(name).write_text("Ann B-PER\nruns O\n\nBo B-PER\nsits O\n\n" * 4)
        with pytest.raises(DataError, match=r"dataset\.path=conll"):
            draft_recipe(name)
        draft = draft_recipe(name, overrides=["dataset.path=conll"])
        assert draft.fields["task"] == {"kind": "token-classification", "text": "tokens", "label": "tags"}


def test_a_folder_of_text_files_asks_for_their_format(data: Callable[..., str]) -> None:
    """Files with a word a line and the ending `.txt` are lines of text; how to say what they are is told, and works."""
    Path("folder").mkdir()
    for name in ("train", "dev"):
        Path(f"folder/{name}.txt").write_text("Ann B-PER\nruns O\n\nBo B-PER\nsits O\n\n" * 4)
    with pytest.raises(DataError, match=r"nothing to learn beside text.*dataset\.path=conll"):
        draft_recipe("folder")
    files = "dataset.data_files={train: folder/train.txt, validation: folder/dev.txt}"
    draft = draft_recipe("folder", overrides=["dataset.path=conll", files])
    assert draft.fields["task"]["kind"] == "token-classification"
    assert draft.recipe.dataset.splits.evaluation == "validation"


def test_windows_of_a_drafted_recipe_share_less_than_they_are_long(data: Callable[..., str]) -> None:
    """The recipe for short contexts trains as it is made: its stride is below its length."""
    answers = [{"text": [text[:3]], "answer_start": [0]} for text in texts()]
    draft = draft_recipe(data("my.jsonl", question=texts(), context=texts(), answers=answers))
    assert draft.recipe.task.stride == 16


@pytest.mark.parametrize("case", CASES)
def test_the_task_is_guessed(case: str, data: Callable[..., str]) -> None:
    """Kind and columns from names, types and values; the recipe is valid, and its file says the same."""
    name, columns, expected = CASES[case]
    draft = draft_recipe(data(name, **columns))
    assert draft.fields["task"] == expected
    assert draft.recipe.dataset.splits.evaluation == "held_out"
    assert draft.recipe.model.checkpoint == TINY
    file, _ = write_draft(draft)
    assert load_recipe(file) == draft.recipe
    for path in draft.reasons:
        line = next(line for line in file.read_text().splitlines() if line.startswith(f"  {path.partition('.')[2]}: "))
        assert "  # " in line


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"review": texts(), "stars": cycle(1, 2, 3, 4, 5)}, "--kind text-classification for classes, --kind text-regr"),
        ({"message": texts(), "area": cycle("a", "b"), "stars": cycle(1, 2)}, "may be the label: area, stars"),
        ({"text": texts(), "toxic": cycle(0, 1), "rude": cycle(0, 0, 1)}, "--label toxic,rude"),
        ({"one": texts(), "two": texts()[::-1], "label": cycle("a", "b")}, "--text one, or both as a pair: --text one,two"),
        ({"text": texts(), "label": cycle("a")}, "has one value, 'a': nothing to learn"),
        ({"text": texts(), "label": [f"name {row}" for row in range(40)]}, "40 different texts in 40 rows: no classes"),
        ({"text": texts()}, "no column looks like a label"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_asked_for(columns: dict[str, Any], told: str, data: Callable[..., str]) -> None:
    """Nothing is trained on a guess that could as well be another: exit 3, and what to pass."""
    with pytest.raises(DataError) as caught:
        draft_recipe(data("my.jsonl", **columns))
    assert told in str(caught.value)


def test_what_is_said_is_kept(data: Callable[..., str]) -> None:
    """Columns, kind, checkpoint and any other field; a column that is not there is told with the near one."""
    file = data("my.jsonl", review=texts(), stars=cycle(1, 2, 3, 4, 5), other=texts())
    given = ["task.text=review", "task.label=stars", "task.kind=text-regression", "model.checkpoint=./mine"]
    draft = draft_recipe(file, overrides=[*given, "train.epochs=2", "dataset.splits.hold_out=10", "optimizer.lr=1e-3"])
    recipe = draft.recipe
    assert (recipe.task.kind, recipe.model.checkpoint, recipe.train.epochs) == (
        "text-regression",
        str(Path("mine").absolute()),
        2,
    )
    assert (recipe.dataset.splits.hold_out, recipe.optimizer.lr, recipe.optimizer.weight_decay) == (10, 1e-3, 0.01)
    with pytest.raises(DataError, match="no column 'stras'; did you mean 'stars'"):
        draft_recipe(file, overrides=["task.label=stras"])
    with pytest.raises(RecipeError, match="unknown field"):
        draft_recipe(file, overrides=[*given, "train.epoch=2"])


def test_classes_of_numbers_that_are_asked_for(data: Callable[..., str]) -> None:
    """Numbers that are not counted from 0 get their names, by which they can be learned."""
    file = data("my.jsonl", review=texts(), stars=cycle(1, 2, 5))
    draft = draft_recipe(file, overrides=["task.kind=text-classification"])
    assert draft.fields["task"]["label"] == {"column": "stars", "names": {"1": "1", "2": "2", "5": "5"}}


def test_splits_of_a_folder_are_used(data: Callable[..., str], tmp_path: Path) -> None:
    """What the data have to measure on is taken before anything is set aside."""
    (tmp_path / "folder").mkdir()
    for name in ("train", "test"):
        data(f"folder/{name}.csv", text=texts(), label=cycle("a", "b"))
    draft = draft_recipe("folder")
    assert draft.fields["dataset"] == {"path": "./folder", "splits": {"train": "train", "evaluation": "test"}}


def test_the_checkpoint_is_for_the_language(data: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the Hub in reach a small one for English, or one for many languages."""
    monkeypatch.setattr("hfpipe.system.hub.detect_offline", lambda notice: False)
    english = draft_recipe(data("a.jsonl", text=texts(), label=cycle("a", "b")))
    russian = draft_recipe(data("b.jsonl", text=[f"привет мир {row}" for row in range(40)], label=cycle("a", "b")))
    assert english.recipe.model.checkpoint == "distilbert/distilbert-base-uncased"
    assert russian.recipe.model.checkpoint == "distilbert/distilbert-base-multilingual-cased"


def test_no_recipe_is_written_over(data: Callable[..., str], tmp_path: Path) -> None:
    """A file that is there stays; in another folder the data are named so that they are found."""
    draft = draft_recipe(data("my.jsonl", text=texts(), label=cycle("a", "b")))
    (tmp_path / "my.yaml").write_text("mine")
    with pytest.raises(RecipeError, match=r"is there already.*--output"):
        write_draft(draft)
    assert (tmp_path / "my.yaml").read_text() == "mine"
    (tmp_path / "elsewhere").mkdir()
    file, _ = write_draft(draft, tmp_path / "elsewhere" / "my.yaml")
    assert "  data_files: ../my.jsonl  # " in file.read_text()
    assert load_recipe(file).dataset.data_files == str(tmp_path / "my.jsonl")


def test_a_reason_is_no_second_line() -> None:
    """Whatever a column is called, a comment stays on its line, and a name that YAML would read otherwise is quoted."""
    fields = {"name": "a", "dataset": {"path": "csv", "data_files": "no: x.csv"},
              "task": {"text": "a\nb", "label": "no # 1"}, "model": {"checkpoint": "./m"}}  # fmt: skip
    draft = Draft("x", fields, {"task.text": "a\nb (text)"})
    assert '\n  text: "a\\nb"  # a b (text)\n' in draft.yaml("x.yaml")


def test_a_file_is_trained_on(data: Callable[..., str], hfpipe_command: Callable[..., Any], tmp_path: Path) -> None:
    """`finetune FILE` says what it guessed, trains, and records the recipe; other commands say how to make one."""
    name = data("my.csv", first=texts(), area=cycle("food", "price"), second=texts()[::-1])
    missing = hfpipe_command("finetune", name, "--runs-dir", "runs")
    assert missing.code == 3
    assert "--text first, or both as a pair: --text first,second" in missing.err
    options = ["--text", "first", "--label", "area", "--epochs", "1", "--checkpoint", TINY, "--name", "r"]
    done = hfpipe_command("finetune", name, *options, "train.max_steps=1", "--runs-dir", "runs")
    assert done.code == 0, done.err
    assert "note: task.kind: text-classification (area has 2 classes)" in done.err
    written = load_recipe(tmp_path / "runs" / "r" / "recipe.yaml")
    assert (written.task.text, written.task.label, written.train.max_steps) == (("first",), "area", 1)
    made = hfpipe_command("recipes", "new", name, "--text", "first", "--label", "area", "--json")
    assert load_recipe(made.json["recipe"]).task == written.task
    for command in (["data", name], ["recipes", "validate", name]):
        told = hfpipe_command(*command)
        assert told.code == 2
        assert "is data, not a recipe. `hfpipe recipes new my.csv` makes a recipe for it" in told.err

"""Several choices for a context: what a label may be, nested tokens, and the choice that is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hfpipe.errors import DataError
from hfpipe.parts.inputs.tokenized import tokenize
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all
from hfpipe.parts.tasks import head_task, lengths, make_task
from hfpipe.parts.tasks.choices import ChoiceTask
from hfpipe.recipe.schema import Task

ENDINGS = tuple(f"ending{number}" for number in range(4))
SWAG = Task(kind="multiple-choice", text=("sent1", "sent2"), choices=ENDINGS, label="label")
LISTED = Task(kind="multiple-choice", text="context", choices="endings", label="answer")
WORDS = ["bak", "bek", "bik", "bok", "buk"]


def swag(count: int = 12, labels: Any = None) -> datasets.Dataset:
    """Rows of SWAG: a context, the beginning of its four endings, the endings, and the number of the right one."""
    rows = [
        {
            "sent1": " ".join(WORDS[: row % 5 + 1]),
            "sent2": "The" if row % 3 else "",
            **{name: f"{WORDS[(row + number) % 5]} {'gol ' * number}".strip() for number, name in enumerate(ENDINGS)},
            "label": row % 4,
        }
        for row in range(count)
    ]
    made = datasets.Dataset.from_list(rows)
    if labels is not None:
        return made.remove_columns("label").add_column("label", labels)
    return made.cast_column("label", datasets.ClassLabel(names=["0", "1", "2", "3"]))


def listed(endings: list[Any], answers: list[Any]) -> datasets.Dataset:
    """Rows with a list of endings."""
    return datasets.Dataset.from_dict({"context": ["bak"] * len(endings), "endings": endings, "answer": answers})


def task_of(rows: datasets.Dataset, spec: Task = SWAG) -> ChoiceTask:
    """The checked task of these rows."""
    task = make_task(spec, rows, "d", "task")
    task.check(rows, "d", "task")
    return task


@pytest.fixture
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tiny checkpoint's own."""
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


def encode(
    task: Any, rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, **more: Any
) -> datasets.Dataset:
    """The rows through the cache of tokens."""
    return tokenize(
        task, rows, tokenizer, **{"max_length": 32, **more}, identity=f"{tmp_path} {rows._fingerprint}"
    ).data


@pytest.mark.parametrize("beginning", [True, False])
def test_every_choice_is_read_after_the_context(beginning, tokenizer, tmp_path):
    """A row becomes one list of tokens for each choice: the context, and the choice after the common beginning."""
    rows = swag()
    spec = SWAG if beginning else SWAG.model_copy(update={"text": ("sent1",)})
    encoded = encode(task_of(rows, spec), rows, tokenizer, tmp_path)
    assert set(encoded.column_names) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    assert encoded["labels"][:] == [row % 4 for row in range(12)]
    for row, ids in zip(rows, encoded["input_ids"], strict=True):
        seconds = [f"{row['sent2']} {row[name]}" if beginning else row[name] for name in ENDINGS]
        assert ids == [tokenizer(row["sent1"], second)["input_ids"] for second in seconds]
    longest = [max(len(choice) for choice in ids) for ids in encoded["input_ids"]]
    assert lengths(encoded).tolist() == longest
    assert lengths(encoded.select([3, 1])).tolist() == [longest[3], longest[1]]
    short = encode(task_of(rows, spec), rows, tokenizer, tmp_path, max_length=6)
    assert lengths(short).max() == 6


@pytest.mark.parametrize(
    ("labels", "form"),
    [
        ([0, 2, 1], "from_zero"),
        (["0", "2", "1"], "from_zero"),
        ([1, 3, 2], "from_one"),
        (["1", "3", "2"], "from_one"),
        (["A", "C", "B"], "letters"),
        (["(a)", "c.", "b"], "letters"),
        (["red", "green", "blue"], "text"),
    ],
)
def test_labels_are_numbers_letters_or_texts(labels, form, tokenizer, tmp_path):
    """The number of the right choice from 0 or from 1, the same as text, its letter, and the choice itself mean the same."""
    rows = listed([["red", "blue", "pink"], ["pink", "red", "green"], ["red", "blue", "green"]], labels)
    task = task_of(rows, LISTED)
    assert task.form == form
    assert encode(task, rows, tokenizer, tmp_path)["labels"][:] == [0, 2, 1]


def test_class_labels_are_numbers():
    """The names of a ClassLabel are not looked for among the choices: its numbers count."""
    rows = swag().cast_column("label", datasets.ClassLabel(names=["A", "B", "C", "D"]))
    assert task_of(rows).form == "from_zero"


def test_labels_that_could_be_both_are_refused_only_where_that_matters():
    """Digits that are among the choices, at another place than their own, are refused; at their own place they are not."""
    with pytest.raises(DataError, match="counted from 0, and as the text of the right choice"):
        task_of(listed([["1", "0"], ["0", "1"]], ["0", "1"]), LISTED)
    assert task_of(listed([["0", "1"], ["0", "1"]], ["0", "1"]), LISTED).form == "from_zero"
    assert task_of(listed([["1", "0"], ["7", "8"]], ["0", "1"]), LISTED).form == "from_zero"


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, 4, 1, -1], "label 4 is outside the 4 choices, counted from 0 (rows 1, 3, counted from 0)"),
        (["0", "1", "2", "4"], "label '4' is outside the 4 choices, counted from 0 (row 3"),
        ([-1] * 4, "every label is -1"),
        ([0, None, 1, 2], "no label (row 1"),
        (["bak", "x", "bik", "y"], "label 'x' is none of the choices of its row (rows 1, 3"),
        (
            [0.5, 1.0, 0.0, 2.0],
            "holds double; allowed: the number of the right choice, counted from 0, or its letter, or its text",
        ),
    ],
)
def test_labels_that_are_no_choice_are_refused(labels, told):
    """A label that is none of the row's choices is told with its rows."""
    with pytest.raises(DataError) as caught:
        task_of(swag(4, labels))
    assert told in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("endings", "told"),
    [
        ([["a", "b"], ["a", "b", "c"], ["a"]], "fewer than 2 choices (row 2, counted from 0)"),
        ([["a", "b"], ["a", None], ["a", "b"]], "a choice has no text (row 1"),
        ([["a", "b"], None, ["a", "b"]], "column 'endings' has no choices (row 1"),
        ([["a"], ["b"], ["c"]], "fewer than 2 choices (rows 0, 1, 2, counted from 0)"),
        ([[1, 2], [3, 4], [5, 6]], "holds list<item: int64>; allowed: lists of texts"),
        (["a", "b", "c"], "holds string; allowed: lists of texts"),
        ([["a", "b"], ["a", " "], []], "fewer than 2 choices (row 2"),
    ],
)
def test_choices_that_are_none_are_refused(endings, told):
    """Rows with fewer than two choices, or choices without text, are told, also where no label is read."""
    rows = listed(endings, [0, 0, 0])
    for labelled in (True, False):
        with pytest.raises(DataError) as caught:
            make_task(LISTED, rows, "d", "task").check(rows, "d, split x", "r.yaml:2:1", labelled=labelled)
        assert told in str(caught.value)
        assert str(caught.value).startswith("r.yaml:2:1: d, split x")


def test_a_split_whose_labels_are_of_another_kind_is_refused():
    """An evaluation split with texts where training has numbers, or the other way, is told with what is expected."""
    numbers, texts = swag(4), swag(4, ["bak", "bek", "bik", "bok"])
    with pytest.raises(DataError, match="counted from 0, as in training"):
        make_task(SWAG, numbers, "d", "task").check(texts, "d", "task")
    with pytest.raises(DataError, match="the text of the right choice, as in training"):
        make_task(SWAG, texts, "d", "task").check(numbers, "d", "task")


def test_batches_are_padded_with_and_without_labels(tokenizer, tmp_path):
    """All choices of a batch get one length, `[batch, choices, length]`; without labels the batch is the same."""
    rows = swag()
    task = task_of(rows)
    encoded = encode(task, rows, tokenizer, tmp_path)
    bare = encode(head_task(SWAG, ()), rows.remove_columns("label"), tokenizer, tmp_path, labelled=False)
    collate = task.collator(tokenizer)
    batch = collate([encoded[row] for row in (0, 4, 7)])
    longest = int(lengths(encoded)[[0, 4, 7]].max())
    assert {name: list(value.shape) for name, value in batch.items()} == {
        "input_ids": [3, 4, longest],
        "token_type_ids": [3, 4, longest],
        "attention_mask": [3, 4, longest],
        "labels": [3],
    }
    assert batch["labels"].tolist() == [0, 0, 3]
    without = collate([bare[row] for row in (0, 4, 7)])
    assert "labels" not in without
    for name, value in without.items():
        assert torch.equal(value, batch[name])


def test_the_greatest_logit_is_the_choice(tokenizer, tmp_path):
    """Gold logits are all right; what is told of a row is its choice, the text of it, and probabilities that sum to 1."""
    rows = swag()
    task = task_of(rows)
    encoded = encode(task, rows, tokenizer, tmp_path)
    logits = np.zeros((12, 4), np.float32)
    logits[np.arange(12), encoded["labels"][:]] = 2
    kept = task.unpad_logits(torch.tensor(logits), {})
    said, right = task.decode(kept, encoded, rows)
    assert compute_all([("accuracy", load_metric("accuracy"))], said, right) == {"accuracy": 1.0}
    share = np.exp(2) / (np.exp(2) + 3)
    for row, told in enumerate(head_task(SWAG, ()).format_predictions(kept, encoded.remove_columns("labels"), rows)):
        assert told["choice"] == row % 4
        assert told["text"] == rows[row][f"ending{row % 4}"]
        assert told["score"] == max(told["probabilities"]) == pytest.approx(share)
        assert sum(told["probabilities"]) == pytest.approx(1)
    assert task.decode(kept, encoded.remove_columns("labels"), rows)[1] is None
    assert compute_all([("accuracy", load_metric("accuracy"))], *task.dummy_predictions()) == {"accuracy": 1.0}

"""What a cell of a label column may say: 0 and 1 for each class, several names in a text, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import hfpipe
from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.inputs.class_notices import alike_names, rare_classes
from hfpipe.parts.optim.losses import class_weights
from hfpipe.parts.tasks import class_counts, head_task, make_task, pinned
from hfpipe.recipe import load_recipe
from hfpipe.recipe.schema import Label, Task

HOT = [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
WANTED = [[float(one) for one in row] for row in HOT]


def several(**label: Any) -> Task:
    """A task of several classes a row, whose label column is called label."""
    given = Label(column="label", **label) if label else "label"
    return Task(kind="multi-label-classification", text=("text",), label=given)


def single(kind: str = "text-classification", **label: Any) -> Task:
    """A task of one class a row, or a word."""
    return Task(kind=kind, text=("text",), label=Label(column="label", **label))


def table(labels: list[Any], feature: Any = None, text: Any = "bak bal") -> datasets.Dataset:
    """Rows with these labels."""
    given = {"text": [text] * len(labels), "label": labels}
    if feature is None:
        return datasets.Dataset.from_dict(given)
    features = datasets.Features({"text": datasets.Value("string"), "label": feature})
    return datasets.Dataset.from_dict(given, features=features)


@pytest.fixture
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tiny checkpoint's own."""
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


@pytest.fixture
def labels_of(tokenizer: PreTrainedTokenizerBase) -> Callable[[Task, datasets.Dataset], tuple[Any, list[Any]]]:
    """The checked task of some rows, and their encoded labels."""

    def encode(spec: Task, rows: datasets.Dataset) -> tuple[Any, list[Any]]:
        task = make_task(spec, rows, "d", "task")
        task.check(rows, "d, split train", "task")
        return task, list(task.encode(rows[:], tokenizer, 16, True)["labels"])

    return encode


Encode = Callable[[Task, datasets.Dataset], tuple[Any, list[Any]]]


@pytest.mark.parametrize(
    "rows",
    [
        table(HOT),
        table([[float(one) for one in row] for row in HOT]),
        table([[bool(one) for one in row] for row in HOT]),
        table([[str(one) for one in row] for row in HOT]),
        table([np.array(row) for row in HOT]),
        table(HOT, datasets.List(datasets.Value("int8"), length=4)),
        table([str(row) for row in HOT]),
        table([str(np.array(row)) for row in HOT]),
        table([str([bool(one) for one in row]) for row in HOT]),
        table([str([float(one) for one in row]) for row in HOT]),
    ],
    ids=["ints", "floats", "booleans", "texts", "arrays", "fixed", "JSON", "numpy's text", "Python's text", "1.0"],
)
def test_lists_of_0_and_1_are_one_column_a_class(rows: datasets.Dataset, labels_of: Encode) -> None:
    """However they are written, rows of 0 and 1 of one width are the classes that hold, and the audit says so."""
    task, labels = labels_of(several(), rows)
    assert task.names == ("class_0", "class_1", "class_2", "class_3")
    assert labels == WANTED
    assert class_counts(several(), task, rows) == [2, 2, 1, 2]
    assert "'label' holds 0 or 1 for each of 4 classes, in order: class_0" in task.reading
    named, labels = labels_of(several(names=("food", "price", "staff", "place")), rows)
    assert (named.names, labels) == (("food", "price", "staff", "place"), WANTED)


def test_structs_and_separate_columns_of_0_and_1_are_classes_too(labels_of: Encode) -> None:
    """Fields of a struct are classes by their names, and those that the recipe names, in its order; a CSV's True is 1."""
    rows = table([{"food": a, "price": b, "staff": c} for a, b, c, _ in HOT])
    task, labels = labels_of(several(), rows)
    assert (task.names, labels) == (("food", "price", "staff"), [row[:3] for row in WANTED])
    task, labels = labels_of(several(names=("staff", "food")), rows)
    assert (task.names, labels) == (("staff", "food"), [[row[2], row[0]] for row in WANTED])
    texts = datasets.Dataset.from_dict(
        {"text": ["bak"] * 4, "a": ["True", "False", "false", "TRUE"], "b": ["0", "1.0", "0.0", "1"]}
    )
    columns = Task(kind="multi-label-classification", text=("text",), label=("a", "b"))
    assert labels_of(columns, texts)[1] == [row[:2] for row in WANTED]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0], [1], [0, 1], []], [[1, 0], [0, 1], [1, 1], [0, 0]]),
        ([[0, 3], [1, 2], [2, 0]], [[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]]),
        ([[3, 3], [1, 2], [2, 0]], [[0, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]]),
        ([["a", "b"], ["b"], []], [[1, 1], [0, 1], [0, 0]]),
        ([[0], [1], [0]], [[1, 0], [0, 1], [1, 0]]),
    ],
)
def test_lists_of_classes_stay_lists_of_classes(labels: list[Any], expected: list[Any], labels_of: Encode) -> None:
    """Numbers of classes are different within a row; widths that differ, or other numbers, are no columns."""
    task, found = labels_of(several(), table(labels))
    assert found == [[float(one) for one in row] for row in expected]
    assert task.reading == ""


def test_what_can_be_read_in_two_ways_is_refused_with_both(labels_of: Encode) -> None:
    """Two numbers a row, 0 and 1, could be both classes or 0 and 1 for two; either is said in the recipe, and [0, 0] tells."""
    rows = table([[0, 1], [1, 0], [0, 1]])
    with pytest.raises(DataError, match=r"form: columns.*form: classes") as refused:
        make_task(several(), rows, "d", "task")
    assert refused.value.exit_code == 3
    assert labels_of(several(form="columns"), rows)[1] == [[0, 1], [1, 0], [0, 1]]
    assert labels_of(several(form="classes"), rows)[1] == [[1, 1]] * 3
    with pytest.raises(DataError, match="two numbers"):
        make_task(several(names=("no", "yes")), rows, "d", "task")
    assert labels_of(several(), table([[0, 1], [1, 0], [0, 0]]))[1] == [[0, 1], [1, 0], [0, 0]]
    assert labels_of(several(), table([[False, True], [True, False]]))[1] == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("labels", "label", "told"),
    [
        ([[1, 0, 0], [0, 1, 0], [1, 0]], {}, "2 different widths, mostly 3 (row 2, counted from 0)"),
        ([[1, 0, 0], [0, 1, -1], [1, 0, 0]], {}, "-1 in a list of 'label', and a label column says 0 or 1 (row 1"),
        ([[-1, -1, -1], [-1, -1, -1]], {"form": "columns"}, "every label is -1"),
        ([[1.0, 0.0, 0.3], [0.0, 1.0, 0.0]], {}, "0.3 in a list of 'label', and a label column says 0 or 1 (row 0"),
        ([[1, 0, 0], [0, 1, 1]], {"names": ("a", "b")}, "0 or 1 for 3 classes, and label.names has 2"),
        ([[1, 0, 0], [0, 1, 1]], {"names": {"0": "a", "1": "b"}}, "and label.names is a mapping"),
        ([[1, 0, 0], None], {}, "no label (row 1"),
        ([[0, 2], [1], [-100, 0]], {}, "label -100 is outside the 3 classes (row 2"),
        (["1, 0", "a"], {}, 'label: {column: label, separator: ","}'),
        (["[1, 0, 0]", "[1, 0, 1"], {}, "holds string"),
        (["[1, 0, 0]", "[1, 0 x]"], {}, "'[1, 0 x]', which is no list (row 1"),
        (["[1, 0, 0]", "[1, 0, 1]"], {"separator": ","}, "Leave label.separator out"),
        ([["a"], ["b"]], {"separator": ","}, "Leave label.separator out"),
    ],
)
def test_lists_that_say_nothing_are_refused(labels: list[Any], label: dict[str, Any], told: str) -> None:
    """Other widths, other numbers, other names and unread texts are told with their rows."""
    rows = table(labels)
    with pytest.raises(DataError) as refused:
        make_task(several(**label), rows, "d", "task").check(rows, "d", "task")
    assert told in str(refused.value)


def test_other_splits_are_read_as_the_training_rows(labels_of: Encode) -> None:
    """An evaluation split of two rows that alone would be refused, or of another width, is read as training is."""
    task = make_task(several(), table([[0, 1], [1, 0], [1, 1]]), "d", "task")
    task.check(table([[0, 1], [1, 0]]), "d, split validation", "task")
    with pytest.raises(DataError, match="3 numbers in 'label', and there are 2 classes"):
        task.check(table([[0, 1, 1]]), "d, split validation", "task")
    assert pinned(several(), task) == ['task.label={"column": "label", "missing": "error", "form": "columns", "names": '
                                       '["class_0", "class_1"]}'.replace('"missing": "error", ', "")]  # fmt: skip


def test_several_names_in_a_text_are_separated(labels_of: Encode) -> None:
    """White space around names and empty pieces are no part of them, and an empty text has no class."""
    rows = table(["a, b", "b", "", " c ,a,", "b;c"])
    task, labels = labels_of(several(separator=","), rows)
    assert task.names == ("a", "b", "b;c", "c")
    assert labels == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]]
    assert class_counts(several(separator=","), task, rows) == [2, 2, 1, 1]
    declared = several(separator=",", names=("b", "a"))
    with pytest.raises(DataError, match=r"label 'b;c' is outside the 2 classes|label 'c' is outside the 2 classes"):
        make_task(declared, rows, "d", "task").check(rows, "d", "task")
    flags = table(["1,0,0", "0,1,1"])
    assert labels_of(several(separator=","), flags)[1] == [[1, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize(
    ("kind", "labels", "told"),
    [
        ("text-classification", ["a", "", "b"], "no label (row 1"),
        ("text-classification", ["a", " \t", "b", None], "no label (rows 1, 3"),
        ("text-classification", [0, None, 1], "no label (row 1"),
        ("token-classification", [["O", "B-a"], ["O", ""]], "a label is None (row 1"),
        ("token-classification", [["O", "B-a"], None], "no label (row 1"),
        ("multi-label-classification", [["a", "b"], ["a", " "]], "a label is None (row 1"),
    ],
)
def test_a_missing_label_is_no_class(kind: str, labels: list[Any], told: str, labels_of: Encode) -> None:
    """Null and blank labels are refused with their rows and the field that leaves them out, which it does."""
    rows = table(labels, text=["bak", "bal"] if kind.startswith("token") else "bak bal")
    with pytest.raises(DataError) as refused:
        labels_of(single(kind), rows)
    assert told in str(refused.value)
    assert "missing: ignore" in str(refused.value)
    task, found = labels_of(single(kind, missing="ignore"), rows)
    assert not [name for name in task.names if not name.strip()]
    blank = [np.ravel(one).tolist() for one, label in zip(found, labels, strict=True) if label in (None, "", " \t")]
    assert all(set(one) == {-100} for one in blank)
    assert class_counts(single(kind, missing="ignore"), task, rows)[0] >= 1


def test_a_blank_value_may_be_declared(labels_of: Encode) -> None:
    """A mapping that says what an empty text means makes it a class; a ClassLabel with a blank name is refused."""
    spec = single(names={"": "none", "x": "some"})
    assert labels_of(spec, table(["", "x"]))[1] == [0, 1]
    with pytest.raises(DataError, match="is called '', as a missing label is"):
        make_task(single(), table([0, 1], datasets.ClassLabel(names=["", "x"])), "d", "task")
    with pytest.raises(DataError, match="not one row has a label"):
        labels_of(single(missing="ignore", names=("a", "b")), table([None, None], datasets.Value("string")))


@pytest.mark.parametrize("engine", ["trainer", "loop"])
@pytest.mark.parametrize("kind", ["text-classification", "multi-label-classification"])
def test_rows_without_a_label_are_left_out(
    kind: str, engine: str, tiny_checkpoint: Path, tmp_path: Path, no_report: None
) -> None:
    """Loss, items and metrics are those of the rows that have a label, in both engines, and the run says how many."""
    words = ["bak bal", "bam", "ban bap bar", "fun", "gol bak", "bal"]
    full = ["a", "b", "a", "b", "b", "a"]
    label = [None if row in (1, 4) else [one] if kind.startswith("multi") else one for row, one in enumerate(full)]
    rows = datasets.Dataset.from_dict({"text": words, "label": label})
    fields = {
        "dataset": {"path": "json", "data_files": "x", "splits": {"evaluation": "validation"}},
        "task": {"kind": kind, "text": "text", "label": {"column": "label", "missing": "ignore", "names": ["a", "b"]}},
        "model": {"checkpoint": str(tiny_checkpoint), "config": {"hidden_dropout_prob": 0.0}},
        "train": {"epochs": 1, "batch_size": 6, "precision": "fp32"},
        "engine": engine,
    }
    given = {"train": rows, "validation": rows}
    run = hfpipe.finetune(fields, dataset=given, runs_dir=tmp_path)
    kept = rows.select([0, 2, 3, 5])
    other = hfpipe.finetune(fields, dataset={"train": kept, "validation": kept}, runs_dir=tmp_path)
    first, second = (next(one for one in each.records if one["type"] == "step") for each in (run, other))
    assert first["num_items"] == second["num_items"] == 4
    document = run.read_json("evaluations/validation.json") or {}
    assert (document["examples"], document["scored"]) == (6, 4)
    assert run.metrics["loss"] == pytest.approx(other.metrics["loss"], abs=0.05)  # attention's dropout differs
    notices = [one["text"] for one in run.records if one["type"] == "notice"]
    assert any("train: 2 of 6 rows have no label" in text for text in notices)


def test_names_that_are_nearly_the_same_are_told() -> None:
    """Case, white space and the Unicode form of characters; with counts, the most frequent first."""
    counts = {"Brakes": 40, "Brakes ": 1, "BRAKES": 2, "caf\u00e9": 3, "cafe\u0301": 1, "Other": 9}
    first, second = alike_names("train", counts)
    assert "'Brakes' (40), 'BRAKES' (2), 'Brakes ' (1)" in first
    assert "(3)" in second
    assert alike_names("train", {"a": 1, "b": 1}) == []


def test_an_unknown_class_names_the_one_that_is_nearly_the_same() -> None:
    """An evaluation split with `Brakes ` where training has `brakes`."""
    task = make_task(single(), table(["brakes", "wheel"]), "d", "task")
    with pytest.raises(DataError, match="differs from 'brakes' only in case, white space"):
        task.check(table(["Brakes ", "wheel"]), "d", "task")


def test_rare_classes_are_told() -> None:
    """Fewer than five labels, none in training, none in evaluation, and only in evaluation."""
    notices = rare_classes(
        "train", {"train": {"a": 90, "b": 1, "c": 4, "d": 0}, "validation": {"a": 9, "b": 0, "c": 5, "d": 6}}
    )
    assert notices == [
        "train: 2 classes with fewer than 5 labels, hardly learned: 'b' (1), 'c' (4)",
        "train: 1 class without a label, not learned: 'd'",
        "validation: 1 class of train without a label, not measured: 'b'",
        "validation: 1 class without a label in train: 'd'",
    ]
    assert rare_classes("train", {"train": {"a": 9, "b": 9}, "validation": {"a": 7, "b": 8}}) == []


def test_the_audit_tells_how_labels_are_read_and_which_are_odd(tiny_checkpoint: Path) -> None:
    """Nearly equal names with their counts, rare classes and missing labels are notices of the run; strict refuses names."""
    labels = ["Brakes"] * 9 + ["BRAKES", "Brakes ", "wheel", "wheel", "", "wheel", "wheel", "wheel"]
    rows = datasets.Dataset.from_dict({"text": [f"bak bal {'bam ' * k}" for k in range(len(labels))], "label": labels})
    fields = {
        "dataset": {"path": "json", "data_files": "x", "splits": {"evaluation": None}},
        "task": {"text": "text", "label": {"column": "label", "missing": "ignore"}},
        "model": {"checkpoint": str(tiny_checkpoint)},
    }
    job = hfpipe.prepare(load_recipe(fields), dataset=rows)
    told = "\n".join(job.notices)
    assert "'Brakes' (9), 'BRAKES' (1), 'Brakes ' (1)" in told
    assert "train: 2 classes with fewer than 5 labels, hardly learned: 'BRAKES' (1), 'Brakes ' (1)" in told
    assert "train: 1 of 17 rows have no label" in told
    strict = load_recipe(fields, ["dataset.strict=true", "task.label.missing=ignore"])
    with pytest.raises(DataError, match="differ only in case"):
        hfpipe.prepare(strict, dataset=rows)


def test_columns_of_another_file_are_the_classes_of_their_names(tokenizer: PreTrainedTokenizerBase) -> None:
    """A trained head's classes keep their columns in whatever order these are given; some of other names are refused."""
    rows = datasets.Dataset.from_dict({"text": ["bak"], "a": [1], "b": [0], "c": [0], "x": [1], "y": [0]})

    def labels(*columns: str) -> Any:
        task = head_task(Task(kind="multi-label-classification", text=("text",), label=columns), ("a", "b"))
        task.check(rows, "d", "task")
        return task.encode(rows[:], tokenizer, 16, True)["labels"]

    assert labels("b", "a") == labels("a", "b") == labels("x", "y") == [[1.0, 0.0]]
    for columns in (("b", "c"), ("a", "x"), ("a", "b", "c")):
        with pytest.raises(DataError, match="the label columns are"):
            labels(*columns)


def test_weights_by_name() -> None:
    """A class that is not named weighs 1; an unknown name is told with the near ones."""
    assert class_weights({"b": 3.0}, [5, 5], ["a", "b"]).tolist() == [1.0, 3.0]
    with pytest.raises(RecipeError, match="no class is called 'pric'; did you mean 'price'"):
        class_weights({"pric": 3.0}, [5, 5], ["food", "price"])
    with pytest.raises(RecipeError, match="did you mean 'effective_number'"):
        class_weights({"effective_numbr": 0.9}, [5, 5], ["food", "price"])


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"label": {"column": "l", "form": "columns"}}, "does nothing with kind: text-classification"),
        ({"label": {"column": "l", "separator": ","}}, "needs kind: multi-label-classification"),
        ({"kind": "text-regression", "label": {"column": "l", "missing": "ignore"}}, "is for classes and choices"),
        ({"label": {"column": ["a", "b"]}}, "several label columns need kind"),
        (
            {"kind": "multi-label-classification", "label": {"column": ["a", "b"], "form": "columns"}},
            "several label columns are a class each",
        ),
    ],
)
def test_a_label_that_says_too_much_is_refused(task: dict[str, Any], told: str) -> None:
    """A field that this kind of task does not read is refused where the recipe is read."""
    fields = {"dataset": {"path": "x"}, "model": {"checkpoint": "x"}, "task": {"text": "text", **task}}
    with pytest.raises(RecipeError, match=told):
        load_recipe(fields)


def test_a_run_remembers_how_its_labels_are_said(tiny_checkpoint: Path, tmp_path: Path, no_report: None) -> None:
    """A split that alone could be read in two ways is evaluated as the run was trained; the names are those of its head."""
    words = ["bak bal", "bam", "ban bap bar", "fun"]
    fields = {
        "dataset": {"path": "jsonl", "data_files": str(tmp_path / "train.jsonl"), "splits": {"evaluation": None}},
        "task": {"kind": "multi-label-classification", "text": "text"},
        "model": {"checkpoint": str(tiny_checkpoint)},
        "train": {"max_steps": 1, "precision": "fp32"},
    }
    table([[0, 1], [1, 1], [1, 0], [0, 0]]).to_json(tmp_path / "train.jsonl")
    table([[0, 1], [1, 0]]).to_json(tmp_path / "test.jsonl")
    run = hfpipe.finetune(fields, runs_dir=tmp_path)
    notices = [one["text"] for one in run.records if one["type"] == "notice"]
    assert any("'label' holds 0 or 1 for each of 2 classes" in text for text in notices)
    found = hfpipe.evaluate(run, overrides=[f"dataset.data_files={tmp_path / 'test.jsonl'}"], split="train")
    assert found.document["names"] == ["class_0", "class_1"]
    assert found.examples == 2
    assert [one["support"] for one in found.document["classes"]] == [1, 1]
    assert len(words) == 4

"""Labels and texts: the classes that are found, the rows that are refused, and tokens that are never stale."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.build import check_scores, load_metrics, try_metrics
from hfpipe.parts.inputs import tokenized
from hfpipe.parts.inputs.tokenized import tokenize
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all
from hfpipe.parts.model import models
from hfpipe.parts.tasks import TextTask, dummy_outputs, lengths, make_task
from hfpipe.parts.tasks.answers import FROM_ZERO
from hfpipe.parts.tasks.choices import ChoiceTask
from hfpipe.parts.tasks.classes import Classes
from hfpipe.parts.tasks.multi_label import MultiLabelTask
from hfpipe.parts.tasks.numbers import NumberTask
from hfpipe.recipe import load_recipe
from hfpipe.recipe.schema import Task

PAIR = TextTask(("first", "second"), "label", Classes(("no", "yes")))
ONE = TextTask(("text",), "label", Classes(("no", "yes")))


def table(labels: list[Any], feature: Any = None, texts: list[Any] | None = None) -> datasets.Dataset:
    """Rows with these labels."""
    columns = {"text": [f"t{row}" for row in range(len(labels))] if texts is None else texts, "label": labels}
    if feature is None:
        return datasets.Dataset.from_dict(columns)
    features = datasets.Features({"text": datasets.Value("string"), "label": feature})
    return datasets.Dataset.from_dict(columns, features=features)


def classes(labels: list[Any], feature: Any = None) -> tuple[str, ...]:
    """The classes that are found in these labels."""
    return make_task(Task(text="text"), table(labels, feature), "d", "task").names


@pytest.mark.parametrize(
    ("labels", "feature", "expected"),
    [
        ([0, 1, 1], datasets.ClassLabel(names=["b", "a"]), ("b", "a")),
        ([1, 1, -1], datasets.ClassLabel(names=["b", "a", "unused"]), ("b", "a", "unused")),
        ([2, 0, 1], None, ("0", "1", "2")),
        (["b", "a", "b", None], None, ("a", "b")),
        (["10", "9", "0"], None, ("0", "9", "10")),
        (["007", "7"], None, ("007", "7")),
        (["b", "10", "2"], None, ("2", "10", "b")),
        (["²", "1"], None, ("1", "²")),
        (["", "x", " ", "y"], None, ("x", "y")),
    ],
)
def test_the_classes_are_found(labels: list[Any], feature: Any, expected: tuple[str, ...]) -> None:
    """ClassLabel names in their own order, whole numbers from 0, or the texts, numbers among them by value."""
    assert classes(labels, feature) == expected


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, 2, 3], "without a gap"),
        ([1, 2], "without a gap"),
        ([-1, 0, 1], "without a gap"),
        ([0.0, 1.0], "holds double"),
        ([True, False], "holds bool"),
        ([[0], [1]], "holds list"),
        ([0, 0], "has only the class '0'"),
        (["x", None], "has only the class 'x'"),
        ([None, None], "holds null"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: list[Any], told: str) -> None:
    """Gaps, floats, booleans, lists and a single class are data errors that name what was found."""
    with pytest.raises(DataError, match=told) as caught:
        classes(labels)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, 1, -1, 1, -1], "label -1 is outside the 2 classes (rows 2, 4, counted from 0)"),
        ([0, 2], "label 2 is outside the 2 classes (row 1, counted from 0)"),
        ([2] * 9, "(rows 0, 1, 2, 3, 4 and 4 more, counted from 0)"),
        ([0, None, 1], "no label (row 1, counted from 0)"),
        ([-1, -1], "every label is -1"),
        ([-100, -100], "every label is -100"),
        ([-100, 7], "label 7 is outside the 2 classes (row 1, counted"),
        (["no", "maybe"], "label 'maybe' is outside the 2 classes (row 1"),
        (["no", None], "no label (row 1"),
        ([0.5, 1.0], "holds double"),
        ([True, False], "holds bool"),
    ],
)
def test_rows_with_labels_outside_the_classes_are_named(labels: list[Any], told: str) -> None:
    """A label that would crash or train something wrong is told with its rows before anything is trained."""
    with pytest.raises(DataError) as caught:
        ONE.check(table(labels), "d, split x", "r.yaml:1:1")
    assert told in str(caught.value)
    assert str(caught.value).startswith("r.yaml:1:1: d, split x")


def test_a_split_without_labels_says_to_predict() -> None:
    """The test splits of GLUE, all of whose labels are -1, are sent to `hfpipe predict`."""
    with pytest.raises(DataError, match="hfpipe predict"):
        ONE.check(table([-1, -1], datasets.ClassLabel(names=["no", "yes"])), "d", "task")
    ONE.check(table([-1, -1]), "d", "task", labelled=False)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["a", None, "c"], "column 'text' has no text (row 1, counted from 0)"),
        ([1, 2, 3], "column 'text' holds int64"),
        ([None, None, None], "column 'text' holds null"),
        ([["a"], ["b"], ["c"]], "column 'text' holds list"),
    ],
)
def test_texts_that_are_none_are_refused(texts: list[Any], told: str) -> None:
    """A missing text and a column of something else are told with column and row."""
    with pytest.raises(DataError) as caught:
        ONE.check(table([0, 1, 0], texts=texts), "d", "task")
    assert told in str(caught.value)


def test_missing_columns_are_told_with_near_names() -> None:
    """A misspelt column gets the one that was meant, and all there are."""
    with pytest.raises(DataError, match="no column 'txt'; did you mean 'text'") as caught:
        make_task(Task(text="txt"), table([0, 1]), "d", "task")
    assert "allowed: text, label" in str(caught.value)
    with pytest.raises(DataError, match="no column 'labels'; did you mean 'label'"):
        TextTask(("text",), "labels", Classes(("a", "b"))).check(table([0, 1]), "d", "task")


@pytest.mark.parametrize("labels", [[0.5, 1, 2], [1, 2, 3], ["0.5", "1", "-2e3"]])
def test_numbers_are_labels_of_a_regression(labels: list[Any]) -> None:
    """Floats, whole numbers, and the numbers of a csv file are taken."""
    task = make_task(Task(text="text", kind="text-regression"), table(labels), "d", "task")
    assert (task.names, task.num_labels, task.problem_type) == ((), 1, "regression")
    task.check(table(labels), "d", "task")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0.5, float("nan")], "label nan is not a finite number (row 1"),
        ([float("inf"), 1.0], "label inf is not a finite number (row 0"),
        ([0.5, None], "no label (row 1"),
        (["1", "x"], "is not all numbers"),
        (["1", ""], "is not all numbers"),
    ],
)
def test_numbers_that_are_none_are_refused(labels: list[Any], told: str) -> None:
    """NaN, infinities and text that is no number are told, with the row where there is one."""
    with pytest.raises(DataError) as caught:
        NumberTask(("text",), "label").check(table(labels), "d", "task")
    assert told in str(caught.value)


def test_class_names_in_another_order_are_refused() -> None:
    """An evaluation split whose classes are numbered otherwise would be scored wrong."""
    swapped = table([0, 1], datasets.ClassLabel(names=["yes", "no"]))
    with pytest.raises(DataError, match="as in training"):
        ONE.check(swapped, "d", "task")
    ONE.check(table([0, 1], datasets.ClassLabel(names=["no", "yes"])), "d", "task")
    ONE.check(table([0, 1]), "d", "task")


@pytest.fixture
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tiny checkpoint's own."""
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


@pytest.fixture
def rows(tmp_path: Path) -> datasets.Dataset:
    """Sentence pairs on disk, so that `map` keeps a cache."""
    texts = [" ".join(["bak"] * count) for count in (1, 5, 30)]
    made = {"first": texts, "second": texts[::-1], "label": [0, 1, 1], "idx": [0, 1, 2]}
    datasets.Dataset.from_dict(made).save_to_disk(tmp_path / "rows")
    return datasets.load_from_disk(tmp_path / "rows")


def test_pairs_are_tokenized_as_the_tokenizer_does_it(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Only what the model reads is kept, and the longer text of a pair is cut first."""
    encoded = tokenize(PAIR, rows, tokenizer, max_length=12, identity=str(tmp_path)).data
    assert set(encoded.column_names) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    expected = tokenizer(rows["first"][:], rows["second"][:], truncation=True, max_length=12)
    assert encoded["input_ids"][:] == expected["input_ids"]
    assert encoded["labels"][:] == [0, 1, 1]
    assert lengths(encoded).tolist() == [12, 12, 12]
    assert [row.count(1) for row in encoded["token_type_ids"][:]] == [9, 6, 2]


def test_labels_become_numbers(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Names become class numbers, and the labels of a regression floats."""
    text = tokenize(ONE, table(["yes", "no"]), tokenizer, max_length=9, identity=f"{tmp_path} text").data
    assert text["labels"][:] == [1, 0]
    number = tokenize(
        NumberTask(("text",), "label"), table(["1", "0.5"]), tokenizer, max_length=9, identity=f"{tmp_path} number"
    ).data
    assert number["labels"][:] == [1.0, 0.5]
    bare = tokenize(ONE, table(["yes", "no"]), tokenizer, max_length=9, identity=str(tmp_path), labelled=False).data
    assert "labels" not in bare.column_names


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts how often the tokenizer really runs over rows."""
    made: list[int] = []
    original = TextTask.encode

    def counted(task: TextTask, *arguments: Any, **more: Any) -> Any:
        made.append(1)
        return original(task, *arguments, **more)

    monkeypatch.setattr(TextTask, "encode", counted)
    return made


def test_tokens_are_kept_and_never_stale(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The same question is answered from the cache; other rows, lengths, tasks, code or versions are computed anew."""

    own = str(tmp_path)

    def computed(task: TextTask = PAIR, max_length: int = 12, identity: str = own, **more: Any) -> bool:
        before = len(calls)
        tokenize(task, rows, tokenizer, max_length=max_length, identity=identity, **more)
        return len(calls) > before

    assert computed()
    assert not computed()
    assert computed(max_length=13)
    assert computed(identity="y")
    assert computed(task=TextTask(("second", "first"), "label", Classes(("no", "yes"))))
    assert computed(task=TextTask(("first", "second"), "label", Classes(("yes", "no"))))
    assert computed(labelled=False)
    assert not computed()
    with monkeypatch.context() as patched:
        patched.setattr(tokenized, "transformers_version", "99.0")
        assert computed()
    monkeypatch.syspath_prepend(tmp_path)
    for code in ("from hfpipe.parts.tasks import TextTask\nclass OwnTask(TextTask): ...\n", "OTHER = 1\n"):
        with open(tmp_path / "own_kind.py", "a") as file:
            file.write(code)
        own_kind = importlib.reload(importlib.import_module("own_kind"))
        task = own_kind.OwnTask(PAIR.text, PAIR.label, PAIR.classes)
        assert computed(task=task)
        assert not computed(task=task)


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: tokenizer.add_tokens(["zzz"]),
        lambda tokenizer: setattr(tokenizer, "padding_side", "left"),
        lambda tokenizer: setattr(tokenizer, "truncation_side", "left"),
        lambda tokenizer: setattr(tokenizer, "model_input_names", ["input_ids"]),
        lambda tokenizer: setattr(tokenizer, "unk_token", "[MASK]"),
        lambda tokenizer: setattr(
            tokenizer.backend_tokenizer, "normalizer", __import__("tokenizers").normalizers.Lowercase()
        ),
    ],
    ids=["vocabulary", "padding side", "truncation side", "columns", "special token", "normalisation"],
)
def test_the_digest_of_a_tokenizer_follows_what_decides_tokens(
    tiny_checkpoint: Path, change: Callable[[PreTrainedTokenizerBase], None]
) -> None:
    """Whatever changes the tokens changes the digest; padding or cutting something once does not."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    before = models.tokenizer_digest(tokenizer)
    tokenizer(["bak bak", "bak"], padding=True, truncation=True, max_length=3)
    assert models.tokenizer_digest(tokenizer) == before
    change(tokenizer)
    assert models.tokenizer_digest(tokenizer) != before


def test_two_processes_tokenize_to_the_same_rows(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """`num_proc` changes who tokenizes and nothing of what comes out, also from the cache."""
    alone = tokenize(PAIR, rows, tokenizer, max_length=12, identity=f"{tmp_path} one").data[:]
    together = tokenize(PAIR, rows, tokenizer, max_length=12, identity=f"{tmp_path} two", num_proc=2)
    again = tokenize(PAIR, rows, tokenizer, max_length=12, identity=f"{tmp_path} two", num_proc=2)
    assert together.data[:] == alone
    assert again.data[:] == alone
    assert again.seconds is None


def test_a_metric_of_classes_is_refused_for_numbers_before_the_first_step() -> None:
    """Accuracy of a regression is a mistake of the recipe, found on made-up predictions and not after the training."""
    fields = {
        "dataset": {"path": "x"},
        "task": {"text": "text", "kind": "text-regression"},
        "model": {"checkpoint": "x"},
    }
    recipe = load_recipe(fields, ["evaluate.metrics=[accuracy]"])
    with pytest.raises(RecipeError, match="metric 'accuracy' does not measure text-regression"):
        try_metrics(recipe, load_metrics(recipe), NumberTask(("text",), "label"))


def test_a_long_list_of_classes_is_cut() -> None:
    """A label outside many classes is told with the first few of them."""
    task = make_task(Task(text="text"), table([f"c{row:02}" for row in range(60)]), "d", "task")
    with pytest.raises(DataError, match=r"The classes are c00, c01, c02, c03, c04, c05, c06, c07 \.\.\."):
        task.check(table(["other"]), "d", "task")


THREE = {
    "dataset": {"path": "./d"},
    "task": {"text": "s", "label": {"column": "label", "names": ["a", "b", "c"]}},
    "model": {"checkpoint": "./m"},
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["evaluate.metrics=[f1]"], r"average 'binary' scores two classes, and the data have 3"),
        (["evaluate.metrics=[f1]", "task.label={column: label, names: {x: a, y: b, z: c}}"], "the data have 3"),
        (["evaluate.metrics=[f1]", "task.label={column: label, names: [a, b]}"], ""),
        (["evaluate.metrics=[{name: f1, average: macro}]", "evaluate.best=f1_macro"], ""),
        (["evaluate.metrics=[{name: f1, average: macro}]", "evaluate.best=f1_marco"], "did you mean 'f1_macro'"),
        (["task.label=label", "evaluate.best=acuracy"], "no metric is called 'acuracy'; did you mean 'accuracy'"),
        (["task.label=label", "evaluate.metrics=[f1]", "evaluate.best=f1"], ""),  # how many classes, only the data say
        (["task.label=label", "evaluate.best=acuracy", "dataset.splits.evaluation=null"], ""),
        (["task={kind: token-classification, text: s, label: t}", "evaluate.best=PER_f1"], ""),
        (["task={kind: token-classification, text: s, label: t}", "evaluate.best=PER_f2"], "CLASS_f1"),
        (
            ["task={kind: text-regression, text: s, label: t}", "evaluate.best=accuracy"],
            "no metric is called 'accuracy'",
        ),
        (["task={kind: question-answering, text: [q, c], label: a}", "evaluate.best=f1"], ""),
        (["task={kind: multi-label-classification, text: s, label: [a, b, c]}", "evaluate.best=f1_micro"], ""),
        (["task={kind: multi-label-classification, text: s, label: t}", "evaluate.best=f1_mirco"], "'f1_micro'"),
    ],
)
def test_a_metric_is_tried_before_data_are_there(changes: list[str], told: str) -> None:
    """With the classes that a recipe declares; where it declares none, a misspelt `best` is found all the same."""
    recipe = load_recipe(THREE, changes)
    if not told:
        check_scores(recipe)
        return
    with pytest.raises(RecipeError, match=told):
        check_scores(recipe)


def test_a_metric_is_tried_with_every_class_of_the_data() -> None:
    """Three classes, three choices, and thousands: none of them shows in the first evaluation only."""
    for task in (
        TextTask(("s",), "label", Classes(("a", "b", "c"))),
        ChoiceTask(("s",), ("e1", "e2", "e3"), "label", FROM_ZERO, count=3),
    ):
        with pytest.raises(RecipeError, match="the data have 3"):
            try_metrics(load_recipe(THREE, ["evaluate.metrics=[f1]"]), [("f1", load_metric("f1"))], task)
    many = TextTask(("s",), "label", Classes(tuple(map(str, range(30_000)))))
    assert try_metrics(load_recipe(THREE), [("accuracy", load_metric("accuracy"))], many) == ["accuracy"]
    outputs = dummy_outputs(many)
    assert outputs is not None
    assert outputs[0].shape == (64, 30_000)
    several = MultiLabelTask(("s",), ("label",), Classes(tuple(map(str, range(30_000)))))
    predictions, references = several.dummy_predictions()
    assert predictions.shape == (2, 30_000)
    assert references.any(axis=0).all()


def test_a_metric_that_fails_is_told_by_its_name() -> None:
    """An error of a class of the user's own is a sentence, not a traceback."""

    class Broken:
        def compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
            return {"x": predictions[99]}

    with pytest.raises(RecipeError, match=r"metric 'mine:Broken': it fails with IndexError: index 99"):
        compute_all([("mine:Broken", Broken())], np.arange(3), np.arange(3))

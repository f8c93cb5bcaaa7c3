"""A class for every word: words and tokens, what is refused, schemes, and a run from its rows to its predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, CanineTokenizer, PreTrainedTokenizerFast

import hfpipe
from hfpipe.errors import DataError, ModelError, RecipeError
from hfpipe.evaluation.prediction.predict import predict
from hfpipe.parts.build import load_metrics
from hfpipe.parts.data.columns import IGNORED
from hfpipe.parts.inputs.batches import Examples
from hfpipe.parts.inputs.tokenized import tokenize
from hfpipe.parts.tasks import class_counts, head_task, make_task
from hfpipe.recipe import load_recipe
from hfpipe.recipe.schema import Task

# The tokenizer of the tests splits at hyphens: bak-bal are three tokens. "" is none.
WORDS = [["bak-bal", "bam", "ban"], [], ["bap", "", "fun"]]
NAMES = ["O", "B-x", "I-x"]
LABELS = [["B-x", "I-x", "O"], [], ["O", "B-x", "I-x"]]
NUMBERS = [[NAMES.index(one) for one in row] for row in LABELS]
X = IGNORED  # a position that is not scored


def rows_of(labels: list[Any], words: list[Any] = WORDS, feature: Any = None) -> datasets.Dataset:
    """Rows of words and labels."""
    given = {"tokens": words, "tags": labels}
    if feature is None:
        return datasets.Dataset.from_dict(given)
    columns = {"tokens": datasets.List(datasets.Value("string")), "tags": datasets.List(feature)}
    return datasets.Dataset.from_dict(given, features=datasets.Features(columns))


def spec_of(**fields: Any) -> Task:
    """The section of a recipe, with the defaults of the kind."""
    return Task.model_validate({"kind": "token-classification", "text": "tokens", "label": "tags", **fields})


SPEC = spec_of()
CLASS_LABEL = datasets.ClassLabel(names=NAMES)


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> Any:
    """Splits words at hyphens."""
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


def task_of(**fields: Any) -> Any:
    """The task of the rows above."""
    return make_task(spec_of(**fields), rows_of(NUMBERS, feature=CLASS_LABEL), "d", "task")


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({}, rows_of(NUMBERS, feature=CLASS_LABEL)),
        ({"label": {"column": "tags", "names": NAMES}}, rows_of(LABELS)),
        ({"label": {"column": "tags", "names": NAMES}}, rows_of(NUMBERS)),
        ({"label": {"column": "tags", "names": {"o": "O", "b": "B-x", "i": "I-x"}}},
         rows_of([[one[0].lower() for one in row] for row in LABELS])),
    ],
    ids=["ClassLabel", "texts", "numbers", "mapping"],
)  # fmt: skip
def test_every_shape_of_label_becomes_the_same_classes(fields: dict, rows: datasets.Dataset, tokenizer: Any) -> None:
    """Class labels, texts and numbers say the same thing, and the first piece of each word carries it."""
    task = make_task(spec_of(**fields), rows, "d", "task")
    task.check(rows, "d", "task")
    encoded = task.encode(rows[:], tokenizer, 16, True)
    assert (task.names, task.scheme) == (tuple(NAMES), "IOB2")
    # [CLS] bak - bal bam ban [SEP], [CLS] [SEP], [CLS] bap fun [SEP]
    assert encoded["labels"] == [[X, 1, X, X, 2, 0, X], [X, X], [X, 0, 2, X]]
    assert [row.tolist() for row in encoded["words"]] == [[0, 1, 2], [], [0, 2]]
    assert class_counts(spec_of(**fields), task, rows) == [2, 2, 2]


def test_all_pieces_carry_the_label(tokenizer: Any) -> None:
    """With subwords: all every piece is an item, and the first one decides what is predicted."""
    rows = rows_of(NUMBERS, feature=CLASS_LABEL)
    task = task_of(subwords="all")
    encoded = task.encode(rows[:], tokenizer, 16, True)
    assert encoded["labels"] == [[X, 1, 1, 1, 2, 0, X], [X, X], [X, 0, 2, X]]
    assert [row.tolist() for row in encoded["words"]] == [[0, 0, 0, 1, 2], [], [0, 2]]
    logits = [np.eye(3)[[1, 0, 0, 2, 2]], np.zeros((0, 3)), np.eye(3)[[0, 1]]]
    predicted, right = task.decode(logits, datasets.Dataset.from_dict({"words": encoded["words"]}), rows)
    assert predicted.tolist() == [["B-x", "I-x", "I-x"], [], ["O", "O", "B-x"]]
    assert right.tolist() == LABELS


def test_without_labels_the_scored_positions_are_marked(tokenizer: Any) -> None:
    """Rows to predict get 0 where a word is scored, so that the logits of these positions are kept."""
    task = head_task(SPEC, tuple(NAMES))
    encoded = task.encode({"tokens": WORDS}, tokenizer, 16, False)
    assert encoded["labels"] == [[X, 0, X, X, 0, 0, X], [X, X], [X, 0, 0, X]]
    logits = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    kept = task.unpad_logits(logits, {"labels": torch.tensor([encoded["labels"][0], [*encoded["labels"][2], X, X, X]])})
    assert [one.shape for one in kept] == [(3, 3), (2, 3)]
    np.testing.assert_array_equal(kept[0], logits[0, [1, 4, 5]].numpy())


@pytest.mark.parametrize(("names", "unseen"), [(NAMES, "O"), (["B-x", "I-x", "I-y"], None)])
def test_a_word_that_the_model_never_sees_counts(names: list[str], unseen: str | None, tokenizer: Any) -> None:
    """A word cut off or without a token is predicted as O, or as None where there is no O: it stays in the score."""
    rows = rows_of(NUMBERS, feature=datasets.ClassLabel(names=names))
    task = make_task(SPEC, rows, "d", "task")
    encoded = tokenize(task, rows, tokenizer, max_length=5, identity=f"cut {names}").data
    assert encoded["words"][:] == [[0], [], [0, 2]]
    logits = [np.eye(3)[[1]], np.zeros((0, 3)), np.eye(3)[[1, 2]]]
    predicted, right = task.decode(logits, encoded, rows)
    assert predicted.tolist() == [[names[1], unseen, unseen], [], [names[1], unseen, names[2]]]
    assert [len(row) for row in right] == [3, 0, 3]
    told = task.format_predictions(logits, encoded, rows)
    assert told[0]["labels"] == [names[1], unseen, unseen]
    assert told[0]["scores"][1:] == [None, None]
    assert [one["text"] for one in told[2]["entities"]] == ["bap", "fun"]


def test_a_label_that_is_ignored_is_no_item(tokenizer: Any) -> None:
    """Words labelled -100 are left out of the loss and of both sides of the score."""
    rows = rows_of([[1, IGNORED, 0], [], [0, 1, 2]], feature=datasets.Value("int64"))
    task = make_task(spec_of(label={"column": "tags", "names": NAMES}), rows, "d", "task")
    task.check(rows, "d", "task")
    encoded = tokenize(task, rows, tokenizer, max_length=16, identity="ignored").data
    assert encoded["words"][:] == [[0, 2], [], [0, 2]]
    assert class_counts(SPEC, task, rows) == [2, 2, 1]
    predicted, right = task.decode([np.eye(3)[[1, 0]], np.zeros((0, 3)), np.eye(3)[[0, 0]]], encoded, rows)
    assert predicted.tolist() == [["B-x", "O"], [], ["O", "O", "O"]]
    assert right.tolist() == [["B-x", "O"], [], LABELS[2]]


def test_no_model_reads_the_side_columns(tokenizer: Any) -> None:
    """A batch has the tokens and the padded labels, and nothing else."""
    rows = rows_of(NUMBERS, feature=CLASS_LABEL)
    task = task_of()
    examples = Examples(tokenize(task, rows, tokenizer, max_length=16, identity="side").data)
    batch = task.collator(tokenizer)(examples.__getitems__([0, 1]))
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    assert batch["labels"].tolist()[1] == [IGNORED] * 7


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (rows_of(["a", "b", "c"], ["a b", "c", "d"]), "column 'tokens' holds string"),
        (rows_of(NUMBERS, [[1, 2, 3], [], [4, 5, 6]]), "column 'tokens' holds list<item: int64>"),
        (rows_of(NUMBERS, [["a", None, "b"], [], ["c", "d", "e"]]), "a word in column 'tokens' is None (row 0,"),
        (rows_of(NUMBERS, [["a", "b", "c"], None, ["c", "d", "e"]]), "no list of words in column 'tokens' (row 1,"),
        (rows_of([[], []], [[], []]), "has not a single word"),
        (rows_of([0, 1, 2]), "column 'tags' holds int64"),
        (rows_of([[1, 2, 0], [0], [0, 1]]), "1 labels for 0 words (rows 1, 2, counted from 0)"),
        (rows_of([[1, 2, 0], [], [0, 1, None]]), "a label is None (row 2,"),
        (rows_of([[1, 2, 0], None, [0, 1, 2]]), "no label (row 1,"),
        (rows_of([[1, 2, 0], [], [0, 1, 7]]), "label 7 is outside the 3 classes (row 2,"),
        (rows_of([[-1, -1, -1], [], [-1, -1, -1]]), "every label is -1"),
        (rows_of([["B-x", "I-x", "O"], [], ["O", "O", "B-y"]]), "label 'B-y' is outside the 3 classes (row 2,"),
        (rows_of(NUMBERS, feature=datasets.ClassLabel(names=NAMES[::-1])), "the classes are ['I-x', 'B-x', 'O']"),
        (rows_of(NUMBERS).remove_columns("tags"), "no column 'tags'"),
    ],
)  # fmt: skip
def test_rows_that_are_wrong_are_refused(rows: datasets.Dataset, told: str) -> None:
    """Words and labels of another shape, missing, of other number or class, are told with split and rows."""
    with pytest.raises(DataError) as caught:
        task_of().check(rows, "d, split s", "task")
    assert told in str(caught.value)
    assert "split s" in str(caught.value)


def test_without_labels_only_the_words_are_looked_at() -> None:
    """Rows to predict need no labels, and may have any."""
    task = head_task(SPEC, tuple(NAMES))
    for rows in (rows_of(NUMBERS).remove_columns("tags"), rows_of(["a", "b", "c"])):
        task.check(rows, "d", "task", labelled=False)
    task.check(rows_of([[], []], [[], []]), "d", "task", labelled=False)  # nothing to say of them is no mistake


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        ([["B-x", "I-x", "O"], ["B-y", "B-y"]], "IOB2"),
        ([["I-x", "I-x", "O"], ["I-y", "B-y"]], "IOB1"),
        ([["B-x", "I-x", "O"], ["B-x", "I-y"]], "IOB1"),  # I behind another type
        ([["B-x", "I-x"], ["I-x"]], "IOB1"),  # I at the beginning of a row
        ([["B-x", "I-x"], [], ["B-x"]], "IOB2"),
        ([["B", "I", "O"], ["O", "I"]], "IOB1"),
        ([["U-x", "O"], ["B-x", "L-x"]], "BILOU"),
        ([["S-x", "O"], ["B-x", "E-x"]], "BILOU"),
        ([["DET", "NOUN"], ["X"]], "none"),
    ],
)
def test_the_scheme_is_found_in_the_training_labels(labels: list[list[str]], scheme: str) -> None:
    """Names tell BILOU and none, and the rows tell IOB1 from IOB2."""
    rows = rows_of(labels, [["w"] * len(row) for row in labels])
    assert make_task(SPEC, rows, "d", "task").scheme == scheme


def test_labels_that_do_not_fit_the_scheme_are_refused() -> None:
    """A declared scheme holds, for the data and for a trained head, and `none` takes every label."""
    rows = rows_of([["B-x", "L-x", "O"], [], ["U-x", "O", "O"]])
    for make in (lambda spec: make_task(spec, rows, "d", "task"), lambda spec: head_task(spec, ("O", "L-x"))):
        with pytest.raises(DataError, match="are declared as IOB1, and "):
            make(spec_of(scheme="IOB1"))
        assert make(spec_of(scheme="none")).scheme == "none"
    assert head_task(SPEC, ("O", "B-x", "I-x")).scheme == "IOB2"


def test_a_slow_tokenizer_is_refused() -> None:
    """A tokenizer that can't say which word a token is of is told before anything is trained."""
    with pytest.raises(ModelError, match="CanineTokenizer does not say which word a token is of"):
        task_of().encode({"tokens": WORDS, "tags": NUMBERS}, CanineTokenizer(), 16, True)


def byte_level(*, add_prefix_space: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of RoBERTa's kind: the space is a part of the word behind it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<pad>"], show_progress=False
    )
    backend.train_from_iterator(["a fun day and a fun night"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_words_get_the_tokens_of_running_text(add_prefix_space: bool) -> None:
    """A byte-level tokenizer sees every word with the space before it, however it was saved; BERT's needs none."""
    words = ["and", "a", "fun", "", "day"]
    tokenizer = byte_level(add_prefix_space=add_prefix_space)
    encoded = head_task(SPEC, tuple(NAMES)).encode({"tokens": [words]}, tokenizer, 64, False)
    running = tokenizer(" and a fun day", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == tokenizer.convert_ids_to_tokens(running)
    assert set(encoded["words"][0].tolist()) == {0, 1, 2, 4}
    bare = tokenizer([words], is_split_into_words=True)["input_ids"][0]
    assert (bare == running) is add_prefix_space  # without the space the tokens would be others


def test_words_of_other_tokenizers_are_left_alone(tokenizer: Any) -> None:
    """The tokens of words are those that the tokenizer gives them itself."""
    encoded = task_of().encode({"tokens": WORDS, "tags": NUMBERS}, tokenizer, 16, True)
    assert encoded["input_ids"] == tokenizer(WORDS, is_split_into_words=True)["input_ids"]


def test_the_metric_knows_scheme_and_names_of_the_task() -> None:
    """seqeval is handed what the task found out, unless the recipe says otherwise."""
    fields = {"dataset": {"path": "x"}, "model": {"checkpoint": "x"},
              "task": {"kind": "token-classification", "text": "tokens"}}  # fmt: skip
    task = task_of()
    ((name, metric),) = load_metrics(load_recipe(fields), task)
    assert (name, metric.scheme, metric.names) == ("seqeval", "IOB2", tuple(NAMES))
    ((_, own),) = load_metrics(load_recipe(fields, ["evaluate.metrics=[{name: seqeval, scheme: none}]"]), task)
    assert own.scheme == "none"
    assert set(metric.compute(**dict(zip(("predictions", "references"), task.dummy_predictions(), strict=True)))) == {
        "precision", "recall", "f1", "accuracy", "x_precision", "x_recall", "x_f1", "x_support",
    }  # fmt: skip


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> dict[str, Any]:
    """The fields of a recipe of a few seconds: `bak` and `bak-bal bam` are names."""
    rng, chunks, lines = np.random.default_rng(0), [["fun"], ["fup"], ["gan"], ["bak"], ["bak-bal", "bam"]], []
    tag_of = {"bak": "B-x", "bak-bal": "B-x", "bam": "I-x"}
    for count in [0, *rng.integers(1, 9, 47)]:
        row = [word for chunk in rng.integers(0, len(chunks), count) for word in chunks[chunk]]
        lines.append(json.dumps({"tokens": row, "tags": [tag_of.get(word, "O") for word in row]}))
    file = tmp_path_factory.mktemp("tagged") / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return {
        "dataset": {"path": "jsonl", "data_files": {"train": str(file), "validation": str(file)}},
        "task": {"kind": "token-classification", "text": "tokens", "label": {"column": "tags", "names": NAMES}},
        "model": {"checkpoint": str(tiny_checkpoint)},
        "optimizer": {"lr": 5e-3},
        "train": {"epochs": 6, "batch_size": 8, "precision": "fp32"},
        "evaluate": {"best": "x_f1"},
    }


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_finetune_evaluate_and_predict(engine: str, fields: dict[str, Any], tmp_path: Path) -> None:
    """It learns; evaluate repeats the figures with intervals, for the run and its bare checkpoint; predict needs no label."""
    run = hfpipe.finetune(fields, engine=engine, runs_dir=tmp_path / "runs", name="names")
    assert run.metrics["x_f1"] > 0.9
    assert run.recipe.evaluate.metrics == ("seqeval",)
    for target, recipe in ((run, None), (run.path / "model", fields)):
        measured = hfpipe.evaluate(target, recipe=recipe)
        assert measured.metrics == pytest.approx(run.metrics, abs=1e-7)
        low, high = measured.intervals["x_f1"]
        assert 0 < low <= measured.metrics["x_f1"] <= high <= 1
        assert measured.intervals["x_support"] is None
    file = tmp_path / "new.jsonl"
    rows = [["fun", "bak-bal", "bam", "gan"], [], ["", "fup"]]
    file.write_text("".join(json.dumps({"tokens": row}) + "\n" for row in rows))
    found = predict(run, file)
    assert [row["labels"] for row in found] == [["O", "B-x", "I-x", "O"], [], ["O", "O"]]
    (entity,) = found[0]["entities"]
    assert {key: entity[key] for key in ("type", "start", "end", "text")} == {
        "type": "x", "start": 1, "end": 3, "text": "bak-bal bam",
    }  # fmt: skip
    assert entity["score"] == pytest.approx(np.mean(found[0]["scores"][1:3]))
    assert found[2]["scores"][0] is None
    assert found[1] == {"labels": [], "scores": [], "entities": []}


def test_tags_without_entities(fields: dict[str, Any], tmp_path: Path) -> None:
    """Parts of speech have an accuracy and an F1 for each tag, in the run as in the predictions."""
    changed = {**fields, "evaluate": {"best": "accuracy"}, "train": {**fields["train"], "max_steps": 2}}
    task = {**fields["task"], "scheme": "none"}
    run = hfpipe.finetune({**changed, "task": task}, runs_dir=tmp_path / "runs", name="tags")
    assert set(run.metrics) == {"loss", "accuracy", "O_f1", "B-x_f1", "I-x_f1"}
    file = tmp_path / "new.jsonl"
    file.write_text(json.dumps({"tokens": ["fun", "bak"]}) + "\n")
    assert set(predict(run, file)[0]) == {"labels", "scores"}


def test_a_metric_of_another_kind_is_told_before_the_first_step(fields: dict[str, Any], tmp_path: Path) -> None:
    """Figures that this task does not give, and metrics of class ids, are refused in preflight."""
    with pytest.raises(RecipeError, match="no metric is called 'y_f1'; did you mean 'x_f1'"):
        hfpipe.finetune({**fields, "evaluate": {"best": "y_f1"}}, runs_dir=tmp_path, name="a")
    with pytest.raises(RecipeError, match="metric 'accuracy' does not measure token-classification"):
        hfpipe.finetune({**fields, "evaluate": {"metrics": ["accuracy"]}}, runs_dir=tmp_path, name="b")

"""Several labels a row: both shapes of label column, what is refused, the scores, and a gradient that adds up."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score
from transformers import AutoTokenizer

import hfpipe
from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.metrics.multi_label import MultiLabel
from hfpipe.parts.optim.objective import Objective
from hfpipe.parts.tasks import class_counts, make_task
from hfpipe.recipe import load_recipe
from hfpipe.recipe.schema import Task

TEXTS = ["bak bal", "bam ban bap", "bak", "fun fup"]
LISTS = [["a", "b"], [], ["c"], ["a", "b", "c"]]
NAMES = ["a", "b", "c"]
HOT = [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]


def listed(values: list[Any], feature: Any = None) -> datasets.Dataset:
    """Rows with a list column."""
    given = {"text": TEXTS[: len(values)], "label": values}
    if feature is None:
        return datasets.Dataset.from_dict(given)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.List(feature)})
    return datasets.Dataset.from_dict(given, features=features)


def columned(kind: type = int) -> datasets.Dataset:
    """The same rows with a column for each label."""
    return datasets.Dataset.from_dict(
        {"text": TEXTS, **{name: [kind(row[place]) for row in HOT] for place, name in enumerate(NAMES)}}
    )


SPEC = Task(kind="multi-label-classification", text=("text",))
COLUMNS = Task(kind="multi-label-classification", text=("text",), label=("a", "b", "c"))


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        (SPEC, listed(LISTS)),
        (SPEC, listed([[NAMES.index(one) for one in row] for row in LISTS])),
        (SPEC, listed(LISTS, datasets.ClassLabel(names=NAMES))),
        (COLUMNS, columned(int)),
        (COLUMNS, columned(bool)),
        (COLUMNS, columned(float)),
        (COLUMNS, columned(lambda value: str(int(value)))),
    ],
    ids=["texts", "numbers", "ClassLabel", "0 and 1", "booleans", "floats", "csv"],
)
def test_every_shape_of_label_becomes_the_same_multi_hot_rows(
    spec: Task, rows: datasets.Dataset, tiny_checkpoint: Path
) -> None:
    """A list column of texts, numbers or classes, and a column for each label, say the same thing."""
    task = make_task(spec, rows, "d", "task")
    task.check(rows, "d", "task")
    assert [str(name) for name in task.names] in (NAMES, ["0", "1", "2"])
    encoded = task.encode(rows[:], AutoTokenizer.from_pretrained(tiny_checkpoint), 16, True)
    assert encoded["labels"] == HOT
    assert class_counts(spec, task, rows) == [2, 2, 2]


@pytest.mark.parametrize(
    ("spec", "rows", "told"),
    [
        (SPEC, listed(["a", "b"]), "'label' holds string"),
        (SPEC, listed([["a", None], ["b"]]), "a label is None (row 0"),
        (SPEC, listed([["a"], None, ["b"]]), "no label (row 1"),
        (COLUMNS, columned().map(lambda row: {"b": 2}), "'b' is 2, and a label column says 0 or 1 (rows 0, 1, 2, 3"),
        (COLUMNS, columned().remove_columns("c"), "no column 'c'"),
    ],
)
def test_labels_that_are_none_are_refused(spec: Task, rows: datasets.Dataset, told: str) -> None:
    """A column of another shape, missing labels and numbers that are neither 0 nor 1 are told with their rows."""
    with pytest.raises(DataError) as caught:
        make_task(spec, rows, "d", "task").check(rows, "d", "task")
    assert told in str(caught.value)


def test_a_label_outside_the_classes_is_refused_with_its_split() -> None:
    """A class that only the evaluation split has can't be scored."""
    task = make_task(SPEC, listed(LISTS), "d", "task")
    with pytest.raises(DataError, match="label 'z' is outside the 3 classes"):
        task.check(listed([["a"], ["z"]]), "d, split x", "task")


def test_several_columns_need_a_multi_label_task() -> None:
    """A list of label columns under another kind is refused where the recipe is read."""
    fields = {"dataset": {"path": "x"}, "model": {"checkpoint": "x"}, "task": {"text": "text", "label": ["a", "b"]}}
    with pytest.raises(RecipeError, match="several label columns need kind: multi-label-classification"):
        load_recipe(fields)


def test_scores_are_those_of_scikit_learn() -> None:
    """Micro and macro precision, recall and F1, and each label's F1, on random labels."""
    rng = np.random.default_rng(0)
    right, said = rng.integers(0, 2, (60, 4)), rng.integers(0, 2, (60, 4))
    metric = MultiLabel()
    metric.names = ["p", "q", "r", "s"]
    scores = metric.compute(predictions=said, references=right)
    for name, function in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        for average in ("micro", "macro"):
            assert scores[f"{name}_{average}"] == pytest.approx(function(right, said, average=average), abs=1e-12)
    assert scores["q_f1"] == pytest.approx(f1_score(right[:, 1], said[:, 1]), abs=1e-12)
    assert scores["subset_accuracy"] == (right == said).all(axis=1).mean()


def test_a_label_that_is_never_predicted_counts_in_every_macro_mean() -> None:
    """Of two labels one is never predicted: its precision is 0 in the mean, which is 0.5 and not 1, as scikit-learn has it."""
    right, said = np.array([[1, 1], [1, 0], [0, 1]]), np.array([[1, 0], [1, 0], [0, 0]])
    scores = MultiLabel().compute(predictions=said, references=right)
    assert scores["precision_macro"] == precision_score(right, said, average="macro", zero_division=0) == 0.5
    assert scores["recall_macro"] == recall_score(right, said, average="macro", zero_division=0) == 0.5
    assert scores["f1_macro"] == f1_score(right, said, average="macro", zero_division=0) == 0.5
    only_predicted = MultiLabel().compute(predictions=said, references=np.array([[0, 1], [0, 0], [0, 1]]))
    assert only_predicted["recall_macro"] == 0  # nothing to find of the first, and nothing found of the second


def test_what_the_data_leave_undefined_is_none() -> None:
    """A label that never holds and is never predicted has no F1, and the macro mean is that of the others."""
    right, said = np.array([[1, 0], [0, 0]]), np.array([[1, 0], [1, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = MultiLabel().compute(predictions=said, references=right)
    assert scores["1_f1"] is None
    assert scores["f1_macro"] == scores["0_f1"] == pytest.approx(2 / 3)
    empty = MultiLabel().compute(predictions=np.zeros((0, 2)), references=np.zeros((0, 2)))
    assert set(empty.values()) == {None}


def test_items_are_the_rows_and_a_blank_is_none() -> None:
    """The divisor counts rows; a row of NaN, which a process without rows is given, adds nothing to loss or divisor."""
    from hfpipe.parts.optim.losses import bce_with_logits

    objective = Objective(bce_with_logits, "bce_with_logits", "mean")
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor(HOT)
    blank = torch.cat([labels, torch.full((1, 3), math.nan)])
    tally = objective.tally([{"labels": blank}])
    assert (tally.num_items, tally.divisor) == (4, 4.0)
    losses = objective.item_losses(torch.cat([logits, torch.full((1, 3), float("nan"))]), blank)
    assert losses[4] == 0
    want = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(objective.backward_value(losses, tally, 1), want)


@pytest.mark.parametrize("engine", ["trainer", "loop"])
@pytest.mark.parametrize("weights", ["null", "[0.5, 2.0, 1.5]"])
def test_one_update_is_the_same_however_it_is_cut(
    engine: str, weights: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """8x1, 4x2, 2x4 and a ragged cut give the same weights within 1e-6, for mean and class weights, dropout off."""
    rng = np.random.default_rng(1)
    words = np.array([a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"])
    data = {
        "train": datasets.Dataset.from_dict(
            {
                "text": [" ".join(rng.choice(words, rng.integers(2, 20))) for _ in range(8)],
                **{name: rng.integers(0, 2, 8).tolist() for name in NAMES},
            }
        )
    }

    def weights_after(batch_size: int, accumulate: int) -> tuple[dict[str, torch.Tensor], float]:
        recipe = load_recipe(
            {
                "dataset": {"path": "given", "splits": {"evaluation": None}},
                "task": {"kind": "multi-label-classification", "text": "text", "label": NAMES},
                "model": {
                    "checkpoint": str(tiny_checkpoint),
                    "config": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
                },
                "optimizer": {"name": "sgd", "lr": 0.1},
                "train": {"batch_size": batch_size, "accumulate": accumulate, "max_steps": 1, "precision": "fp32"},
                "evaluate": {"every": "never"},
                "checkpoints": {"every": "never"},
                "engine": engine,
            },
            [f"loss.class_weights={weights}"],
        )
        run = hfpipe.finetune(recipe, runs_dir=tmp_path, name=f"r{batch_size}x{accumulate}", dataset=data)
        steps = [record for record in run.records if record["type"] == "step"]
        return run.model().state_dict(), steps[0]["grad_norm"]

    whole, norm = weights_after(8, 1)
    for shape in ((4, 2), (2, 4), (3, 3)):
        cut, cut_norm = weights_after(*shape)
        assert cut_norm / norm == pytest.approx(1, abs=1e-6)
        assert max(float((cut[key] - whole[key]).abs().max()) for key in whole) < 1e-6


def test_finetune_evaluate_and_predict(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The figures of evaluate are those of the run, with an interval each, and predict gives every label by itself."""
    data = tmp_path / "data.jsonl"
    rows = [f'{{"text": "{text}", "tags": {tags!s}}}'.replace("'", '"') for text, tags in zip(TEXTS, LISTS)]  # noqa: B905
    data.write_text("\n".join(rows * 6) + "\n")
    fields = {
        "dataset": {"path": "jsonl", "data_files": {"train": str(data), "validation": str(data)}},
        "task": {"kind": "multi-label-classification", "text": "text", "label": "tags"},
        "model": {"checkpoint": str(tiny_checkpoint)},
        "train": {"max_steps": 4, "batch_size": 8, "precision": "fp32"},
        "evaluate": {"best": "f1_micro"},
    }
    run = hfpipe.finetune(fields, runs_dir=tmp_path / "runs", name="tags")
    assert run.recipe.loss.name == "bce_with_logits"
    assert {"f1_micro", "f1_macro", "a_f1", "b_f1", "c_f1", "subset_accuracy"} <= set(run.metrics)
    measured = hfpipe.evaluate(run)
    assert measured.metrics == pytest.approx(run.metrics, abs=1e-7, nan_ok=True)
    assert measured.intervals["f1_micro"] is None or len(measured.intervals["f1_micro"]) == 2
    from hfpipe.evaluation.prediction.predict import predict

    told = predict(run, data)
    assert len(told) == 24
    assert set(told[0]["probabilities"]) == {"a", "b", "c"}
    assert told[0]["labels"] == [name for name, share in told[0]["probabilities"].items() if share > 0.5]

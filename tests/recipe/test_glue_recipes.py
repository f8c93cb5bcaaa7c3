"""The recipes of GLUE, on small sets with the columns, types and splits of the Hub's."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import datasets
import pytest

import hfpipe
from hfpipe.recipe import load_recipe, with_overrides

# Columns and classes as the Hub's nyu-mll/glue has them.
ENTAILMENT = ["entailment", "not_entailment"]
SETS: dict[str, tuple[list[str], list[str] | None, tuple[str, ...], set[str]]] = {
    "cola": (["sentence"], ["unacceptable", "acceptable"], ("validation",), {"matthews_correlation"}),
    "sst2": (["sentence"], ["negative", "positive"], ("validation",), {"accuracy"}),
    "mrpc": (["sentence1", "sentence2"], ["not_equivalent", "equivalent"], ("validation",), {"accuracy", "f1"}),
    "stsb": (["sentence1", "sentence2"], None, ("validation",), {"pearson", "spearmanr"}),
    "qqp": (["question1", "question2"], ["not_duplicate", "duplicate"], ("validation",), {"accuracy", "f1"}),
    "mnli": (
        ["premise", "hypothesis"],
        ["entailment", "neutral", "contradiction"],
        ("validation_matched", "validation_mismatched"),
        {"accuracy"},
    ),
    "qnli": (["question", "sentence"], ENTAILMENT, ("validation",), {"accuracy"}),
    "rte": (["sentence1", "sentence2"], ENTAILMENT, ("validation",), {"accuracy"}),
    "wnli": (["sentence1", "sentence2"], ["not_entailment", "entailment"], ("validation",), {"accuracy"}),
}
SETS["ax"] = SETS["mnli"]
WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]


def rows(texts: list[str], names: list[str] | None, count: int, seed: int) -> datasets.Dataset:
    """Random words and labels."""
    rng = Random(seed)
    label = datasets.Value("float32") if names is None else datasets.ClassLabel(names=names)
    features = datasets.Features({**dict.fromkeys(texts, datasets.Value("string")), "label": label})
    columns: dict[str, list[Any]] = {text: [" ".join(rng.choices(WORDS, k=6)) for _ in range(count)] for text in texts}
    columns["label"] = [rng.uniform(0, 5) if names is None else row % len(names) for row in range(count)]
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("name", SETS)
def test_a_glue_recipe_trains_and_measures_its_set(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Only the checkpoint and the size are changed: the columns, classes, splits and figures are those of the set."""
    texts, labels, measured, figures = SETS[name]
    data = {"train": rows(texts, labels, 24, 0), **{one: rows(texts, labels, 12, 1) for one in measured}}
    small = [f"model.checkpoint={tiny_checkpoint}", "train.max_steps=2", "train.batch_size=8", "train.precision=fp32"]
    recipe = load_recipe(f"recipes/{name}.yaml", small)
    assert recipe.name == name
    assert recipe.dataset.path == "nyu-mll/glue"
    assert recipe.dataset.name == ("mnli" if name == "ax" else name)
    assert (recipe.optimizer.lr, recipe.train.epochs) == (2e-5, 5 if name in ("mrpc", "wnli") else 3)
    assert recipe.evaluate.best in figures
    # Two steps may leave a model that says one class, whose Matthews correlation is undefined and can't be the best.
    recipe = with_overrides(recipe, ["evaluate.best=loss"])
    run = hfpipe.finetune(recipe, runs_dir=tmp_path, dataset=data)
    assert set(run.metrics) == {"loss", *figures}
    also = run.read_json("metrics.json").get("also", {})
    assert {split: set(metrics) for split, metrics in also.items()} == {one: {"loss", *figures} for one in measured[1:]}


def test_the_further_splits_are_measured_with_the_final_weights(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A split in `also` that has the rows of the evaluation split gets its figures, those of the best checkpoint."""
    texts, labels, _, _ = SETS["mnli"]
    train, same = rows(texts, labels, 48, 0), rows(texts, labels, 16, 1)
    data = {"train": train, "validation_matched": same, "validation_mismatched": same}
    changes = [f"model.checkpoint={tiny_checkpoint}", "train.epochs=4", "optimizer.lr=3e-3", "train.batch_size=8"]
    recipe = load_recipe("recipes/mnli.yaml", [*changes, "train.precision=fp32"])
    run = hfpipe.finetune(recipe, runs_dir=tmp_path, dataset=data)
    evaluations = [record for record in run.records if record["type"] == "evaluation"]
    assert evaluations[-1]["metrics"] != run.metrics  # the best epoch is not the last one, so the weights were put back
    assert run.read_json("metrics.json")["also"] == {"validation_mismatched": run.metrics}

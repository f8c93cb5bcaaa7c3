"""Comparing variants: the grid, the differences, the verdicts, and the whole of it on a tiny random model."""

from __future__ import annotations

import json
import math
import random
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

import hfpipe
from hfpipe.cli import app as cli
from hfpipe.errors import RecipeError
from hfpipe.experiments.compare import figure, table, verdicts
from hfpipe.experiments.compare.compare import Comparison, Once, compare
from hfpipe.experiments.compare.grid import grid, parse_vary, split_values
from hfpipe.experiments.compare.traces import (
    EPS,
    GROWTH,
    LINEAR,
    Difference,
    Trace,
    compare_traces,
    rounding,
    weight_gap,
)
from hfpipe.recipe import Recipe, load_recipe
from hfpipe.system.display import Silent
from hfpipe.training.prepare import prepare

FIELDS: dict[str, Any] = {
    "dataset": {"path": "given", "splits": {"train": "train", "evaluation": None}},
    "task": {"text": "text"},
    "model": {"checkpoint": "./nowhere"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "schedule": {"name": "constant"},
    "train": {"epochs": 2, "batch_size": 8, "max_grad_norm": None, "precision": "fp32"},
    "evaluate": {"every": "never"},
    "checkpoints": {"every": "never"},
    "engine": "loop",
}
WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]


def recipe(*overrides: str) -> Recipe:
    """A recipe that is never trained, unless its checkpoint is given."""
    return load_recipe(FIELDS, overrides)


# The grid


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("trainer,loop", ["trainer", "loop"]),
        (" mean , sum", ["mean", "sum"]),
        ("[0.9, 0.99],[0.8, 0.9]", ["[0.9, 0.99]", "[0.8, 0.9]"]),
        ("train[:64],train[:128]", ["train[:64]", "train[:128]"]),
        ("{effective_number: 0.9},null", ["{effective_number: 0.9}", "null"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ("don't,won't", ["don't", "won't"]),
        ("1", ["1"]),
    ],
)
def test_values_are_cut_at_top_level_commas(text: str, pieces: list[str]) -> None:
    """Only a comma outside brackets and quotes separates values, and an apostrophe is no quote."""
    assert split_values(text) == pieces


def test_every_malformed_option_is_reported_at_once() -> None:
    """An option without a value, an empty value, an open bracket and a key given twice come in one error."""
    with pytest.raises(RecipeError) as caught:
        parse_vary(["engine", "seed=1,,2", "a=[1", "engine=loop", "engine=trainer"])
    text = str(caught.value)
    for shown in ("'engine': not of the form", "an empty value", "'[' is never closed", "engine is varied twice"):
        assert shown in text
    assert parse_vary(["train.epochs=1,2.5", "loss.reduction=mean"]) == {
        "train.epochs": [1, 2.5],
        "loss.reduction": ["mean"],
    }


def test_the_grid_is_every_combination_in_order() -> None:
    """The last key varies fastest, the first combination is the baseline, and every recipe says what its name says."""
    cells = grid(recipe(), {"loss.reduction": ["mean", "sum"], "optimizer.lr": [0.1, 2e-5]})
    assert [cell.name for cell in cells] == ["mean-lr-0.1", "mean-lr-2e-05", "sum-lr-0.1", "sum-lr-2e-05"]
    assert [(cell.recipe.loss.reduction, cell.recipe.optimizer.lr) for cell in cells] == [
        ("mean", 0.1),
        ("mean", 2e-5),
        ("sum", 0.1),
        ("sum", 2e-5),
    ]


def test_names_are_run_ids_even_where_values_are_not() -> None:
    """Values that are alike after cleaning, or too long for an id, get numbers; each name is a run id."""
    cells = grid(recipe(), {"model.checkpoint": ["./A b", "./a/b", "x" * 80]})
    assert [cell.name for cell in cells] == ["01-a-b", "02-a-b", f"03-{'x' * 60}"]


def test_mistakes_of_all_variants_are_reported_before_anything_is_made(tmp_path: Path) -> None:
    """A wrong value in one key and another in the next are both told, once each, and no folder appears."""
    runs = tmp_path / "runs"
    with pytest.raises(RecipeError) as caught:
        compare(recipe(), {"engine": ["loop", "lop"], "loss.reduction": ["mean", "maen"]}, runs_dir=runs)
    text = str(caught.value)
    assert text.count("unknown engine 'lop'; did you mean 'loop'?") == 1
    assert text.count("loss.reduction: ") == 1
    assert not runs.exists()


@pytest.mark.parametrize(
    ("vary", "shown"),
    [
        ({"loss.reductoin": ["mean", "sum"]}, "takes no 'reductoin'; did you mean 'reduction'"),
        ({"optimiser": ["sgd", "adamw"]}, "unknown field; did you mean 'optimizer'"),
        ({"seed": [1, 2]}, "the one seed"),
        ({"engine": ["loop"]}, "two variants"),
        ({"engine": ["loop", "loop"]}, "given twice"),
        ({"engine": "loop"}, "no list of values"),
        ({"engine": ["loop", len]}, "what YAML can say"),
        ({"loss": [{"name": "focal"}, {"name": "mse"}], "loss.reduction": ["sum"]}, "lies inside it"),
        ({}, "two variants"),
    ],
)
def test_misuse_of_vary_is_refused(vary: dict[str, Any], shown: str) -> None:
    """What is no field, does nothing, or leaves nothing to compare is a recipe error with its reason."""
    with pytest.raises(RecipeError, match=shown):
        grid(recipe(), vary)


def test_an_override_of_a_varied_field_is_refused() -> None:
    """An override that the grid would replace complains, since it would do nothing."""
    with pytest.raises(RecipeError, match="engine=loop: varied too"):
        compare(recipe(), {"engine": ["loop", "trainer"]}, overrides=["engine=loop"])


# Differences and verdicts, on made-up records


def dummy_predictions(
    name: str, losses: list[float], *overrides: str, items: list[int] | None = None, **fields: Any
) -> Trace:
    """A trace whose gradient is what its reduction makes of a mean gradient of norm 2, unless `norm` is given."""
    made = recipe(*overrides)
    items = items or [8] * len(losses)
    norm = fields.pop("norm", 2.0 if made.loss.reduction == "mean" else 2.0 * items[0])
    rates = fields.pop("rates", [made.optimizer.lr] * len(losses))
    steps = [
        {"step": step, "loss": loss, "grad_norm": norm, "lr": lr, "num_items": count, "divisor": float(count)}
        for step, (loss, lr, count) in enumerate(zip(losses, rates, items, strict=True), start=1)
    ]
    kind = made.optimizer.name
    settings: dict[str, Any] = {
        "divides": kind == "updater_sgd",
        "is_linear": kind in LINEAR,
        "weights_step": len(losses),
    }
    return Trace(name, made, Path(name), steps, **{**settings, **fields})


def parted(first: int | None, beyond: int | None = None, within: bool | None = None) -> Difference:
    """A difference that begins at a step, and is more than rounding from another one on."""
    return Difference(0.5, 0.25, first, beyond, beyond is None if within is None else within)


DIGESTS = {"dataset": "a", "checkpoint": "a", "tokenizer": "a"}
BASE = dummy_predictions("base", [0.7, 0.6, 0.5, 0.4], items=[8, 8, 3, 8], digests=DIGESTS)
RAGGED = [8, 8, 3, 8]
CASES = {
    "same": ([], {}, parted(None), "the same, bit for bit"),
    "rounding": ([], {}, parted(2), "the same within rounding"),
    "d2l": (
        ["loss.reduction=sum", "optimizer.name=updater_sgd"],
        {},
        parted(2),
        "the same within rounding: the gradient is 8 times the baseline's, and updater_sgd divides by the items",
    ),
    "sum": (
        ["loss.reduction=sum"],
        {},
        parted(2, 2),
        "8 times the learning rate: sum without division (3 times in step 3, a ragged batch)",
    ),
    "none": (
        ["loss.reduction=none"],
        {"items": [8, 8, 8, 8]},
        parted(2, 2),
        "differs from step 2: losses by up to 0.5, weights by up to 0.25; step 3 has 8 items, the baseline's 3",
    ),
    "twice": (
        ["optimizer.name=updater_sgd"],
        {},
        parted(2, 2),
        "1/8 of the learning rate: divided twice (1/3 in step 3, a ragged batch)",
    ),
    "nominal": (
        ["loss.reduction=sum", "optimizer.lr=0.0125"],
        {},
        parted(2, 4),
        "drifts from step 4: the ragged batch of step 3",
    ),
    "drifts before the ragged batch": (
        ["loss.reduction=sum", "optimizer.lr=0.0125"],
        {},
        parted(2, 2),
        "differs from step 2: losses by up to 0.5, weights by up to 0.25",
    ),
    "rate": (
        ["optimizer.lr=0.3"],
        {},
        parted(2, 2),
        "3 times the learning rate: optimizer.lr is 0.3, the baseline's 0.1",
    ),
    "rate without effect": (
        ["optimizer.lr=0.2"],
        {},
        parted(None),
        "the same, bit for bit, in spite of 2 times the learning rate: optimizer.lr is 0.2, the baseline's 0.1",
    ),
    "decay": (
        ["loss.reduction=sum", "optimizer.weight_decay=0.1"],
        {},
        parted(2, 2),
        "8 times the learning rate of the gradient: sum without division (3 times in step 3, a ragged batch); "
        "optimizer.weight_decay differs too",
    ),
    "schedule": (
        ["schedule.name=linear"],
        {"rates": [0.1, 0.05, 0.02, 0.01]},
        parted(3, 3),
        "from 0.1 to 1 times the learning rate: the schedules differ",
    ),
    "inflated": (
        [],
        {"norm": 8.0},
        parted(2, 2),
        "differs from step 2: losses by up to 0.5, weights by up to 0.25; "
        "the first gradient is 4 times the baseline's, and the arithmetic predicts 1",
    ),
    "other forward pass": (
        ["loss.reduction=sum"],
        {"losses": [0.71, 0.6, 0.5, 0.4]},
        parted(1, 1),
        "differs from step 1: losses by up to 0.5, weights by up to 0.25",
    ),
    "other optimizer": (
        ["optimizer.name=adamw"],
        {},
        parted(2, 2),
        "differs from step 2: losses by up to 0.5, weights by up to 0.25",
    ),
    "other weights kept": (
        [],
        {"weights_step": 2},
        Difference(0.0, None, None, None, None),
        "the same losses, bit for bit; model/ holds the weights of step 2, the baseline's those of step 4",
    ),
    "changed underneath": (
        [],
        {"digests": {"dataset": "a", "checkpoint": "b", "tokenizer": "c"}},
        parted(1, 1),
        "differs from step 1: losses by up to 0.5, weights by up to 0.25; not the baseline's checkpoint and tokenizer",
    ),
    "diverged": (
        ["loss.reduction=sum"],
        {"losses": [0.7, 9.0], "items": [8, 8], "failure": "the loss is nan at step 3", "weights_step": None},
        parted(2, 2),
        "diverged after step 2: the loss is nan at step 3; 8 times the learning rate: sum without division",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict_says_what_was_measured_and_predicted(case: str) -> None:
    """Each verdict in words follows from the records: size alone without a prediction, a cause only with one."""
    overrides, fields, difference, words = CASES[case]
    fields = {"items": RAGGED, "digests": DIGESTS, **fields}
    trace = dummy_predictions(case, fields.pop("losses", [0.7, 0.6, 0.5, 0.4]), *overrides, **fields)
    assert verdicts.verdict(trace, BASE, difference) == words


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (parted(2), "the same within rounding: the gradient is 8 times the baseline's, and adamw hides it"),
        (
            parted(2, 3),
            "differs from step 3: losses by up to 0.5, weights by up to 0.25; "
            "the gradient is 8 times the baseline's, and adamw rescales it",
        ),
        (
            Difference(1e-7, 0.25, 2, 2, weights_within=False, losses_within=True),
            "the same losses within rounding, and weights that differ by up to 0.25; "
            "the gradient is 8 times the baseline's, and adamw rescales it",
        ),
    ],
)
def test_adamw_is_said_to_hide_the_reduction_and_gets_no_rate(difference: Difference, words: str) -> None:
    """Under AdamW a factor on the gradient is no factor on the learning rate, and no effective rate is claimed."""
    base = dummy_predictions("mean", [0.7, 0.6], "optimizer.name=adamw")
    summed = dummy_predictions("sum", [0.7, 0.6], "optimizer.name=adamw", "loss.reduction=sum")
    assert verdicts.verdict(summed, base, difference) == words
    assert verdicts.effective_learning_rate(summed) is None


def test_adamw_hides_a_constant_factor_until_a_ragged_batch() -> None:
    """A drift that begins right after a ragged batch is put down to it, and one that begins before it is not."""
    base = dummy_predictions("mean", [0.7, 0.6, 0.5, 0.4], "optimizer.name=adamw", items=RAGGED)
    summed = dummy_predictions("sum", [0.7, 0.6, 0.5, 0.4], "optimizer.name=adamw", "loss.reduction=sum", items=RAGGED)
    assert verdicts.verdict(summed, base, parted(2, 4)) == (
        "drifts from step 4: adamw hides that the gradient is 8 times the baseline's, "
        "until it is 3 times in step 3, a ragged batch"
    )
    assert verdicts.verdict(summed, base, parted(2, 2)).startswith("differs from step 2")


def test_the_baseline_says_when_it_is_not_divided_once() -> None:
    """A baseline that sums without division, divides twice or diverged says so; a sound one just stands there."""
    verdict_of = {
        words: verdicts.of_baseline(dummy_predictions("b", [0.7], *overrides, **fields))
        for words, overrides, fields in (
            ("the baseline", [], {}),
            ("the baseline: sum without division", ["loss.reduction=sum"], {}),
            ("the baseline: divided twice", ["optimizer.name=updater_sgd"], {}),
            ("the baseline; diverged after step 1: nan", [], {"failure": "nan"}),
        )
    }
    assert list(verdict_of) == list(verdict_of.values())


@pytest.mark.parametrize(
    ("overrides", "rate", "ratio"),
    [
        ([], 0.1, 1.0),
        (["loss.reduction=sum"], 0.8, 8.0),
        (["loss.reduction=none", "optimizer.name=updater_sgd"], 0.1, 8.0),
        (["optimizer.name=updater_sgd"], 0.0125, 1.0),
        (["optimizer.name=updater_momentum", "loss.reduction=sum"], 0.8, 8.0),
    ],
)
def test_effective_rate_and_predicted_ratio(overrides: list[str], rate: float, ratio: float) -> None:
    """Rate and ratio come from the reduction, the divisor of step 1, and whether the optimizer divides."""
    trace = dummy_predictions("variant", [0.7, 0.6, 0.5, 0.4], *overrides, items=RAGGED)
    assert verdicts.effective_learning_rate(trace) == pytest.approx(rate, rel=1e-12)
    assert verdicts.predicted_gradient_ratio(trace, BASE) == ratio
    assert verdicts.gradient_ratio(trace, BASE) == ratio


def saved(folder: Path, **tensors: torch.Tensor) -> Path:
    """A model folder with these weights."""
    (folder / "model").mkdir(parents=True)
    save_file(tensors, folder / "model" / "model.safetensors")
    return folder


def test_differences_are_exact_and_rounding_grows_with_the_steps(tmp_path: Path) -> None:
    """The first step is by !=, the step beyond rounding by the bound of that step, and the weights count as well."""
    weights = torch.tensor([1.0, -2.0])
    base = dummy_predictions("base", [0.5, 0.5, 0.5])
    base = Trace(**{**vars(base), "path": saved(tmp_path / "base", w=weights)})

    def against(name: str, losses: list[float], **tensors: torch.Tensor) -> Difference:
        trace = dummy_predictions(name, losses)
        return compare_traces(Trace(**{**vars(trace), "path": saved(tmp_path / name, **tensors)}), base)

    assert rounding(2, 0.5) == 2 * GROWTH * EPS
    same = against("same", [0.5, 0.5, 0.5], w=weights)
    assert (same.max_loss, same.max_weight, same.size) == (0.0, 0.0, "bit for bit")
    allowed = GROWTH * EPS
    near = against("near", [0.5, 0.5 + 1.5 * allowed, 0.5], w=weights + 2 * allowed)
    assert (near.first_step, near.beyond_step, near.size) == (2, None, "within rounding")
    early = against("early", [0.5 + 1.5 * allowed, 0.5, 0.5], w=weights)
    assert (early.first_step, early.beyond_step, early.size, early.losses_within) == (1, 1, None, False)
    heavy = against("heavy", [0.5, 0.5, 0.5], w=weights + torch.tensor([0.0, 1e-3]))
    assert (heavy.first_step, heavy.beyond_step, heavy.losses_within) == (3, 3, True)
    assert heavy.max_weight == pytest.approx(1e-3, rel=1e-4)
    longer = against("longer", [0.5, 0.5, 0.5, 0.5], w=weights)
    assert (longer.first_step, longer.max_weight, longer.weights_within) == (4, None, None)
    nan = against("nan", [0.5, 0.5, 0.5], w=torch.tensor([1.0, math.nan]))
    assert (nan.beyond_step, nan.weights_within) == (3, False)


def test_models_with_other_tensors_have_no_weight_difference(tmp_path: Path) -> None:
    """Other names or shapes can't be subtracted, and no number is made up for them; several files are one model."""
    first = saved(tmp_path / "first", w=torch.zeros(2), b=torch.zeros(1)) / "model"
    other_names = saved(tmp_path / "names", w=torch.zeros(2)) / "model"
    assert weight_gap(first, other_names) == (None, 0.0)
    other_shapes = saved(tmp_path / "shapes", w=torch.zeros(3), b=torch.zeros(1)) / "model"
    assert weight_gap(first, other_shapes) == (None, 0.0)
    save_file({"b": torch.full((1,), 3.0)}, other_names / "model-2.safetensors")
    assert weight_gap(first, other_names) == (3.0, 3.0)


def test_the_figure_is_the_same_text_for_the_same_numbers() -> None:
    """The SVG is XML, labelled, byte for byte reproducible, and drawn even when nothing differs."""
    summed = dummy_predictions("sum", [0.7, 0.9], "loss.reduction=sum", failure="nan")
    twin = dummy_predictions("twin", [0.7, 0.6, 0.5, 0.4])
    text = figure.losses_svg("mine", [BASE, summed, twin], {"twin": "base"})
    assert text == figure.losses_svg("mine", [BASE, summed, twin], {"twin": "base"})
    words = "".join(ElementTree.fromstring(text).itertext())
    for shown in ("mine", "training loss", "step (update", "base and 1 the same", "sum, diverged"):
        assert shown in words
    assert "twin" not in words  # it lies under the line of the baseline
    assert ElementTree.fromstring(figure.losses_svg("mine", [BASE, twin], {"twin": "base"})) is not None


# The whole of it, on a tiny random model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BERT of one layer with dropout, and a tokenizer of 125 words."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = ["[PAD]", "[UNK]", *WORDS]
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32, **special).save_pretrained(
        folder
    )
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, pad_token_id=0, **sizes)
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return str(folder)


def rows(count: int) -> datasets.Dataset:
    """Random words in three classes."""
    rng = random.Random(0)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["one", "two", "three"])}
    )
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 9))) for _ in range(count)]
    return datasets.Dataset.from_dict(
        {"text": texts, "label": [rng.randrange(3) for _ in range(count)]}, features=features
    )


@pytest.fixture(scope="module")
def trained(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Both reductions and both SGDs in batches of 8, 8 and 3, for two epochs."""
    base = recipe(f"model.checkpoint={checkpoint}", "model.fresh=[classifier]")
    return compare(
        base,
        {"loss.reduction": ["mean", "sum", "none"], "optimizer.name": ["sgd", "updater_sgd"]},
        runs_dir=tmp_path_factory.mktemp("runs"),
        dataset={"train": rows(19)},
    )


def test_the_d2l_identities_show_up(trained: Comparison) -> None:
    """mean + SGD is sum + the dividing updater, ragged batches included; the rest are 8 times and 1/8 of its rate."""
    verdict_of = {row.name: row.verdict for row in trained.variants}
    assert trained.baseline == "mean-sgd"
    assert verdict_of["mean-sgd"] == "the baseline"
    assert verdict_of["sum-updater_sgd"].startswith("the same within rounding: the gradient is 8 times the baseline's")
    assert verdict_of["mean-updater_sgd"].startswith(
        "1/8 of the learning rate: divided twice (1/3 in step 3, a ragged batch)"
    )
    assert verdict_of["sum-sgd"].startswith("8 times the learning rate: sum without division (3 times in step 3")
    assert verdict_of["none-sgd"].endswith("; the same as sum-sgd, bit for bit")
    rows_by_name = {row.name: row for row in trained.variants}
    assert rows_by_name["sum-updater_sgd"].max_abs_weight_difference < 1e-6
    assert rows_by_name["sum-sgd"].max_abs_weight_difference > 1e-2
    assert rows_by_name["none-updater_sgd"].same_as == "mean-sgd"


def test_measured_numbers_and_predictions_stand_beside_each_other(trained: Comparison) -> None:
    """The measured gradient ratio is the predicted one, and the losses part in step 2, the first that can show it."""
    for row in trained.variants:
        assert row.gradient_ratio == pytest.approx(row.predicted_gradient_ratio, rel=1e-6)
        assert row.predicted_gradient_ratio == (1 if row.name.startswith("mean") else 8)
    by_name = {row.name: row for row in trained.variants}
    assert by_name["sum-sgd"].first_differing_step == 2
    assert by_name["sum-sgd"].effective_learning_rate == pytest.approx(0.8)
    first, other = (by_name[name].run.records for name in ("mean-sgd", "sum-sgd"))
    gaps = [abs(a["loss"] - b["loss"]) for a, b in zip(first, other, strict=True) if a["type"] == "step"]
    assert by_name["sum-sgd"].max_abs_loss_difference == max(gaps)


def test_what_is_left_on_disk(trained: Comparison) -> None:
    """One folder holds compare.json, the figure, the recipe, and a finished run for each variant."""
    assert json.loads((trained.path / "compare.json").read_text()) == trained.as_dict()
    assert (trained.path / "losses.svg").read_text().startswith("<?xml")
    assert load_recipe(trained.path / "recipe.yaml").optimizer.lr == 0.1
    assert [row.run.path.parent for row in trained.variants] == [trained.path] * 6
    assert {row.run.status for row in trained.variants} == {"finished"}


def test_the_tables_fit_100_columns(trained: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of the tables has at most 100 characters, nothing is cut, and every verdict is there."""
    table.show(trained)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(trained.path) not in line) <= 100
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    assert "sum without division" in text
    assert "8 times the learning rate" in text


@pytest.fixture(scope="module")
def evaluated(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two rates that part, with 24 examples to measure on."""
    base = recipe(f"model.checkpoint={checkpoint}", "model.fresh=[classifier]", "dataset.splits.evaluation=validation")
    return compare(
        base,
        {"optimizer.lr": [0.1, 0.0001]},
        overrides=["evaluate.metrics=[accuracy, {name: f1, average: macro}]"],
        runs_dir=tmp_path_factory.mktemp("evaluated"),
        dataset={"train": rows(19), "validation": rows(24)},
    )


def test_the_metrics_come_first_with_their_paired_test(
    evaluated: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each variant has its metrics, and the comparison that `runs diff` makes with the baseline; the table fits."""
    from hfpipe.experiments.diff.evaluations import compare_evaluations

    base, other = evaluated.variants
    assert not base.comparisons
    assert other.metrics == other.run.metrics
    same = compare_evaluations(base.run, other.run, (base.name, other.name))["comparisons"]
    said = [[row["text"] for one in found for row in one["metrics"]] for found in (other.comparisons, same)]
    assert said[0] == said[1]
    assert len(said[0]) == 3
    tested = {row["name"]: row for row in other.comparisons[0]["metrics"]}
    assert tested["accuracy"]["test"] == "McNemar"
    assert 0 <= tested["accuracy"]["p"] <= 1
    table.show(evaluated)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert shown.index("metrics") < shown.index("against ")
    assert f"{other.metrics['accuracy']:.4f}" in shown
    assert "p by McNemar and paired bootstrap, on the same 24 examples of one seed" in shown
    assert max(len(line) for line in lines if str(evaluated.path) not in line and "note: " not in line) <= 100
    assert json.loads((evaluated.path / "compare.json").read_text())["variants"][1]["metrics"] == other.metrics


def test_two_runs_are_compared_as_runs_diff_does(
    evaluated: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`compare RUN RUN` prints what `runs diff RUN RUN` prints, as a page and as JSON."""
    pair = [str(row.run.path) for row in evaluated.variants]
    for json_option in ([], ["--json"]):
        printed = []
        for command in (["compare"], ["runs", "diff"]):
            assert run_cli(monkeypatch, *command, *pair, *json_option) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]
        assert "accuracy" in printed[0]


def test_without_an_evaluation_there_are_no_metrics(trained: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said in their place."""
    table.show(trained)
    assert capsys.readouterr().out.startswith("no metrics: nothing was evaluated")


def test_double_division_is_noticed_in_the_run(trained: Comparison) -> None:
    """mean with a dividing updater leaves a notice with the effective rate in the records; no other variant does."""
    noticed = {
        row.name: [r["text"] for r in row.run.records if r["type"] == "notice" and "divided twice" in r["text"]]
        for row in trained.variants
    }
    assert [name for name, texts in noticed.items() if texts] == ["mean-updater_sgd"]
    assert "with 8 items in an update optimizer.lr=0.1 acts like 0.0125" in noticed["mean-updater_sgd"][0]


def test_the_notice_counts_the_items_of_a_whole_update(checkpoint: str) -> None:
    """Accumulation multiplies the items, and an update never has more items than the data."""
    fixed = [f"model.checkpoint={checkpoint}", "model.fresh=[classifier]", "optimizer.name=updater_sgd"]
    for accumulate, items in ((2, 16), (4, 19)):
        job = prepare(recipe(*fixed, f"train.accumulate={accumulate}"), dataset={"train": rows(19)})
        assert any(f"with {items} items in an update" in notice for notice in job.notices)


def test_a_diverging_variant_is_an_answer(checkpoint: str, tmp_path: Path) -> None:
    """A loss that is not finite ends that variant alone; its verdict names the step, and the next one is trained."""
    base = recipe(f"model.checkpoint={checkpoint}", "model.fresh=[classifier]", "train.max_steps=3")
    sgd = [{"name": "sgd", "lr": 0.1}, {"name": "sgd", "lr": 1000, "weight_decay": 1e38}, {"name": "sgd", "lr": 0.2}]
    found = compare(base, {"optimizer": sgd}, runs_dir=tmp_path, dataset={"train": rows(19)})
    _, diverged, last = found.variants
    assert diverged.verdict.startswith("diverged after step 1: the loss 'cross_entropy' is nan at step 2")
    assert (diverged.run.status, diverged.max_abs_weight_difference) == ("failed", None)
    assert "times the learning rate of the gradient: optimizer.lr is 1000, the baseline's 0.1" in diverged.verdict
    assert last.verdict == "2 times the learning rate: optimizer.lr is 0.2, the baseline's 0.1"
    json.dumps(found.as_dict(), allow_nan=False)


def test_another_fault_stops_the_comparison_and_names_the_variant(checkpoint: str, tmp_path: Path) -> None:
    """A variant whose data can't be had stops with its own error, which says which variant it was."""
    base = recipe(f"model.checkpoint={checkpoint}", "model.fresh=[classifier]", "train.max_steps=1")
    with pytest.raises(hfpipe.HfpipeError, match="variant nosuch"):
        compare(base, {"dataset.splits.train": ["train", "nosuch"]}, runs_dir=tmp_path, dataset={"train": rows(19)})
    assert [path.parent.name for path in tmp_path.glob("*/*/run.json")] == ["train"]
    with pytest.raises(hfpipe.HfpipeError, match="variant nosuch"):
        compare(base, {"dataset.splits.train": ["nosuch", "none"]}, runs_dir=tmp_path, dataset={"train": rows(19)})
    assert len(list(tmp_path.iterdir())) == 1  # nothing was trained, and nothing is left


def test_compare_stays_a_function() -> None:
    """hfpipe.compare is the function however often and in whatever order it is imported: no module hides it."""
    assert hfpipe.compare is compare
    assert hfpipe.compare is compare
    assert callable(hfpipe.compare)


def test_stages_and_notices_are_reported_once() -> None:
    """Twelve variants load the same data; the second time a stage or notice is silent, while steps always show."""
    shown: list[Any] = []

    class Listener(Silent):
        def notice(self, text: str) -> None:
            shown.append(text)

        def record(self, record: Any) -> None:
            shown.append(record["type"])

    once = Once(Listener())
    for _ in range(2):
        once.notice("reading")
        once.record({"type": "notice", "text": "divided twice"})
        once.record({"type": "step"})
    assert shown == ["reading", "notice", "step", "step"]


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["hfpipe", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_the_command_prints_one_json_object(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json leaves one object with the fields of the contract on standard output, and both engines agree in it."""
    rows(19).to_parquet(tmp_path / "rows.parquet")
    source = tmp_path / "recipe.json"
    fields = {**FIELDS, "dataset": {"path": "parquet", "data_files": str(tmp_path / "rows.parquet")}}
    fields["dataset"]["splits"] = {"train": "train", "evaluation": None}
    source.write_text(json.dumps({**fields, "model": {"checkpoint": checkpoint, "fresh": ["classifier"]}}))
    arguments = ["compare", str(source), "train.max_steps=3", "--vary", "engine=trainer,loop", "--json"]
    assert run_cli(monkeypatch, *arguments, "--runs-dir", str(tmp_path / "runs")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["baseline"] == "trainer"
    required = "name run max_abs_loss_difference max_abs_weight_difference first_differing_step gradient_ratio verdict"
    for variant in printed["variants"]:
        assert set(required.split()) <= variant.keys()
        assert (Path(variant["run"]) / "records.jsonl").is_file()
    assert printed["variants"][1]["verdict"] == "the same, bit for bit"
    assert printed["variants"][1]["first_differing_step"] is None


def test_the_command_refuses_an_unknown_field_with_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A varied key that is no field of a recipe is exit 2 with the near name, before a run folder is made."""
    source = tmp_path / "recipe.json"
    source.write_text(json.dumps(FIELDS))
    runs = tmp_path / "runs"
    assert run_cli(monkeypatch, "compare", str(source), "--vary", "train.batchsize=4,8", "--runs-dir", str(runs)) == 2
    assert "did you mean 'batch_size'" in capsys.readouterr().err
    assert not runs.exists()

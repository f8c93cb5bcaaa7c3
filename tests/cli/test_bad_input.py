"""What is wrong with a loss, a reduction, an optimizer, class weights or a target: its exit code, told before it costs.

All on the embedded data, sliced, through the command or through `finetune`, with both engines where an engine is reached.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import hfpipe
from hfpipe.errors import DataError, ModelError

SMALL = (
    "train.max_steps=2",
    "train.batch_size=8",
    "train.precision=fp32",
    "dataset.splits.train='train[:64]'",
    "dataset.splits.evaluation='validation[:16]'",
)
ENGINES = ("trainer", "loop")


@pytest.fixture
def finetune(hfpipe_command: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """`hfpipe finetune quickstart`, small, with these overrides and options."""
    return lambda *changes: hfpipe_command("finetune", "quickstart", *SMALL, *changes, "--runs-dir", tmp_path / "runs")


@pytest.fixture
def own_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of losses of a user's own that are none."""
    name = f"own_losses_{tmp_path.name.replace('-', '_')}"
    source = """
        import torch
        import torch.nn.functional as F

        def items(logits, targets):
            return F.cross_entropy(logits, targets, reduction="none")

        def scalar(logits, targets):
            return F.cross_entropy(logits, targets)

        def classes(logits, targets):
            return F.binary_cross_entropy_with_logits(logits, F.one_hot(targets, 2).float(), reduction="none")

        def column(logits, targets):
            return items(logits, targets)[:, None]

        def number(logits, targets):
            return items(logits, targets).mean().item()

        def not_a_number(logits, targets):
            return items(logits, targets) * float("nan")

        def infinite(logits, targets):
            return items(logits, targets) / 0.0

        def infinite_when_measured(logits, targets):
            return items(logits, targets) / float(torch.is_grad_enabled())
    """
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def runs_in(tmp_path: Path) -> list[Path]:
    """The run folders that are there."""
    return list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("loss.name=crossentropy", ["loss.name", "unknown loss 'crossentropy'", "did you mean 'cross_entropy'?"]),
        ("loss.name=smoth_l1", ["did you mean 'smooth_l1'", "cross_entropy, bce_with_logits, mse", "module:attribute"]),
        ("loss.reduction=means", ["loss.reduction", "'none', 'mean' or 'sum', got 'means'", "did you mean 'mean'?"]),
        ("loss.reduction=3", ["loss.reduction", "'none', 'mean' or 'sum', got 3"]),
        ("optimizer.name=adamww", ["optimizer.name", "unknown optimizer 'adamww'", "did you mean 'adamw'"]),
        ("optimizer.name=updater_sdg", ["did you mean 'updater_sgd'", "updater_adamw, or your own"]),
        ("optimizer.name=LBFGS", ["unknown optimizer 'LBFGS'", "adafactor"]),
        ("optimizer.name=torch.optim:LBFGS", ["LBFGS can't train here: it takes no parameter groups"]),
    ],
)
def test_an_unknown_name_is_told_with_the_near_ones(
    finetune: Callable[..., Any], tmp_path: Path, override: str, told: list[str]
) -> None:
    """An unknown loss, reduction or optimizer: exit code 2, the field, the near names and what there is."""
    done = finetune(override, "--json")
    assert (done.code, done.json["exit_code"]) == (2, 2)
    for part in (override, *told):
        assert part in done.json["error"]
    assert runs_in(tmp_path) == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("loss", "got"),
    [("scalar", "shape []"), ("classes", "shape [8, 2]"), ("column", "shape [8, 1]"), ("number", "float")],
)
def test_a_loss_of_another_shape_is_told(
    finetune: Callable[..., Any], own_losses: str, loss: str, got: str, engine: str
) -> None:
    """A loss that is a scalar, of another shape or no tensor: exit code 2, naming the loss, its shape and the right one."""
    done = finetune(f"loss.name={own_losses}:{loss}", "--engine", engine, "--json")
    assert done.code == 2, done.err
    assert f"loss '{own_losses}:{loss}' gave {got} for 8 items; allowed: one number per item, shape [8]" in done.err
    assert "reduction='none'" in done.err
    assert "Traceback" not in done.err


def test_a_loss_of_another_shape_is_told_when_updates_accumulate(finetune: Callable[..., Any], own_losses: str) -> None:
    """The check of the loss scale, which is the first to call the loss then, says the same."""
    done = finetune(f"loss.name={own_losses}:scalar", "train.accumulate=2")
    assert done.code == 2
    assert f"loss '{own_losses}:scalar' gave shape [] for 7 items" in done.err


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("loss", "value"), [("not_a_number", "nan at step 1"), ("infinite", "inf at step 1")], ids=["nan", "inf"]
)
def test_a_loss_that_is_not_finite_is_told(
    finetune: Callable[..., Any], tmp_path: Path, own_losses: str, loss: str, value: str, engine: str
) -> None:
    """A loss of NaN or infinity: exit code 6, naming the loss and the step, before it reaches the weights."""
    done = finetune(f"loss.name={own_losses}:{loss}", "--engine", engine, "--json")
    assert (done.code, done.json["exit_code"]) == (6, 6), done.err
    assert f"the loss '{own_losses}:{loss}' is {value}" in done.err
    (folder,) = runs_in(tmp_path)
    run = hfpipe.Run(folder)
    assert run.status == "failed"
    assert [record for record in run.records if record["type"] == "step"] == []


def test_a_loss_that_is_not_finite_is_named_by_the_scale_check(finetune: Callable[..., Any], own_losses: str) -> None:
    """The check that comes first when updates accumulate names the loss too."""
    done = finetune(f"loss.name={own_losses}:not_a_number", "train.accumulate=2")
    assert done.code == 6
    assert f"the loss '{own_losses}:not_a_number' is nan" in done.err


@pytest.mark.parametrize("engine", ENGINES)
def test_an_evaluation_loss_that_is_not_finite_is_told(
    finetune: Callable[..., Any], own_losses: str, engine: str
) -> None:
    """A loss that is a number in training and none in the evaluation is no figure to report: exit code 6, with the row."""
    done = finetune(f"loss.name={own_losses}:infinite_when_measured", "--engine", engine)
    assert done.code == 6, done.out
    assert f"the loss '{own_losses}:infinite_when_measured' is not finite for 16 of 16 rows, first row 0" in done.err


def labelled(labels: list[Any], feature: Any) -> datasets.Dataset:
    """Pairs with these labels."""
    features = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"), "label": feature}
    columns = {"sentence1": ["a word"] * len(labels), "sentence2": ["another"] * len(labels), "label": labels}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


GOOD, NUMBER = [0, 1] * 8, datasets.Value("int64")
NAMED = datasets.ClassLabel(names=["unlike", "alike"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("splits", "told"),
    [
        (
            {"train": labelled([*GOOD, -1], NAMED), "validation": labelled(GOOD, NAMED)},
            "split train: label -1 is outside the 2 classes (row 16, counted from 0)",
        ),
        (
            {"train": labelled(GOOD, NAMED), "validation": labelled([0, 1, -1, 1, -1], NAMED)},
            "split validation: label -1 is outside the 2 classes (rows 2, 4, counted from 0)",
        ),
        (
            {"train": labelled(GOOD, NUMBER), "validation": labelled([0, 1, 1, 2], NUMBER)},
            "split validation: label 2 is outside the 2 classes (row 3, counted from 0)",
        ),
        (
            {"train": labelled([*GOOD, -2], NUMBER), "validation": labelled(GOOD, NUMBER)},
            "the values of 'label' are -2, 0, 1 (-2 first in row 16, counted from 0)",
        ),
        (
            {"train": labelled([*GOOD, 3], NUMBER), "validation": labelled(GOOD, NUMBER)},
            "the values of 'label' are 0, 1, 3 (3 first in row 16, counted from 0)",
        ),
        (
            {
                "train": labelled(["unlike", "alike"] * 8, datasets.Value("string")),
                "validation": labelled(["alike", "alikee"], datasets.Value("string")),
            },
            "split validation: label 'alikee' is outside the 2 classes (row 1, counted from 0)",
        ),
    ],
    ids=["train", "validation", "too-large", "negative", "gap", "text"],
)
def test_a_target_outside_the_classes_is_told_with_its_row(
    tmp_path: Path, splits: Mapping[str, datasets.Dataset], told: str, engine: str
) -> None:
    """A label that is no class: exit code 3 with the split and the row, before the loss or the model is seen once."""

    def never(*arguments: Any) -> torch.Tensor:
        raise AssertionError("a step was taken")

    whole = ["dataset.splits.train=train", "dataset.splits.evaluation=validation"]
    with pytest.raises(DataError) as caught:
        hfpipe.finetune(
            "quickstart",
            overrides=[*SMALL, *whole],
            engine=engine,
            runs_dir=tmp_path / "runs",
            dataset=dict(splits),
            loss=never,
        )
    assert caught.value.exit_code == 3
    assert told in str(caught.value)
    assert runs_in(tmp_path) == []


@pytest.mark.parametrize("label", [-1, 5])
def test_a_target_outside_the_classes_of_a_file(
    hfpipe_command: Callable[..., Any],
    tmp_path: Path,
    pairs: dict[str, list[dict[str, Any]]],
    data_folder: Any,
    label: int,
) -> None:
    """The command says the same of a folder with a row of a class that its README does not name."""
    rows = [dict(row) for row in pairs["train"]]
    rows[5]["label"] = label
    data_folder(tmp_path / "data", {**pairs, "train": rows})
    small = ["train.max_steps=2", f"dataset.path='{tmp_path / 'data'}'"]
    done = hfpipe_command("finetune", "quickstart", *small, "--json", "--runs-dir", tmp_path / "runs")
    assert (done.code, done.json["exit_code"]) == (3, 3), done.err
    assert f"label {label} is outside the 2 classes (row 5, counted from 0)" in done.json["error"]
    assert "other, same" in done.json["error"]
    assert runs_in(tmp_path) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_given_model_without_an_output_for_every_class_is_told(tmp_path: Path, engine: str) -> None:
    """A model object with 2 outputs for 3 classes would meet a target outside of them: told before step 1."""
    job = hfpipe.prepare(hfpipe.load_recipe("quickstart", SMALL))
    three = datasets.ClassLabel(names=["a", "b", "c"])
    splits = {"train": labelled([0, 1, 2] * 8, three), "validation": labelled([0, 1, 2], three)}
    whole = ["dataset.splits.train=train", "dataset.splits.evaluation=validation"]
    with pytest.raises(ModelError, match=r"the given model has 2 outputs, and the data have the 3 classes a, b, c"):
        hfpipe.finetune(
            "quickstart",
            overrides=[*SMALL, *whole],
            engine=engine,
            runs_dir=tmp_path / "runs",
            dataset=splits,
            model=job.model,
        )
    assert runs_in(tmp_path) == []


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (
            "[1.0, 2.0, 3.0]",
            "3 class weights for 2 classes; allowed: 2 numbers, one per class in the order of the labels",
        ),
        ("[1.0]", "1 class weights for 2 classes"),
        ("[]", "0 class weights for 2 classes"),
        ("[1.0, -2.0]", "class_weights is [1.0, -2.0]; allowed: finite numbers of 0 or more, not all 0"),
        ("[0.0, 0.0]", "not all 0"),
        ("balancd", "did you mean 'balanced'?"),
        ("{effective_number: 1.0}", "0 <= beta < 1"),
    ],
)
def test_class_weights_that_do_not_fit_are_told(
    finetune: Callable[..., Any], tmp_path: Path, weights: str, told: str
) -> None:
    """Class weights of the wrong length, or that are none: exit code 2 with the place, and no run is left."""
    done = finetune(f"loss.class_weights={weights}", "--json")
    assert (done.code, done.json["exit_code"]) == (2, 2), done.err
    assert told in done.json["error"]
    assert "loss.class_weights" in done.json["error"]
    assert runs_in(tmp_path) == []

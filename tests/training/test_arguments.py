"""What the public functions take from Python: kinds of arguments, overrides as a mapping, and where progress goes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest

import hfpipe
from hfpipe.errors import RecipeError
from hfpipe.system import display

SMALL = {"train": {"max_steps": 2, "precision": "fp32"}, "evaluate.every": "never", "optimizer.lr": np.float64(1e-3)}
WRONG: list[tuple[Callable[[hfpipe.Run], Any], str]] = [
    (lambda run: hfpipe.load_recipe(5), r"load_recipe\(\): got int 5; allowed: a YAML file"),  # type: ignore[arg-type]
    (lambda run: hfpipe.load_recipe("quickstart", 5), "overrides: got 5; allowed: a list"),  # type: ignore[arg-type]
    (lambda run: hfpipe.load_recipe("quickstart", [5]), r"overrides: got \[5\]"),  # type: ignore[list-item]
    (lambda run: hfpipe.load_recipe("quickstart", {"loss": print}), r"overrides: loss is .*loss=\.\.\."),
    (lambda run: hfpipe.finetune(5), r"finetune\(\): recipe is 5; allowed: a Recipe, a YAML file"),
    (lambda run: hfpipe.finetune("quickstart", engine=5), r"engine is 5; allowed: trainer, loop"),
    (lambda run: hfpipe.finetune("quickstart", runs_dir=5), "runs_dir is 5; allowed: a folder"),
    (lambda run: hfpipe.finetune("quickstart", name=5), "name is 5; allowed: a text"),
    (lambda run: hfpipe.finetune(resume=5), "resume is 5; allowed: a Run or a Group"),
    (lambda run: hfpipe.finetune("quickstart", display="bar"), "display: got 'bar'; allowed: True, False"),
    (
        lambda run: hfpipe.finetune(resume=run, allow_change="train"),
        "allow_change is 'train'; allowed: a list of texts",
    ),
    (lambda run: hfpipe.finetune("quickstart", max_minutes="1"), "max_minutes is '1'; allowed: a number"),
    (lambda run: hfpipe.finetune("quickstart", [], 5), r"finetune\(\): .*positional.*allowed: finetune\(recipe"),
    (lambda run: hfpipe.finetune("quickstart", metrics=[5]), "5 among the metrics"),
    (lambda run: hfpipe.finetune("quickstart", tokenizer="bert"), "tokenizer='bert'; allowed: a tokenizer"),
    (lambda run: hfpipe.finetune_seeds("quickstart", seeds="5"), "seeds is '5'; allowed: how many"),
    (lambda run: hfpipe.compare("quickstart"), r"compare\(\): missing a required argument: 'vary'"),
    (lambda run: hfpipe.compare("quickstart", {"engine": "loop"}), "vary is .*allowed: a mapping from paths to lists"),
    (lambda run: hfpipe.evaluate(5), "target is 5; allowed: a Run"),
    (lambda run: hfpipe.evaluate(run, splitt="train"), "no argument 'splitt'; did you mean 'split'"),
    (lambda run: hfpipe.evaluate(run, 5), "got a int; allowed: a file.*dataset=datasets.Dataset.from_list"),
    (lambda run: hfpipe.evaluate(run, "x.csv", text=5), "text is 5; allowed: the name of a column"),
    (lambda run: hfpipe.evaluate(run, split=5), "split is 5; allowed: the name of a split"),
    (lambda run: hfpipe.evaluate(run, optimizer=print), "no argument 'optimizer'"),
    (lambda run: hfpipe.predict(run, 5), "got 5; allowed: a list of rows"),
    (lambda run: run.predict([("a", "b")], chunk_rows="x"), "chunk_rows is 'x'"),
    (lambda run: hfpipe.predict_file(run, "x.csv", 5), "output is 5; allowed: a file"),
    (lambda run: hfpipe.prepare("quickstart", loss=5), r"prepare\(\)|loss=5"),
    (lambda run: hfpipe.as_evaluate_metric(5), "metric: got 5; allowed: a name"),  # type: ignore[arg-type]
    (lambda run: hfpipe.Run(5), r"Run\(\): got 5; allowed: the folder of a run"),  # type: ignore[arg-type]
    (lambda run: hfpipe.Run("runs/nowhere").metrics, "no run at 'runs/nowhere'"),
]


@pytest.mark.parametrize(("call", "told"), WRONG)
def test_a_wrong_kind_of_argument_is_told(pairs_run: hfpipe.Run, call: Callable[[hfpipe.Run], Any], told: str) -> None:
    """Every public function says where, what it got and what it takes; nothing ends in a TypeError or AttributeError."""
    with pytest.raises(RecipeError, match=told):
        call(pairs_run)


def test_overrides_may_be_a_mapping(recipe_fields: dict[str, Any], tmp_path: Path, no_report: None) -> None:
    """Values of Python, fields of a section, paths and numbers of numpy mean what the texts mean, in every function."""
    recipe = hfpipe.load_recipe(recipe_fields, SMALL)
    texts = ["train.max_steps=2", "train.precision=fp32", "evaluate.every=never", "optimizer.lr=0.001"]
    assert recipe == hfpipe.load_recipe(recipe_fields, texts)
    assert recipe.train.batch_size == 8  # a mapping of a section changes its fields, and forgets no others
    assert hfpipe.load_recipe(recipe, ["seed=1"]).seed == 1
    assert hfpipe.load_recipe(recipe, {"model.checkpoint": tmp_path}).model.checkpoint == str(tmp_path)
    run = hfpipe.finetune(recipe_fields, overrides=SMALL, runs_dir=str(tmp_path), name="one")
    assert run.recipe == recipe
    assert hfpipe.Run(str(tmp_path / "one")).metrics == run.metrics
    assert hfpipe.evaluate(str(run.path), overrides={"evaluate.batch_size": 4}).examples == 21
    assert hfpipe.predict(run, [("bak", "cek")], overrides={"evaluate": {"batch_size": 4}})


def test_no_path_is_asked_where_data_are_given(
    recipe_fields: dict[str, Any], pairs: dict[str, Any], tmp_path: Path, no_report: None
) -> None:
    """A recipe without `dataset.path` trains with `dataset=`, and without it says what is missing."""
    fields = {**recipe_fields, "dataset": {"splits": {"hold_out": 0.2}}}
    rows = datasets.Dataset.from_list(pairs["train"])
    run = hfpipe.finetune(fields, overrides=SMALL, dataset=rows, runs_dir=tmp_path)
    assert hfpipe.evaluate(run, dataset=rows).metrics == run.metrics
    card = (run.path / "model" / "README.md").read_text()
    assert "data given from Python" in card
    assert "huggingface.co/datasets" not in card
    del fields["dataset"]
    with pytest.raises(RecipeError, match=r"dataset\.path: missing\. Name the data: .*dataset=\.\.\."):
        hfpipe.finetune(fields, runs_dir=tmp_path)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def test_progress_goes_to_a_terminal_or_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a bar in a terminal, lines in a notebook, nothing where nobody looks; False is none, True is always."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(display.as_display(None), display.Silent)
    assert isinstance(display.as_display(True), display.Plain)
    assert isinstance(display.as_display(False), display.Silent)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(display.as_display(None), display.Bar)
    assert isinstance(display.as_display(None, lines=True), display.Plain)
    assert isinstance(display.as_display(False), display.Silent)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    shown = display.as_display(None)
    assert isinstance(shown, display.Plain)
    assert shown.stream is sys.stdout


def test_a_training_in_a_terminal_shows_its_progress(
    recipe_fields: dict[str, Any], tmp_path: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`finetune` without `display` shows stages and metrics there, and with False nothing."""
    for shown, given in ((True, None), (False, False)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        hfpipe.finetune(recipe_fields, overrides=SMALL, runs_dir=tmp_path / str(shown), display=given)
        assert ("accuracy" in terminal.getvalue()) == shown

"""The public surface of hfpipe, pinned: a name comes or goes only together with this list."""

from __future__ import annotations

import importlib
from importlib import metadata

import pytest

import hfpipe

NAMES = {
    "Evaluation": "hfpipe.evaluation.evaluate",
    "Group": "hfpipe.runs.groups",
    "HfpipeError": "hfpipe.errors",
    "Job": "hfpipe.training.job",
    "Recipe": "hfpipe.recipe.schema",
    "Run": "hfpipe.runs.store",
    "evaluate": "hfpipe.evaluation.evaluate",
    "finetune": "hfpipe.training.finetune",
    "finetune_seeds": "hfpipe.experiments.seeds",
    "load_recipe": "hfpipe.recipe.source",
    "predict": "hfpipe.evaluation.prediction.predict",
    "predict_file": "hfpipe.evaluation.prediction.predict",
    "prepare": "hfpipe.training.prepare",
}
LATER = {"compare": "hfpipe.experiments.compare.compare", "doctor": "hfpipe.experiments.doctor"}
EXITS = {
    "RecipeError": 2,
    "DataError": 3,
    "ModelError": 4,
    "MachineError": 5,
    "NumericError": 6,
    "RefusedError": 7,
    "InterruptedRun": 75,
    "StoppedByUser": 130,
}


def test_the_names_are_pinned() -> None:
    """`hfpipe.__all__` is this list, sorted as people read it, and `dir` shows it."""
    assert {*NAMES} <= {*hfpipe.__all__} <= {*NAMES, *LATER}
    assert set(dir(hfpipe)) >= {*hfpipe.__all__, "__version__"}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_name_is_where_it_says(name: str) -> None:
    """Each name is the very object of the module that defines it, and documented."""
    found = getattr(hfpipe, name)
    assert found is getattr(importlib.import_module(NAMES[name]), name)
    assert found.__doc__


def test_other_names_are_not_there() -> None:
    """A misspelt name is an AttributeError, as for any module."""
    with pytest.raises(AttributeError, match="finetunes"):
        hfpipe.finetunes  # noqa: B018


def test_the_version_is_the_installed_one() -> None:
    """`hfpipe.__version__` is what pip knows."""
    try:
        installed = metadata.version("hfpipe")
    except metadata.PackageNotFoundError:
        pytest.skip("hfpipe is imported from a checkout here and is not installed")
    assert hfpipe.__version__ == installed


def test_the_exit_codes_are_pinned() -> None:
    """Every kind of error keeps its exit code and is an HfpipeError."""
    errors = importlib.import_module("hfpipe.errors")
    found = {name: kind.exit_code for name, kind in vars(errors).items() if getattr(kind, "exit_code", 1) != 1}
    assert found == EXITS
    assert all(issubclass(getattr(errors, name), hfpipe.HfpipeError) for name in EXITS)


def test_an_error_is_one_paragraph() -> None:
    """Where, what, what is allowed and what to do stand in one paragraph, in that order."""
    error = hfpipe.HfpipeError("got 3", where="r.yaml:1:2", allowed="1 or 2", fix="Write 2.")
    assert str(error) == "r.yaml:1:2: got 3; allowed: 1 or 2. Write 2."
    assert str(hfpipe.HfpipeError("got 3")) == "got 3"

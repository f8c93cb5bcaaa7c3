"""The public surface of hfpipe, pinned: a name or a parameter comes or goes only together with tests/golden/public_names.txt.

python tests/repository/test_public_names.py      writes that file anew; the difference is what a user sees

"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import hfpipe

PINNED = Path(__file__).parents[1] / "golden" / "public_names.txt"
OPAQUE = {"Job", "Recipe"}
"""Built by hfpipe, not by a user: what can be called on them is pinned, their many fields are not."""
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


def surface() -> dict[str, str]:
    """Every public name, and of a class what it has, with the signature as text."""
    return {name: text for public in hfpipe.__all__ for name, text in described(public).items()}


def described(name: str) -> dict[str, str]:
    """One public name, with its methods and properties where it is a class."""
    public = getattr(hfpipe, name)
    found = {name: "" if name in OPAQUE else _signature(public)}
    for member, value in sorted(vars(public).items()) if inspect.isclass(public) else ():
        if member.startswith(("_", "model_")):  # private, or pydantic's own
            continue
        if isinstance(value, property):
            found[f"{name}.{member}"] = ""
        elif inspect.isroutine(getattr(public, member)):
            found[f"{name}.{member}"] = _signature(getattr(public, member))
    return found


def _signature(public: Any) -> str:
    """The parameters with their types and defaults, types without their quotes."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(public)))
    return re.sub(r" at 0x\w+", "", text)  # of a default that is a function


def pinned() -> dict[str, str]:
    """The lines of the file."""
    lines = PINNED.read_text(encoding="utf-8").splitlines()
    return {line.partition("(")[0]: "".join(line.partition("(")[1:]) for line in lines}


def test_the_names_are_pinned() -> None:
    """The public names are those of the file, no more and no fewer, sorted, and `dir` shows them."""
    assert hfpipe.__all__ == [name for name in pinned() if "." not in name]
    assert set(dir(hfpipe)) == {*hfpipe.__all__, "__version__"}
    assert sorted(hfpipe.__all__) == hfpipe.__all__


@pytest.mark.parametrize("name", hfpipe.__all__)
def test_nothing_else_is_there(name: str) -> None:
    """A class has no public method or property that is not pinned."""
    assert {*described(name)} <= {*pinned()}


@pytest.mark.parametrize("name", pinned())
def test_a_name_is_there(name: str) -> None:
    """Each pinned name can be imported, says what it is, and takes what it took."""
    found: Any = hfpipe
    for piece in name.split("."):
        found = getattr(found, piece)
    assert found.__doc__ or not callable(found)
    assert described(name.partition(".")[0])[name] == pinned()[name]


def test_a_lost_parameter_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function without one of its parameters has another line, and a lost name has none."""
    before = surface()
    monkeypatch.setattr(hfpipe, "evaluate", lambda target, *, split=None: None)
    monkeypatch.setattr(hfpipe, "__all__", [name for name in hfpipe.__all__ if name != "compare"])
    after = surface()
    assert {name for name in before if before[name] != after.get(name)} == {"compare", "evaluate"}


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


def test_the_exit_codes_are_documented() -> None:
    """docs/exit-codes.md has a row for each, with the same number."""
    page = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    for name, code in EXITS.items():
        assert f"| {code} | `{name}` |" in page


def test_an_error_is_one_paragraph() -> None:
    """Where, what, what is allowed and what to do stand in one paragraph, in that order."""
    error = hfpipe.HfpipeError("got 3", where="r.yaml:1:2", allowed="1 or 2", fix="Write 2.")
    assert str(error) == "r.yaml:1:2: got 3; allowed: 1 or 2. Write 2."
    assert str(hfpipe.HfpipeError("got 3")) == "got 3"


def test_the_python_of_the_design_works(tmp_path: Path) -> None:
    """The contract from Python, word for word but for the recipe and its size."""
    import torch

    def my_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    small = ["dataset.splits={train: 'train[:32]', evaluation: 'validation[:32]'}", "train.epochs=1"]
    recipe = hfpipe.load_recipe("quickstart", overrides=small)
    run = hfpipe.finetune(recipe, engine="loop", loss=my_loss, runs_dir=tmp_path)
    assert run.metrics["f1"] is not None
    assert run.records[-1]["type"] == "end"
    assert run.path.parent == tmp_path
    assert run.model().num_labels == 2
    assert len(hfpipe.evaluate(run, split="validation").intervals["f1"] or []) == 2
    vary = {"engine": ["trainer", "loop"], "loss.reduction": ["mean", "sum"]}
    assert len(hfpipe.compare(recipe, vary=vary, runs_dir=tmp_path).variants) == 4
    job = hfpipe.prepare(recipe)
    assert job.timeline.num_steps == 1


if __name__ == "__main__":
    PINNED.write_text("".join(f"{name}{signature}\n" for name, signature in surface().items()), encoding="utf-8")
    print(f"wrote {PINNED}", file=sys.stderr)

"""The guides: every recipe in them can be loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hfpipe.recipe import load_recipe
from hfpipe.recipe.kinds import KINDS

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [
    block
    for guide in sorted(DOCS.glob("*.md"))
    if guide.name != "recipe.md"  # generated from the schema, with its own test
    for block in re.findall(r"```yaml\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0].removeprefix("name: "))
def test_a_recipe_of_the_guide_is_valid(block: str, tmp_path: Path) -> None:
    """Each block of YAML in a guide is a whole recipe."""
    file = tmp_path / "recipe.yaml"
    file.write_text(block, encoding="utf-8")
    assert load_recipe(file).name in block


def test_the_options_of_the_prediction_guide_are_there() -> None:
    """Every option that docs/prediction.md names is one of the two commands."""
    from typer.main import get_command

    from hfpipe.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    known = {name for command in ("predict", "glue-zip") for one in commands[command].params for name in one.opts}
    named = set(re.findall(r"(?<!-)--[a-z][a-z-]+", (DOCS / "prediction.md").read_text(encoding="utf-8")))
    assert len(named) >= 7
    assert named <= known


def test_the_recipe_of_the_guide_to_resuming_is_valid(tmp_path: Path) -> None:
    """The block of docs/resume.md is a whole recipe, with every rhythm of checkpoints."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "resume.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    file = tmp_path / "recipe.yaml"
    file.write_text(block, encoding="utf-8")
    recipe = load_recipe(file)
    assert (recipe.checkpoints.every_minutes, recipe.train.tolerate_nonfinite) == (20, 3)


def test_the_guide_shows_every_kind_of_task() -> None:
    """One recipe of each kind is there, the first without saying its kind."""
    kinds = {kind for kind in KINDS if any(f"kind: {kind}" in block for block in BLOCKS)}
    assert kinds | {"text-classification"} == set(KINDS)
    assert len(BLOCKS) >= 7


def test_the_recipe_of_the_tracking_guide_is_valid(tmp_path: Path) -> None:
    """The block of docs/tracking.md, beside the recipe that it extends."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "tracking.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    file = tmp_path / "recipe.yaml"
    file.write_text(block, encoding="utf-8")
    assert load_recipe(file).tracking == ("trackio", "tensorboard")

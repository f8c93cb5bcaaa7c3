"""What is made from the recipe's schema and from the table of rooms is what they make today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_files_are_current():
    """docs/recipe.md, recipes/schema.json, ruff's list and the table of docs/architecture.md are not stale."""
    found = subprocess.run(
        [sys.executable, "scripts/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_shipped_recipes_name_the_schema():
    """Every shipped recipe names the schema in its first line, for editors, and carries its own instructions."""
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        first, *rest = recipe.read_text(encoding="utf-8").splitlines()
        assert first == "# yaml-language-server: $schema=./schema.json", recipe
        header = "\n".join(line for line in rest if line.startswith("#"))
        for word in ("hfpipe", "Hardware", "Expect"):
            assert word in header, (recipe, word)

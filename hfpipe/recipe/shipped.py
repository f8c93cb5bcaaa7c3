"""The recipes that come with hfpipe, and finding a recipe by file or by name."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import near

_PACKAGE = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """Where the shipped recipes are: inside an installed package, or beside it in a checkout."""
    installed = _PACKAGE / "shipped_recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def names() -> list[str]:
    """The names of the shipped recipes, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def header(name: str) -> list[str]:
    """The comment at the top of a shipped recipe, without the marks and the line for editors."""
    lines = []
    for line in find(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "yaml-language-server" not in line:
            lines.append(line.lstrip("# ").rstrip())
    return lines


def find(source: str | Path, where: str = "") -> Path:
    """The file of a recipe: a path, or the name of a shipped one with or without `recipes/` and `.yaml`.

    Raises:
        RecipeError: neither a file nor a shipped name; names what is near.
    """
    path = Path(source).expanduser()
    if looks_like_data(path):
        raise RecipeError(
            f"{str(source)!r} is data, not a recipe",
            where=where,
            fix=f"`hfpipe recipes new {source}` makes a recipe for it.",
        )
    if os.path.exists(path):  # unlike Path.exists, False for a name that no file can have
        return path
    if path.parent in (Path("."), Path("recipes")):
        candidate = folder() / f"{path.name.removesuffix('.yaml')}.yaml"
        if candidate.is_file():
            return candidate
    if "=" in str(source):
        raise RecipeError(f"{str(source)!r} is an override, and RECIPE comes first", where=where or "RECIPE")
    raise RecipeError(
        f"no recipe at {str(source)!r}{near(path.name.removesuffix('.yaml'), names())}",
        where=where,
        allowed=f"a YAML file, or one of {', '.join(names())}",
    )


_LONGEST_RECIPE = 100_000  # bytes
_DATA = re.compile(
    r"\.(csv|tsv|json|jsonl|ndjson|parquet|arrow|conll\w*|iob2?|bio(?:es)?|txt|xlsx?|pkl)(\.(gz|bz2|xz|zst|lz4|zip))?$",
    re.IGNORECASE,
)


def looks_like_data(source: str | Path) -> bool:
    """Whether what stands in place of a recipe is data: a file by its ending, or a folder without a recipe in it."""
    path = Path(source).expanduser()
    if os.path.isdir(path):
        return not any(path.glob("*.yaml")) and not (path / "run.json").exists()
    return bool(_DATA.search(path.name)) and not _is_recipe_in_json(path)


def _is_recipe_in_json(path: Path) -> bool:
    """Whether a JSON file is a recipe, which is YAML too."""
    try:
        if path.suffix != ".json" or path.stat().st_size > _LONGEST_RECIPE:
            return False
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and bool({"task", "model", "extends"} & fields.keys())


def copy(source: str | Path, to: Path) -> Path:
    """Copy a recipe to another place, from where its line for editors finds the schema, too.

    Args:
        source: a file, or the name of a shipped recipe.
        to: a file that does not exist, or a folder.

    Returns:
        The file that was written.

    Raises:
        RecipeError: no such recipe, or a file that exists or can't be written.
    """
    found = find(source)
    target = to / found.name if to.is_dir() else to
    text = found.read_text(encoding="utf-8").replace("$schema=./", f"$schema={folder().as_posix()}/", 1)
    try:
        with open(target, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RecipeError("is there already", where=str(target), fix="Name another file.") from None
    except OSError as error:
        raise RecipeError(f"can't be written: {error.strerror}", where=str(target)) from None
    return target

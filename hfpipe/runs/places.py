"""Where the local files of a run's recipe are: at their absolute place, or as far from the run's folder as they were."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfpipe.recipe import Recipe
from hfpipe.recipe.paths import with_paths


def relative_places(recipe: Recipe, folder: Path) -> dict[str, str]:
    """The local paths of a recipe, each with the same path as it leads there from a run's folder.

    Without those that lead into the home folder from outside: they would name it, and it does not move with a run.
    """
    found: dict[str, str] = {}
    home, start = Path.home(), folder.absolute()

    def note(path: str) -> str:
        if os.path.isabs(path) and (start.is_relative_to(home) or not Path(path).is_relative_to(home)):
            found[path] = os.path.relpath(path, start)
        return path

    with_paths(recipe.model_dump(mode="json"), note)
    return found


def found_again(recipe: Recipe, places: Mapping[str, Any], folder: Path) -> Recipe:
    """The same recipe, with paths to nothing replaced by those that lead from the run's folder to something.

    Args:
        recipe: of a run, which may have been moved together with its data.
        places: what :func:`relative_places` found when it was trained.
        folder: where the run is now.
    """
    if all(_is_there(path) for path in places):
        return recipe
    known = {os.path.expanduser(path): str(there) for path, there in places.items()}

    def place(path: str) -> str:
        if path not in known or _is_there(path):
            return path
        moved = os.path.normpath(folder.absolute() / known[path])
        return moved if _is_there(moved) else path

    fields = with_paths(recipe.model_dump(mode="json"), place)
    moved = Recipe.model_validate(fields)
    moved._positions.update(recipe._positions)
    return moved


def _is_there(path: str) -> bool:
    path = os.path.expanduser(path)
    return os.path.exists(path) or (glob.has_magic(path) and any(glob.iglob(path, recursive=True)))

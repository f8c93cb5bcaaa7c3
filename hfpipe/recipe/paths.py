"""Local paths in a recipe: relative to the file that says them, absolute once they are read.

So a run knows where its data are, whatever folder it is evaluated, resumed or reproduced from.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfpipe.recipe.catalog import is_metric_script

_RELATIVE = ("./", "../", "~/")


def absolute(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The fields of a recipe, of which some may be missing or wrong, with absolute local paths.

    Args:
        fields: as they were written.
        folder: what relative paths start from.
    """

    def place(path: str) -> str:
        return _absolute(path, folder)

    found = with_paths(fields, place)
    evaluate = found.get("evaluate")
    if isinstance(evaluate, dict) and "metrics" in evaluate:
        found["evaluate"] = {**evaluate, "metrics": _each(evaluate["metrics"], lambda name: _script(name, place))}
    trainer = found.get("trainer")
    if isinstance(trainer, dict):  # accelerator_config, ...
        found["trainer"] = {key: _settings(value, place) for key, value in trainer.items()}
    return found


def with_paths(fields: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The fields of a recipe with every local path in `dataset` and `model` changed; addresses, ids and formats stay."""
    found = dict(fields)
    for section, field in (("dataset", "path"), ("dataset", "data_files"), ("model", "checkpoint")):
        part = found.get(section)
        if not isinstance(part, dict) or field not in part:
            continue
        changed = change if field == "data_files" else lambda path: change(path) if _is_local(path) else path
        found[section] = {**part, field: _each(part[field], changed)}
    return found


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed, but for the keys of mappings and for addresses."""
    if isinstance(value, str):
        return value if "://" in value or value.startswith("file:") or not value else change(value)
    if isinstance(value, dict):
        return {key: _each(part, change) for key, part in value.items()}
    return [_each(part, change) for part in value] if isinstance(value, list | tuple) else value


def _is_local(path: str) -> bool:
    return path.startswith((*_RELATIVE, "/")) or path in (".", "..", "~")


def _script(name: str, place: Callable[[str], str]) -> str:
    return place(name) if is_metric_script(name) and not name.startswith("evaluate:") else name


def _settings(value: Any, place: Callable[[str], str]) -> Any:
    return place(value) if isinstance(value, str) and value.endswith(".json") else value


def _absolute(path: str, folder: Path) -> str:
    expanded = os.path.expanduser(path)
    if os.path.isabs(expanded) or expanded.startswith("~"):
        return expanded
    is_pattern = glob.has_magic(path) and not os.path.exists(os.path.join(folder, expanded))
    start = glob.escape(str(folder)) if is_pattern else str(folder)
    whole = os.path.join(start, expanded)
    plain = os.path.normpath(whole)
    # `..` behind a link to a folder leads elsewhere than the text says.
    return plain if os.path.realpath(plain) == os.path.realpath(whole) else whole

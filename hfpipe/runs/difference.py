"""What differs between two runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hfpipe.runs.store import Run

_COMPARED = ("seed", "device", "precision", "threads", "processes", "versions", "machine", "commit", "identity")
_MISSING = "(not there)"


def difference(first: Run, second: Run) -> list[tuple[str, Any, Any]]:
    """Every field that differs, as (dotted path, value in the first, value in the second)."""
    sides = []
    for run in (first, second):
        about = run.about
        sides.append(
            {
                "recipe": run.recipe.model_dump(mode="json"),
                **{key: about.get(key) for key in _COMPARED},
                "metrics": run.metrics,
            }
        )
    return list(_differences("", sides[0], sides[1]))


def _differences(path: str, first: Any, second: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys((*first, *second)):
            yield from _differences(f"{path}.{key}".lstrip("."), first.get(key, _MISSING), second.get(key, _MISSING))
    elif first != second:
        yield path, first, second

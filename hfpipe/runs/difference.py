"""What differs between two runs, between two groups, or between a run and a group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hfpipe.runs.groups import Group
from hfpipe.runs.store import Run

_COMPARED = ("device", "precision", "threads", "processes", "versions", "machine", "commit", "identity")
_MISSING = "(not there)"


def difference(first: Run | Group, second: Run | Group) -> list[tuple[str, Any, Any]]:
    """Every field that differs, as (dotted path, value in the first, value in the second).

    Of a group it is the recipe with all seeds, and what its first finished run says of the rest; its metrics are many,
    and not among the fields.
    """
    if isinstance(first, Run) and isinstance(second, Run):
        return list(differences("", _of_run(first), _of_run(second)))
    return list(differences("", _of_group(first), _of_group(second)))


def differences(path: str, first: Any, second: Any) -> Iterator[tuple[str, Any, Any]]:
    """What differs inside two values, under a dotted path."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys((*first, *second)):
            yield from differences(f"{path}.{key}".lstrip("."), first.get(key, _MISSING), second.get(key, _MISSING))
    elif first != second:
        yield path, first, second


def more_than_the_seed(runs: dict[int, Run]) -> list[tuple[str, str]]:
    """The fields in which the runs of a group differ beyond their seed and metrics, each with the seeds and values."""
    found = []
    (first, base), *others = runs.items()
    for seed, run in others:
        for path, before, after in difference(base, run):
            if path not in ("seed", "recipe.seed", "identity.recipe.digest") and not path.startswith("metrics"):
                found.append((path, f"{before} for seed {first}, {after} for seed {seed}"))
    return found


def _of_run(run: Run) -> dict[str, Any]:
    about = run.metadata
    return {
        "recipe": run.recipe.model_dump(mode="json"),
        **{key: about.get(key) for key in ("seed", *_COMPARED)},
        "metrics": run.metrics,
    }


def _of_group(one: Run | Group) -> dict[str, Any]:
    """A group; or a run as if it were one."""
    recipe = one.recipe.model_dump(mode="json")
    about = one.metadata if isinstance(one, Run) else next((run.metadata for run in one.runs.values()), {})
    compared = {key: about.get(key) for key in _COMPARED}
    identity = {key: value for key, value in (compared["identity"] or {}).items() if key != "recipe"}  # holds the seed
    seeds = one.seeds if isinstance(one, Group) else recipe["seed"]
    return {"recipe": {**recipe, "seed": seeds}, **compared, "identity": identity}

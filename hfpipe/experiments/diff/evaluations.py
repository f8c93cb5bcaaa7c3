"""The metrics of two runs, two groups, or a run and a group: compared, in numbers and in sentences."""

from __future__ import annotations

from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.experiments.diff import sentences
from hfpipe.experiments.diff.by_seed import compare_seeds
from hfpipe.experiments.diff.same_examples import compare_runs
from hfpipe.runs import Run
from hfpipe.runs.groups import Group


def compare_evaluations(first: Run | Group, second: Run | Group, names: tuple[str, str]) -> dict[str, Any]:
    """Compare the metrics of every split that both have.

    Args:
        first: a run or a group.
        second: another.
        names: what they are called in the sentences.

    Returns:
        `comparisons`, one a split, `tests` (how many p were computed), and `notices`; for one release also under the keys
        that they had before, see `_with_old_keys`.

    Raises:
        RecipeError: a group of which no seed is finished.
    """
    notices = []
    for one, name in zip((first, second), names, strict=True):
        if isinstance(one, Group):
            finished = len(one.runs)
            if not finished:
                fix = f"Train them: `hfpipe finetune --resume {one.path}`."
                raise RecipeError(f"no seed of the group {name!r} is finished", where=str(one.path), fix=fix)
            if finished < len(one.seeds):
                notices.append(f"{finished} of {len(one.seeds)} seeds of {name} are finished; the others are left out")
    if isinstance(first, Run) and isinstance(second, Run):
        comparisons = compare_runs(first, second, names)
        if any(one["comparable"] for one in comparisons):
            notices.append(
                "this is about the choice of examples; what another seed would change, only groups of seeds tell"
            )
    else:
        comparisons = compare_seeds(first, second, names)
    tests = sum(row.get("p") is not None for one in comparisons for row in one["metrics"])
    several = sentences.of_tests(tests)
    notices += [several] if several else []
    return _with_old_keys({"comparisons": comparisons, "tests": tests, "notices": notices})


def _with_old_keys(found: dict[str, Any]) -> dict[str, Any]:
    """The same with `remarks`, `figures` and `only_first_right` beside the keys that replace them, for one release."""
    for comparison in found["comparisons"]:
        comparison["figures"] = comparison["metrics"]
        for row in comparison["metrics"]:
            for side in ("first", "second"):
                if f"only_{side}_correct" in row:
                    row[f"only_{side}_right"] = row[f"only_{side}_correct"]
    return {**found, "remarks": found["notices"]}

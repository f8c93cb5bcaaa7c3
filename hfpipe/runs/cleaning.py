"""What a finished run does not need any more, and what interrupted saves left behind: listed first, then removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import near
from hfpipe.runs import checkpoints
from hfpipe.runs.checkpoints import Checkpoint
from hfpipe.runs.store import Run, require_not_running
from hfpipe.system.lock import locked
from hfpipe.system.machine import bytes_below

Keep = Literal["all", "last", "best", "none"]
"""Which checkpoints stay."""


@dataclass(frozen=True)
class Removal:
    """Something that goes from a run.

    Attributes:
        run: of which.
        path: of a folder that goes as a whole, or of a checkpoint that loses its state.
        what: in words.
        state_alone: whether the weights of the checkpoint stay.
        bytes: that are free then.
    """

    run: Run
    path: Path
    what: str
    state_alone: bool
    bytes: int


def removals(runs: Iterable[Run], keep: str = "all") -> tuple[list[Removal], list[str]]:
    """What would go from these runs, and which of them are left alone, each with the reason.

    Of every run the remains of interrupted saves go. Of a finished one what its optimizer remembers goes, unless its
    recipe says `checkpoints.keep_state`, and the checkpoints that are not to be kept. One that is not finished keeps its
    newest checkpoint and its best one, with which it can go on. `model/`, records and reports always stay.

    Args:
        runs: which.
        keep: `all` checkpoints, the `last` one, the `best` one (the last where none is), or `none`.

    Raises:
        RecipeError: another word.
    """
    if keep not in get_args(Keep):
        allowed = get_args(Keep)
        raise RecipeError(f"unknown {keep!r}{near(keep, allowed)}", where="--keep", allowed=", ".join(allowed))
    found: list[Removal] = []
    skipped = []
    for run in runs:
        try:
            require_not_running(run)
            if run.status in ("newer", "damaged"):
                skipped.append(f"{run.id}: its run.json can't be read")
                continue
            found.extend(_of_run(run, keep))
        except (RecipeError, OSError, ValueError) as error:
            skipped.append(f"{run.id}: {error}")
    return found, skipped


def remove(planned: Sequence[Removal]) -> None:
    """Remove what was listed, each run under its lock.

    Raises:
        MachineError: another process trains in one of the runs; those before it are cleaned.
    """
    for path in dict.fromkeys(one.run.path for one in planned):
        with locked(path):
            for one in (one for one in planned if one.run.path == path):
                checkpoints.drop_state(one.path) if one.state_alone else checkpoints.remove(one.path)


def forget_state(run: Run) -> None:
    """Remove what the optimizer of a run that has just finished remembers, unless it is to be kept."""
    if not run.recipe.checkpoints.keep_state:
        for one in checkpoints.list_checkpoints(run.path):
            checkpoints.drop_state(one.path)


def _of_run(run: Run, keep: str) -> Iterator[Removal]:
    for path in checkpoints.leftovers(run.path):
        yield Removal(run, path, "an interrupted save", False, bytes_below(path))
    there, finished = checkpoints.list_checkpoints(run.path), run.status == "finished"
    stay = _kept(run, there, keep, finished)
    drop = finished and not run.recipe.checkpoints.keep_state
    for one in there:
        if one.step not in stay:
            yield Removal(run, one.path, f"checkpoint {one.path.name}", False, bytes_below(one.path))
        elif drop and (size := sum(bytes_below(one.path / name) for name in checkpoints.STATE_FILES)):
            yield Removal(run, one.path, f"optimizer state of {one.path.name}", True, size)


def _kept(run: Run, there: Sequence[Checkpoint], keep: str, finished: bool) -> set[int]:
    """The steps whose checkpoints stay."""
    steps = {one.step for one in there}
    if keep == "all" or not there:
        return steps
    newest = there[-1]
    best = (newest.progress.get("best") or {}).get("step")
    best = best if best in steps else newest.step
    if not finished:
        return {newest.step, best}
    return {"last": {newest.step}, "best": {best}, "none": set()}[keep]

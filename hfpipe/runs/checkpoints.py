"""Checkpoints on disk: there as a whole or not at all, found by their step, and checked by hash before they are used.

A checkpoint is a folder `checkpoints/step-00000012`. It is filled beside its place, `manifest.json` with the size and
SHA-256 of each file comes last, and when all of them are synced it is renamed into its place. A process that is killed
anywhere leaves the checkpoints before it as they were.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfpipe.errors import MachineError, ModelError
from hfpipe.system import atomic, manifest

FOLDER = "checkpoints"
PROGRESS = "checkpoint.json"
"""Where the run was: step, best, seconds, and what identifies recipe, data and code."""
STATE_FILES = ("optimizer.safetensors", "optimizer.json", "schedule.json", "random.json")
"""What a run needs to go on exactly, beyond the weights."""

_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run, by its folder and its step."""

    path: Path
    step: int

    @property
    def progress(self) -> dict[str, Any]:
        """What `checkpoint.json` says."""
        return dict(json.loads((self.path / PROGRESS).read_text(encoding="utf-8")))


def name_of(step: int) -> str:
    """The folder of a step, under the run."""
    return f"{FOLDER}/step-{step:08d}"


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """The checkpoints of a run in the order of their steps, not of the times of their files."""
    found = [(path, _NAME.fullmatch(path.name)) for path in (run / FOLDER).glob("step-*")]
    return sorted((Checkpoint(path, int(name[1])) for path, name in found if name), key=lambda one: one.step)


def newest(
    run: Path, *, use_previous: bool = False, ignored: Iterable[str] = ()
) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, and what was passed over, each with the reason.

    What an interrupted save left behind is passed over without asking: its training is done again. A checkpoint that was
    whole once and has changed since is another matter.

    Args:
        run: the run's folder.
        use_previous: take the one before, where the newest is damaged.
        ignored: files that may be missing or damaged.

    Raises:
        ModelError: the newest is damaged and `use_previous` is false, or no earlier one is whole.
    """
    skipped = [f"{path.name.split('.')[1]}: its save was interrupted" for path in leftovers(run)]
    damaged: list[str] = []
    for one in reversed(list_checkpoints(run)):
        what = manifest.find_corruption(one.path, ignored)
        if what is None:
            return one, [*skipped, *damaged]
        damaged.append(f"{one.path.name}: {what}")
        if not use_previous:
            missing = what.split()[0] in STATE_FILES
            raise ModelError(
                f"{one.path.name} is damaged: {what}",
                where=str(one.path),
                fix="--use-previous goes on from the checkpoint before it"
                + ("; --reset-optimizer does without what the optimizer remembered." if missing else "."),
            )
    if damaged:
        raise ModelError(
            f"no checkpoint is whole: {'; '.join(damaged)}", where=str(run / FOLDER), fix="Train again, as a new run."
        )
    return None, skipped


def commit(target: Path, write: Callable[[Path], None], *, required: Iterable[str] = (), needed: int = 0) -> int:
    """Fill a folder and put it in its place as a whole.

    Args:
        target: the checkpoint's folder; what is there already is replaced.
        write: fills the folder that it is given.
        required: files that it must have written.
        needed: bytes that it will take, as far as known.

    Returns:
        The bytes that it took.

    Raises:
        MachineError: not enough space, or what was read back is not what was written.
        OSError: the disk refused; nothing of the attempt is left, and no other checkpoint was touched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    require_space(target.parent, needed, f"checkpoint {target.name}")
    with atomic.replaced_folder(target) as staging:
        write(staging)
        absent = sorted({*required} - {path.name for path in staging.iterdir()})
        if absent:
            raise MachineError(
                f"{', '.join(absent)} was written without an error, and is not there",
                where=str(target),
                fix="Look at the file system; the checkpoint before this one is whole.",
            )
        manifest.write(staging)
    what = manifest.find_corruption(target)
    if what is not None:
        raise MachineError(
            f"{what} right after it was written",
            where=str(target),
            fix="Look at the file system and the disk; the checkpoint before this one is whole.",
        )
    return sum(path.stat().st_size for path in target.iterdir())


def has_state(checkpoint: Path) -> bool:
    """Whether a checkpoint is meant to have what a run needs to go on exactly, and not the weights alone."""
    return any(name in manifest.read(checkpoint) for name in STATE_FILES)


def drop_state(checkpoint: Path) -> None:
    """Leave the weights of a checkpoint alone; killed anywhere, it leaves a whole one."""
    manifest.leave_out(checkpoint, STATE_FILES)
    for name in STATE_FILES:
        (checkpoint / name).unlink(missing_ok=True)


def rotate(run: Path, keep_last: int, best: int | None) -> None:
    """Remove all but the newest checkpoints and the best one; called when the newest is whole."""
    for old in list_checkpoints(run)[:-keep_last]:
        if old.step != best:
            remove(old.path)


def remove(path: Path) -> None:
    """Remove a checkpoint; half of one is never taken for one."""
    atomic.remove_folder(path)


def clear_staging(run: Path) -> None:
    """Remove what interrupted saves and removals left behind."""
    for path in leftovers(run):
        shutil.rmtree(path, ignore_errors=True)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to start what the disk can't hold.

    Raises:
        MachineError: with the bytes needed and free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MachineError(
            f"{what} needs {needed:,} bytes, and {free:,} are free",
            where=str(folder),
            fix="Free some space, keep fewer checkpoints, or use another --runs-dir.",
        )


def leftovers(run: Path) -> list[Path]:
    """What interrupted saves and removals left behind."""
    return atomic.leftovers(run / FOLDER, "step-*")

"""Checkpoints on disk: there as a whole or not at all, found by their step, and checked by hash before they are used.

A checkpoint is a folder `checkpoints/step-00000012`. It is filled beside its place, every file is synced, and
`manifest.json` with the size and SHA-256 of each is written last: that is the mark of a whole one. Only then is the
folder renamed into its place. A process that is killed anywhere leaves the checkpoints before it as they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfpipe.errors import MachineError, ModelError

FOLDER = "checkpoints"
PROGRESS = "checkpoint.json"
"""Where the run was: step, best, seconds, and what identifies recipe, data and code."""
STATE_FILES = ("optimizer.safetensors", "optimizer.json", "schedule.json", "random.json")
"""What a run needs to go on exactly, beyond the weights."""

_MANIFEST = "manifest.json"
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
    """The checkpoints of a run in the order of their steps, whatever the clock said when they were written."""
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
    skipped = [f"{path.name}: its save was interrupted" for path in _staging(run)]
    damaged: list[str] = []
    for one in reversed(list_checkpoints(run)):
        what = find_corruption(one.path, ignored)
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
    staging = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        write(staging)
        files = sorted(path for path in staging.iterdir() if path.is_file())
        absent = sorted({*required} - {path.name for path in files})
        if absent:
            raise MachineError(
                f"{', '.join(absent)} was written without an error, and is not there",
                where=str(target),
                fix="Look at the file system; the checkpoint before this one is whole.",
            )
        for path in files:
            _sync(path)
        _write_manifest(staging, _measured(files))
        _sync(staging)
        if target.exists():
            old = target.with_name(f".{target.name}.old.tmp")
            shutil.rmtree(old, ignore_errors=True)
            os.rename(target, old)
        os.rename(staging, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(target.with_name(f".{target.name}.old.tmp"), ignore_errors=True)
    what = find_corruption(target)
    if what is not None:
        raise MachineError(
            f"{what} right after it was written",
            where=str(target),
            fix="Look at the file system and the disk; the checkpoint before this one is whole.",
        )
    return sum(path.stat().st_size for path in target.iterdir())


def find_corruption(folder: Path, ignored: Iterable[str] = ()) -> str | None:
    """What is wrong with a checkpoint, beginning with the name of the file, or None: every bit is as it was written."""
    try:
        content = (folder / _MANIFEST).read_bytes()
    except OSError:
        return f"{_MANIFEST} is missing: it was never finished"
    try:
        files = json.loads(content)["files"]
        whole = content == _manifest(files)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        return f"{_MANIFEST} has changed"
    passed_over = set(ignored)
    names = [name for name in files if name not in passed_over]
    for name in names:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != files[name]["bytes"]:
            return f"{name} has {size:,} bytes, and {files[name]['bytes']:,} were written"
    for name, found in _measured([folder / name for name in names]).items():
        if found["sha256"] != files[name]["sha256"]:
            return f"{name} has changed since it was written"
    return None


def rotate(run: Path, keep_last: int, best: int | None) -> None:
    """Remove all but the newest checkpoints and the best one; called when the newest is whole."""
    for old in list_checkpoints(run)[:-keep_last]:
        if old.step != best:
            remove(old.path)


def remove(path: Path) -> None:
    """Remove a checkpoint: out of sight first, so that half of one is never taken for one."""
    aside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(path, aside)
    shutil.rmtree(aside)


def clear_staging(run: Path) -> None:
    """Remove what interrupted saves and removals left behind."""
    for path in _staging(run):
        shutil.rmtree(path, ignore_errors=True)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk can't hold.

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


def _staging(run: Path) -> list[Path]:
    return sorted((run / FOLDER).glob(".step-*.tmp"))


def _measured(files: list[Path]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 by name; hashing lets go of Python's lock, so files are hashed side by side."""
    with ThreadPoolExecutor(max_workers=4) as threads:
        digests = list(threads.map(_digest, files))
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": digest} for path, digest in zip(files, digests, strict=True)
    }


def _digest(path: Path) -> str:
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _manifest(files: dict[str, Any]) -> bytes:
    """The manifest's bytes, with a hash of their own: a changed bit anywhere in it shows."""
    own = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return (json.dumps({"format": 1, "sha256": own, "files": files}, indent=1, sort_keys=True) + "\n").encode()


def _write_manifest(folder: Path, files: dict[str, Any]) -> None:
    with open(folder / _MANIFEST, "wb") as file:
        file.write(_manifest(files))
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder; some file systems can't sync a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

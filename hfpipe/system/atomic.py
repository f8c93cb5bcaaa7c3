"""Files and folders that are there as a whole or not at all: filled beside their place, synced, and renamed into it.

A process that is killed anywhere, or a disk that is full, leaves what was there before, and at most a hidden
`.NAME.*.tmp` beside it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced_file(target: Path) -> Iterator[BinaryIO]:
    """A file to fill that takes the place of `target` when the block ends without an error."""
    staged = _beside(target)
    try:
        with open(staged, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, target)
    finally:
        staged.unlink(missing_ok=True)


def write(target: Path, content: str | bytes) -> None:
    """Write a file, a text as UTF-8, so that a reader sees the old or the new one, never half of it."""
    with replaced_file(target) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replaced_folder(target: Path, *, keep_if: Callable[[Path], bool] = lambda folder: False) -> Iterator[Path]:
    """A folder to fill that takes the place of `target`, with all its files, when the block ends without an error.

    Args:
        target: the folder; those above it are made.
        keep_if: for what comes out the same whoever makes it: asked of `target` at the end, whether another process was
            faster. Then that folder stays, so that it is never gone for those who read it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = _beside(target)
    try:
        staged.mkdir()  # not by tempfile: the folder has the usual permissions, as a cache may be shared
        yield staged
        for path in sorted(staged.rglob("*")):
            _share(path, staged)
            _sync(path)
        _sync(staged)
        _put(staged, target, keep_if)
        _sync(target.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder: out of sight first, so that half of one is never taken for one."""
    aside = _beside(path)
    os.rename(path, aside)
    shutil.rmtree(aside)


def leftovers(folder: Path, name: str) -> list[Path]:
    """What interrupted writes and removals of files or folders whose name matches a pattern left in a folder."""
    return sorted(folder.glob(f".{name}.tmp"))


def _put(staged: Path, target: Path, keep_if: Callable[[Path], bool]) -> None:
    if keep_if(target):
        return
    old = _beside(target)
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, old)
    try:
        os.rename(staged, target)
    except OSError:
        if not keep_if(target):
            raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _share(path: Path, folder: Path) -> None:
    """Let a file be read by whoever may read the folder: safetensors and tempfile write files for their owner alone."""
    usual = folder.stat().st_mode & 0o666
    mode = path.stat().st_mode
    if path.is_file() and not path.is_symlink() and mode & usual != usual:
        path.chmod(stat.S_IMODE(mode) | usual)


def _sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder; some file systems can't sync a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

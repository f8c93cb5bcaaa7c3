"""The lines of `records.jsonl`: appended whole, kept in memory while the disk refuses them, truncated on a resumption."""

from __future__ import annotations

import os
from pathlib import Path

from hfpipe.errors import ModelError
from hfpipe.system import atomic

NO_ITEM = "no label in it counts"
"""Why a step was skipped that has no item: it is counted, and changes nothing."""


class Lines:
    """Appends lines to a file; a full disk does not stop whoever appends.

    Attributes:
        waiting: lines that could not be written yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[str] = []
        self.reported = False

    def append(self, line: str) -> str | None:
        """Write a line, and those before it that still wait.

        Returns:
            The error of the disk, the first time that it refused; later lines wait without one.
        """
        self.waiting.append(line)
        try:
            self._write()
        except OSError as error:
            if not self.reported:
                self.reported = True
                return error.strerror or str(error)
        return None

    def sync(self) -> int:
        """Have the disk hold every line.

        Returns:
            The bytes of the file.

        Raises:
            OSError: lines still wait, and the disk refuses them.
        """
        self._write()
        if not self.path.exists():
            return 0
        with open(self.path, "ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def _write(self) -> None:
        if not self.waiting:
            return
        with open(self.path, "ab") as file:
            whole = file.tell()
            try:
                file.write("".join(f"{line}\n" for line in self.waiting).encode())
                file.flush()
            except OSError:
                os.truncate(self.path, whole)  # no half a line
                raise
        self.waiting.clear()


def cut_back(run: Path, size: int) -> str:
    """Take from `records.jsonl` what was written after a checkpoint: those steps are made again.

    Args:
        run: the run's folder.
        size: the bytes that the checkpoint knew.

    Returns:
        What was taken.

    Raises:
        ModelError: fewer lines are left than the checkpoint knew.
    """
    path = run / "records.jsonl"
    content = path.read_bytes() if path.exists() else b""
    if len(content) < size or (size and content[size - 1 : size] != b"\n"):
        raise ModelError(
            f"records.jsonl has {len(content):,} bytes, and the checkpoint was saved after {size:,}",
            where=str(path),
            fix="Put the file back, or go on from an earlier checkpoint by removing this one.",
        )
    if len(content) > size:
        atomic.write(path, content[:size])
    return content[size:].decode(errors="replace")

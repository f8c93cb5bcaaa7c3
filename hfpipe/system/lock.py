"""One process trains in a run folder at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfpipe.errors import MachineError


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the folder of a run; the system lets go of it when the process ends, however it ends.

    The lock is on the folder itself, so that it leaves no file behind and moves along with it. A file system that knows
    no locks is used without one.

    Raises:
        MachineError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX
        yield
        return
    descriptor = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise MachineError(
                    "another process trains in this run",
                    where=str(run),
                    fix="Wait until it is done, or stop it first.",
                ) from None
        yield
    finally:
        os.close(descriptor)

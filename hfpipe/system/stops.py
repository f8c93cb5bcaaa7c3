"""Signals and time limits that end a run early: noted when they come, acted upon between two steps.

The handler only writes a number down. Whoever trains asks at every step boundary, saves, and stops there. While nothing
has been trained yet, and when the same is asked a second time, it stops at once: what is on disk is whole at any moment.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from hfpipe.errors import HfpipeError, InterruptedRun, StoppedByUser

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
_ONE_BURST = 2.0  # seconds; a launcher that is stopped signals its processes again


class AbortNow(BaseException):
    """Leaves whatever is being done; no `except Exception` of a library on the way holds it up."""

    def __init__(self, asked: int) -> None:
        self.asked = asked
        super().__init__(asked)


class StopRequests:
    """What was asked of this process: `with StopRequests(max_minutes=60) as stops`.

    Attributes:
        asked: 0, the number of a signal, or -1 for the time limit.
        at_once: whether the first signal stops at once, because there is nothing to save.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self.asked = 0
        self.at_once = True
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Listen, where this thread may; a signal that is ignored (`nohup`) stays so."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def check_deadline(self, reserve: float) -> None:
        """Ask for a stop when the time limit comes within so many seconds."""
        if self._deadline is not None and not self.asked and time.monotonic() + reserve >= self._deadline:
            self.asked = -1

    def raise_if_requested(self) -> None:
        """From here on stop at once, and stop if that was asked already.

        Raises:
            AbortNow: it was.
        """
        self.at_once = True
        if self.asked > 0:
            raise AbortNow(self.asked)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.asked > 0
        if again and "WORLD_SIZE" in os.environ and time.monotonic() - self._first < _ONE_BURST:
            return
        if not again:
            self.asked, self._first = number, time.monotonic()
        if again or self.at_once:
            raise AbortNow(self.asked)


def stopped(asked: int, what: str, fix: str) -> HfpipeError:
    """The error of a stop, with the exit code of what asked for it."""
    kind = StoppedByUser if asked == signal.SIGINT else InterruptedRun
    by = "the time limit" if asked < 0 else "the user" if kind is StoppedByUser else signal.Signals(asked).name
    return kind(f"stopped by {by}: {what}", fix=fix)

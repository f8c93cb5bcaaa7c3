"""Progress for a person: a bar on a terminal, plain lines elsewhere. It gets records and notices."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from hfpipe.errors import RecipeError

_SHOWN = 8  # metrics in a line


class Display(Protocol):
    """Where progress goes."""

    def notice(self, text: str) -> None:
        """Show a line: the next stage, or a notice, which begins with NOTE."""

    def start(self, num_steps: int) -> None:
        """Training begins."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Show a record of the run: a step, an evaluation, a notice, a check or the end."""

    def close(self) -> None:
        """Take away what moves, such as a bar; nothing comes after it."""


class Silent:
    """Shows nothing."""

    def notice(self, text: str) -> None:
        """Show nothing."""

    def start(self, num_steps: int) -> None:
        """Show nothing."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Have nothing to take away."""


NOTE = "note: "
"""What a notice starts with, and a line about the next stage does not."""


class Notices:
    """Notices without progress: beside a result that a program reads."""

    def notice(self, text: str) -> None:
        """Print a line if it is a notice."""
        if text.startswith(NOTE):
            print(text, file=sys.stderr, flush=True)

    def start(self, num_steps: int) -> None:
        """Show nothing."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Print a line for a notice or a check."""
        if record["type"] in ("notice", "check"):
            self.notice(sentence(record))

    def close(self) -> None:
        """Have nothing to take away."""


class _Pace:
    """Steps a second, of the steps that this process made: a run that goes on starts in the middle.

    Attributes:
        before: the steps that were made before; None until the first step.
        rate: steps a second up to the last step.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.before: int | None = None
        self.rate = 0.0

    def step(self, step: int) -> None:
        """A step was made."""
        self.before = step - 1 if self.before is None else self.before
        self.rate = (step - self.before) / max(time.monotonic() - self.started, 1e-9)


class Plain:
    """One line now and then, for logs and pipes: at every evaluation, notice and save, and at most every few seconds."""

    def __init__(self, stream: TextIO | None = None, *, seconds: float = 10.0) -> None:
        self.stream, self.seconds = stream or sys.stderr, seconds
        self.num_steps, self.shown_at = 0, 0.0
        self.pace = _Pace()

    def notice(self, text: str) -> None:
        """Print a line."""
        print(text, file=self.stream, flush=True)

    def start(self, num_steps: int) -> None:
        """Print the number of steps."""
        self.num_steps, self.pace, self.shown_at = num_steps, _Pace(), time.monotonic()
        self.notice(f"training {num_steps:,} steps")

    def record(self, record: Mapping[str, Any]) -> None:
        """Print a line for every record, and for a step now and then."""
        kind = record["type"]
        if kind == "step":
            self.pace.step(record["step"])
        if kind == "step" and (time.monotonic() - self.shown_at > self.seconds or record["step"] == self.num_steps):
            self.shown_at = time.monotonic()
            rate = self.pace.rate
            left = (self.num_steps - record["step"]) / rate
            self.notice(
                f"step {record['step']:,}/{self.num_steps:,}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  "
                f"{rate:.2f} steps/s  {duration(left)} left"
            )
        elif kind != "step":
            self.notice(sentence(record))

    def close(self) -> None:
        """Have nothing to take away."""


class Bar:
    """A rich bar with loss, rate and time left; what is worth a line stands above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} steps/s"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task: Any = None
        self.pace = _Pace()

    def notice(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, style="dim", highlight=False, markup=False)

    def start(self, num_steps: int) -> None:
        """Show the bar."""
        self.pace = _Pace()
        self.task = self.progress.add_task("training", total=num_steps, loss="-", rate="-")
        self.progress.start()

    def record(self, record: Mapping[str, Any]) -> None:
        """Move the bar, or print a line above it."""
        if record["type"] == "step":
            if self.pace.before is None:  # those of a process before this one took it no time
                self.progress.reset(self.task, completed=record["step"] - 1)
            self.pace.step(record["step"])
            rate = f"{self.pace.rate:.2f}"
            self.progress.update(self.task, completed=record["step"], loss=f"{record['loss']:.4f}", rate=rate)
        else:
            self.console.print(sentence(record), highlight=False, markup=False)

    def close(self) -> None:
        """Take the bar away."""
        self.progress.stop()


class Once:
    """A display that shows a line or a notice only the first time: twelve variants or five seeds load the same data."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.shown: set[str] = set()

    def notice(self, text: str) -> None:
        """Show a line, unless it was shown before."""
        if text not in self.shown:
            self.shown.add(text)
            self.display.notice(text)

    def start(self, num_steps: int) -> None:
        """Training begins."""
        self.display.start(num_steps)

    def record(self, record: Mapping[str, Any]) -> None:
        """Show a record; a notice, unless it was shown before."""
        if record["type"] != "notice":
            self.display.record(record)
        elif record["text"] not in self.shown:
            self.shown.add(record["text"])
            self.display.record(record)

    def close(self) -> None:
        """Close the display."""
        self.display.close()


def as_display(given: Display | bool | None, *, lines: bool = False) -> Display:
    """Where progress goes from a call in Python: by default to a terminal or a notebook, and elsewhere nowhere.

    Args:
        given: False for none, True for it wherever standard error goes, None for the default; or a display.
        lines: whether there are only a few lines to show, and nothing that moves.

    Raises:
        RecipeError: nothing of the kind.
    """
    if given is False:
        return Silent()
    if given is None or given is True:
        if _in_notebook():
            return Plain(sys.stdout)  # standard error is red there
        if sys.stderr is not None and sys.stderr.isatty():
            return Plain() if lines else Bar()
        return Plain() if given else Silent()
    if not all(callable(getattr(given, name, None)) for name in ("notice", "start", "record", "close")):
        raise RecipeError(
            f"got {given!r}"[:100],
            where="display",
            allowed="True, False, or an object with notice, start, record and close, as hfpipe.system.display has them",
        )
    return given


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def choose(*, quiet: bool = False) -> Display:
    """The display that fits where standard error goes; `quiet` leaves the progress out."""
    if quiet:
        return Notices()
    return Bar() if sys.stderr.isatty() else Plain()


def sentence(record: Mapping[str, Any]) -> str:
    """One record as a line."""
    if record["type"] == "evaluation":
        return f"epoch {record['epoch']:.2f}  step {record['step']:,}  {metrics_line(record['metrics'])}"
    if record["type"] in ("notice", "check"):
        return f"{NOTE}{record['text']}"
    if record["type"] == "end":
        return f"{record['status']} after {record['step']:,} steps and {duration(record['seconds'])} of training"
    return "  ".join(f"{key} {value}" for key, value in record.items() if key != "type")


def metrics_line(metrics: Mapping[str, float | None]) -> str:
    """Names and values of metrics, the first ones of many; one without a value is `undefined`."""
    shown = [f"{name} {'undefined' if value is None else f'{value:.4f}'}" for name, value in metrics.items()]
    more = [f"and {len(shown) - _SHOWN} more in the run"] if len(shown) > _SHOWN else []
    return "  ".join([*shown[:_SHOWN], *more])


def duration(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"

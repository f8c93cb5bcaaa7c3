"""Progress for a person: a bar on a terminal, plain lines elsewhere. It reads records and is told stages."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

_SHOWN = 8  # figures in a line


class Display(Protocol):
    """Where progress goes."""

    def say(self, text: str) -> None:
        """A stage begins, or something is worth knowing."""

    def start(self, num_steps: int) -> None:
        """Training begins."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Something happened."""

    def close(self) -> None:
        """Nothing more comes."""


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def start(self, num_steps: int) -> None:
        """Nothing."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


NOTE = "note: "
"""What a line begins with that is worth knowing, and not only the next stage."""


class Notices:
    """Lines for what is worth knowing, without progress: beside a result that a program reads."""

    def say(self, text: str) -> None:
        """A line, where it is a note."""
        if text.startswith(NOTE):
            print(text, file=sys.stderr, flush=True)

    def start(self, num_steps: int) -> None:
        """Nothing."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A line for a notice."""
        if record["type"] in ("notice", "check"):
            self.say(sentence(record))

    def close(self) -> None:
        """Nothing to close."""


class Plain:
    """One line now and then, for logs and pipes: at every evaluation, notice and save, and at most every few seconds."""

    def __init__(self, stream: TextIO | None = None, *, seconds: float = 10.0) -> None:
        self.stream, self.seconds = stream or sys.stderr, seconds
        self.num_steps, self.told = 0, 0.0
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        """A line."""
        print(text, file=self.stream, flush=True)

    def start(self, num_steps: int) -> None:
        """A line with the number of steps."""
        self.num_steps, self.started, self.told = num_steps, time.monotonic(), time.monotonic()
        self.say(f"training {num_steps:,} steps")

    def record(self, record: Mapping[str, Any]) -> None:
        """A line for what is worth one."""
        kind = record["type"]
        if kind == "step" and (time.monotonic() - self.told > self.seconds or record["step"] == self.num_steps):
            self.told = time.monotonic()
            rate = record["step"] / max(self.told - self.started, 1e-9)
            left = (self.num_steps - record["step"]) / rate
            self.say(
                f"step {record['step']:,}/{self.num_steps:,}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  "
                f"{rate:.2f} steps/s  {duration(left)} left"
            )
        elif kind != "step":
            self.say(sentence(record))

    def close(self) -> None:
        """Nothing to close."""


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
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, style="dim", highlight=False, markup=False)

    def start(self, num_steps: int) -> None:
        """Show the bar."""
        self.started = time.monotonic()
        self.task = self.progress.add_task("training", total=num_steps, loss="-", rate="-")
        self.progress.start()

    def record(self, record: Mapping[str, Any]) -> None:
        """Move the bar, or put a line above it."""
        if record["type"] == "step":
            rate = record["step"] / max(time.monotonic() - self.started, 1e-9)
            self.progress.update(self.task, completed=record["step"], loss=f"{record['loss']:.4f}", rate=f"{rate:.2f}")
        else:
            self.console.print(sentence(record), highlight=False, markup=False)

    def close(self) -> None:
        """Take the bar away."""
        self.progress.stop()


class Once:
    """A display that tells a stage or a notice only the first time: twelve variants or five seeds load the same data."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.told: set[str] = set()

    def say(self, text: str) -> None:
        """A stage, unless it was told."""
        if text not in self.told:
            self.told.add(text)
            self.display.say(text)

    def start(self, num_steps: int) -> None:
        """Training begins."""
        self.display.start(num_steps)

    def record(self, record: Mapping[str, Any]) -> None:
        """A record; a notice, unless it was told."""
        if record["type"] != "notice":
            self.display.record(record)
        elif record["text"] not in self.told:
            self.told.add(record["text"])
            self.display.record(record)

    def close(self) -> None:
        """Nothing more comes."""
        self.display.close()


def choose(*, quiet: bool = False) -> Display:
    """The display that fits where standard error goes; `quiet` leaves the progress out."""
    if quiet:
        return Notices()
    return Bar() if sys.stderr.isatty() else Plain()


def sentence(record: Mapping[str, Any]) -> str:
    """One record as a line."""
    if record["type"] == "evaluation":
        return f"epoch {record['epoch']:.2f}  step {record['step']:,}  {figures(record['metrics'])}"
    if record["type"] in ("notice", "check"):
        return f"{NOTE}{record['text']}"
    if record["type"] == "end":
        return f"{record['status']} after {record['step']:,} steps and {duration(record['seconds'])} of training"
    return "  ".join(f"{key} {value}" for key, value in record.items() if key != "type")


def figures(metrics: Mapping[str, float | None]) -> str:
    """Names and numbers, the first ones of many; an undefined metric is called that."""
    shown = [f"{name} {'undefined' if value is None else f'{value:.4f}'}" for name, value in metrics.items()]
    more = [f"and {len(shown) - _SHOWN} more in the run"] if len(shown) > _SHOWN else []
    return "  ".join([*shown[:_SHOWN], *more])


def duration(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"

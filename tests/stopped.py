"""Runs that die, and what a run ended with: shared by the tests of stopping and going on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import hfpipe
from hfpipe.system.display import Silent


class Killed(BaseException):
    """Stands for a process that dies."""


class DiesWhen(Silent):
    """Dies when a record is one that is waited for."""

    def __init__(self, found: Callable[[Mapping[str, Any]], bool]) -> None:
        self.found = found

    def record(self, record: Mapping[str, Any]) -> None:
        """Die in the middle of what follows from it."""
        if self.found(record):
            raise Killed


class Dying(DiesWhen):
    """Dies when a step is recorded."""

    def __init__(self, step: int) -> None:
        super().__init__(lambda record: record["type"] == "step" and record["step"] == step)


def digest(run: hfpipe.Run) -> str:
    """SHA-256 of the weights that a run ended with."""
    return hashlib.sha256((run.path / "model" / "model.safetensors").read_bytes()).hexdigest()


def records(run: hfpipe.Run, *kinds: str) -> list[dict[str, Any]]:
    """What a run recorded, of some kinds or all, without timings and without what is said of resumptions."""
    kept = [{key: value for key, value in one.items() if key != "seconds"} for one in run.records]
    return [one for one in kept if "resumed" not in one and (not kinds or one["type"] in kinds)]

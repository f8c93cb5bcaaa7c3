"""The processes that train together, as torchrun or `accelerate launch` started them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from hfpipe.errors import MachineError, RecipeError
from hfpipe.system.machine import translated_errors

WAIT = "HFPIPE_WAIT_MINUTES"
_WEEK = 7 * 24 * 60
_MINUTES = 30.0  # gloo's own limit; NCCL's is 10, and while one process tokenizes the others wait


def join() -> PartialState:
    """This process among its fellows; the first call connects them.

    Accelerate has to know when there is no accelerator: otherwise it takes every process of a CPU run for the only
    one, and each would train by itself, on all the data, into the same run.

    Raises:
        MachineError: several processes were started and can't be connected on this device.
        RecipeError: `HFPIPE_WAIT_MINUTES` is no time.
    """
    wait = longest_wait()
    with translated_errors():
        state = PartialState(cpu=not torch.accelerator.is_available(), timeout=wait)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != state.num_processes:
        raise MachineError(
            f"{started} processes were started, and Accelerate connects {state.num_processes} on {state.device}",
            fix="Start one process, or one for each GPU with torchrun.",
        )
    return state


def from_main(*values: Any) -> list[Any]:
    """What the main process knows, on every process."""
    known = list(values)
    if join().num_processes > 1:
        with translated_errors():
            broadcast_object_list(known)
    return known


def longest_wait() -> timedelta:
    """How long a process waits for another one: half an hour, or `HFPIPE_WAIT_MINUTES`.

    Raises:
        RecipeError: that is no number above 0, or more than a week.
    """
    given = os.environ.get(WAIT, str(_MINUTES))
    try:
        minutes = float(given)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= _WEEK:
        raise RecipeError(f"{given!r}", where=WAIT, allowed=f"a number of minutes above 0, at most {_WEEK:,} (a week)")
    return timedelta(minutes=minutes)

"""The processes that train together, as torchrun or `accelerate launch` started them."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState

from hfpipe.errors import MachineError


def join() -> PartialState:
    """This process among its fellows; the first call connects them.

    Accelerate must be told when there is no accelerator: otherwise it takes every process of a CPU run for the only
    one, and each would train by itself, on all the data, into the same run.

    Raises:
        MachineError: several processes were started and can't be connected on this device.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != state.num_processes:
        raise MachineError(
            f"{started} processes were started, and Accelerate connects {state.num_processes} on {state.device}",
            fix="Start one process, or one for each GPU with torchrun.",
        )
    return state

"""The same numbers from the same recipe on the same machine: seeds, what torch offers for it, and what that costs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import set_seed

from hfpipe.errors import RecipeError
from hfpipe.system.text import one_line

_DROPOUT = 0x64726F70  # beside the seed: no order of rows comes from these random numbers
_CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def seed_of(seed: int, epoch: int, rank: int = 0, step: int = 0) -> int:
    """The seed of what is drawn in an epoch on a process, such as dropout: in the first one on the main process the recipe's.

    Every other one is a hash, since sums meet: seed 42 in its second epoch and seed 43 in its first would draw the same.

    Args:
        seed: of the recipe.
        epoch: from 0.
        rank: of the process.
        step: in the middle of an epoch, where nothing is known of its random states; else 0.
    """
    if not (epoch or rank or step):
        return seed
    return int(np.random.SeedSequence([seed, _DROPOUT, epoch, rank, step]).generate_state(1)[0])


def seed_epoch(seed: int, epoch: int, step: int = 0) -> None:
    """Seed what is drawn in an epoch, the same for both engines and different on each process."""
    set_seed(seed_of(seed, epoch, PartialState().process_index, step))


def cost(device: torch.device) -> str:
    """What `train.deterministic` does on a device, in words."""
    if device.type == "cuda":
        return (
            "deterministic: cuDNN and cuBLAS keep to algorithms that always sum in one order, and an operation that has none "
            "stops the run; that is slower, the more so the more the attention and the embeddings take"
        )
    return "deterministic: on a CPU hfpipe's numbers repeat anyway for one number of threads; unsafe operations are refused"


@contextmanager
def deterministic(wanted: bool, where: str) -> Iterator[None]:
    """Run a block with torch's deterministic algorithms, and put everything back.

    Args:
        wanted: nothing happens without it.
        where: the place in the recipe.

    Raises:
        RecipeError: an operation of the model has no deterministic algorithm on this device.
    """
    if not wanted:
        yield
        return
    before = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, os.environ.get(_CUBLAS[0]))
    os.environ.setdefault(*_CUBLAS)  # read when cuBLAS makes its first handle
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise RecipeError(
            one_line(error, 300),
            where=where,
            fix="Leave train.deterministic out for this model or device.",
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        if before[2] is None:
            os.environ.pop(_CUBLAS[0], None)

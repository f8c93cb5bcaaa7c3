"""The same numbers from the same recipe on the same machine: what torch offers for it, and what it costs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hfpipe.errors import RecipeError
from hfpipe.system.text import one_line

_CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


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

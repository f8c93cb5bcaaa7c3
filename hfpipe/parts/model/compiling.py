"""torch.compile of a model, in place."""

from __future__ import annotations

import torch
from torch.utils._triton import has_triton

from hfpipe.errors import MachineError


def compile_in_place(model: torch.nn.Module, device: torch.device, where: str) -> None:
    """Have a model compiled at its first forward pass, once for inputs of all lengths; an evaluation by itself.

    The names of its weights, its hooks and its checkpoints stay as they are.

    Raises:
        MachineError: nothing on this machine compiles for the device.
    """
    if device.type == "cpu" and not _has_cpp_compiler():
        missing = "C++ compiler"
    elif device.type == "cuda" and not has_triton():
        missing = "Triton"
    else:
        model.compile(dynamic=True)
        return
    raise MachineError(
        f"no {missing} to compile the model with", where=where, fix="Install one, or leave train.compile out."
    )


def _has_cpp_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler  # a second of imports
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return bool(get_cpp_compiler())
    except InvalidCxxCompiler:
        return False

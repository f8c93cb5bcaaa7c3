"""Which number format the forward pass uses on this device, and why."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from hfpipe.errors import RecipeError


@dataclass(frozen=True)
class Precision:
    """The chosen format (`fp32`, `bf16`, `fp16`) and the reason, for the run's record."""

    name: str
    why: str

    @property
    def accelerate_name(self) -> str:
        """What Accelerate calls it."""
        return "no" if self.name == "fp32" else self.name

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """The context for a forward pass outside a model that Accelerate prepared."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, torch.bfloat16 if self.name == "bf16" else torch.float16)


def choose(wanted: str, device: torch.device, where: str) -> Precision:
    """Turn the recipe's word into a format that the device has.

    Raises:
        RecipeError: a format that the device can't train in.
    """
    native, why = _native(device)
    if wanted == "auto":
        return Precision(native, why)
    if wanted == "fp16" and device.type == "cpu":
        raise RecipeError("fp16 needs a GPU, and this run is on a CPU", where=where, allowed="auto, fp32, bf16")
    although = f", although {why}" if wanted == "bf16" and native != "bf16" else ""
    return Precision(wanted, f"asked for{although}")


def _native(device: torch.device) -> tuple[str, str]:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return "bf16", f"the GPU (capability {major}.{minor}) computes bf16 natively"
        return "fp16", f"the GPU (capability {major}.{minor}) has no native bf16"
    if device.type == "cpu":
        if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
            return "bf16", "the CPU has AVX512-BF16 or AMX"
        return "fp32", "the CPU has neither AVX512-BF16 nor AMX"
    return "fp32", f"the device is {device.type}"

"""What an optimizer, a schedule and the random generators remember, as safetensors and JSON: exact, and never a pickle.

Python's own floats survive JSON to the last bit, since it writes the shortest text that reads back as the same number;
NaN, infinities, tuples and small tensors are marked by a key that begins with `$`.
"""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hfpipe.errors import ModelError
from hfpipe.parts.optim.schedules import steps_on_metric

RandomState = dict[str, Any]

# What a schedule that follows a metric has seen so far; everything else of its state is an argument.
_SEEN = (
    "best", "num_bad_epochs", "num_good_epochs", "cooldown_counter", "warmup_counter", "last_epoch", "reset_start",
    "_streaming_avg",
)  # fmt: skip


@dataclass(frozen=True)
class ResumePoint:
    """From where a job goes on; engines ask it for what a step before them left.

    Attributes:
        step: the last step that was taken.
        restore: puts back what optimizer, schedule and scaler remember; called when the model is on its device.
        restore_random: puts back the random generators as they were after that step; called last.
    """

    step: int
    restore: Callable[[], None]
    restore_random: Callable[[], None]


def encode(value: Any) -> Any:
    """A value as JSON has it.

    Raises:
        TypeError: something that JSON can't hold, such as an object of a class.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and not isinstance(value, np.generic):
        return int(value)
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, np.generic):
        return {"$numpy": [value.dtype.str, value.tobytes().hex()]}
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous()
        return {"$tensor": [str(flat.dtype).removeprefix("torch."), list(flat.shape), _bytes_of(flat).hex()]}
    if isinstance(value, tuple):
        return {"$tuple": [encode(part) for part in value]}
    if isinstance(value, list):
        return [encode(part) for part in value]
    if isinstance(value, deque):
        return {"$deque": [[encode(part) for part in value], value.maxlen]}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: encode(part) for key, part in value.items()}
        return {"$items": [[encode(key), encode(part)] for key, part in value.items()]}
    raise TypeError(f"a {type(value).__qualname__} has no exact form in JSON")


def decode(value: Any) -> Any:
    """What :func:`encode` was given."""
    if isinstance(value, list):
        return [decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (mark := next(iter(value))).startswith("$"):
        held = value[mark]
        if mark == "$float":
            return float(held)
        if mark == "$numpy":
            return np.frombuffer(bytes.fromhex(held[1]), dtype=np.dtype(held[0]))[0]
        if mark == "$tensor":
            return _tensor_of(bytes.fromhex(held[2]), getattr(torch, held[0])).reshape(held[1])
        if mark == "$tuple":
            return tuple(decode(part) for part in held)
        if mark == "$deque":
            return deque([decode(part) for part in held[0]], held[1])
        return {decode(key): decode(part) for key, part in held}
    return {key: decode(part) for key, part in value.items()}


def write_state(
    folder: Path, optimizer: torch.optim.Optimizer, schedule: Any, scaler: Any, randoms: list[RandomState]
) -> None:
    """Write `optimizer.safetensors`, `optimizer.json`, `schedule.json` and `random.json`.

    Args:
        folder: where.
        optimizer: with the state of each parameter.
        schedule: with a `state_dict`, or None inside `schedule.json` where it has none.
        scaler: of fp16 gradients, or None.
        randoms: the generators of every process, in their order.
    """
    tensors: dict[str, torch.Tensor] = {}
    states: list[dict[str, Any]] = []
    for place, param in enumerate(_params(optimizer)):
        described: dict[str, Any] = {}
        for key, value in optimizer.state.get(param, {}).items():
            if isinstance(value, torch.Tensor):
                name = f"{place}.{key}"
                tensors[name] = value.detach().cpu().contiguous()
                described[key] = {"tensor": name, "beside": value.device == param.device}
            else:
                described[key] = {"value": encode(value)}
        states.append(described)
    groups = [{key: encode(part) for key, part in group.items() if key != "params"} for group in optimizer.param_groups]
    save_file(_own_memory(tensors), folder / "optimizer.safetensors")
    kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
    scaled = None if scaler is None else encode(scaler.state_dict())
    _write_json(folder / "optimizer.json", {"kind": kind, "groups": groups, "states": states, "scaler": scaled})
    _write_json(folder / "schedule.json", schedule_state(schedule))
    _write_json(folder / "random.json", randoms)


def schedule_state(schedule: Any) -> Any:
    """What a schedule remembers, None for one that can't say it.

    Raises:
        TypeError: it remembers what JSON can't hold.
    """
    if not hasattr(schedule, "state_dict") or not hasattr(schedule, "load_state_dict"):
        return None
    return encode(schedule.state_dict())


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer, scaler: Any, *, settings: bool) -> None:
    """Put back what an optimizer remembers of every parameter, in the precision that it had.

    torch's own `load_state_dict` turns every floating tensor into the type of its parameter; this does not.

    Args:
        folder: the checkpoint.
        optimizer: over the same parameters, on their device.
        scaler: of fp16 gradients, or None.
        settings: also put back rates, decays and so on; without it they stay those of the recipe.

    Raises:
        ModelError: the state belongs to other parameters.
    """
    described = read_json(folder / "optimizer.json")
    tensors = _load_tensors(folder / "optimizer.safetensors")
    params = _params(optimizer)
    if len(params) != len(described["states"]) or len(optimizer.param_groups) != len(described["groups"]):
        raise ModelError(
            f"the optimizer's state is of {len(described['states'])} parameters, and the model trains {len(params)}",
            where=str(folder),
            fix="--reset-optimizer begins with a fresh one.",
        )
    groups = {id(param): group for group in optimizer.param_groups for param in group["params"]}
    for param, state in zip(params, described["states"], strict=True):
        if not state:
            optimizer.state.pop(param, None)
            continue
        restored = {}
        for key, held in state.items():
            if "value" in held:
                restored[key] = decode(held["value"])
                continue
            value = tensors[held["tensor"]]
            on_device = held["beside"]
            if key == "step":  # which torch keeps on the CPU, unless a kernel on the device counts it
                group = groups[id(param)]
                on_device = on_device and bool(group.get("fused") or group.get("capturable"))
            # In memory of torch's own: a tensor lies in the file where it fell, and some kernels round by that.
            restored[key] = value.to(param.device) if on_device and param.device.type != "cpu" else value.clone()
        optimizer.state[param] = restored
    if settings:
        for group, saved in zip(optimizer.param_groups, described["groups"], strict=True):
            group.update({key: decode(part) for key, part in saved.items()})
    if scaler is not None and described["scaler"] is not None:
        scaler.load_state_dict(decode(described["scaler"]))


def optimizer_kind(folder: Path) -> str:
    """The class whose state a checkpoint has."""
    return str(read_json(folder / "optimizer.json")["kind"])


def load_schedule(folder: Path, schedule: Any) -> None:
    """Put back what a schedule remembers; the optimizer's own rates are put back with the optimizer.

    Raises:
        ModelError: there is nothing to put back.
    """
    state = read_json(folder / "schedule.json")
    if state is None:
        raise ModelError(
            f"a {type(schedule).__name__} has no state_dict, so that the checkpoint does not know where it was",
            where=str(folder),
            fix="Give your schedule state_dict and load_state_dict, as torch's have them.",
        )
    schedule.load_state_dict(decode(state))


def advance_schedule(folder: Path | None, schedule: Any, step: int, scale: float) -> None:
    """Bring a schedule of a changed recipe to a step, and the optimizer's rates with it.

    One that is a function of the step is asked for that step. One that follows what it saw takes over what it saw, and
    its rate is scaled as the recipe's rate was.

    Args:
        folder: the checkpoint, None where nothing of the old schedule fits.
        schedule: as the changed recipe builds it, before its first step.
        step: the steps that were taken.
        scale: the recipe's learning rate over that of the checkpoint.
    """
    if isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
        schedule.last_epoch = step
        schedule._step_count = step + 1
        rates = [base * factor(step) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    elif folder is not None:
        saved = decode(read_json(folder / "schedule.json")) or {}
        kept = {key: value for key, value in saved.items() if key in _SEEN or not steps_on_metric(schedule)}
        bases = list(getattr(schedule, "base_lrs", []))
        schedule.load_state_dict(kept)
        if bases:
            schedule.base_lrs = bases
        rates = [decode(group["lr"]) * scale for group in read_json(folder / "optimizer.json")["groups"]]
    else:
        for _ in range(0 if steps_on_metric(schedule) else step):
            schedule.step()
        return
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def random_state() -> RandomState:
    """The state of the generators of this process: torch on the CPU and on each GPU, numpy and Python."""
    name, keys, position, has_gauss, gauss = cast("tuple[Any, ...]", np.random.get_state(legacy=True))
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": _bytes_of(torch.get_rng_state()).hex(),
        "cuda": [_bytes_of(state).hex() for state in devices],
        "numpy": encode([name, keys.tobytes().hex(), position, has_gauss, gauss]),
        "python": encode(random.getstate()),
    }


def restore_random(state: RandomState) -> None:
    """Put the generators back; a GPU that was not there keeps its own."""
    name, keys, position, has_gauss, gauss = decode(state["numpy"])
    np.random.set_state((name, np.frombuffer(bytes.fromhex(keys), dtype=np.uint32), position, has_gauss, gauss))
    random.setstate(decode(state["python"]))
    torch.set_rng_state(_tensor_of(bytes.fromhex(state["torch"]), torch.uint8))
    if torch.cuda.is_available():
        for device, held in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(_tensor_of(bytes.fromhex(held), torch.uint8), device)


def read_json(path: Path) -> Any:
    """A JSON file of a checkpoint.

    Raises:
        ModelError: it can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} can't be read: {error}", where=str(path.parent)) from None


def _params(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _own_memory(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, none sharing memory with another, which safetensors refuses."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            tensors[name] = tensor.clone()
        seen.add(place)
    return tensors


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path.name} can't be read: {error}", where=str(path.parent)) from None


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def _tensor_of(held: bytes, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(held), dtype=dtype) if held else torch.empty(0, dtype=dtype)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")

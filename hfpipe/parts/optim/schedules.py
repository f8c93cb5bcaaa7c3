"""The schedule of a job: how the learning rate goes over the steps. All of them are transformers' own, by its names."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from transformers import SchedulerType, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import SCHEDULES, near

# Given by `build_schedule` itself, or by `state_dict` on a resume; `verbose` would print into the standard output.
_GIVEN_ELSEWHERE = ("self", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "verbose")
PLATEAU = "reduce_lr_on_plateau"  # stepped with a metric of the evaluation
_WITHOUT_WARMUP = ("constant", PLATEAU)


def build_schedule(
    optimizer: Optimizer, name: str, *, num_steps: int, warmup: float = 0.0, **arguments: Any
) -> LRScheduler:
    """Build a schedule that is stepped after every update, or with a metric where `steps_on_metric` says so.

    Args:
        optimizer: its learning rates are changed in place, and are those of step 1 when this returns.
        name: one of `SCHEDULES`, transformers' own names.
        num_steps: the updates of the whole run.
        warmup: below 1 a share of the steps, rounded up; from 1 on a number of steps.
        arguments: what transformers' function of this name takes besides.

    Raises:
        RecipeError: an unknown name; a warm-up that is longer than the run, or that this schedule doesn't have; an
            argument that is missing, unknown or refused.
    """
    needed, allowed = schedule_arguments(name)
    _check_arguments(name, needed, allowed, arguments)
    num_warmup_steps = warmup_steps(warmup, num_steps)
    _check_warmup(name, num_warmup_steps, num_steps)
    if name == "warmup_stable_decay":
        _check_stages(num_warmup_steps, num_steps, arguments)
    _check_floor(name, optimizer, arguments)
    # transformers warns when a stable stage is given together with the steps of the run, which it then leaves unread.
    steps_given = None if arguments.get("num_stable_steps") is not None else num_steps
    try:
        schedule: LRScheduler = get_scheduler(
            name,
            optimizer,
            num_warmup_steps=num_warmup_steps,
            num_training_steps=steps_given,
            scheduler_specific_kwargs=arguments,
        )
        if isinstance(schedule, LambdaLR):
            _try_out(schedule, (0, num_warmup_steps, num_steps // 2, num_steps))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RecipeError(f"schedule {name} refused its arguments: {error}", where="schedule") from error
    return schedule


def warmup_steps(warmup: float, num_steps: int) -> int:
    """Count the steps of a warm-up as `TrainingArguments.get_warmup_steps` does.

    Args:
        warmup: below 1 a share of the steps, rounded up; from 1 on a number of steps, its fraction dropped.
        num_steps: the updates of the whole run.

    Raises:
        RecipeError: not a finite number of 0 or more, or longer than the run.
    """
    is_number = isinstance(warmup, int | float) and not isinstance(warmup, bool)
    if not is_number or not 0.0 <= warmup < math.inf:
        allowed = "a share below 1, or a number of steps"
        raise RecipeError(f"warmup is {warmup!r}", where="schedule.warmup", allowed=allowed)
    steps = int(warmup) if warmup >= 1 else math.ceil(num_steps * warmup)
    if steps > num_steps:
        raise RecipeError(
            f"the warm-up of {steps} steps is longer than the run of {num_steps}",
            where="schedule.warmup",
            allowed=f"a share below 1, or at most {num_steps} steps",
        )
    return steps


def schedule_arguments(name: str) -> tuple[list[str], list[str]]:
    """Name the arguments that a schedule needs, and all that it takes besides the steps and the warm-up.

    They are read from the installed transformers, so that a new argument needs no new line here.

    Raises:
        RecipeError: unknown name.
    """
    if name not in SCHEDULES:
        what = f"unknown schedule {name!r}{near(name, SCHEDULES)}"
        raise RecipeError(what, where="schedule.name", allowed=", ".join(SCHEDULES))
    parameters = inspect.signature(_builder(name)).parameters
    allowed = [key for key in parameters if key not in _GIVEN_ELSEWHERE]
    return [key for key in allowed if parameters[key].default is inspect.Parameter.empty], allowed


def steps_on_metric(schedule: LRScheduler) -> bool:
    """Whether the schedule is stepped with a metric after each evaluation, and not after each update."""
    return "metrics" in inspect.signature(schedule.step).parameters


def _builder(name: str) -> Callable[..., Any]:
    """Find what names a schedule's arguments: transformers' function, or the class behind one taking any keyword."""
    if name == PLATEAU:
        return ReduceLROnPlateau
    return cast("Callable[..., Any]", TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)])


def _check_arguments(name: str, needed: list[str], allowed: list[str], arguments: dict[str, Any]) -> None:
    for key in arguments:
        if key not in allowed:
            raise RecipeError(
                f"schedule {name} takes no {key!r}{near(key, allowed)}",
                where=f"schedule.{key}",
                allowed=", ".join(["warmup", *allowed]),
            )
    missing = [key for key in needed if key not in arguments]
    if missing:
        options = ", ".join(f"schedule.{key}" for key in missing)
        raise RecipeError(f"schedule {name} needs {', '.join(missing)}", where="schedule", fix=f"Set {options}.")
    if name in ("cosine_with_min_lr", "cosine_warmup_with_min_lr"):
        given = [key for key in ("min_lr", "min_lr_rate") if arguments.get(key) is not None]
        if len(given) != 1:
            raise RecipeError(
                f"schedule {name} got {' and '.join(given) or 'neither min_lr nor min_lr_rate'}",
                where="schedule",
                allowed="one of min_lr (a learning rate) and min_lr_rate (a share of the first)",
            )


def _check_warmup(name: str, num_warmup_steps: int, num_steps: int) -> None:
    if num_warmup_steps and name in _WITHOUT_WARMUP:
        fix = "Set schedule.warmup=0" + (", or take constant_with_warmup." if name == "constant" else ".")
        raise RecipeError(f"schedule {name} has no warm-up", where="schedule.warmup", fix=fix)
    if name == "polynomial" and num_warmup_steps == num_steps:
        # transformers divides by the steps that are left, at the end of the last one.
        raise RecipeError(
            f"the warm-up takes all {num_steps} steps, and schedule polynomial needs one to decay in",
            where="schedule.warmup",
            allowed=f"fewer than {num_steps} steps",
        )


def _check_stages(num_warmup_steps: int, num_steps: int, arguments: dict[str, Any]) -> None:
    """Refuse stages that don't fit into the run, for which transformers would make up a rate."""
    total = num_warmup_steps
    for key in ("num_decay_steps", "num_stable_steps"):
        value = arguments.get(key, 0)
        if value is None and key == "num_stable_steps":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise RecipeError(f"{key} is {value!r}", where=f"schedule.{key}", allowed="a number of steps, 0 or more")
        total += value
    if total > num_steps:
        raise RecipeError(
            f"warm-up, stable and decay stages take {total} steps, and the run has {num_steps}",
            where="schedule.num_decay_steps",
            allowed=f"stages of at most {num_steps} steps in all",
        )


def _check_floor(name: str, optimizer: Optimizer, arguments: dict[str, Any]) -> None:
    """Refuse a floor above the rate: it would switch the lowering off, or turn it round, without a word."""
    floor = arguments.get("min_lr")
    rate = min(group["lr"] for group in optimizer.param_groups)
    floors = floor if isinstance(floor, list | tuple) else [floor]
    if any(isinstance(one, int | float) and one > rate for one in floors):
        raise RecipeError(
            f"schedule {name} can't lower the learning rate {rate}: its min_lr {floor} is above it",
            where="schedule.min_lr",
            fix=f"Set schedule.min_lr below {rate}.",
        )


def _try_out(schedule: LambdaLR, steps: tuple[int, ...]) -> None:
    """Ask for a few rates beforehand: transformers first reads some arguments when the warm-up is over."""
    for step in steps:
        for factor_at in schedule.lr_lambdas:
            if not math.isfinite(factor_at(step)):
                raise ValueError(f"at step {step} the rate is not finite")

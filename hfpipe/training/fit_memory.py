"""Micro-batches that fit into memory: tried by all processes before they train together, and made smaller."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING

from hfpipe.errors import MachineError
from hfpipe.recipe import to_yaml, with_overrides
from hfpipe.recipe.schema import Train
from hfpipe.runs.store import Run
from hfpipe.system.machine import translated_errors
from hfpipe.training.resume_plan import Plan, make_plan

if TYPE_CHECKING:
    from hfpipe.training.job import Job

_MANY = 8  # parts that a micro-batch of tokens is cut into at once, at most


class MemoryTried(MachineError):
    """Memory ran out on one of the processes, and all of them know it."""


def memory_ran_out(error: MachineError) -> bool:
    """Whether it is the memory of the device or of the machine that a fault is about."""
    return error.what.startswith("out of memory")


def try_memory(job: Job) -> None:
    """Send the widest micro-batch through the model and back on every process, before they wait for each other in it.

    Weights, gradients, modes and random states are as before afterwards.

    Raises:
        MemoryTried: on all processes, where one of them has too little memory.
    """
    import torch
    from accelerate.utils import reduce

    from hfpipe.system.processes import join
    from hfpipe.training.scale_check import preserved_rng

    state, reason = join(), ""
    modes = [(module, module.training) for module in job.model.modules()]
    rows = widest(job)
    try:
        with preserved_rng(), translated_errors():
            _forward_and_back(job, rows)
    except MachineError as error:
        if not memory_ran_out(error):
            raise
        reason = error.what
    finally:
        job.model.zero_grad()
        for module, training in modes:
            module.training = training
    free_memory()
    short = int(reduce(torch.tensor(float(bool(reason)), device=state.device), "sum"))
    if short:
        many = f"{short} of {state.num_processes} processes"
        raise MemoryTried(f"out of memory with the widest micro-batch, of {len(rows)} inputs, on {many}")


def widest(job: Job) -> list[int]:
    """The encoded training rows that could be the largest micro-batch of all, in tokens with padding."""
    import numpy as np

    from hfpipe.parts.inputs.batches import TrainLoader

    assert isinstance(job.loader, TrainLoader)
    found, order, batches = job.task.lengths(job.train_data), job.loader.order, job.loader.batches
    tokens = order.tokens
    by_length = np.argsort(-found, kind="stable")
    if tokens is None:
        rows: list[int] = by_length[: job.recipe.train.batch_size].tolist()
        return rows

    def inputs(longest: int) -> int:  # of a micro-batch, as EpochBatches shares out an update
        update = min(max(1, tokens // longest), int((found <= longest).sum()))
        each = -(-update // batches.accumulate)
        return int(-(-each // batches.processes))

    longest = max(map(int, np.unique(found)), key=lambda length: length * inputs(length))
    rows = by_length[found[by_length] <= longest][: inputs(longest)].tolist()
    return rows


def _forward_and_back(job: Job, rows: list[int]) -> None:
    import torch

    from hfpipe.parts.inputs.batches import Examples
    from hfpipe.parts.tasks import outputs_of
    from hfpipe.training.resume import bytes_of

    job.model.to(job.device).train()
    batch = job.collate(Examples(job.train_data).__getitems__(rows))
    batch = {name: value.to(job.device) for name, value in batch.items()}
    labels = batch.pop("labels")
    # What the optimizer will remember, and the copy of the gradients that processes exchange.
    held = torch.empty(bytes_of(job)[1], dtype=torch.uint8, device=job.device)
    with job.precision.autocast(job.device):
        outputs = outputs_of(job.model(**batch), batch)
    job.objective.item_losses(outputs, labels).sum().backward()  # type: ignore[no-untyped-call]
    del held


def smaller_plan(run: Run, plan: Plan, reason: str) -> Plan:
    """The plan with smaller micro-batches and the same update, from the newest checkpoint or from where it began.

    Raises:
        MachineError: there is nothing smaller.
    """
    from hfpipe.system.processes import from_main, join

    changes = smaller(plan.recipe.train, reason)
    free_memory()
    found: Plan
    (found,) = from_main(_changed(run, plan, changes, reason) if join().is_main_process else None)
    return found


def smaller(spec: Train, reason: str) -> dict[str, int]:
    """The fields of the same update in the next smaller micro-batches that divide it, by their paths.

    Raises:
        MachineError: there are none.
    """
    tokens = spec.batching.tokens
    whole = spec.batch_size if tokens is None else tokens
    if whole == 1:
        fix = "A micro-batch of one is too much: shorten model.max_length, or take a smaller model."
        raise MachineError(reason, fix=fix)
    size = next(size for size in range(whole // 2, 0, -1) if whole % size == 0)
    if tokens is not None and size < tokens // _MANY:
        raise MachineError(reason, fix=f"Lower train.batching.tokens: nothing near the half of {tokens} divides it.")
    field = "batch_size" if tokens is None else "batching.tokens"
    return {f"train.{field}": size, "train.accumulate": spec.accumulate * (whole // size)}


def _changed(run: Run, plan: Plan, changes: dict[str, int], reason: str) -> Plan:
    """The plan with the changes, written into the run."""
    (field, size), (_, accumulate) = changes.items()
    by_tokens = field.endswith("tokens")
    before = plan.recipe.train.batching.tokens if by_tokens else plan.recipe.train.batch_size
    what = f"{size} tokens" if by_tokens else f"{size}"
    text = f"{reason}; micro-batches of {what} instead of {before}, {accumulate} to an update: the same update"
    run.append({"type": "notice", "text": text})  # stays in the log when the records are cut back
    recipe = with_overrides(plan.recipe, [f"{path}={value}" for path, value in changes.items()])
    entry = {"tokens" if by_tokens else "batch_size": size, "accumulate": accumulate, "why": reason}
    run.update_metadata(
        fitted=[*run.metadata.get("fitted", []), entry],
        allowed_changes={**run.metadata.get("allowed_changes", {}), **changes},
    )
    run.write_text("recipe.yaml", to_yaml(recipe))
    again = make_plan(run, allow_change=plan.allowed, reset_optimizer=plan.reset_optimizer)
    return replace(again, fitted=text)


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

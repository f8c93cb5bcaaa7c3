"""The loop engine: plain PyTorch under Accelerate, to be read from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

from hfpipe.parts.optim.objective import Update
from hfpipe.parts.optim.reduction import clip_threshold
from hfpipe.parts.optim.schedules import steps_on_metric
from hfpipe.parts.tasks import outputs_of
from hfpipe.training.engines.steps import begin, evaluate, skip_if_nonfinite
from hfpipe.training.job import Job, seed_epoch

Emit = Callable[[dict[str, Any]], None]


def train(job: Job, emit: Emit) -> None:
    """Train the job from `job.start` on; every step and evaluation is emitted as a record.

    Raises:
        NumericError: a loss or gradient that is not finite.
    """
    recipe, objective, schedule = job.recipe, job.objective, job.schedule
    # Micro-batches are grouped here, so Accelerate must neither count them nor divide by them.
    AcceleratorState._reset_state()
    job.model.__dict__.pop("_is_accelerate_prepared", None)  # trained before, it would get neither precision nor DDP
    unused = DistributedDataParallelKwargs(find_unused_parameters=not recipe.train.gradient_checkpointing)
    accelerator = Accelerator(
        mixed_precision=job.precision.accelerate_name, gradient_accumulation_steps=1, kwargs_handlers=[unused]
    )
    model, optimizer = accelerator.prepare(job.model, job.optimizer)  # a prepared schedule would step once per process
    every = recipe.evaluate.every if job.evaluation_data is not None else "never"
    job.scaler = accelerator.scaler
    step = job.start
    if job.resume_point:
        job.resume_point.restore(job)

    for epoch in range(job.position(step)[0], math.ceil(job.epochs_by(job.num_steps))):
        seed_epoch(recipe.seed, epoch)
        model.train()
        _, within = job.position(step)  # not 0 where training goes on in the middle of an epoch
        job.loader.set_epoch(epoch, within * recipe.train.accumulate)
        if job.resume_point and within:
            job.resume_point.restore_random()
        for micro_batches in group_micro_batches(job.loader, recipe.train.accumulate):
            # Count first: every item's loss is divided by the items of the whole update, not of its micro-batch.
            tally = objective.tally(micro_batches)
            update = Update(objective, tally, [])
            for position, batch in enumerate(micro_batches):
                last = position == len(micro_batches) - 1
                batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
                begin(job, step + 1, batch)
                labels = batch.pop("labels")
                # Gradients of all processes are averaged once, with the last micro-batch.
                with nullcontext() if last else accelerator.no_sync(model):
                    losses = objective.item_losses(outputs_of(model(**batch), batch), labels)
                    update.add(losses)
                    accelerator.backward(objective.backward_value(losses, tally, accelerator.num_processes))

            threshold = clip_threshold(recipe.train.max_grad_norm, objective.reduction, tally.divisor)
            figures, grad_norm = update.figures(accelerator.clip_grad_norm_(model.parameters(), threshold))
            if skip_if_nonfinite(job, step + 1, figures, grad_norm):
                model.zero_grad()
            if getattr(job.optimizer, "divides_by_items", False):
                job.optimizer.num_items = tally.divisor  # type: ignore[attr-defined]
            lr = schedule.get_last_lr()[0]
            optimizer.step()
            job.status.skipped_by_scaler += accelerator.optimizer_step_was_skipped
            if not accelerator.optimizer_step_was_skipped and not steps_on_metric(schedule):
                schedule.step()
            model.zero_grad()
            step += 1

            emit(job.step_record(step, figures, grad_norm, lr))
            last_step = step == job.num_steps
            if isinstance(every, int) and (step % every == 0 or last_step):
                emit(evaluate(job, step))
            if last_step or job.stops_early:
                break
        if every == "epoch":
            emit(evaluate(job, step))
        if job.stops_early:
            break

    accelerator.unwrap_model(model, keep_fp32_wrapper=False)


def group_micro_batches(loader: Any, accumulate: int) -> Iterator[list[Any]]:
    """The micro-batches of each update; the last window of an epoch may be shorter."""
    batches = iter(loader)
    while window := list(islice(batches, accumulate)):
        yield window

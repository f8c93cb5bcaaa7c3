"""The loop engine: plain PyTorch under Accelerate, to be read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

from hfpipe.parts.optim.schedules import steps_on_metric

if TYPE_CHECKING:
    from hfpipe.training.job import Job


def train(job: Job, emit: Callable[[dict[str, Any]], None]) -> None:
    """Make the updates that are left of a job; every step and evaluation is emitted as a record.

    Raises:
        NumericError: a loss or gradient that is not finite.
    """
    # Micro-batches are grouped by the job, so Accelerate must neither count them nor divide by them.
    AcceleratorState._reset_state()
    job.model.__dict__.pop("_is_accelerate_prepared", None)  # trained before, it would get neither precision nor DDP
    unused = DistributedDataParallelKwargs(find_unused_parameters=not job.recipe.train.gradient_checkpointing)
    accelerator = Accelerator(
        mixed_precision=job.precision.accelerate_name, gradient_accumulation_steps=1, kwargs_handlers=[unused]
    )
    model, optimizer = accelerator.prepare(job.model, job.optimizer)  # a prepared schedule would step once per process

    for update in job.updates(accelerator.scaler):
        for batch in update.micro_batches():
            # Gradients of all processes are averaged once, with the last micro-batch.
            with nullcontext() if batch.is_last else accelerator.no_sync(model):
                accelerator.backward(update.loss(model(**batch.inputs), batch.inputs, batch.labels))

        grad_norm = accelerator.clip_grad_norm_(model.parameters(), update.clip_threshold)
        if update.skip_if_nonfinite(grad_norm):
            model.zero_grad()
        lr = job.schedule.get_last_lr()[0]
        optimizer.step()
        was_skipped = accelerator.optimizer_step_was_skipped  # by the fp16 scaler
        job.state.status.skipped_by_scaler += was_skipped
        if not was_skipped and not steps_on_metric(job.schedule):
            job.schedule.step()
        model.zero_grad()

        emit(update.record(lr))
        if job.timeline.evaluation_due(update.step):
            emit(job.evaluate(update.step))

    accelerator.unwrap_model(model, keep_fp32_wrapper=False)

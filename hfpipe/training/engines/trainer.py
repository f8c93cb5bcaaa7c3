"""The trainer engine: a job translated into transformers' TrainingArguments and Trainer.

Trainer runs the loop; what it gets wrong for classification heads is handed in from outside through its public hooks:
the loader, the items of an update, the loss of a micro-batch, and an evaluation that is exact.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerState
from transformers.trainer_utils import EvalLoopOutput

from hfpipe.errors import RecipeError
from hfpipe.parts.optim.objective import Update
from hfpipe.parts.optim.reduction import clip_threshold
from hfpipe.parts.optim.schedules import steps_on_metric
from hfpipe.parts.tasks import outputs_of
from hfpipe.training.engines.steps import begin, evaluate, skip_if_nonfinite
from hfpipe.training.job import Job, seed_epoch

Emit = Callable[[dict[str, Any]], None]


def train(job: Job, emit: Emit) -> None:
    """Train the job from `job.start` on with transformers' Trainer; every step and evaluation is emitted as a record.

    Raises:
        NumericError: a loss or gradient that is not finite.
    """
    job.model.__dict__.pop("_is_accelerate_prepared", None)  # trained before, it would get neither precision nor DDP
    with tempfile.TemporaryDirectory(prefix="hfpipe-trainer-") as scratch:  # Trainer wants a folder; it is left empty
        try:
            trainer = ItemTrainer(job, emit, training_arguments(job, scratch))
        except (ValueError, TypeError, ImportError) as error:
            if not job.recipe.trainer:
                raise
            told = " ".join(str(error).split())
            raise RecipeError(f"Trainer refused its options: {told}", where=job.recipe.where("trainer")) from error
        trainer.train(resume_from_checkpoint=trainer.place_of(scratch) if job.resume_point else None)
        trainer.accelerator.unwrap_model(job.model, keep_fp32_wrapper=False)


class ItemTrainer(Trainer):
    """Trainer with hfpipe's loader, item counts and evaluation in its public hooks."""

    def __init__(self, job: Job, emit: Emit, args: TrainingArguments) -> None:
        self.job, self.emit = job, emit
        self.update: Update | None = None
        self.batch: dict[str, torch.Tensor] = {}
        self.measured: dict[str, Any] | None = None
        self.grad_norm: torch.Tensor | float = math.nan
        super().__init__(
            model=job.model,
            args=args,
            data_collator=job.collate,
            train_dataset=job.train_data,
            eval_dataset=job.evaluation_data,
            processing_class=job.tokenizer,
            compute_metrics=job.compute_metrics,
            compute_loss_func=self.micro_batch_loss,
            optimizers=(
                job.optimizer,
                EvaluationDrivenSchedule(job.schedule) if steps_on_metric(job.schedule) else job.schedule,
            ),
            callbacks=[Records(self)],
        )
        self.remove_callback(PrinterCallback)
        clip = self.accelerator.clip_grad_norm_

        def remembering_clip(*args: Any, **kwargs: Any) -> Any:
            self.grad_norm = clip(*args, **kwargs)
            return self.grad_norm

        self.accelerator.clip_grad_norm_ = remembering_clip  # no callback is told the norm before the optimizer's step
        self.random_is_due = job.position(job.start)[1] != 0
        job.scaler = self.accelerator.scaler

    def place_of(self, folder: str) -> str:
        """Write down for Trainer at which step it goes on; what was there then, it is handed in `_load_...` below."""
        state = TrainerState(
            global_step=self.job.start + self.job.step_offset,
            epoch=self.job.epochs_by(self.job.start),
            train_batch_size=self.args.train_batch_size,
        )
        state.compute_steps(self.args, self.args.max_steps)
        state.save_to_json(f"{folder}/trainer_state.json")
        return folder

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """The weights are in the model already."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """What optimizer, schedule and scaler remember, when the model is on its device."""
        if self.job.resume_point:
            self.job.resume_point.restore(self.job)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """It came with the optimizer."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The generators are put back before the first batch, in `get_batch_samples`; an epoch that begins is seeded."""

    @property
    def step(self) -> int:
        """The steps that were taken; Trainer, which finds its epoch by them, counts their places in the order."""
        return int(self.state.global_step - self.job.step_offset)

    def get_train_dataloader(self) -> Any:
        """The job's own loader, whose order depends on seed and epoch alone."""
        return self.job.loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one update, and the sum of their items' weights over all processes."""
        if self.random_is_due and self.job.resume_point:
            self.job.resume_point.restore_random()
            self.random_is_due = False
        batches = list(islice(epoch_iterator, num_batches))
        tally = self.job.objective.tally(batches)
        self.update = Update(self.job.objective, tally, [])
        self.args.max_grad_norm = clip_threshold(
            self.job.recipe.train.max_grad_norm, self.job.objective.reduction, tally.divisor
        )
        return batches, torch.tensor(tally.divisor)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Trainer's own, which then calls `micro_batch_loss`; what the model is given is kept for it."""
        self.batch = inputs
        begin(self.job, self.step + 1, inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def micro_batch_loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """What Trainer calls backward on: the items' losses under the recipe's reduction."""
        assert self.update is not None
        losses = self.job.objective.item_losses(outputs_of(outputs, self.batch), labels)
        self.update.add(losses)
        return self.job.objective.backward_value(losses, self.update.tally, self.args.world_size)

    def evaluation_loop(
        self, dataloader: Any, description: str, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Score every row once, with the loss over all items, whatever the batch size or number of processes."""
        self.measured = record = evaluate(self.job, self.step)
        # Trainer compares the figure that says what is best, and an undefined one is better than none: NaN for it.
        figures = {name: math.nan if value is None else value for name, value in record["metrics"].items()}
        named = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=named, num_samples=len(dataloader.dataset))


class EvaluationDrivenSchedule:
    """A schedule that follows the evaluation, kept from Trainer: `steps.evaluate` steps it before the record goes out."""

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule

    def step(self) -> None:
        """Not now."""

    def get_last_lr(self) -> Any:
        """The rates as they are."""
        return self.schedule.get_last_lr()


class Records(TrainerCallback):
    """Turns what Trainer reports into records, and keeps dropout's random stream a function of seed and epoch."""

    def __init__(self, trainer: ItemTrainer) -> None:
        self.trainer = trainer
        self.figures: dict[str, Any] = {}
        self.grad_norm = self.lr = math.nan

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed the epoch."""
        epoch, _ = self.trainer.job.position(self.trainer.step)
        seed_epoch(self.trainer.job.recipe.seed, epoch)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the loss before it reaches the weights, and hand a dividing updater its items."""
        update = self.trainer.update
        assert update is not None
        self.figures, self.grad_norm = update.figures(self.trainer.grad_norm)
        self.lr = self.trainer.job.schedule.get_last_lr()[0]
        if skip_if_nonfinite(self.trainer.job, self.trainer.step + 1, self.figures, self.grad_norm):
            self.trainer.model.zero_grad()
        if getattr(self.trainer.job.optimizer, "divides_by_items", False):
            self.trainer.job.optimizer.num_items = update.tally.divisor  # type: ignore[attr-defined]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count what the fp16 scaler left out."""
        self.trainer.job.status.skipped_by_scaler += self.trainer.accelerator.optimizer_step_was_skipped

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record a step, after the optimizer; say when to evaluate where Trainer, which counts places, does not know."""
        job, step, every = self.trainer.job, self.trainer.step, self.trainer.job.recipe.evaluate.every
        self.trainer.emit(job.step_record(step, self.figures, self.grad_norm, self.lr))
        if job.step_offset and isinstance(every, int) and job.evaluation_data is not None:
            control.should_evaluate = step % every == 0 or step == job.num_steps

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Record an evaluation, and stop where that was one too many without a better figure."""
        assert self.trainer.measured is not None
        self.trainer.emit(self.trainer.measured)
        control.should_training_stop |= self.trainer.job.stops_early


def training_arguments(job: Job, folder: str) -> TrainingArguments:
    """The TrainingArguments of a job: hfpipe's own fields, and the recipe's `trainer` section."""
    recipe = job.recipe
    every = recipe.evaluate.every if job.evaluation_data is not None else "never"
    return TrainingArguments(
        # Asked for bf16 on a CPU, TrainingArguments looks for a GPU unless it is told.
        **{"use_cpu": job.device.type == "cpu", "report_to": "none", **recipe.trainer},
        output_dir=folder,
        seed=recipe.seed,
        max_steps=job.num_steps + job.step_offset,
        per_device_train_batch_size=recipe.train.batch_size,
        per_device_eval_batch_size=recipe.evaluate.batch_size,
        gradient_accumulation_steps=recipe.train.accumulate,
        max_grad_norm=recipe.train.max_grad_norm or math.inf,
        bf16=job.precision.name == "bf16",
        fp16=job.precision.name == "fp16",
        average_tokens_across_devices=False,  # parts/optim/reduction.py undoes the averaging over processes itself
        dataloader_num_workers=recipe.train.workers,
        eval_strategy={"epoch": "epoch", "never": "no"}.get(str(every), "steps"),
        eval_steps=every if isinstance(every, int) else None,
        metric_for_best_model=recipe.evaluate.best or "loss",
        save_strategy="no",  # hfpipe saves, without a pickle
        logging_strategy="no",  # `Records` does it, without asking the device for every figure by itself
        logging_nan_inf_filter=False,  # it would wait for the device to look at every loss
        disable_tqdm=True,
        remove_unused_columns=False,  # nothing unused is left after tokenizing
    )

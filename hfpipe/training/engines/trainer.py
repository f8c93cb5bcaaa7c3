"""The trainer engine: a job translated into transformers' TrainingArguments and Trainer.

Trainer runs the loop; what it gets wrong for classification heads is handed in from outside through its public hooks:
the micro-batches of an update with its items, the loss of a micro-batch, and an evaluation that is exact.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerState
from transformers.trainer_utils import EvalLoopOutput

from hfpipe.errors import RecipeError
from hfpipe.parts.model.precision import Precision, choose
from hfpipe.parts.optim.schedules import steps_on_metric
from hfpipe.system.processes import join
from hfpipe.system.text import one_line

if TYPE_CHECKING:
    from hfpipe.recipe.schema import Recipe
    from hfpipe.training.job import Job
    from hfpipe.training.update import Update

Emit = Callable[[dict[str, Any]], None]


def train(job: Job, emit: Emit) -> None:
    """Make the updates that are left of a job with transformers' Trainer; every step and evaluation is emitted as a record.

    Raises:
        NumericError: a loss or gradient that is not finite.
    """
    job.model.__dict__.pop("_is_accelerate_prepared", None)  # trained before, it would get neither precision nor DDP
    with tempfile.TemporaryDirectory(prefix="hfpipe-trainer-") as scratch:  # Trainer wants a folder; it is left empty
        with _refused_options(job.recipe):
            trainer = UpdateTrainer(job, emit, training_arguments(job, scratch))
        try:
            trainer.train(resume_from_checkpoint=trainer.write_position(scratch) if job.start else None)
        finally:
            trainer.updates.close()  # with the processes that load its batches
        trainer.accelerator.unwrap_model(job.model, keep_fp32_wrapper=False)


class UpdateTrainer(Trainer):
    """Trainer with the job's updates, losses and evaluation in its public hooks."""

    def __init__(self, job: Job, emit: Emit, args: TrainingArguments) -> None:
        self.job, self.emit = job, emit
        self.update: Update
        self.inputs: dict[str, torch.Tensor] = {}
        self.evaluation: dict[str, Any] = {}
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
        self.updates = job.updates(self.accelerator.scaler)
        clip = self.accelerator.clip_grad_norm_

        def remembering_clip(*args: Any, **kwargs: Any) -> Any:
            self.grad_norm = clip(*args, **kwargs)
            return self.grad_norm

        self.accelerator.clip_grad_norm_ = remembering_clip  # no callback gets the norm before the optimizer's step

    def write_position(self, folder: str) -> str:
        """Write down for Trainer at which step it goes on; what a checkpoint holds, `job.updates` has put back."""
        timeline = self.job.timeline
        state = TrainerState(
            global_step=self.job.start + timeline.step_offset,
            epoch=timeline.epochs_by(self.job.start),
            train_batch_size=self.args.train_batch_size,
        )
        state.compute_steps(self.args, self.args.max_steps)
        state.save_to_json(f"{folder}/trainer_state.json")
        return folder

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """The weights are in the model already."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Put back by `job.updates`."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Put back by `job.updates`."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Put back by `job.updates`."""

    def get_train_dataloader(self) -> Any:
        """Stands for the micro-batches of an epoch, by which Trainer counts; the rows come from `job.updates`."""
        return DataLoader(range(len(self.job.loader)), generator=torch.Generator())  # type: ignore[arg-type]

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of the next update, and the sum of their items' weights over all processes."""
        self.update = next(self.updates)
        self.args.max_grad_norm = self.update.clip_threshold
        return list(self.update.batches), torch.tensor(self.update.divisor)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Trainer's own, which then calls `micro_batch_loss`; the inputs are remembered for it."""
        self.inputs = inputs
        self.update.note_shape(inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def micro_batch_loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """What Trainer calls backward on: the items' losses under the recipe's reduction."""
        return self.update.loss(outputs, self.inputs, labels)

    def evaluation_loop(
        self, dataloader: Any, description: str, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Score every row once, with the loss over all items, whatever the batch size or number of processes."""
        self.evaluation = self.job.evaluate(self.update.step)
        # Trainer compares the metric that chooses the best, and an undefined one is better than none: NaN for it.
        metrics = {
            f"{metric_key_prefix}_{name}": math.nan if value is None else value
            for name, value in self.evaluation["metrics"].items()
        }
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(dataloader.dataset))


class EvaluationDrivenSchedule:
    """A schedule that follows the evaluation, hidden from Trainer: `job.evaluate` steps it before the record goes out."""

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule

    def step(self) -> None:
        """Do nothing after an update."""

    def get_last_lr(self) -> Any:
        """The rates as they are."""
        return self.schedule.get_last_lr()


class Records(TrainerCallback):
    """Turns what Trainer reports into records."""

    def __init__(self, trainer: UpdateTrainer) -> None:
        self.trainer, self.job = trainer, trainer.job
        self.lr = math.nan

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at loss and gradient before they reach the weights."""
        self.lr = self.job.schedule.get_last_lr()[0]
        if self.trainer.update.skip_if_nonfinite(self.trainer.grad_norm):
            self.trainer.model.zero_grad()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count what the fp16 scaler skipped."""
        self.job.state.status.skipped_by_scaler += self.trainer.accelerator.optimizer_step_was_skipped

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record a step, and say when to evaluate where Trainer, whose steps include an offset, does not know."""
        timeline, step = self.job.timeline, self.trainer.update.step
        self.trainer.emit(self.trainer.update.record(self.lr))
        if timeline.step_offset and isinstance(timeline.evaluate_every, int):
            control.should_evaluate = timeline.evaluation_due(step)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Record an evaluation, and stop where that was one too many without a better metric."""
        self.trainer.emit(self.trainer.evaluation)
        control.should_training_stop |= self.job.state.stops_early


def check_options(recipe: Recipe) -> None:
    """Refuse a `trainer` section that Trainer refuses, by a step of a tiny model: before data and weights are loaded.

    Raises:
        RecipeError: with Trainer's own words.
    """
    if not recipe.trainer or recipe.engine != "trainer":
        return
    device = join().device
    precision = choose(recipe.train.precision, device, recipe.where("train.precision"))
    with tempfile.TemporaryDirectory(prefix="hfpipe-trainer-") as scratch, _refused_options(recipe):
        args = _arguments(recipe, device, precision, scratch, max_steps=1, every="never")
        trainer = Trainer(_tiny_model(), args, train_dataset=[{"input_ids": [1, 2], "labels": 0}])
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _tiny_model() -> BertForSequenceClassification:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=8, max_position_embeddings=8, **sizes))


@contextmanager
def _refused_options(recipe: Recipe) -> Iterator[None]:
    """What Trainer and TrainingArguments refuse in a block is a mistake in the `trainer` section, where there is one."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        if not recipe.trainer:
            raise
        what = f"Trainer refused its options: {one_line(error)}"
        raise RecipeError(what, where=recipe.where("trainer")) from error


def training_arguments(job: Job, folder: str) -> TrainingArguments:
    """The TrainingArguments of a job: hfpipe's own fields, and the recipe's `trainer` section."""
    timeline = job.timeline
    max_steps = timeline.num_steps + timeline.step_offset
    return _arguments(job.recipe, job.device, job.precision, folder, max_steps=max_steps, every=timeline.evaluate_every)


def _arguments(
    recipe: Recipe, device: torch.device, precision: Precision, folder: str, *, max_steps: int, every: str | int
) -> TrainingArguments:
    return TrainingArguments(
        # Asked for bf16 on a CPU, TrainingArguments looks for a GPU unless that is ruled out.
        **{"use_cpu": device.type == "cpu", "report_to": "none", **recipe.trainer},
        output_dir=folder,
        seed=recipe.seed,
        max_steps=max_steps,
        per_device_train_batch_size=recipe.train.batch_size,
        per_device_eval_batch_size=recipe.evaluate.batch_size,
        gradient_accumulation_steps=recipe.train.accumulate,
        max_grad_norm=recipe.train.max_grad_norm or math.inf,
        bf16=precision.name == "bf16",
        fp16=precision.name == "fp16",
        average_tokens_across_devices=False,  # parts/optim/reduction.py undoes the averaging over processes itself
        dataloader_num_workers=recipe.train.workers,
        eval_strategy={"epoch": "epoch", "never": "no"}.get(str(every), "steps"),
        eval_steps=every if isinstance(every, int) else None,
        metric_for_best_model=recipe.evaluate.best or "loss",
        save_strategy="no",  # hfpipe saves, without a pickle
        logging_strategy="no",  # `Records` does it, without asking the device for every number by itself
        logging_nan_inf_filter=False,  # it would wait for the device to look at every loss
        disable_tqdm=True,
        remove_unused_columns=False,  # nothing unused is left after tokenizing
    )

"""prepare(recipe) -> Job: the only place where the parts meet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import torch
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfpipe.errors import RecipeError
from hfpipe.evaluation.document import dataset_identity, slices_of
from hfpipe.parts.build import (
    GivenMetric,
    check_parts,
    load_metrics,
    make_objective,
    make_optimizer,
    make_schedule,
    try_metrics,
)
from hfpipe.parts.data.streams import RawStream
from hfpipe.parts.inputs.audit import audit
from hfpipe.parts.inputs.batch_plan import BatchPlan, partial_epoch_of, plan_for
from hfpipe.parts.inputs.batches import Collate, TrainLoader, train_loader
from hfpipe.parts.inputs.buckets import padding_multiple
from hfpipe.parts.inputs.rows import Say, read_rows
from hfpipe.parts.inputs.streams import StreamLoader
from hfpipe.parts.metrics.metrics import greater_is_better
from hfpipe.parts.model import kernels, models
from hfpipe.parts.model.compiling import compile_in_place
from hfpipe.parts.model.precision import choose
from hfpipe.parts.optim.reduction import effective_rate
from hfpipe.parts.tasks import calibration
from hfpipe.recipe.catalog import is_metric_script, near
from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.source import to_yaml
from hfpipe.system.processes import join
from hfpipe.training.job import Job
from hfpipe.training.timeline import Timeline


def prepare(
    recipe: Recipe,
    *,
    say: Say = lambda text: None,
    batch_plans: Sequence[BatchPlan] = (),
    dataset: Mapping[str, datasets.Dataset] | datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    collate: Collate | None = None,
    model: PreTrainedModel | None = None,
    loss: Callable[..., torch.Tensor] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    schedule: Callable[..., Any] | None = None,
    metrics: Callable[..., dict[str, float]] | None = None,
) -> Job:
    """Build everything that the recipe names and check it, before any accelerator memory is taken.

    Args:
        recipe: what to fine-tune and how.
        say: is told each stage in words.
        batch_plans: how rows became updates so far and do from now on, where a run goes on; by default as the recipe says.
        dataset: raw splits by name, or a training split alone, in place of `recipe.dataset.path`.
        tokenizer: in place of the checkpoint's.
        collate: makes a batch from encoded rows, in place of DataCollatorWithPadding.
        model: in place of the checkpoint.
        loss: `(logits, targets, **arguments) -> [items]`.
        optimizer: `(parameter_groups, lr=..., **arguments) -> Optimizer`.
        schedule: `(optimizer, num_steps) -> scheduler`.
        metrics: `(predictions, references) -> {name: number}`.

    Raises:
        HfpipeError: whatever is wrong, with its place in the recipe.
    """
    check_parts(recipe)
    state = join()
    precision = choose(recipe.train.precision, state.device, recipe.where("train.precision"))
    rows = read_rows(recipe, say=say, dataset=dataset, tokenizer=tokenizer)
    looked_at = audit(recipe, rows)
    task, tokenizer, checkpoint = rows.task, rows.tokenizer, rows.checkpoint
    notices = [*rows.notices, *looked_at.notices]
    names = [metric if isinstance(metric, str) else metric["name"] for metric in recipe.evaluate.metrics]
    notices += [f"code that is not hfpipe's runs here: metric {name}" for name in names if is_metric_script(name)]

    say(f"loading {recipe.model.checkpoint}")
    set_seed(recipe.seed)
    fresh: list[str] = []
    if model is None:
        model, fresh = models.load_model(checkpoint, task, recipe.model.fresh, recipe.where("model.fresh"))
    else:
        models.check_outputs(model, task)
    if recipe.optimizer.lr == 0:
        notices.append("optimizer.lr is 0: no step changes the weights")
    if fresh:
        notices.append(f"freshly initialised from seed {recipe.seed}: {', '.join(fresh)}")
    calibration.forget(model.config)
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if told := kernels.install(model, recipe.train.kernels, state.device):
        notices.append(told)
    if recipe.train.compile:
        compile_in_place(model, state.device, recipe.where("train.compile"))

    splits = recipe.dataset.splits
    encoded = {split: one.data for split, one in rows.encoded.items()}
    train_data = encoded[splits.train]
    loader: TrainLoader | StreamLoader
    step_offset, batch_plans = 0, tuple(batch_plans) or (plan_for(recipe, state.num_processes),)
    padded_to = None
    if collate is None:
        padded_to = padding_multiple(state.device.type, rows.max_length, models.longest_input(checkpoint, tokenizer))
        collate = task.collator(tokenizer, padded_to)
    if isinstance(rows.source, RawStream):
        loader = StreamLoader(
            rows.source.stream(splits.train, recipe.where("dataset.splits.train")),
            recipe,
            task,
            tokenizer,
            rows.max_length,
            collate,
            rank=state.process_index,
            processes=state.num_processes,
            pin_memory=state.device.type == "cuda",
        )
    else:
        partial_epoch, step_offset = partial_epoch_of(train_data, batch_plans)
        loader = train_loader(
            train_data,
            collate,
            batch_size=recipe.train.batch_size,
            seed=recipe.seed,
            accumulate=recipe.train.accumulate,
            batching=recipe.train.batching,
            workers=recipe.train.workers,
            rank=state.process_index,
            processes=state.num_processes,
            partial_epoch=partial_epoch,
            pin_memory=state.device.type == "cuda",
        )
    steps_per_epoch = math.ceil(len(loader) / recipe.train.accumulate)
    num_steps = recipe.train.max_steps or math.ceil(recipe.train.epochs * steps_per_epoch) - step_offset
    if not isinstance(loader, StreamLoader) and recipe.train.batching.by == "examples":
        _tell_whole_epochs(recipe, len(loader), len(train_data), state.num_processes, notices)
    objective = make_objective(recipe, task, train_data, loss)
    built = make_optimizer(recipe, model, optimizer)
    _tell_double_division(
        recipe,
        built,
        min(recipe.train.batch_size * recipe.train.accumulate * state.num_processes, len(train_data)),
        notices,
    )
    job = Job(
        recipe=recipe,
        task=task,
        tokenizer=tokenizer,
        collate=collate,
        model=model,
        train_data=train_data,
        evaluation_data=encoded[splits.evaluation] if splits.evaluation else None,
        evaluation_rows=rows.raw[splits.evaluation] if splits.evaluation else None,
        others={
            split: (encoded[split], rows.raw[split])
            for split in (*splits.also, *([splits.calibration] if splits.calibration else []))
        },
        objective=objective,
        optimizer=built,
        schedule=make_schedule(recipe, built, schedule, num_steps),
        metrics=[("metrics", GivenMetric(metrics))] if metrics else load_metrics(recipe, task),
        precision=precision,
        device=state.device,
        loader=loader,
        timeline=Timeline(
            num_steps, steps_per_epoch, step_offset, recipe.evaluate.every if splits.evaluation else "never"
        ),
        fresh=fresh,
        identity={
            "dataset": {
                "path": recipe.dataset.path,
                "commit": rows.source.commit,
                "digest": rows.source.digest,
                "configured": dataset_identity(rows.source.digest, recipe),
            },
            "checkpoint": {
                "path": recipe.model.checkpoint,
                "commit": checkpoint.commit,
                "digest": checkpoint.weights_digest,
            },
            "tokenizer": {"digest": rows.tokenizer_digest},
            "recipe": {"digest": _digest(to_yaml(recipe))},
        },
        audit=looked_at,
        padded_to=padded_to,
        batch_plans=batch_plans,
        notices=tuple(notices),
    )
    _check_best(recipe, job)
    if recipe.evaluate.slices and job.evaluation_data is not None and job.evaluation_rows is not None:
        slices_of(
            recipe, str(splits.evaluation), job.evaluation_data, job.evaluation_rows
        )  # a mistake costs no training
    set_seed(recipe.seed)  # the fresh head took numbers from the stream that dropout uses
    return job


def _check_best(recipe: Recipe, job: Job) -> None:
    """Find a mistaken metric or `best` before the first step, on two made-up predictions.

    Raises:
        RecipeError: a metric that can't be computed here, or a `best` that no metric gives.
    """
    if job.evaluation_data is None:
        return
    names = ["loss", *try_metrics(recipe, job.metrics, job.task)]
    best = recipe.evaluate.best
    if best is not None and best not in names:
        raise RecipeError(
            f"no metric is called {best!r}{near(best, names)}",
            where=recipe.where("evaluate.best"),
            allowed=", ".join(names),
        )
    if best is not None and greater_is_better(best) is None and recipe.evaluate.greater_is_better is None:
        raise RecipeError(
            f"whether a greater {best!r} is better is not known",
            where=recipe.where("evaluate.best"),
            fix="Say evaluate.greater_is_better: true or false.",
        )


def _tell_whole_epochs(recipe: Recipe, batches: int, rows: int, processes: int, notices: list[str]) -> None:
    spec = recipe.train
    if spec.batch_size * processes > rows:
        notices.append(f"train.batch_size is {spec.batch_size}, and there are only {rows:,} training inputs")
    elif spec.accumulate > batches:
        notices.append(
            f"train.accumulate is {spec.accumulate}, and an epoch has {batches:,} batches: the effective batch is all "
            f"{rows:,} training inputs, not {spec.batch_size * spec.accumulate * processes:,}"
        )


def _tell_double_division(recipe: Recipe, optimizer: torch.optim.Optimizer, num_items: int, notices: list[str]) -> None:
    if recipe.loss.reduction == "mean" and getattr(optimizer, "divides_by_items", False):
        lr = recipe.optimizer.lr
        rate = effective_rate(lr, "mean", num_items, optimizer_divides=True)
        notices.append(
            f"divided twice: loss.reduction is mean, and {recipe.optimizer.name} divides by the items again, so that with "
            f"{num_items:,} items in an update optimizer.lr={lr:g} acts like {rate:.4g}; say loss.reduction=sum, or take an "
            "optimizer that does not divide"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

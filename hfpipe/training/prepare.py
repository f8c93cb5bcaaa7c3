"""prepare(recipe) -> Job: the only place where the parts meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import torch
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfpipe.evaluation.document import dataset_identity, slices_of
from hfpipe.parts.build import (
    check_parts,
    load_metrics,
    make_objective,
    make_optimizer,
    make_schedule,
    require_best,
    try_metrics,
)
from hfpipe.parts.data.streams import RawStream
from hfpipe.parts.inputs.audit import audit
from hfpipe.parts.inputs.batch_plan import BatchPlan, partial_epoch_of, plan_for
from hfpipe.parts.inputs.batches import Collate, TrainLoader, train_loader
from hfpipe.parts.inputs.buckets import padding_multiple
from hfpipe.parts.inputs.padding import Padding, check_collate, forget, settle_padding
from hfpipe.parts.inputs.rows import Notify, Rows, read_rows
from hfpipe.parts.inputs.streams import StreamLoader
from hfpipe.parts.metrics.functions import given_metric
from hfpipe.parts.model import kernels, models
from hfpipe.parts.model.compiling import compile_in_place
from hfpipe.parts.model.heads import compute_heads_in_fp32
from hfpipe.parts.model.precision import choose
from hfpipe.parts.optim.reduction import effective_rate
from hfpipe.parts.tasks import calibration
from hfpipe.parts.tasks.tokenizer import agree_on_padding
from hfpipe.recipe.catalog import is_metric_script
from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.source import to_yaml
from hfpipe.system.processes import join
from hfpipe.system.snapshot import digest_of_text
from hfpipe.training.engines.trainer import check_options
from hfpipe.training.job import Job
from hfpipe.training.timeline import Timeline


def prepare(
    recipe: Recipe,
    *,
    notice: Notify = lambda text: None,
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
        notice: is called with the name of each stage.
        batch_plans: how rows became updates so far and do from now on, where a run goes on; by default as the recipe says.
        dataset: raw splits by name, or a training split alone, in place of `recipe.dataset.path`.
        tokenizer: in place of the checkpoint's.
        collate: makes a batch from encoded rows, in place of DataCollatorWithPadding.
        model: in place of the checkpoint.
        loss: `(logits, targets, **arguments) -> [items]`.
        optimizer: `(parameter_groups, lr=..., **arguments) -> Optimizer`.
        schedule: `(optimizer, num_steps) -> scheduler`.
        metrics: `(predictions, references) -> {name: number}`, or Trainer's `compute_metrics(eval_pred) -> {name: number}`.

    Raises:
        HfpipeError: whatever is wrong, with its place in the recipe.
    """
    check_parts(recipe)
    state = join()
    precision = choose(recipe.train.precision, state.device, recipe.where("train.precision"))
    check_options(recipe)
    rows = read_rows(recipe, notice=notice, dataset=dataset, tokenizer=tokenizer)
    found = audit(recipe, rows)

    notice(f"loading {recipe.model.checkpoint}")
    set_seed(recipe.seed)
    model, fresh, model_notices = _make_model(recipe, rows, model, state.device)

    notice("trying whether padding changes answers")
    splits, train_data = recipe.dataset.splits, rows.encoded[recipe.dataset.splits.train].data
    padding = _settle_padding(recipe, rows, model, collate, state.device)
    collate = collate or rows.task.collator(rows.tokenizer, padding.multiple)
    plans = tuple(batch_plans) or (plan_for(recipe, state.num_processes),)
    loader, step_offset = _make_loader(recipe, rows, collate, plans)
    timeline = _make_timeline(recipe, loader, step_offset)
    built = make_optimizer(recipe, model, optimizer)
    notices = [
        *(*rows.notices, *found.notices, *_foreign_metrics(recipe), *model_notices),
        *([padding.notice] if padding.notice else []),
        *_size_notices(recipe, loader, len(train_data), state.num_processes),
        *_division_notices(recipe, built, len(train_data), state.num_processes),
    ]
    job = Job(
        recipe=recipe,
        task=rows.task,
        tokenizer=rows.tokenizer,
        collate=collate,
        model=model,
        train_data=train_data,
        evaluation_data=rows.encoded[splits.evaluation].data if splits.evaluation else None,
        evaluation_rows=rows.raw[splits.evaluation] if splits.evaluation else None,
        others=_other_splits(recipe, rows),
        places=rows.places,
        objective=make_objective(recipe, rows.task, train_data, loss),
        optimizer=built,
        schedule=make_schedule(recipe, built, schedule, timeline.num_steps),
        metrics=[("metrics", given_metric(metrics, "metrics"))] if metrics else load_metrics(recipe, rows.task),
        precision=precision,
        device=state.device,
        loader=loader,
        timeline=timeline,
        fresh=fresh,
        identity=_identity(recipe, rows),
        audit=found,
        padded_to=padding.multiple,
        batch_plans=plans,
        notices=tuple(notices),
    )
    _check_evaluation(recipe, job)
    set_seed(recipe.seed)  # the fresh head took numbers from the stream that dropout uses
    return job


def _make_model(
    recipe: Recipe, rows: Rows, given: PreTrainedModel | None, device: torch.device
) -> tuple[PreTrainedModel, list[str], list[str]]:
    """The model as the recipe wants it, the names of its fresh weights, and what a user should know of it."""
    fresh: list[str] = []
    if given is None:
        model, fresh = models.load_model(rows.checkpoint, rows.task, recipe.model.fresh, recipe.where("model.fresh"))
    else:
        model = given
        models.check_outputs(model, rows.task)
    notices = []
    if given is not None:
        compute_heads_in_fp32(model)
        padded = agree_on_padding(rows.tokenizer, model.config, "the given model", recipe.where("model"))
        notices += [padded] if padded else []
    if recipe.optimizer.lr == 0:
        notices.append("optimizer.lr is 0: no step changes the weights")
    if fresh:
        notices.append(f"freshly initialised from seed {recipe.seed}: {', '.join(fresh)}")
    calibration.forget(model.config)
    forget(model.config)
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if notice := kernels.install(model, recipe.train.kernels, device):
        notices.append(notice)
    return model, fresh, notices


def _settle_padding(
    recipe: Recipe, rows: Rows, model: PreTrainedModel, collate: Collate | None, device: torch.device
) -> Padding:
    """How batches are padded, found by trying it on the model, which is compiled afterwards."""
    encoded, where = rows.encoded[recipe.dataset.splits.train].data, recipe.where("model.checkpoint")
    if collate is not None:
        found = check_collate(model, rows.task, collate, encoded, where)
    else:
        longest = models.longest_input(rows.checkpoint, rows.tokenizer, rows.max_length)
        multiple = padding_multiple(device.type, rows.max_length, longest)
        arguments = (model, rows.task, rows.tokenizer, encoded, rows.max_length)
        found = settle_padding(*arguments, multiple=multiple, where=where)
    if recipe.train.compile:
        compile_in_place(model, device, recipe.where("train.compile"))
    return found


def _make_loader(
    recipe: Recipe, rows: Rows, collate: Collate, plans: tuple[BatchPlan, ...]
) -> tuple[TrainLoader | StreamLoader, int]:
    """The loader of this process's micro-batches, and what is added to a step for its position in their order."""
    state = join()
    processes = {"rank": state.process_index, "processes": state.num_processes}
    pin_memory = state.device.type == "cuda"
    if isinstance(rows.source, RawStream):
        split = recipe.dataset.splits.train
        stream = rows.source.stream(split, recipe.where("dataset.splits.train"))
        arguments = (stream, recipe, rows.task, rows.tokenizer, rows.max_length, collate)
        return StreamLoader(*arguments, **processes, pin_memory=pin_memory), 0
    train_data = rows.encoded[recipe.dataset.splits.train].data
    partial_epoch, step_offset = partial_epoch_of(train_data, plans, rows.task.lengths)
    loader = train_loader(
        train_data,
        collate,
        batch_size=recipe.train.batch_size,
        seed=recipe.seed,
        accumulate=recipe.train.accumulate,
        batching=recipe.train.batching,
        workers=recipe.train.workers,
        partial_epoch=partial_epoch,
        pin_memory=pin_memory,
        lengths=rows.task.lengths,
        **processes,
    )
    return loader, step_offset


def _other_splits(recipe: Recipe, rows: Rows) -> dict[str, tuple[datasets.Dataset, datasets.Dataset]]:
    """The encoded and raw rows of the splits that are measured or calibrated on beside the evaluation split."""
    splits = recipe.dataset.splits
    named = (*splits.also, *([splits.calibration] if splits.calibration else []))
    return {split: (rows.encoded[split].data, rows.raw[split]) for split in named}


def _make_timeline(recipe: Recipe, loader: TrainLoader | StreamLoader, step_offset: int) -> Timeline:
    steps_per_epoch = math.ceil(len(loader) / recipe.train.accumulate)
    num_steps = recipe.train.max_steps or math.ceil(recipe.train.epochs * steps_per_epoch) - step_offset
    evaluates = recipe.dataset.splits.evaluation is not None
    return Timeline(num_steps, steps_per_epoch, step_offset, recipe.evaluate.every if evaluates else "never")


def _identity(recipe: Recipe, rows: Rows) -> dict[str, Any]:
    """What the job is made of, as hashes."""
    source, checkpoint = rows.source, rows.checkpoint
    return {
        "dataset": {
            "path": recipe.dataset.path,
            "commit": source.commit,
            "digest": source.digest,
            "configured": dataset_identity(source.digest, recipe),
        },
        "checkpoint": {
            "path": recipe.model.checkpoint,
            "commit": checkpoint.commit,
            "digest": checkpoint.weights_digest,
        },
        "tokenizer": {"digest": rows.tokenizer_digest},
        "recipe": {"digest": digest_of_text(to_yaml(recipe))},
    }


def _foreign_metrics(recipe: Recipe) -> list[str]:
    names = [metric if isinstance(metric, str) else metric["name"] for metric in recipe.evaluate.metrics]
    return [f"code that is not hfpipe's runs here: metric {name}" for name in names if is_metric_script(name)]


def _check_evaluation(recipe: Recipe, job: Job) -> None:
    """Find a mistaken slice, metric or `best` before the first step, on dummy predictions of every class.

    Raises:
        RecipeError: a metric that can't be computed here, or a `best` that no metric gives.
    """
    if job.evaluation_data is None or job.evaluation_rows is None:
        return
    require_best(recipe, ["loss", *try_metrics(recipe, job.metrics, job.task)])
    if recipe.evaluate.slices:
        slices_of(recipe, job.task, str(recipe.dataset.splits.evaluation), job.evaluation_data, job.evaluation_rows)


def _size_notices(recipe: Recipe, loader: TrainLoader | StreamLoader, rows: int, processes: int) -> list[str]:
    """What a user should know where an update is wider than the data."""
    spec = recipe.train
    if isinstance(loader, StreamLoader) or spec.batching.by != "examples":
        return []
    if spec.batch_size * processes > rows:
        return [f"train.batch_size is {spec.batch_size}, and there are only {rows:,} training inputs"]
    if spec.accumulate > len(loader):
        return [
            f"train.accumulate is {spec.accumulate}, and an epoch has {len(loader):,} batches: the effective batch is all "
            f"{rows:,} training inputs, not {spec.batch_size * spec.accumulate * processes:,}"
        ]
    return []


def _division_notices(recipe: Recipe, optimizer: torch.optim.Optimizer, rows: int, processes: int) -> list[str]:
    """What a user should know where the mean loss meets an optimizer that divides by the items again."""
    if recipe.loss.reduction != "mean" or not getattr(optimizer, "divides_by_items", False):
        return []
    num_items = min(recipe.train.batch_size * recipe.train.accumulate * processes, rows)
    lr = recipe.optimizer.lr
    rate = effective_rate(lr, "mean", num_items, optimizer_divides=True)
    return [
        f"divided twice: loss.reduction is mean, and {recipe.optimizer.name} divides by the items again, so that with "
        f"{num_items:,} items in an update optimizer.lr={lr:g} acts like {rate:.4g}; say loss.reduction=sum, or take an "
        "optimizer that does not divide"
    ]

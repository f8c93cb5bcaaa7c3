"""prepare(recipe) -> Job: the only place where the parts meet."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.utils import set_seed
from torch import nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hfpipe.errors import RecipeError
from hfpipe.evaluation.slices import slices_of
from hfpipe.parts.build import (
    check_parts,
    load_metrics,
    make_objective,
    make_optimizer,
    make_schedule,
    own_collate,
    require_best,
    try_metrics,
)
from hfpipe.parts.data.open import dataset_identity
from hfpipe.parts.data.streams import RawStream
from hfpipe.parts.inputs.audit import audit
from hfpipe.parts.inputs.batch_plan import BatchPlan, partial_epoch_of, plan_for
from hfpipe.parts.inputs.batches import Collate, Examples, TrainLoader, train_loader
from hfpipe.parts.inputs.buckets import padding_multiple
from hfpipe.parts.inputs.padding import Padding, check_collate, forget, settle_padding
from hfpipe.parts.inputs.rows import Notify, Rows, read_rows
from hfpipe.parts.inputs.streams import StreamLoader
from hfpipe.parts.model import kernels, models, own_class
from hfpipe.parts.model.compiling import compile_in_place
from hfpipe.parts.model.heads import compute_heads_in_fp32
from hfpipe.parts.model.precision import choose
from hfpipe.parts.optim.reduction import effective_rate
from hfpipe.parts.tasks import calibration
from hfpipe.recipe.catalog import is_metric_script
from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.source import to_yaml
from hfpipe.runs.arguments import checked
from hfpipe.runs.given_parts import require_parts
from hfpipe.runs.targets import as_recipe
from hfpipe.system.processes import join
from hfpipe.system.snapshot import digest_of_text
from hfpipe.system.text import listed
from hfpipe.training.engines.trainer import check_options
from hfpipe.training.job import Job
from hfpipe.training.timeline import Timeline

_TRIED = 4  # rows that a given model is tried on


@checked
def prepare(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    notice: Notify = lambda text: None,
    batch_plans: Sequence[BatchPlan] = (),
    dataset: Mapping[str, datasets.Dataset] | datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    collate: Collate | None = None,
    model: nn.Module | None = None,
    loss: Callable[..., torch.Tensor] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    schedule: Callable[..., Any] | None = None,
    metrics: Any = None,
) -> Job:
    """Build everything that the recipe names and check it, before any accelerator memory is taken.

    Args:
        recipe: what to fine-tune and how; a recipe, or what `load_recipe` takes.
        notice: is called with the name of each stage.
        batch_plans: how rows became updates so far and do from now on, where a run goes on; by default as the recipe says.
        dataset: raw splits by name, or a training split alone, in place of `recipe.dataset.path`.
        tokenizer: in place of the checkpoint's.
        collate: makes a batch from encoded rows, in place of padding them.
        model: in place of the checkpoint: a model of transformers or any module whose forward takes a batch by name, and
            returns logits or something with `.logits`. It is trained in place.
        loss: `(logits, targets, **arguments) -> [items]`.
        optimizer: `(parameter_groups, lr=..., **arguments) -> Optimizer`.
        schedule: `(optimizer, num_steps) -> scheduler`.
        metrics: a function `(predictions, references) -> {name: number}` or Trainer's `compute_metrics(eval_pred)`, a class
            or an object with `compute`, or a list of those and of names.

    Raises:
        HfpipeError: whatever is wrong, with its place in the recipe.
    """
    recipe = as_recipe(recipe, ())
    functions = {"collate": collate, "loss": loss, "optimizer": optimizer, "schedule": schedule}
    require_parts({**functions, "model": model, "tokenizer": tokenizer, "metrics": metrics}, prepare)
    check_parts(recipe)
    state = join()
    precision = choose(recipe.train.precision, state.device, recipe.where("train.precision"))
    check_options(recipe)
    rows = read_rows(recipe, notice=notice, dataset=dataset, tokenizer=tokenizer, model=model)
    found = audit(recipe, rows)

    notice(f"loading {recipe.model.checkpoint}")
    splits, train_data = recipe.dataset.splits, rows.encoded[recipe.dataset.splits.train].data
    collate = own_collate(recipe, collate)
    built = _make_model(recipe, rows, model, collate, state.device)
    model = built.model
    notice("trying whether padding changes answers")
    padding = _settle_padding(recipe, rows, model, collate, state.device)
    collate = collate or rows.task.collator(rows.tokenizer, padding.multiple)
    plans = tuple(batch_plans) or (plan_for(recipe, state.num_processes),)
    loader, step_offset = _make_loader(recipe, rows, collate, plans)
    timeline = _make_timeline(recipe, loader, step_offset)
    updater = make_optimizer(recipe, model, optimizer)
    notices = [
        *(*rows.notices, *found.notices, *_foreign_metrics(recipe), *built.notices),
        *([padding.notice] if padding.notice else []),
        *_size_notices(recipe, loader, len(train_data), state.num_processes),
        *_division_notices(recipe, updater, len(train_data), state.num_processes),
    ]
    job = Job(
        recipe=recipe,
        task=rows.task,
        tokenizer=rows.tokenizer,
        collate=collate,
        model=model,
        config=built.config,
        train_data=train_data,
        evaluation_data=rows.encoded[splits.evaluation].data if splits.evaluation else None,
        evaluation_rows=rows.raw[splits.evaluation] if splits.evaluation else None,
        others=_other_splits(recipe, rows),
        places=rows.places,
        objective=make_objective(recipe, rows.task, train_data, loss),
        optimizer=updater,
        schedule=make_schedule(recipe, updater, schedule, timeline.num_steps),
        metrics=load_metrics(recipe, rows.task, given=metrics),
        precision=precision,
        device=state.device,
        loader=loader,
        timeline=timeline,
        fresh=built.fresh,
        identity=_identity(recipe, rows) | built.identity,
        audit=found,
        padded_to=padding.multiple,
        batch_plans=plans,
        notices=tuple(notices),
        restorable=(*built.restorable, *(["tokenizer"] if tokenizer and _reloads(rows.tokenizer) else [])),
    )
    _check_evaluation(recipe, job)
    set_seed(recipe.seed)  # the fresh head took numbers from the stream that dropout uses
    return job


@dataclass
class _Built:
    """The model of a job, and what is known of it."""

    model: nn.Module
    config: PretrainedConfig
    fresh: list[str]
    notices: list[str]
    restorable: list[str] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)


def _make_model(
    recipe: Recipe, rows: Rows, given: nn.Module | None, collate: Collate | None, device: torch.device
) -> _Built:
    """The model as the recipe wants it, and what a user should know of it."""
    set_seed(recipe.seed)
    if given is None:
        made, fresh = models.load_model(rows.checkpoint, rows.task, recipe.model.fresh, recipe.where("model.fresh"))
        config = _config_of(made, rows)
        own_class.mark(config, made)
        built = _Built(made, config, fresh, [])
    else:
        built = _take_model(recipe, rows, given, collate)
    model, notices = built.model, built.notices
    if recipe.optimizer.lr == 0:
        notices.append("optimizer.lr is 0: no step changes the weights")
    if built.fresh:
        notices.append(f"freshly initialised from seed {recipe.seed}: {listed(built.fresh, 8)}")
    calibration.forget(built.config)
    forget(built.config)
    if recipe.train.gradient_checkpointing:
        if not isinstance(model, PreTrainedModel):
            raise RecipeError(
                f"{own_class.class_name(model)} is no model of transformers, and knows no gradient checkpointing",
                where=recipe.where("train.gradient_checkpointing"),
                fix="Leave it out.",
            )
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if notice := kernels.install(model, recipe.train.kernels, device):
        notices.append(notice)
    return built


def _settle_padding(
    recipe: Recipe, rows: Rows, model: nn.Module, collate: Collate | None, device: torch.device
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


def _take_model(recipe: Recipe, rows: Rows, model: nn.Module, collate: Collate | None) -> _Built:
    """A given model: tried on a few rows, named after the data's classes, and whether its class gives it back."""
    examples = Examples(rows.encoded[recipe.dataset.splits.train].data)
    collate = collate or rows.task.collator(rows.tokenizer)
    batch = collate(examples.__getitems__(range(min(_TRIED, len(examples)))))
    came_in = own_class.train_in_fp32(model)
    own_class.own_memory(model)
    own_class.require_answers(model, rows.task, batch)
    before = dict(model.config.id2label or {}) if isinstance(model, PreTrainedModel) else {}
    config = _config_of(model, rows)
    problem = own_class.rebuild_problem(model, config, rows.checkpoint.architecture, rows.task, batch)
    own_class.mark(config, model, rebuilds=not problem)
    compute_heads_in_fp32(model)
    notices = []
    if came_in:
        notices.append(
            f"the given model came in {came_in}, in which most steps are too small to change a weight: its weights are "
            "held in float32 from now on, and it computes in train.precision"
        )
    if _is_renamed(list(before.values()), rows.task.names):
        notices.append(f"the given model's classes {list(before.values())} are {list(rows.task.names)}, as in the data")
    if problem:
        notices.append(
            f"the given model can't be had again from its class {own_class.class_name(model)} ({problem}): to evaluate, "
            "predict, resume or share this run, pass model=... again"
        )
    return _Built(
        model,
        config,
        [],
        notices,
        restorable=[] if problem else ["model"],
        identity={"model": {"digest": own_class.weights_digest(model)}},
    )


def _config_of(model: nn.Module, rows: Rows) -> PretrainedConfig:
    vocabulary = getattr(rows.checkpoint.config, "vocab_size", None)
    return own_class.fit_config(model, rows.task, rows.max_length, vocabulary)


def _is_renamed(before: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a model had other names for its classes than the data have, and not just LABEL_0, LABEL_1."""
    unnamed = [f"LABEL_{index}" for index in range(len(before))]
    return bool(before and names) and list(before) not in (unnamed, list(names))


def _reloads(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer that is saved is loaded again as the same one."""
    with tempfile.TemporaryDirectory(prefix="hfpipe-tokenizer-") as folder:
        try:
            models.save_tokenizer(tokenizer, Path(folder))
            again = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (ValueError, OSError, KeyError, TypeError, AttributeError, ImportError):
            return False
    return models.tokenizer_digest(again) == models.tokenizer_digest(tokenizer)


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

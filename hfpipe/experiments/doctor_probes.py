"""What `hfpipe doctor RECIPE` measures, on a few rows of the recipe's data with its checkpoint and objective."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import datasets
import pyarrow.compute as pc
import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from hfpipe.parts import tasks
from hfpipe.parts.build import load_metrics, require_best, try_metrics
from hfpipe.parts.data import columns
from hfpipe.parts.data.open import RawData, open_data
from hfpipe.parts.data.streams import RawStream, open_stream
from hfpipe.parts.inputs.batches import Collate, Examples, train_loader
from hfpipe.parts.inputs.padding import check_collate
from hfpipe.parts.model.precision import Precision
from hfpipe.parts.optim.losses import class_weights
from hfpipe.parts.optim.schedules import PLATEAU
from hfpipe.recipe import Recipe, with_overrides
from hfpipe.recipe.catalog import ENGINES
from hfpipe.system.text import one_line
from hfpipe.training.engines import loop, trainer
from hfpipe.training.job import Job
from hfpipe.training.job_state import JobState
from hfpipe.training.prepare import prepare
from hfpipe.training.scale_check import TOLERANCE, check_scale, dropout_off, few_examples
from hfpipe.training.timeline import Timeline

ROWS = 32  # of the training split, its first; everything here is measured on these
STEPS = 3  # of each engine, when the two are compared
UNKNOWN_SHARE = 0.1  # of the tokens; above, the tokenizer does not know the language of the data
VOCABULARY_SHARE = 0.9  # of the embedding rows; padded embeddings have some rows too many, not a tenth

Found = tuple[str, bool, str, int]
"""name, ok, detail, and the exit code when it is not ok."""
_CHECKPOINT, _NUMBERS = 4, 6
BOTH_ENGINES = {"trainer": trainer.train, "loop": loop.train}


def measure_all(recipe: Recipe) -> Iterator[Found]:
    """Build the job of a small slice of the data and measure it, one finding after the other.

    Raises:
        HfpipeError: what keeps the job from being built.
    """
    small, data, task = _slice(recipe)
    if recipe.dataset.splits.evaluation is not None:
        require_best(recipe, ["loss", *try_metrics(recipe, load_metrics(recipe, task), task)])
    job = prepare(small, dataset=data)
    weights = sum(parameter.numel() for parameter in job.model.parameters())
    fresh = f"; freshly initialised: {', '.join(job.fresh)}" if job.fresh else ""
    yield "checkpoint", True, f"{recipe.model.checkpoint}: {type(job.model).__name__}, {weights:,} weights{fresh}", 0
    yield "device", True, f"{job.device}, {job.precision.name}: {job.precision.why}", 0
    yield _tokenizer(job)
    yield _padding(job)
    cut = _cut(job, recipe.train.accumulate)
    yield _scale(job, *cut)
    yield _stock(job, *cut)
    first = _three_steps(BOTH_ENGINES["trainer"], job)
    del job  # one in memory at a time: that of the other engine comes next
    yield _agreement(small, data, first, own=recipe.engine if recipe.engine not in ENGINES else None)


def _slice(recipe: Recipe) -> tuple[Recipe, dict[str, datasets.Dataset], tasks.Task]:
    """The recipe of three small steps, the rows for them, and the task with the classes of the whole split."""
    where = recipe.where("dataset.splits.train")
    raw: RawData | RawStream
    if recipe.dataset.streaming:
        raw = open_stream(recipe)
        whole = raw.head(recipe.dataset.splits.train, where)
    else:
        raw = open_data(recipe)
        whole = raw.split(recipe.dataset.splits.train, where)
    task = tasks.make_task(recipe.task, whole, raw.name, recipe.where("task"))
    rows = whole.select(range(min(ROWS, len(whole))))
    changes = [
        f"train.batch_size={min(recipe.train.batch_size, 4)}",
        f"train.accumulate={min(recipe.train.accumulate, 2)}",
        f"train.max_steps={STEPS}",
        "train.workers=0",
        "dataset.splits={train: train, evaluation: null}",
        "evaluate.every=never",
        "evaluate.best=null",
    ]
    if recipe.schedule.name == PLATEAU:  # nothing is evaluated here
        changes.append("schedule={name: constant}")
    if recipe.dataset.streaming:
        changes += ["dataset.streaming=false", "dataset.shuffle_buffer=10000"]
    changes += tasks.pinned(recipe.task, task)
    if recipe.loss.class_weights is not None and recipe.loss.counts_classes:
        weights = class_weights(recipe.loss.class_weights, tasks.class_counts(recipe.task, task, whole))
        changes.append(f"loss.class_weights={weights.tolist()}")
    return with_overrides(recipe, changes), {"train": rows}, task


def _tokenizer(job: Job) -> Found:
    """Whether the tokenizer can be the one that the checkpoint was trained with."""
    tokenizer = job.tokenizer
    embeddings = (
        job.model.get_input_embeddings().weight.shape[0] if isinstance(job.model, PreTrainedModel) else len(tokenizer)
    )
    ids = columns.column(job.train_data, "input_ids")
    while columns.is_list(ids.type):  # of several choices a row has several lists
        ids = pc.list_flatten(ids)
    tokens = ids.to_pylist()
    special = set(tokenizer.all_special_ids)
    words = [token for token in tokens if token not in special - {tokenizer.unk_token_id}]
    unknown = words.count(tokenizer.unk_token_id) / max(len(words), 1) if tokenizer.unk_token_id is not None else 0.0
    outside = sorted(token for token in special | set(tokens) if not 0 <= token < embeddings)
    problems = []
    if len(tokenizer) > embeddings or len(tokenizer) < VOCABULARY_SHARE * embeddings:
        problems.append(
            f"it has {len(tokenizer):,} entries for {embeddings:,} embeddings, so it belongs to another checkpoint"
        )
    if outside:
        problems.append(f"its ids {', '.join(map(str, outside[:5]))} are outside the {embeddings:,} embeddings")
    if unknown > UNKNOWN_SHARE:
        problems.append(f"{unknown:.1%} of the tokens of the data are {tokenizer.unk_token}")
    if problems:
        return "tokenizer", False, f"{type(tokenizer).__name__}: {'; '.join(problems)}", _CHECKPOINT
    fit = f"{len(tokenizer):,} entries for {embeddings:,} embeddings, special tokens within"
    return "tokenizer", True, f"{fit}, {unknown:.1%} of {len(words):,} tokens are unknown", 0


def _padding(job: Job) -> Found:
    """How far the answers of two rows together are from those alone; a job whose padding changes them is not built."""
    found = check_collate(job.model, job.task, job.collate, job.train_data)
    side = f"batches are padded on the {job.tokenizer.padding_side} with {job.tokenizer.pad_token!r}"
    if found.difference is None:
        return "padding", True, f"{side}; all rows are of one length", 0
    return (
        "padding",
        True,
        f"{side}: two rows alone and together differ by {found.difference:.1e}, which is rounding",
        0,
    )


def _scale(job: Job, rows: datasets.Dataset, batch_size: int, accumulate: int) -> Found:
    """Whether one update has one gradient, however it is cut: by the definition, and through both engines."""
    name = "loss scale"
    measured = check_scale(job)
    if measured is None:
        return name, True, "one example is no update that could be cut", 0
    if not measured.ok:
        return name, False, str(measured.error()), _NUMBERS
    ratios = {}
    for engine, train in BOTH_ENGINES.items():
        whole, cut = (
            _first_gradient(train, job, rows, size, count) for size, count in ((len(rows), 1), (batch_size, accumulate))
        )
        ratios[engine] = cut / whole if whole else math.nan if cut else 1.0
    each = ", ".join(f"{ratio:.6f} ({engine})" for engine, ratio in ratios.items())
    shapes = f"{len(rows)} examples as {batch_size}x{accumulate} and as {len(rows)}x1"
    if all(abs(ratio - 1) <= measured.allowed for ratio in ratios.values()):
        return name, True, f"independent of accumulation: the gradients of {shapes} have the ratio {each}", 0
    return name, False, f"depends on accumulation: the gradients of {shapes} have the ratio {each}, not 1", _NUMBERS


def _stock(job: Job, rows: datasets.Dataset, batch_size: int, accumulate: int) -> Found:
    """What a bare transformers.Trainer does with the same examples and the head's own loss."""
    name = "stock Trainer"
    if accumulate < 2:
        return name, True, "one example is no update that could be cut", 0
    try:
        whole, cut = _stock_step(job, rows, len(rows), 1), _stock_step(job, rows, batch_size, accumulate)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return name, True, f"can't train this head: {one_line(error, 200)}", 0
    ratio = cut["grad_norm"] / whole["grad_norm"] if whole["grad_norm"] else math.nan
    at = f"at accumulation {accumulate}"
    if abs(ratio - 1) <= TOLERANCE:
        return name, True, f"is correct here too: gradient ratio {ratio:.3f} {at}", 0
    losses = f"loss {whole['loss']:.3f} as {len(rows)}x1, {cut['loss']:.3f} as {batch_size}x{accumulate}"
    if _is_of_spans(job):
        return (
            name,
            True,
            f"its gradient depends on the padding, which its head takes for positions ({losses}); hfpipe's does not",
            0,
        )
    verb = "inflated" if ratio > 1 else "changed"
    return name, True, f"its gradient would be {verb} {ratio:.3f} times {at} ({losses}); hfpipe's is not", 0


def _cut(job: Job, accumulate: int) -> tuple[datasets.Dataset, int, int]:
    """A few rows, and the batch size and accumulation that make one update of them: the recipe's own, or 4."""
    accumulate = accumulate if 2 <= accumulate <= 4 else 4
    rows = few_examples(job, 2 * accumulate)
    accumulate = min(accumulate, len(rows))
    batch_size = len(rows) // accumulate
    return rows.select(range(batch_size * accumulate)), batch_size, accumulate


def _first_gradient(
    train: Callable[..., None], job: Job, rows: datasets.Dataset, batch_size: int, accumulate: int
) -> float:
    """The norm of an engine's first gradient, without dropout and in fp32; the weights stay as they are."""
    changes = [f"train.batch_size={batch_size}", f"train.accumulate={accumulate}", "train.max_steps=1"]
    recipe = with_overrides(job.recipe, [*changes, "train.max_grad_norm=null", "train.gradient_checkpointing=false"])
    optimizer, schedule = _motionless(job.model)
    records: list[dict[str, Any]] = []
    probe = replace(
        job,
        recipe=recipe,
        train_data=rows,
        optimizer=optimizer,
        schedule=schedule,
        loader=train_loader(rows, job.collate, batch_size=batch_size, seed=recipe.seed),
        timeline=Timeline(num_steps=1, steps_per_epoch=1),
        precision=Precision("fp32", "for the measurement"),
        state=JobState(),
    )
    with dropout_off(job.model):
        train(probe, records.append)
    job.model.zero_grad()
    return float(records[0]["grad_norm"])


def _stock_step(job: Job, rows: datasets.Dataset, batch_size: int, accumulate: int) -> Mapping[str, float]:
    """What a bare Trainer logs of its first update: `loss` and `grad_norm`; the weights stay as they are."""
    with tempfile.TemporaryDirectory(prefix="hfpipe-stock-") as folder, dropout_off(job.model):
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulate,
            max_steps=1,
            max_grad_norm=math.inf,
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,  # the head finds the names it knows only in a batch
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs in one process would share out the micro-batches
        bare = Trainer(
            model=job.model,
            args=arguments,
            train_dataset=Examples(rows),
            data_collator=functools.partial(_with_positions, job.collate) if _is_of_spans(job) else job.collate,
            optimizers=_motionless(job.model),
        )
        bare.remove_callback(PrinterCallback)  # it prints to standard output
        bare.train()
        bare.accelerator.unwrap_model(job.model, keep_fp32_wrapper=False)
        bare.accelerator.free_memory()
    job.model.zero_grad()
    return next(entry for entry in bare.state.log_history if "grad_norm" in entry)


def _is_of_spans(job: Job) -> bool:
    return job.task.auto_model == "AutoModelForQuestionAnswering"


def _with_positions(collate: Collate, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch with starts and ends under the names by which transformers' heads for spans take them."""
    batch = dict(collate(examples))
    batch["start_positions"], batch["end_positions"] = batch.pop("labels").unbind(dim=1)
    return batch


def _motionless(model: torch.nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """An optimizer that takes its step with a rate of 0, so that nothing need be put back."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


@dataclass(frozen=True)
class _Outcome:
    """What three steps of an engine came to; the weights on the CPU."""

    losses: list[float]
    weights: dict[str, torch.Tensor]

    def difference(self, other: _Outcome) -> tuple[float, float]:
        """The largest absolute difference of the losses and of the weights."""
        losses = max(abs(a - b) for a, b in zip(self.losses, other.losses, strict=True))
        weights = max(
            float((value - other.weights[key]).abs().max()) for key, value in self.weights.items() if value.numel()
        )
        return losses, weights


def _agreement(recipe: Recipe, data: Mapping[str, datasets.Dataset], first: _Outcome, own: str | None) -> Found:
    """Whether the loop engine comes to what the trainer engine came to, dropout on, in the job's own precision."""
    name = "engines agree"
    second = _three_steps(BOTH_ENGINES["loop"], prepare(recipe, dataset=data))
    losses, weights = first.difference(second)
    mine = f"; {own} is your own engine, and was not looked at" if own else ""
    steps = f"trainer and loop, {len(first.losses)} steps with dropout"
    if losses == weights == 0:
        return name, True, f"{steps}: losses and weights are the same, bit for bit{mine}", 0
    gap = f"{steps}: losses differ by up to {losses:.1e}, weights by {weights:.1e}"
    # A device whose kernels add in a changing order does not repeat itself: ask how far it comes from itself.
    again_losses, again_weights = second.difference(_three_steps(BOTH_ENGINES["loop"], prepare(recipe, dataset=data)))
    itself = f"the loop engine repeated differs from itself by {again_losses:.1e} and {again_weights:.1e}"
    if losses <= 10 * again_losses and weights <= 10 * again_weights:
        return name, True, f"{gap}; that is this device: {itself}{mine}", 0
    return name, False, f"{gap}; {itself}{mine}", _NUMBERS


def _three_steps(train: Callable[..., None], job: Job) -> _Outcome:
    records: list[dict[str, Any]] = []
    train(job, records.append)
    losses = [record["loss"] for record in records if record["type"] == "step"]
    return _Outcome(losses, {key: value.detach().cpu().clone() for key, value in job.model.state_dict().items()})

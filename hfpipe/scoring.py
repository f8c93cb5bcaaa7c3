"""Measure a trained checkpoint on a split, with an interval around every figure."""

from __future__ import annotations

from typing import Any

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfpipe.errors import RecipeError
from hfpipe.evaluation import mean_loss_of, predict
from hfpipe.job import load_metrics, make_objective, try_metrics
from hfpipe.parts import models, tasks
from hfpipe.parts.data import RawData, open_data
from hfpipe.parts.intervals import bootstrap_intervals
from hfpipe.parts.metrics import compute_all
from hfpipe.parts.precision import choose
from hfpipe.parts.processes import join
from hfpipe.parts.sources import base_of
from hfpipe.parts.streams import RawStream, open_stream
from hfpipe.parts.tokenized import tokenize
from hfpipe.recipe.schema import Recipe
from hfpipe.rows import Say


def score(recipe: Recipe, split: str | None, say: Say) -> dict[str, Any]:
    """Evaluate `recipe.model.checkpoint` on a split of `recipe.dataset`.

    Args:
        recipe: with the checkpoint to measure in it.
        split: a split or slice of the data, or `train` or `evaluation` for those of the recipe.
        say: is told each stage.

    Returns:
        split, metrics, intervals, examples and examples_per_second, as in :class:`hfpipe.pipeline.Evaluation`.
    """
    roles = {
        "train": recipe.dataset.splits.train,
        "evaluation": recipe.dataset.splits.evaluation,
        None: recipe.dataset.splits.evaluation,
    }
    where = "--split" if split else recipe.where("dataset.splits.evaluation")
    name = roles.get(split) or split
    if name is None:
        raise RecipeError("the recipe has no evaluation split", where=where, fix="Say which one: --split NAME.")
    say(f"reading {recipe.dataset.path}")
    raw = open_stream(recipe) if recipe.dataset.streaming else open_data(recipe)
    rows = raw.split(name, where)
    say(f"loading {recipe.model.checkpoint}")
    checkpoint = models.open_checkpoint(recipe)
    task = _task_of(recipe, checkpoint, raw)
    task.check(rows, f"{raw.name}, split {name}", where)
    metrics = load_metrics(recipe, task)
    try_metrics(recipe, metrics, task)
    model, tokenizer = _load(recipe, checkpoint, task)
    encoded = _encode(recipe, checkpoint, task, rows, tokenizer, f"{raw.digest} {recipe.dataset.name} {name}")
    device = next(model.parameters()).device
    objective = make_objective(recipe, task, _weighed(recipe, checkpoint, raw, task, tokenizer))
    say("scoring")
    predictions = predict(
        model,
        task,
        encoded,
        task.collator(tokenizer),
        batch_size=recipe.evaluate.batch_size,
        precision=choose(recipe.train.precision, device, recipe.where("train.precision")),
        objective=objective,
    )
    decisions, right = task.decide(predictions.logits, encoded, rows)
    assert right is not None
    assert predictions.losses is not None
    assert predictions.weights is not None
    figures = {"loss": mean_loss_of(predictions), **compute_all(metrics, decisions, right)}
    intervals = bootstrap_intervals(
        metrics, decisions, right, predictions.losses, predictions.weights, seed=recipe.seed
    )
    return {
        "split": name,
        "metrics": figures,
        "intervals": {key: intervals.get(key) for key in figures},
        "examples": len(rows),
        "examples_per_second": len(rows) / predictions.seconds,
    }


def _load(
    recipe: Recipe, checkpoint: models.Checkpoint, task: tasks.Task
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The trained model, on its device, and its tokenizer."""
    model, tokenizer = models.load_trained(checkpoint, task, recipe.where("model.fresh"))
    return model.to(join().device), tokenizer


def _encode(
    recipe: Recipe,
    checkpoint: models.Checkpoint,
    task: tasks.Task,
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    identity: str,
    *,
    labelled: bool = True,
) -> datasets.Dataset:
    bound = models.longest_input(checkpoint, tokenizer) or recipe.model.max_length or 512
    length = min(bound, recipe.model.max_length or bound)
    identity = f"{identity} {models.tokenizer_digest(tokenizer)}"
    with join().main_process_first():
        return tokenize(
            task,
            rows,
            tokenizer,
            max_length=length,
            identity=identity,
            labelled=labelled,
            num_proc=recipe.dataset.num_proc,
        ).data


def _task_of(recipe: Recipe, checkpoint: models.Checkpoint, raw: RawData | RawStream) -> tasks.Task:
    """The classes as the recipe declares them, else as the checkpoint's head names them, else as the data do."""
    names = models.head_names(checkpoint)
    unnamed = all(name == f"LABEL_{index}" for index, name in enumerate(names))
    head = tasks.head_task(recipe.task, names)
    if recipe.task.names is None and not unnamed and head.names:
        return head
    looked_at = raw.head if isinstance(raw, RawStream) else raw.split
    rows = looked_at(_told_by(recipe, raw), recipe.where("dataset.splits.train"))
    return tasks.make_task(recipe.task, rows, raw.name, recipe.where("task"))


def _told_by(recipe: Recipe, raw: RawData | RawStream) -> str:
    """The split that says what the labels are: the training split, or in data to measure on alone one that is there."""
    splits = recipe.dataset.splits
    named = [split for split in (splits.train, splits.evaluation) if split and base_of(split) in raw.splits]
    return [*named, *raw.splits][0]


def _weighed(
    recipe: Recipe,
    checkpoint: models.Checkpoint,
    raw: RawData | RawStream,
    task: tasks.Task,
    tokenizer: PreTrainedTokenizerBase,
) -> datasets.Dataset | None:
    """The encoded training rows, where class weights are counted on them."""
    if recipe.loss.class_weights is None or isinstance(recipe.loss.class_weights, list):
        return None
    split = recipe.dataset.splits.train
    rows = raw.split(split, recipe.where("dataset.splits.train"))
    return _encode(recipe, checkpoint, task, rows, tokenizer, f"{raw.digest} {recipe.dataset.name} {split}")

"""Use a trained checkpoint: measure it on a split with an interval around every figure, or label rows with it."""

from __future__ import annotations

from typing import Any

import datasets
from scipy.special import softmax
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import EvalPrediction

from hfpipe.errors import ModelError, RecipeError
from hfpipe.evaluation import compute_metrics, decided, mean_loss_of, predict
from hfpipe.job import Say, load_metrics, make_objective
from hfpipe.parts import models, tasks
from hfpipe.parts.data import RawData, open_data
from hfpipe.parts.intervals import bootstrap_intervals
from hfpipe.parts.precision import choose
from hfpipe.parts.processes import join
from hfpipe.recipe.schema import Recipe


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
    raw = open_data(recipe)
    rows = raw.split(name, where)
    say(f"loading {recipe.model.checkpoint}")
    checkpoint = models.open_checkpoint(recipe)
    task = _task_of(recipe, checkpoint, raw)
    tasks.check_features_agree(task, rows, f"{raw.name}, split {name}", where)
    tasks.check_rows(task, rows, f"{raw.name}, split {name}", where)
    model, tokenizer = _load(recipe, checkpoint, task)
    identity = f"{raw.digest} {recipe.dataset.name} {name}"
    encoded = _encode(recipe, checkpoint, task, rows, tokenizer, identity, labelled=True)
    device = next(model.parameters()).device
    objective = make_objective(recipe, task, _train_labels(recipe, raw, task))
    say("scoring")
    predictions = predict(
        model,
        encoded,
        DataCollatorWithPadding(tokenizer),
        batch_size=recipe.evaluate.batch_size,
        precision=choose(recipe.train.precision, device, recipe.where("train.precision")),
        objective=objective,
    )
    metrics = load_metrics(recipe)
    figures: dict[str, float | None] = {"loss": mean_loss_of(predictions)}
    figures |= compute_metrics(task, metrics)(EvalPrediction(predictions.logits, predictions.labels))
    decisions = decided(predictions.logits, task)
    assert predictions.labels is not None
    assert predictions.losses is not None
    assert predictions.weights is not None
    intervals = bootstrap_intervals(
        metrics, decisions, predictions.labels, predictions.losses, predictions.weights, seed=recipe.seed
    )
    return {
        "split": name,
        "metrics": figures,
        "intervals": {key: intervals.get(key) for key in figures},
        "examples": len(rows),
        "examples_per_second": len(rows) / predictions.seconds,
    }


def label(recipe: Recipe, say: Say) -> list[dict[str, Any]]:
    """Predict every row of `recipe.dataset` with `recipe.model.checkpoint`, in the order of the data; no label is read.

    Returns:
        For each row its `label`, `score` and the `probabilities` of all classes; for a regression its `value`.
    """
    say(f"reading {recipe.dataset.path}")
    raw = open_data(recipe)
    name, rows = next(iter(raw.splits.items()))
    say(f"loading {recipe.model.checkpoint}")
    checkpoint = models.open_checkpoint(recipe)
    id2label = checkpoint.config.id2label
    names = () if recipe.task.kind == "text-regression" else tuple(str(id2label[index]) for index in sorted(id2label))
    task = tasks.TextTask(recipe.task.text, recipe.task.label, names)
    tasks.check_rows(task, rows, raw.name, recipe.where("task.text"), labelled=False)
    model, tokenizer = _load(recipe, checkpoint, task)
    encoded = _encode(recipe, checkpoint, task, rows, tokenizer, f"{raw.digest} {name}", labelled=False)
    say("predicting")
    device = next(model.parameters()).device
    precision = choose(recipe.train.precision, device, recipe.where("train.precision"))
    collate = DataCollatorWithPadding(tokenizer)
    logits = predict(model, encoded, collate, batch_size=recipe.evaluate.batch_size, precision=precision).logits
    if task.is_regression:
        return [{"value": float(value)} for value in logits.reshape(-1)]
    return [
        {
            "label": names[int(row.argmax())],
            "score": float(row.max()),
            "probabilities": dict(zip(names, map(float, row), strict=True)),
        }
        for row in softmax(logits.astype(float), axis=-1)
    ]


def _load(
    recipe: Recipe, checkpoint: models.Checkpoint, task: tasks.TextTask
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The trained model, on its device, and its tokenizer."""
    tokenizer = models.load_tokenizer(checkpoint)
    model, fresh = models.load_model(checkpoint, task, (), recipe.where("model.fresh"))
    if fresh:
        raise ModelError(
            f"{checkpoint.name!r} has no trained head ({', '.join(fresh)} would start at random)",
            where=checkpoint.where,
            fix="Fine-tune it first: `hfpipe finetune RECIPE`.",
        )
    return model.to(join().device), tokenizer


def _encode(
    recipe: Recipe,
    checkpoint: models.Checkpoint,
    task: tasks.TextTask,
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    identity: str,
    *,
    labelled: bool,
) -> datasets.Dataset:
    bound = models.longest_input(checkpoint, tokenizer) or recipe.model.max_length or 512
    length = min(bound, recipe.model.max_length or bound)
    identity = f"{identity} {models.tokenizer_digest(tokenizer)}"
    with join().main_process_first():
        return tasks.encode(task, rows, tokenizer, max_length=length, identity=identity, labelled=labelled)


def _task_of(recipe: Recipe, checkpoint: models.Checkpoint, raw: RawData) -> tasks.TextTask:
    """The classes as the checkpoint's head names them, or as the data do when the head has no names."""
    if recipe.task.kind == "text-regression":
        return tasks.TextTask(recipe.task.text, recipe.task.label, ())
    id2label = checkpoint.config.id2label
    names = tuple(str(id2label[index]) for index in sorted(id2label))
    if all(name == f"LABEL_{index}" for index, name in enumerate(names)):
        train = raw.split(recipe.dataset.splits.train, recipe.where("dataset.splits.train"))
        return tasks.make_task(recipe.task, train, raw.name, recipe.where("task"))
    return tasks.TextTask(recipe.task.text, recipe.task.label, names)


def _train_labels(recipe: Recipe, raw: RawData, task: tasks.TextTask) -> list[int]:
    """The training labels as class numbers, which class weights are counted on."""
    if recipe.loss.class_weights is None:
        return []
    rows = raw.split(recipe.dataset.splits.train, recipe.where("dataset.splits.train"))
    return [task.names.index(value) if isinstance(value, str) else int(value) for value in rows[recipe.task.label]]

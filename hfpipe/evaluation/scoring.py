"""Measure a trained checkpoint on a split, with an interval around every metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from torch import nn
from transformers import PreTrainedTokenizerBase

from hfpipe.errors import HfpipeError, RecipeError
from hfpipe.evaluation.document import SplitEvaluation, build_document, fit
from hfpipe.evaluation.inference import Predictions, predict
from hfpipe.parts import tasks
from hfpipe.parts.build import load_metrics, make_objective, own_collate, try_metrics
from hfpipe.parts.data.open import RawData, dataset_identity, open_data
from hfpipe.parts.data.sources import base_of
from hfpipe.parts.data.streams import RawStream
from hfpipe.parts.inputs.audit import TextRows, rows_in_train
from hfpipe.parts.inputs.batches import Collate
from hfpipe.parts.inputs.padding import settle_padding
from hfpipe.parts.inputs.rows import Notify, open_any, require_rows_of_its_own
from hfpipe.parts.inputs.tokenized import tokenize
from hfpipe.parts.metrics.scores import Metric
from hfpipe.parts.model import kernels, models
from hfpipe.parts.model.precision import Precision, choose
from hfpipe.parts.optim.objective import Objective
from hfpipe.parts.tasks.calibration import NONE, Calibration, calibration_of
from hfpipe.recipe.schema import Recipe
from hfpipe.system.display import NOTE
from hfpipe.system.processes import join
from hfpipe.system.text import one_line


@dataclass(frozen=True)
class _Evaluator:
    """A checkpoint that is ready to be measured on the splits of a recipe's data."""

    recipe: Recipe
    raw: RawData | RawStream
    checkpoint: models.Checkpoint
    task: tasks.Task
    metrics: list[tuple[str, Metric]]
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    collate: Collate | None
    precision: Precision
    objective: Objective

    @property
    def dataset(self) -> str:
        """What identifies the data that splits are taken from."""
        return dataset_identity(self.raw.digest, self.recipe)

    def predict(self, rows: datasets.Dataset, split: str) -> tuple[datasets.Dataset, Predictions]:
        """The encoded rows of a split, and the predictions for them."""
        identity = f"{self.raw.digest} {self.recipe.dataset.name} {split}"
        encoded = _encode(self.recipe, self.checkpoint, self.task, rows, self.tokenizer, identity)
        collate = self.collate
        if collate is None:
            length = _max_length(self.recipe, self.checkpoint, self.tokenizer)
            arguments = (self.model, self.task, self.tokenizer, encoded, length)
            padding = settle_padding(*arguments, where=self.checkpoint.where)
            collate = self.task.collator(self.tokenizer, padding.multiple)
        return encoded, predict(
            self.model,
            self.task,
            encoded,
            collate,
            batch_size=self.recipe.evaluate.batch_size,
            precision=self.precision,
            objective=self.objective,
        )


def evaluate_checkpoint(
    recipe: Recipe,
    splits: Sequence[str | None],
    notice: Notify,
    *,
    target: str,
    overrides: Sequence[str] = (),
    file: str | None = None,
    trained_on: Recipe | None = None,
    parts: Mapping[str, Any] | None = None,
) -> list[SplitEvaluation]:
    """Evaluate `recipe.model.checkpoint` on splits of `recipe.dataset`.

    Args:
        recipe: with the checkpoint to measure in it.
        splits: splits or slices of the data, or `train` or `evaluation` for those of the recipe; None is `evaluation`.
        notice: is called with the name of each stage.
        target: the checkpoint as it was named.
        overrides: what was changed for this measurement.
        file: the name of the file that the data come from, where it is measured whole.
        trained_on: the recipe whose training split the file is held against; else it is that of `recipe`.
        parts: objects in place of the recipe's: `dataset`, `tokenizer`, `collate`, `model`, `loss`, `metrics`.

    Returns:
        What was measured of each split.
    """
    parts = parts or {}
    names = [_named(recipe, split) for split in splits] if file is None else [recipe.dataset.splits.train]
    notice(f"reading {file or recipe.dataset.path}")
    raw = open_any(recipe, parts.get("dataset"))
    for text in raw.notices:
        notice(f"{NOTE}{text}")
    where = {
        name: "INPUT" if file else "--split" if split else recipe.where("dataset.splits.evaluation")
        for name, split in zip(names, splits, strict=True)
    }
    rows = {name: raw.split(name, where[name]) for name in names}
    notice(f"loading {recipe.model.checkpoint}")
    checkpoint = models.open_checkpoint(recipe, parts.get("model"))
    task = _task_of(recipe, checkpoint, raw)
    tasks.require_threshold_fits(task, recipe.evaluate.threshold, recipe.where("evaluate.threshold"))
    for name, part in rows.items():
        task.check(part, file or f"{raw.name}, split {name}", where[name])
        if file and (text := getattr(task, "numbered", lambda rows: "")(part)):
            notice(f"{NOTE}{text}")
    evaluator = _evaluator(recipe, raw, checkpoint, task, parts)
    task = tasks.calibrated(task, _calibration(evaluator, names, notice))
    known = _training_rows(recipe, raw) if trained_on is None else _training_rows_of(trained_on, notice)
    train, columns = recipe.dataset.splits.train, recipe.task.input_columns
    found = []
    for name, part in rows.items():
        notice(f"scoring {file or name}")
        is_train = trained_on is None and known is not None and raw.shared(train, name, where[name]) > 0
        encoded, predictions = evaluator.predict(part, name)
        found.append(
            build_document(
                recipe,
                task,
                evaluator.metrics,
                predictions,
                encoded,
                part,
                target=target,
                split=file or name,
                dataset=evaluator.dataset,
                overrides=overrides,
                in_train=None if known is None or is_train else rows_in_train(known, {name: (part, columns)})[name],
                places=None if isinstance(raw, RawStream) else raw.places_of(name, where[name]),
            )
        )
    return found


def _training_rows(recipe: Recipe, raw: RawData | RawStream) -> TextRows | None:
    """The rows that the recipe trains on, with the columns that make their texts; None where they can't be read."""
    train = recipe.dataset.splits.train
    if isinstance(raw, RawStream) or base_of(train) not in raw.splits:
        return None
    rows = raw.split(train, recipe.where("dataset.splits.train"))
    columns = recipe.task.input_columns
    return (rows, columns) if {*columns} <= {*rows.column_names} else None


def _training_rows_of(recipe: Recipe, notice: Notify) -> TextRows | None:
    """The rows that a recipe trains on, opened for this; that they are out of reach is said, and costs no metric."""
    try:
        found = None if recipe.dataset.streaming else _training_rows(recipe, open_data(recipe))
        why = "they are streamed"
    except HfpipeError as error:
        found, why = None, one_line(error, 200)
    if found is None:
        notice(f"{NOTE}whether the training data have some of these rows too is not known: {why}")
    return found


def _evaluator(
    recipe: Recipe,
    raw: RawData | RawStream,
    checkpoint: models.Checkpoint,
    task: tasks.Task,
    parts: Mapping[str, Any],
) -> _Evaluator:
    """The trained model on its device, with its tokenizer, metrics and loss."""
    metrics = load_metrics(recipe, task, given=parts.get("metrics"))
    try_metrics(recipe, metrics, task)
    given = {key: parts.get(key) for key in ("model", "tokenizer")}
    model, tokenizer = models.load_trained(checkpoint, task, recipe.where("model.fresh"), **given)
    collate = own_collate(recipe, parts.get("collate"))
    device = join().device
    kernels.install(model, recipe.train.kernels, device)
    precision = choose(recipe.train.precision, device, recipe.where("train.precision"))
    weighed = _weighed(recipe, checkpoint, raw, task, tokenizer)
    objective = make_objective(recipe, task, weighed, parts.get("loss"))
    model = model.to(device)
    return _Evaluator(recipe, raw, checkpoint, task, metrics, model, tokenizer, collate, precision, objective)


def _calibration(evaluator: _Evaluator, names: Sequence[str], notice: Notify) -> Calibration:
    """The one that the model has, or one fitted now, where the recipe asks for it.

    Raises:
        RecipeError: it was fitted on rows that are to be measured.
    """
    recipe, raw, checkpoint = evaluator.recipe, evaluator.raw, evaluator.checkpoint
    found, split = calibration_of(checkpoint.config, checkpoint.where), recipe.dataset.splits.calibration
    if found == NONE and split is not None:
        require_rows_of_its_own(recipe, raw, names)
        notice(f"calibrating on {split}")
        rows = raw.split(split, recipe.where("dataset.splits.calibration"))
        evaluator.task.check(rows, f"{raw.name}, split {split}", recipe.where("dataset.splits.calibration"))
        encoded, predictions = evaluator.predict(rows, split)
        return fit(recipe, evaluator.task, predictions, encoded, evaluator.dataset)
    if found.fitted_on is not None and found.dataset == evaluator.dataset:
        _refuse_fitted_rows(raw, found.fitted_on, names)
    return found


def _named(recipe: Recipe, split: str | None) -> str:
    """The split or slice that is meant."""
    splits = recipe.dataset.splits
    name = {"train": splits.train, "evaluation": splits.evaluation, None: splits.evaluation}.get(split) or split
    if name is None:
        where = recipe.where("dataset.splits.evaluation")
        fix = (
            "Say which one: --split NAME. Of other files rows are set aside only where it is said, with the share and the"
            " stratify of the run: dataset.splits.evaluation=held_out dataset.splits.hold_out=SHARE."
        )
        raise RecipeError("the recipe has no evaluation split", where=where, fix=fix)
    return name


def _refuse_fitted_rows(raw: RawData | RawStream, fitted_on: str, names: Sequence[str]) -> None:
    """Refuse to report a temperature or threshold on the rows that it was fitted on."""
    for name in names:
        if count := raw.shared(fitted_on, name, "--split"):
            raise RecipeError(
                f"{count:,} rows of {name} are those of {fitted_on}, on which this model's temperature or threshold was "
                "fitted: its metrics there would flatter it",
                where="--split",
                fix="Measure other rows.",
            )


def _encode(
    recipe: Recipe,
    checkpoint: models.Checkpoint,
    task: tasks.Task,
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    identity: str,
) -> datasets.Dataset:
    length = _max_length(recipe, checkpoint, tokenizer)
    identity = f"{identity} {models.tokenizer_digest(tokenizer)}"
    with join().main_process_first():
        return tokenize(
            task,
            rows,
            tokenizer,
            max_length=length,
            identity=identity,
            num_proc=recipe.dataset.num_proc,
        ).data


def _max_length(recipe: Recipe, checkpoint: models.Checkpoint, tokenizer: PreTrainedTokenizerBase) -> int:
    bound = models.longest_input(checkpoint, tokenizer, recipe.model.max_length) or recipe.model.max_length or 512
    return min(bound, recipe.model.max_length or bound)


def _task_of(recipe: Recipe, checkpoint: models.Checkpoint, raw: RawData | RawStream) -> tasks.Task:
    """The classes as the recipe declares them, else as the checkpoint's head names them, else as the data do."""
    names = models.head_names(checkpoint)
    unnamed = all(name == f"LABEL_{index}" for index, name in enumerate(names))

    def rows() -> datasets.Dataset:
        read = raw.head if isinstance(raw, RawStream) else raw.split
        return read(_split_with_classes(recipe, raw), recipe.where("dataset.splits.train"))

    where = recipe.where("task")
    spec = tasks.as_trained(recipe.task, models.head_form(checkpoint), rows, raw.name, where)
    head = tasks.head_task(spec, names)
    if spec.names is None and not unnamed and head.names:
        return head
    return tasks.make_task(spec, rows(), raw.name, where)


def _split_with_classes(recipe: Recipe, raw: RawData | RawStream) -> str:
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
    if not recipe.loss.counts_classes:
        return None
    split = recipe.dataset.splits.train
    rows = raw.split(split, recipe.where("dataset.splits.train"))
    return _encode(recipe, checkpoint, task, rows, tokenizer, f"{raw.digest} {recipe.dataset.name} {split}")

"""A trained checkpoint in memory, which predicts rows that have no label."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets
from torch import nn
from transformers import PreTrainedTokenizerBase

from hfpipe.errors import DataError, HfpipeError, RecipeError
from hfpipe.evaluation.inference import predict
from hfpipe.evaluation.prediction.chunks import Chunk
from hfpipe.evaluation.prediction.sentences import split_chunk, with_offsets
from hfpipe.parts import tasks
from hfpipe.parts.build import own_collate
from hfpipe.parts.inputs.batches import Collate
from hfpipe.parts.inputs.padding import Padding, settle_padding
from hfpipe.parts.inputs.rows import Notify
from hfpipe.parts.inputs.tokenized import encode_batch
from hfpipe.parts.model import kernels, models
from hfpipe.parts.model.precision import Precision, choose
from hfpipe.parts.tasks.calibration import calibration_of
from hfpipe.recipe.schema import Recipe
from hfpipe.runs.given_parts import require_given
from hfpipe.runs.model_files import model_folder
from hfpipe.runs.store import Run
from hfpipe.system.processes import join
from hfpipe.system.snapshot import digest_of_files

_ONE_AT_A_TIME = threading.Lock()  # the tokenizer and the random state that is put back belong to all threads


@dataclass
class Predictor:
    """A trained model in memory, ready to label chunks of rows.

    Attributes:
        recipe: with the checkpoint in it.
        task: with the classes of the model's head.
        tokenizer: the checkpoint's own.
        model: on its device, in evaluation mode.
        collate: makes a batch of encoded rows, where that is an own one.
        precision: of the forward passes.
        max_length: longest input, in tokens.
        digests: of what decides the labels: `weights`, `tokenizer` and `config`.
        padding: of batches, when rows have shown it.
    """

    recipe: Recipe
    task: tasks.Task
    tokenizer: PreTrainedTokenizerBase
    model: nn.Module
    collate: Collate | None
    precision: Precision
    max_length: int
    digests: dict[str, str]
    padding: Padding | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return columns_read(self.recipe)

    def label(self, chunk: Chunk) -> list[dict[str, Any]]:
        """The predictions for each row of a chunk, in its order; rows of similar length share a batch.

        Raises:
            DataError: a row that the task can't read, with its place.
            HfpipeError: with the places of the chunk's first and last row.
        """
        with _ONE_AT_A_TIME:
            return self._label(chunk)

    def _label(self, given: Chunk) -> list[dict[str, Any]]:
        chunk, spans, column = given, None, self.columns[0]
        if self.task.kind.is_words:
            chunk, spans = split_chunk(given, column)
        rows = datasets.Dataset(chunk.table, fingerprint="chunk")  # nothing is cached by it
        self._check(rows, chunk)
        try:
            encoded = encode_batch(
                chunk.values, list(range(len(rows))), self.task, self.tokenizer, self.max_length, labelled=False
            )
            inputs = datasets.Dataset.from_dict(encoded)
            collate = self.collate
            if collate is None and (
                self.padding is None or self.padding.difference is None
            ):  # until rows of unequal length have shown it
                arguments = (self.model, self.task, self.tokenizer, inputs, self.max_length)
                self.padding = settle_padding(*arguments, where=self.recipe.where("model.checkpoint"))
            if collate is None:
                assert self.padding is not None
                collate = self.task.collator(self.tokenizer, self.padding.multiple)
            predictions = predict(
                self.model,
                self.task,
                inputs,
                collate,
                batch_size=self.recipe.evaluate.batch_size,
                precision=self.precision,
            )
        except HfpipeError as error:
            place = f"{chunk.where(0)} to {chunk.where(-1)}{': ' if error.where else ''}{error.where}"
            raise type(error)(error.what, where=place, allowed=error.allowed, fix=error.fix) from error
        found = self.task.format_predictions(predictions.logits, inputs, rows)
        if spans is None:
            return found
        return [with_offsets(*one) for one in zip(found, given.values[column], spans, strict=True)]

    def _check(self, rows: datasets.Dataset, chunk: Chunk) -> None:
        """Refuse a chunk with a row that can't be read, and find out which one it is."""
        title, where = "the input", self.recipe.where("task.text")
        try:
            self.task.check(rows, title, where, labelled=False)
        except DataError:
            for row in range(len(rows)):
                try:
                    self.task.check(rows.select([row]), title, where, labelled=False)
                except DataError as error:
                    what = error.what.removeprefix(f"{title}: ").removesuffix(" (row 0, counted from 0)")
                    raise DataError(what, where=chunk.where(row), allowed=error.allowed, fix=error.fix) from None
            raise


def columns_read(recipe: Recipe) -> tuple[str, ...]:
    """The columns of the input that a task of this recipe reads."""
    return recipe.task.input_columns


def load_predictor(recipe: Recipe, notice: Notify, parts: Mapping[str, Any] | None = None) -> Predictor:
    """Load `recipe.model.checkpoint` to label rows with it; no data are looked at.

    Args:
        recipe: with the checkpoint in it.
        notice: is called with the name of each stage.
        parts: objects in place of the recipe's: `tokenizer`, `collate`, `model`.

    Raises:
        ModelError: no trained head for this task, or files that are missing or do not fit.
        RecipeError: several processes.
    """
    state = join()
    if state.num_processes > 1:
        raise RecipeError(
            f"{state.num_processes} processes were started, and each would write all rows",
            where="predict",
            fix="Start one; to use several devices, cut the input into parts.",
        )
    notice(f"loading {recipe.model.checkpoint}")
    parts = parts or {}
    checkpoint = models.open_checkpoint(recipe, parts.get("model"))
    task = tasks.head_task(recipe.task, models.head_names(checkpoint))
    task = tasks.calibrated(task, calibration_of(checkpoint.config, checkpoint.where))
    given = {key: parts.get(key) for key in ("model", "tokenizer")}
    model, tokenizer = models.load_trained(checkpoint, task, recipe.where("model.fresh"), **given)
    kernels.install(model, recipe.train.kernels, state.device)
    model.to(state.device).eval()
    precision = choose(recipe.train.precision, state.device, recipe.where("train.precision"))
    bound = models.longest_input(checkpoint, tokenizer, recipe.model.max_length) or recipe.model.max_length or 512
    return Predictor(
        recipe=recipe,
        task=task,
        tokenizer=tokenizer,
        model=model,
        collate=own_collate(recipe, parts.get("collate")),
        precision=precision,
        max_length=min(bound, recipe.model.max_length or bound),
        digests={
            "weights": checkpoint.weights_digest,
            "tokenizer": models.tokenizer_digest(tokenizer),
            "config": digest_of_files([checkpoint.folder / "config.json"]),
        },
    )


def load_run_model(run: Run, model: nn.Module | None = None) -> nn.Module:
    """The fine-tuned model of a run, in evaluation mode.

    Args:
        run: with a model.
        model: of the class that was trained, which gets the weights; needed where that class can't be found.
    """
    require_given(run, () if model is None else ("model",), ("model",), call="run.model(...)")
    return models.load_again(run.recipe, model_folder(run), model).eval()

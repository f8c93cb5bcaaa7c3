"""read_rows(recipe) -> Rows: the data as a model will see them, before any weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import datasets
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfpipe.errors import RecipeError
from hfpipe.parts import tasks
from hfpipe.parts.data.formats.files import Places
from hfpipe.parts.data.open import RawData, given_data, open_data
from hfpipe.parts.data.sources import base_of
from hfpipe.parts.data.streams import RawStream, open_stream
from hfpipe.parts.inputs.streams import require_declared_classes
from hfpipe.parts.inputs.tokenized import Tokenized, tokenize
from hfpipe.parts.model import models
from hfpipe.recipe.schema import HELD_OUT, Recipe
from hfpipe.system.processes import join

Notify = Callable[[str], None]


@dataclass
class Rows:
    """What is trained and measured on: raw and as tokens, by split; the training split comes first.

    Attributes:
        source: the opened data set.
        task: with the classes of the training split.
        checkpoint: where the weights will come from.
        tokenizer: the checkpoint's, or the given one.
        tokenizer_digest: what identifies it.
        max_length: longest input, in tokens.
        raw: the checked rows by split; of a streamed training split the first ones.
        encoded: the same as tokens.
        notices: what a user should know.
    """

    source: RawData | RawStream
    task: tasks.Task
    checkpoint: models.Checkpoint
    tokenizer: PreTrainedTokenizerBase
    tokenizer_digest: str
    max_length: int
    raw: dict[str, datasets.Dataset]
    encoded: dict[str, Tokenized]
    notices: list[str]

    @property
    def places(self) -> dict[str, Places]:
        """Where the raw rows of each split but the training split stand, in files that have lines."""
        if isinstance(self.source, RawStream):
            return {}
        _, *others = self.raw
        found = {split: self.source.places_of(split, "") for split in others}
        return {split: one for split, one in found.items() if one is not None}


def read_rows(
    recipe: Recipe,
    *,
    notice: Notify = lambda text: None,
    dataset: Mapping[str, datasets.Dataset] | datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    model: nn.Module | None = None,
) -> Rows:
    """Open the data, check every row of every split that the recipe uses, and map the tokenizer over them.

    Args:
        recipe: what to fine-tune and how.
        notice: is called with the name of each stage.
        dataset: raw splits by name, or a training split alone, in place of `recipe.dataset.path`.
        tokenizer: in place of the checkpoint's.
        model: that is given; its configuration says how long its input may be.

    Raises:
        HfpipeError: whatever is wrong, with its place in the recipe.
    """
    notice(f"reading {recipe.dataset.path}")
    source = open_any(recipe, dataset)
    notices = list(source.notices)
    used = _used_splits(recipe)
    if calibration := recipe.dataset.splits.calibration:
        require_rows_of_its_own(recipe, source, [split for split in used if split != calibration])
    raw = {}
    for split, path in used.items():
        streamed = isinstance(source, RawStream) and split == recipe.dataset.splits.train
        raw[split] = (source.head if streamed else source.split)(split, recipe.where(path))  # type: ignore[union-attr]
    task = _checked_task(recipe, source, used, raw)
    if isinstance(source, RawStream):
        split = recipe.dataset.splits.train
        notices.append(f"{split} is streamed: its first {len(raw[split]):,} rows are what is looked at here")

    checkpoint = models.open_checkpoint(recipe, model)
    if isinstance(model, PreTrainedModel):
        checkpoint = replace(checkpoint, config=model.config)
    elif tokenizer is not None and models.is_other_module(checkpoint, model):
        # The model has none of the checkpoint's weights, and so none of its tokens.
        checkpoint.config.vocab_size, checkpoint.config.pad_token_id = len(tokenizer), None
    tokenizer, padded = models.load_processor(checkpoint, task, tokenizer)
    notices += [padded] if padded else []
    tokens = models.tokenizer_digest(tokenizer)
    max_length = _max_length(recipe, checkpoint, tokenizer, notices)
    notice("tokenizing")
    with join().main_process_first():
        encoded = {
            split: tokenize(
                task,
                rows,
                tokenizer,
                max_length=max_length,
                identity=f"{source.digest} {recipe.dataset.name} {split} {len(rows)} {tokens}",
                num_proc=recipe.dataset.num_proc,
            )
            for split, rows in raw.items()
        }
    loss = (recipe.loss, recipe.where("loss"))
    tasks.require_loss_fits(task, [one.data for one in encoded.values()], *loss)
    for split, one in encoded.items():
        notice(f"{split}: {one.summary}")
        if one.rebuilt:
            notices.append(f"the cached tokens of {split} were made again: {one.rebuilt}")
    return Rows(source, task, checkpoint, tokenizer, tokens, max_length, raw, encoded, notices)


def open_any(recipe: Recipe, given: Mapping[str, datasets.Dataset] | datasets.Dataset | None) -> RawData | RawStream:
    """The data that are given, or those that the recipe names."""
    if given is None:
        return open_stream(recipe) if recipe.dataset.streaming else open_data(recipe)
    if recipe.dataset.streaming:
        raise RecipeError("data that are given are not streamed", where=recipe.where("dataset.streaming"))
    return given_data(recipe, given)


def _used_splits(recipe: Recipe) -> dict[str, str]:
    """The splits that the recipe uses, the training split first, each with the path of the field that names it."""
    splits = recipe.dataset.splits
    if splits.evaluation is None and recipe.evaluate.best is not None:
        raise RecipeError("a best checkpoint needs an evaluation split", where=recipe.where("evaluate.best"))
    named = [(splits.train, "train"), *((one, "also") for one in splits.also)]
    named += [(splits.evaluation or "", "evaluation"), (splits.calibration or "", "calibration")]
    return {split: f"dataset.splits.{role}" for split, role in named if split}


def _checked_task(
    recipe: Recipe, source: RawData | RawStream, used: Mapping[str, str], raw: Mapping[str, datasets.Dataset]
) -> tasks.Task:
    """The task with the classes of the training split, after every row was checked."""
    train = recipe.dataset.splits.train
    whole = source.whole if isinstance(source, RawData) else None
    task = tasks.make_task(recipe.task, raw[train] if whole is None else whole, source.name, recipe.where("task"))
    tasks.require_threshold_fits(task, recipe.evaluate.threshold, recipe.where("evaluate.threshold"))
    if whole is not None:  # before the rows are parted: the two parts need no check of their own
        task.check(whole, f"{source.name}, split {train}", recipe.where("task"))
    if isinstance(source, RawStream):
        require_declared_classes(recipe, task, raw[train])
    for split, path in used.items():
        if whole is None or base_of(split) not in (train, HELD_OUT):
            where = recipe.where("task" if split == train else path)
            task.check(raw[split], f"{source.name}, split {split}", where)
    return task


def require_rows_of_its_own(recipe: Recipe, source: RawData | RawStream, others: Sequence[str]) -> None:
    """Refuse a calibration split that shares rows with one of the others, which are trained on or measured.

    Raises:
        RecipeError: naming both and how many rows they share.
    """
    splits, where = recipe.dataset.splits, recipe.where("dataset.splits.calibration")
    assert splits.calibration is not None
    for other in others:
        if count := source.shared(splits.calibration, other, where):
            raise RecipeError(
                f"{splits.calibration} shares {count:,} rows with {other}, which is trained on or measured",
                where=where,
                fix="Take slices beside each other: calibration: validation[:50%], evaluation: validation[50%:].",
            )


def _max_length(
    recipe: Recipe, checkpoint: models.Checkpoint, tokenizer: PreTrainedTokenizerBase, notices: list[str]
) -> int:
    wanted = recipe.model.max_length
    bound = models.longest_input(checkpoint, tokenizer, wanted)
    special = tokenizer.num_special_tokens_to_add(pair=len(recipe.task.text) == 2 or recipe.task.choices is not None)
    if wanted is not None and wanted <= special:
        raise RecipeError(
            f"max_length is {wanted}, and {special} special tokens alone take that",
            where=recipe.where("model.max_length"),
            allowed=f"more than {special} tokens",
        )
    if wanted is None:
        if bound is None:
            raise RecipeError(
                "nothing bounds the input of this model",
                where=recipe.where("model"),
                fix="Give model.max_length, in tokens.",
            )
        return bound
    if bound is not None and wanted > bound:
        notices.append(f"model.max_length is {wanted}, and the model takes {bound} tokens: {bound} it is")
        return bound
    return wanted

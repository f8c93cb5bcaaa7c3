"""Data that are read as they are trained on, for sets larger than the disk: never whole in memory, never prepared."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedTokenizerBase

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts import tasks
from hfpipe.parts.inputs.batches import Collate, ignored
from hfpipe.parts.inputs.tokenized import encode_batch
from hfpipe.recipe.schema import Recipe

_CHUNK = 256  # rows that are checked and tokenized at once


def require_declared_classes(recipe: Recipe, task: tasks.Task, head: datasets.Dataset) -> None:
    """Refuse classes that were only seen in the first rows: a later row could have another one.

    Raises:
        RecipeError: the data do not name their classes, and neither does the recipe.
    """
    if not task.names or recipe.task.names is not None or len(recipe.task.label_columns) > 1:
        return
    if getattr(task, "form", None) == "columns":  # of 0 and 1: every row has all classes
        return
    feature = head.features[recipe.task.label_columns[0]]
    feature = getattr(feature, "feature", feature)
    if not isinstance(feature, datasets.ClassLabel):
        column = recipe.task.label_columns[0]
        raise RecipeError(
            f"the classes of {column!r} are not named by the data, and the first {len(head):,} rows may not have all",
            where=recipe.where("task.label"),
            fix=f"Declare them: label: {{column: {column}, names: [{', '.join(task.names)}]}}.",
        )


class _MicroBatches(IterableDataset[tuple[int, list[dict[str, Any]]]]):
    """The micro-batches of one process: the rows read with it on all processes, and its encoded examples.

    The stream begins anew when it ends.
    """

    def __init__(
        self,
        stream: datasets.IterableDataset,
        recipe: Recipe,
        task: tasks.Task,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        count: int,
        rank: int,
        processes: int,
    ) -> None:
        self.stream = stream.shuffle(seed=recipe.seed, buffer_size=recipe.dataset.shuffle_buffer)
        self.recipe, self.task, self.tokenizer, self.max_length = recipe, task, tokenizer, max_length
        self.count, self.rank, self.processes = count, rank, processes
        self.start = 0

    def __iter__(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        width = self.recipe.train.batch_size * self.processes
        made, passes, read = 0, 0, 0
        while made < self.count:
            self.stream.set_epoch(passes)
            examples = self._examples(passes)
            while made < self.count and (together := list(islice(examples, width))):
                read += len(together)
                share = np.array_split(np.arange(len(together)), self.processes)[self.rank]
                # As in EpochBatches: every process runs the same number of forward passes.
                if made >= self.start:
                    yield read, [together[place] for place in share] or [ignored(together[0])]
                made += 1
            passes += 1

    def _examples(self, passes: int) -> Iterator[dict[str, Any]]:
        """The encoded examples of one pass over the stream, checked as they are read."""
        split, read = self.recipe.dataset.splits.train, 0
        for batch in self.stream.iter(batch_size=_CHUNK):
            rows = datasets.Dataset.from_dict(batch, features=self.stream.features)
            title = f"{self.recipe.dataset.path}, split {split}, from the {read:,}. row read on"
            self.task.check(rows, title, self.recipe.where("task"))
            encoded = encode_batch(
                rows[:], list(range(len(rows))), self.task, self.tokenizer, self.max_length, labelled=True
            )
            columns = {name: values for name, values in encoded.items() if name not in tasks.SIDE_COLUMNS}
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))
            read += len(rows)
        if not read:
            raise DataError(
                f"the stream of {split} has no rows in pass {passes + 1}", where=self.recipe.where("dataset")
            )


class _Counted:
    """Collates the examples of a micro-batch, and hands on how many rows were read with it."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, made: tuple[int, list[dict[str, Any]]]) -> tuple[int, Any]:
        return made[0], self.collate(made[1])


class StreamLoader(DataLoader[Any]):
    """The micro-batches of a run, read from a stream; one "epoch" is the stated number of steps.

    Attributes:
        examples: rows that all processes have read with the micro-batch that was given out last.
    """

    def __init__(
        self,
        stream: datasets.IterableDataset,
        recipe: Recipe,
        task: tasks.Task,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        collate: Collate,
        *,
        rank: int = 0,
        processes: int = 1,
        pin_memory: bool = False,
    ) -> None:
        assert recipe.train.max_steps is not None
        self.examples = 0
        self.batches = recipe.train.max_steps * recipe.train.accumulate
        super().__init__(
            _MicroBatches(
                stream, recipe, task, tokenizer, max_length, count=self.batches, rank=rank, processes=processes
            ),
            batch_size=None,
            collate_fn=_Counted(collate),  # type: ignore[arg-type]  # of what the dataset gives, not of a list
            num_workers=recipe.train.workers,
            pin_memory=pin_memory,
            generator=torch.Generator().manual_seed(recipe.seed),
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The micro-batches of the run."""
        for examples, batch in super().__iter__():
            self.examples = examples
            yield batch

    def __len__(self) -> int:
        """Micro-batches in the run."""
        return self.batches

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """There is one epoch, the whole run; so many of its micro-batches are read and left out."""
        self.dataset.start = start  # type: ignore[attr-defined]

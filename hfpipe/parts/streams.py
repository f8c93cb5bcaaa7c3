"""Data that are read as they are trained on, for sets larger than the disk: never whole in memory, never prepared."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedTokenizerBase

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts import tasks
from hfpipe.parts.batches import Collate, ignored
from hfpipe.parts.sources import base_of, require_split, stream_source
from hfpipe.parts.tokenized import encode_batch
from hfpipe.recipe.schema import Recipe

HEAD = 1000  # rows of the training split that are looked at before the first step
_CHUNK = 256  # rows that are checked and tokenized at once


@dataclass(frozen=True)
class RawStream:
    """An opened data set whose splits are read from their beginning, without being kept.

    `digest` changes whenever the data do: the commit on the Hub, or the SHA-256 of the files.
    """

    name: str
    digest: str
    commit: str | None
    splits: Mapping[str, datasets.IterableDataset]
    notices: tuple[str, ...] = ()

    def stream(self, expression: str, where: str) -> datasets.IterableDataset:
        """The rows of a split, or of a slice by row numbers (`train[:5000]`, `train[5000:]`).

        Raises:
            DataError: no such split.
            RecipeError: a slice that only the whole split could tell.
        """
        base, start, end = _bounds(expression, where)
        require_split(self.name, self.splits, base, where)
        rows = self.splits[base]
        rows = rows.skip(start) if start else rows
        return rows if end is None else rows.take(max(end - start, 0))

    def split(self, expression: str, where: str) -> datasets.Dataset:
        """All rows of a split or slice, in memory.

        Raises:
            DataError: no such split, or no rows in it.
            RecipeError: a slice that only the whole split could tell.
        """
        return self._rows(expression, where, None)

    def shared(self, first: str, second: str, where: str) -> int:
        """How many rows two splits or slices have in common, as far as their row numbers tell; raises as `split`."""
        (base, start, end), (other, begin, stop) = (_bounds(one, where) for one in (first, second))
        common = min(math.inf if end is None else end, math.inf if stop is None else stop) - max(start, begin)
        return 0 if base != other or common <= 0 else int(min(common, HEAD))

    def head(self, expression: str, where: str) -> datasets.Dataset:
        """The first rows of a split or slice, in memory; raises as `split`."""
        return self._rows(expression, where, HEAD)

    def _rows(self, expression: str, where: str, most: int | None) -> datasets.Dataset:
        stream = self.stream(expression, where)
        read = list(islice(iter(stream), most))
        if not read:
            raise DataError(f"{self.name}: {expression!r} has no rows", where=where)
        return datasets.Dataset.from_list(read, features=stream.features)


def open_stream(recipe: Recipe) -> RawStream:
    """Open what `recipe.dataset` names, to be streamed.

    Raises:
        RecipeError: data that can't be streamed.
        DataError: nothing there.
    """
    return RawStream(*stream_source(recipe))


def _bounds(expression: str, where: str) -> tuple[str, int, int | None]:
    """The split of an expression, its first row, and the row after its last one where it says so."""
    base = base_of(expression)
    if base == expression:
        return base, 0, None
    bounds = re.fullmatch(r"\[(\d*):(\d*)\]", expression[len(base) :].strip())
    if bounds is None:
        raise RecipeError(
            f"{expression!r} needs the length of the split, which a stream does not know",
            where=where,
            allowed="train, train[:5000], train[5000:], train[5000:9000]",
        )
    return base, int(bounds[1] or 0), int(bounds[2]) if bounds[2] else None


def require_declared_classes(recipe: Recipe, task: tasks.Task, head: datasets.Dataset) -> None:
    """Refuse classes that were only seen in the first rows: a later row could have another one.

    Raises:
        RecipeError: the data do not name their classes, and neither does the recipe.
    """
    if not task.names or recipe.task.names is not None or len(recipe.task.label_columns) > 1:
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


class _MicroBatches(IterableDataset[list[dict[str, Any]]]):
    """The micro-batches of one process, each a list of encoded examples; the stream begins anew when it ends."""

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

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        width = self.recipe.train.batch_size * self.processes
        made, passes = 0, 0
        while made < self.count:
            self.stream.set_epoch(passes)
            examples = self._examples(passes)
            while made < self.count and (together := list(islice(examples, width))):
                share = np.array_split(np.arange(len(together)), self.processes)[self.rank]
                # As in EpochBatches: every process runs the same number of forward passes.
                if made >= self.start:
                    yield [together[place] for place in share] or [ignored(together[0])]
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


class StreamLoader(DataLoader[Any]):
    """The micro-batches of a run, read from a stream; one "epoch" is the stated number of steps."""

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
        self.batches = recipe.train.max_steps * recipe.train.accumulate
        super().__init__(
            _MicroBatches(
                stream, recipe, task, tokenizer, max_length, count=self.batches, rank=rank, processes=processes
            ),
            batch_size=None,
            collate_fn=collate,
            num_workers=recipe.train.workers,
            pin_memory=pin_memory,
            generator=torch.Generator().manual_seed(recipe.seed),
        )

    def __len__(self) -> int:
        """Micro-batches in the run."""
        return self.batches

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """There is one epoch, the whole run; so many of its micro-batches are read and left out."""
        self.dataset.start = start  # type: ignore[attr-defined]

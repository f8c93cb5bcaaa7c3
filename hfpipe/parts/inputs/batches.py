"""Batches: in an order that depends on seed and epoch alone, the same for every engine and number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hfpipe.errors import HfpipeError, RecipeError
from hfpipe.parts.inputs.buckets import Rows, by_examples, by_tokens, updates_by_tokens
from hfpipe.parts.tasks import IGNORED, SIDE_COLUMNS, lengths
from hfpipe.recipe.schema import Batching
from hfpipe.system.text import one_line

Batch = dict[str, torch.Tensor]
Collate = Callable[[list[dict[str, Any]]], Any]
Lengths = Callable[[datasets.Dataset], "np.ndarray[Any, np.dtype[np.int64]]"]
"""How long each encoded row is, as its task says; by default the tokens of it."""


def collate_checked(collate: Collate, rows: list[dict[str, Any]]) -> Any:
    """A batch that somebody's own function makes, where it is one.

    Raises:
        RecipeError: the function fails, or gives something else than a tensor by name with something for every row.
    """
    name = getattr(collate, "__qualname__", type(collate).__qualname__)
    try:
        batch = collate(rows)
    except HfpipeError:
        raise
    except Exception as error:  # whatever the user's own code raises
        got = ", ".join(rows[0])
        raise _no_batch(f"{name} fails on rows with {got}: {type(error).__name__}: {one_line(error, 200)}") from error
    if not isinstance(batch, Mapping):
        raise _no_batch(f"{name} gave a {type(batch).__name__}")
    if others := [key for key, value in batch.items() if not isinstance(value, torch.Tensor)]:
        raise _no_batch(f"{name} gave a {type(batch[others[0]]).__name__} as {others[0]!r}")
    if "labels" in rows[0] and "labels" not in batch:
        raise _no_batch(f"{name} leaves out the labels of the rows")
    if not set(batch) - {"labels"}:
        raise _no_batch(f"{name} gave nothing for the model")
    if "labels" in batch and (not batch["labels"].ndim or len(batch["labels"]) != len(rows)):
        raise _no_batch(f"{name} gave labels of the shape {list(batch['labels'].shape)} for {len(rows)} rows")
    return batch


def _no_batch(what: str) -> RecipeError:
    return RecipeError(
        what,
        where="model.collate",
        allowed="a function of a list of encoded rows, that gives a dict of tensors: the inputs of the model, and `labels` "
        "where the rows have them",
    )


class PartialEpoch(NamedTuple):
    """An epoch that started with other updates than it goes on with."""

    epoch: int
    """From 0."""
    left: Rows
    """The rows that were not trained on yet."""


@dataclass(frozen=True)
class Order:
    """Which rows make each update of an epoch: a function of the epoch alone.

    A blank, written -1 - row, has the inputs of a row and counts for nothing.

    Attributes:
        rows: how many there are.
        seed: of the recipe.
        size: rows of an update, over all its micro-batches and processes.
        lengths: tokens of each row, `[rows]`, where they decide what is put together.
        tokens: of an update, padding included, where it is cut by those and not by `size`.
        bucket: put rows of similar length together.
        partial_epoch: the epoch that started with other updates, where there is one.
    """

    rows: int
    seed: int
    size: int
    lengths: Rows | None = None
    tokens: int | None = None
    bucket: bool = False
    partial_epoch: PartialEpoch | None = None

    def updates(self, epoch: int) -> list[Rows]:
        """The row numbers of each update; there are as many updates in every epoch.

        Those of an epoch that started with other updates are blank as far as it was trained on. By examples each has as
        many rows as in a whole epoch, blanks among them, so that it has as many micro-batches.
        """
        updates = self._cut(epoch, None)
        if self.partial_epoch is None or epoch != self.partial_epoch.epoch:
            return updates
        left = self._cut(epoch, self.partial_epoch.left)
        before = len(updates) - len(left)
        if self.tokens is None:
            left = [_filled(rows, len(whole)) for rows, whole in zip(left, updates[before:], strict=True)]
        return [*(-1 - rows for rows in updates[:before]), *left]

    @cached_property
    def _count(self) -> int | None:
        """The updates of an epoch, where the lengths of its rows leave that open."""
        if self.tokens is None or self.lengths is None or self.bucket:
            return None
        return updates_by_tokens(self.tokens, self.seed, self.lengths)

    def _cut(self, epoch: int, left: Rows | None) -> list[Rows]:
        if self.tokens is not None:
            assert self.lengths is not None
            return by_tokens(
                self.tokens, self.seed, epoch, self.lengths, bucket=self.bucket, left=left, count=self._count
            )
        return by_examples(self.rows, self.size, self.seed, epoch, self.lengths if self.bucket else None, left)


def _filled(rows: Rows, size: int) -> Rows:
    """The rows, and behind them as many blanks as are missing."""
    return np.concatenate([rows, np.repeat(_blank(rows), size - len(rows))])


def _blank(rows: Rows) -> Rows:
    """The first of these rows as a blank, `[1]`."""
    return np.minimum(rows[:1], -1 - rows[:1])


class EpochBatches(Sampler[list[int]]):
    """The micro-batches of one process in one epoch, as lists of row numbers.

    An update is cut into `accumulate` micro-steps, and each of those is shared out among the processes, so that the rows
    of an update depend on neither. When a micro-step has fewer rows than there are processes, those left over get one
    row as a blank: all processes must run the same number of forward passes.
    """

    def __init__(self, order: Order, *, accumulate: int = 1, rank: int = 0, processes: int = 1) -> None:
        self.order, self.accumulate, self.rank, self.processes = order, accumulate, rank, processes
        self.epoch, self.start = 0, 0
        self.steps = sum(1 for _ in self._micro_steps(0))

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that the next iteration follows, and how many of its micro-batches are left out."""
        self.epoch, self.start = epoch, start

    def shares(self, epoch: int) -> Iterator[list[int]]:
        """The micro-batches of an epoch on this process."""
        return islice(self.all_shares(epoch), self.rank, None, self.processes)

    def all_shares(self, epoch: int) -> Iterator[list[int]]:
        """The micro-batches of an epoch on every process: those of one micro-step after the other, in the order of the ranks."""
        for rows in self._micro_steps(epoch):
            for share in np.array_split(rows, self.processes):
                yield (share if len(share) else _blank(rows)).tolist()

    def __len__(self) -> int:
        """Micro-batches in an epoch, the ragged last one included."""
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """The micro-batches of the epoch that was set."""
        yield from islice(self.shares(self.epoch), self.start, None)

    def _micro_steps(self, epoch: int) -> Iterator[Rows]:
        """What all processes take together; an update that is cut by rows is cut into full ones as long as it lasts."""
        width = -(-self.order.size // self.accumulate)
        for update in self.order.updates(epoch):
            if self.order.tokens is None:
                yield from (update[start : start + width] for start in range(0, len(update), width))
            else:  # every update has as many, though some be blank
                parts = np.array_split(update, self.accumulate)
                yield from (part if len(part) else _blank(update) for part in parts)


class Examples(Dataset[dict[str, Any]]):
    """Encoded rows by number, without side columns; a blank (see Order) is the row with its labels ignored."""

    def __init__(self, encoded: datasets.Dataset) -> None:
        self.encoded = encoded.remove_columns([name for name in SIDE_COLUMNS if name in encoded.column_names])

    def __len__(self) -> int:
        """Rows."""
        return len(self.encoded)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once, as the loader asks for them."""
        columns = self.encoded[[row if row >= 0 else -1 - row for row in rows]]
        examples = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [ignored(example) if row < 0 else example for row, example in zip(rows, examples, strict=True)]


def ignored(example: dict[str, Any]) -> dict[str, Any]:
    """The example as a blank: with its labels ignored."""
    return {**example, "labels": _ignore(example["labels"])}


def _ignore(label: Any) -> Any:
    """IGNORED in place of a class or a position, NaN in place of a number: -100.0 is a number like others."""
    if isinstance(label, list):
        return [_ignore(part) for part in label]
    return math.nan if isinstance(label, float) else IGNORED


class TrainLoader(DataLoader[Any]):
    """A loader of one process's micro-batches; `set_epoch` says which epoch the next iteration is."""

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch whose order the next iteration follows, and how many micro-batches to leave out unread."""
        self.batches.set_epoch(epoch, start)

    @property
    def batches(self) -> EpochBatches:
        """The micro-batches of this process."""
        assert isinstance(self.batch_sampler, EpochBatches)
        return self.batch_sampler

    @property
    def order(self) -> Order:
        """Which rows make each update."""
        return self.batches.order

    def micro_batches(self, epoch: int) -> Iterator[list[int]]:
        """The row numbers of the micro-batches of an epoch on this process; a blank has one that is negative."""
        return self.batches.shares(epoch)


def order_of(
    encoded: datasets.Dataset, size: int, seed: int, spec: Batching, *, batches: int, lengths: Lengths = lengths
) -> Order:
    """The order in which encoded rows are trained on.

    Args:
        encoded: the training rows.
        size: rows of an update.
        seed: of the recipe.
        spec: how updates are put together.
        batches: micro-batches of an update, on all processes together.
        lengths: of the task.
    """
    if spec.by == "examples" and not spec.bucket:
        return Order(len(encoded), seed, size)
    found = lengths(encoded)
    if spec.by == "examples":
        return Order(len(encoded), seed, size, found, bucket=True)
    tokens = spec.tokens * batches if spec.tokens is not None else round(size * float(found.mean()))
    return Order(len(encoded), seed, size, found, max(tokens, 1), spec.bucket)


def train_loader(
    encoded: datasets.Dataset,
    collate: Collate,
    *,
    batch_size: int,
    seed: int,
    accumulate: int = 1,
    batching: Batching | None = None,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
    partial_epoch: PartialEpoch | None = None,
    pin_memory: bool = False,
    lengths: Lengths = lengths,
) -> TrainLoader:
    """The loader that both engines train from.

    It draws its worker seeds from a generator of its own: every `iter()` of a loader takes a number from one, and the
    global generator belongs to dropout.
    """
    size = batch_size * accumulate * processes
    order = order_of(encoded, size, seed, batching or Batching(), batches=accumulate * processes, lengths=lengths)
    batches = EpochBatches(
        replace(order, partial_epoch=partial_epoch), accumulate=accumulate, rank=rank, processes=processes
    )
    return TrainLoader(
        Examples(encoded),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),
    )


def evaluation_loader(encoded: datasets.Dataset, batches: Iterable[list[int]], collate: Collate) -> DataLoader[Any]:
    """Batches of the given rows in the given order."""
    return DataLoader(Examples(encoded), batch_sampler=batches, collate_fn=collate, generator=torch.Generator())

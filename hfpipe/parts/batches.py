"""Batches: in an order that depends on seed and epoch alone, cut the same for every engine and number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hfpipe.parts.tasks import IGNORED, SIDE_COLUMNS

Batch = dict[str, torch.Tensor]
Collate = Callable[[list[dict[str, Any]]], Any]


def epoch_order(rows: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of the rows in an epoch, `[rows]`: a permutation that depends on (seed, epoch) alone."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)


class EpochBatches(Sampler[list[int]]):
    """The micro-batches of one process in one epoch, as lists of row numbers.

    Every micro-step takes the next `batch_size * processes` rows of the order and shares them out, so that the rows of
    an update do not depend on the number of processes. When the last micro-step has fewer rows than there are
    processes, those left over get one row as a blank, written -1 - row: all processes must run the same number of
    forward passes, and a blank counts for nothing.
    """

    def __init__(self, rows: int, *, batch_size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.processes = rank, processes
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that the next iteration follows, and how many of its micro-batches are left out."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Micro-batches in an epoch, the ragged last one included."""
        return -(-self.rows // (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[int]]:
        """The micro-batches of the epoch that was set."""
        order = epoch_order(self.rows, self.seed, self.epoch)
        width = self.batch_size * self.processes
        for start in range(self.start * width, self.rows, width):
            share = np.array_split(order[start : start + width], self.processes)[self.rank]
            yield share.tolist() if len(share) else [-1 - int(order[start])]


class Examples(Dataset[dict[str, Any]]):
    """Encoded rows by number, without side columns; a blank (see EpochBatches) is the row with its labels ignored."""

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
    return [_ignore(part) for part in label] if isinstance(label, list) else type(label)(IGNORED)


class TrainLoader(DataLoader[Any]):
    """A loader of one process's micro-batches; `set_epoch` says which epoch the next iteration is."""

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch whose order the next iteration follows, and how many micro-batches to leave out unread."""
        self.batch_sampler.set_epoch(epoch, start)  # type: ignore[union-attr]


def train_loader(
    encoded: datasets.Dataset,
    collate: Collate,
    *,
    batch_size: int,
    seed: int,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
    pin_memory: bool = False,
) -> TrainLoader:
    """The loader that both engines train from.

    It draws its worker seeds from a generator of its own: every `iter()` of a loader takes a number from one, and the
    global generator belongs to dropout.
    """
    batches = EpochBatches(len(encoded), batch_size=batch_size, seed=seed, rank=rank, processes=processes)
    return TrainLoader(
        Examples(encoded),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),
    )


def evaluation_loader(
    encoded: datasets.Dataset, rows: Sequence[int], collate: Collate, *, batch_size: int
) -> DataLoader[Any]:
    """Batches of the given rows in the given order."""
    batches = [list(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    return DataLoader(Examples(encoded), batch_sampler=batches, collate_fn=collate, generator=torch.Generator())

"""Which rows make an update: at random, and of similar length, so that little is padded.

An update is a set of rows that depends on seed, epoch and the size of the update alone. How it is then cut into
micro-batches, for accumulation and for several processes, changes nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Rows = np.ndarray[Any, np.dtype[np.int64]]

_CHUNK = 50  # updates whose rows are sorted together
_PLANNED = 8  # epochs that are cut by tokens beforehand, to see how many updates they need
_TILE = 8


def shuffled(rows: int, seed: int, epoch: int, left: Rows | None = None, draw: int = 0) -> Rows:
    """The rows in the order of an epoch, `[rows]`: a permutation that depends on (seed, epoch) alone.

    Where only some are left of the epoch, these in that order. A later draw is another order of the same epoch.
    """
    order = np.random.Generator(np.random.PCG64([seed, epoch, draw + 1] if draw else [seed, epoch])).permutation(rows)
    return order if left is None else order[np.isin(order, left)]


def by_examples(
    rows: int, size: int, seed: int, epoch: int, lengths: Rows | None, left: Rows | None = None
) -> list[Rows]:
    """The updates of an epoch, `size` rows each; the last one has what is left.

    Args:
        rows: how many there are.
        size: rows of an update.
        seed: of the recipe.
        epoch: from 0.
        lengths: tokens of each row, `[rows]`, to put rows of similar length together: the shuffled rows are cut into
            chunks of 50 updates, each is sorted, and the updates are shuffled. None leaves the order as it was shuffled.
        left: the rows that are left of an epoch whose others were trained on in updates of another size. The epoch ends
            with an update as large as in every other one, and what does not fill an update comes first.
    """
    order = shuffled(rows, seed, epoch, left)
    last = min(rows % size, len(order))
    first = (len(order) - last) % size
    whole = order[first : len(order) - last]
    if lengths is not None:
        for start in range(0, len(whole), size * _CHUNK):
            chunk = whole[start : start + size * _CHUNK]
            whole[start : start + len(chunk)] = chunk[np.argsort(lengths[chunk], kind="stable")]
    updates = list(whole.reshape(-1, size))
    if lengths is not None:
        updates = [updates[place] for place in _places(len(updates), seed, epoch)]
    return [update for update in (order[:first], *updates, order[len(order) - last :]) if len(update)]


def by_tokens(
    tokens: int,
    seed: int,
    epoch: int,
    lengths: Rows,
    *,
    bucket: bool,
    left: Rows | None = None,
    count: int | None = None,
) -> list[Rows]:
    """The updates of an epoch, each with as many rows as fit into a number of tokens when padded to their longest.

    There are as many updates in every epoch: with `bucket` because the sorted lengths are cut, which every epoch has the
    same; without it because an order that needs more of them is drawn again, and where fewer would do the largest are
    halved.

    Args:
        tokens: of an update, padding included; a longer row is an update of its own.
        seed: of the recipe.
        epoch: from 0.
        lengths: tokens of each row, `[rows]`.
        bucket: put rows of similar length together, those of one length at random.
        left: the rows that are left of an epoch, as in `by_examples`; they make no more updates than all rows do.
        count: what `updates_by_tokens` says, where that is known already.
    """
    if bucket:
        order = shuffled(len(lengths), seed, epoch, left)
        order = order[np.argsort(-lengths[order], kind="stable")]  # the longest first: little is padded beside it
        updates = cut_by_tokens(order, lengths, tokens)
        return [updates[place] for place in _places(len(updates), seed, epoch)]
    count = updates_by_tokens(tokens, seed, lengths) if count is None else count
    draw = 0
    while len(updates := cut_by_tokens(shuffled(len(lengths), seed, epoch, None, draw), lengths, tokens)) > count:
        draw += 1
    if left is not None:
        return cut_by_tokens(shuffled(len(lengths), seed, epoch, left, draw), lengths, tokens)
    while len(updates) < count:
        widest = max(range(len(updates)), key=lambda place: len(updates[place]))
        updates[widest : widest + 1] = np.array_split(updates[widest], 2)
    return updates


def updates_by_tokens(tokens: int, seed: int, lengths: Rows) -> int:
    """How many updates every epoch has that is cut by tokens without buckets: as many as the first few need at most.

    Args:
        tokens: of an update, padding included.
        seed: of the recipe.
        lengths: tokens of each row, `[rows]`.
    """
    return max(len(cut_by_tokens(shuffled(len(lengths), seed, epoch), lengths, tokens)) for epoch in range(_PLANNED))


def cut_by_tokens(order: Rows, lengths: Rows, tokens: int) -> list[Rows]:
    """Cut rows into batches that, padded to their longest, have no more than so many tokens, and at least one row.

    Every batch has as many of the rows that come next as fit, so that rows in this order make no fewer batches.

    Args:
        order: row numbers.
        lengths: tokens of each row, by its number.
        tokens: of a batch, padding included.
    """
    starts, start, longest = [], 0, 0
    for place, length in enumerate(np.maximum(lengths[order], 1).tolist()):
        longest = max(longest, length)
        if place == start or longest * (place - start + 1) > tokens:
            starts.append(place)
            start, longest = place, length
    return [order[start:end] for start, end in pairwise([*starts, len(order)])]


def _places(count: int, seed: int, epoch: int) -> Rows:
    """The order of the updates, from other random numbers than that of the rows."""
    return np.random.Generator(np.random.PCG64([seed, epoch, 1])).permutation(count)


def padding_share(batches: Iterable[Sequence[int]], lengths: Rows, multiple: int | None = None) -> float:
    """The share of padding among the tokens of batches, each padded to its longest row or the next multiple, 0 to 1."""
    padded = full = 0
    for batch in batches:
        rows = np.asarray(batch)
        own = lengths[np.where(rows < 0, -1 - rows, rows)]
        longest = int(own.max())
        padded += len(own) * (longest if multiple is None else -(-longest // multiple) * multiple)
        full += int(own.sum())
    return 1 - full / padded if padded else 0.0


def padding_multiple(device: str, longest: int, bound: int | None) -> int | None:
    """The multiple of a length that batches are padded to: 8 on a GPU, whose matrix units take no less; else None.

    Args:
        device: type of it.
        longest: to which inputs are cut, in tokens.
        bound: the most tokens that the model takes, None without such a bound; no padding goes beyond it.
    """
    fits = bound is None or -(-longest // _TILE) * _TILE <= bound
    return _TILE if device == "cuda" and fits else None

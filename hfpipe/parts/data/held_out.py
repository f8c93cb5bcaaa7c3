"""Rows set aside for evaluation: chosen by the seed alone, and the same share of every class where that is asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from hfpipe.errors import DataError

_STREAM = 0x686F6C64  # beside the seed: no epoch's order comes from these random numbers

Rows = np.ndarray[Any, np.dtype[np.int64]]


def held_out(rows: int, hold_out: float, seed: int, classes: Rows | None, where: str) -> tuple[Rows, Rows]:
    """Which rows train and which are set aside; together they are all rows, each once, in the order of the data.

    Args:
        rows: how many there are.
        hold_out: below 1 their share, rounded but never 0; else how many.
        seed: of the recipe.
        classes: the class of each row, `[rows]`, counted from 0; then every class is set aside by its share, with the
            largest remainders rounded up, and keeps a row to learn from.
        where: the place in the recipe.

    Raises:
        DataError: so many that nothing is left to learn from.
    """
    number = max(1, round(rows * hold_out)) if hold_out < 1 else int(hold_out)
    if number >= rows:
        raise DataError(
            f"{number:,} of {rows:,} rows would be set aside", where=where, allowed=f"up to {rows - 1:,} rows"
        )
    order = np.random.Generator(np.random.PCG64([seed, _STREAM])).permutation(rows)
    chosen = order[:number]
    if classes is not None:
        sizes = np.bincount(classes)
        taken = _shares(sizes, number, where)
        order = order[np.argsort(classes[order], kind="stable")]
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        chosen = order[np.arange(rows) - starts < np.repeat(taken, sizes)]
    aside = np.zeros(rows, dtype=bool)
    aside[chosen] = True
    return np.flatnonzero(~aside), np.flatnonzero(aside)


def _shares(sizes: Rows, number: int, where: str) -> Rows:
    """How many of each class are set aside, `[classes]`."""
    exact = number * sizes / sizes.sum()
    taken: Rows = np.floor(exact).astype(np.int64)
    room = np.maximum(sizes - 1, 0)
    if room.sum() < number:
        raise DataError(
            f"{number:,} rows can't be set aside and leave a row of each of the {np.count_nonzero(sizes):,} classes",
            where=where,
            allowed=f"up to {room.sum():,} rows",
        )
    order = np.argsort(taken - exact, kind="stable")
    while (left := number - int(taken.sum())) > 0:
        taken[[one for one in order if taken[one] < room[one]][:left]] += 1
    return taken

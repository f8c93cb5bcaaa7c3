"""A raw data set that is read as it is trained on, for sets larger than the disk."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import datasets

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.data.numbers import batch_reader, number_columns, spelling
from hfpipe.parts.data.sources import base_of, require_split, stream_source
from hfpipe.recipe.schema import Recipe
from hfpipe.system.snapshot import digest_of_text

_TEXTS = ("string", "large_string")
HEAD = 1000  # rows of the training split that are looked at before the first step


@dataclass(frozen=True)
class RawStream:
    """An opened data set whose splits are read from their start and stay nowhere.

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
            RecipeError: a slice that needs the length of the split.
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
            RecipeError: a slice that needs the length of the split.
        """
        return self._rows(expression, where, None)

    def shared(self, first: str, second: str, where: str) -> int:
        """How many rows two splits or slices have in common, as far as their row numbers tell; raises as `split`."""
        (base, start, end), (other, first_row, stop) = (_bounds(one, where) for one in (first, second))
        common = min(math.inf if end is None else end, math.inf if stop is None else stop) - max(start, first_row)
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
    recipe.require_data_named()
    name, digest, commit, splits = stream_source(recipe)
    if number_columns(recipe):
        splits = {split: _with_numbers(recipe, rows, f"{name}, split {split}") for split, rows in splits.items()}
        digest = digest_of_text(digest + spelling(recipe))
    return RawStream(name, digest, commit, splits)


def _with_numbers(recipe: Recipe, rows: datasets.IterableDataset, split: str) -> datasets.IterableDataset:
    """The same stream, with numbers where the recipe says how they are written."""
    features = rows.features
    if features is not None:
        texts = [name for name in number_columns(recipe) if getattr(features.get(name), "dtype", "") in _TEXTS]
        features = datasets.Features({**features, **{name: datasets.Value("float64") for name in texts}})
    return rows.map(batch_reader(recipe, split), batched=True, features=features)


def _bounds(expression: str, where: str) -> tuple[str, int, int | None]:
    """The split of an expression, its first row, and the row after its last one where that is given."""
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

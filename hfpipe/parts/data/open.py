"""Raw data: opened or given, identified by content, and cut into splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import datasets

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.data.columns import column, is_list, require_columns
from hfpipe.parts.data.held_out import held_out
from hfpipe.parts.data.numbers import number_columns, spelling, with_numbers
from hfpipe.parts.data.sources import RawData, base_of, open_source
from hfpipe.recipe.schema import HELD_OUT, Recipe
from hfpipe.system.snapshot import digest_of_text

__all__ = ["RawData", "dataset_identity", "given_data", "open_data"]


def open_data(recipe: Recipe) -> RawData:
    """Open what `recipe.dataset` names, with the rows set aside that it holds out.

    Raises:
        RecipeError: fields that contradict each other.
        DataError: nothing there, or files that can't be read.
    """
    return _hold_out(recipe, _with_numbers(recipe, open_source(recipe)))


def given_data(recipe: Recipe, given: Mapping[str, datasets.Dataset] | datasets.Dataset) -> RawData:
    """Data sets that are in memory already, with the rows set aside that `recipe.dataset` holds out.

    Args:
        recipe: the recipe.
        given: a data set by the name of its split (a DatasetDict is that too), or one alone, which is the split `train`.

    Raises:
        RecipeError: something else.
    """
    splits = {"train": given} if isinstance(given, datasets.Dataset) else given
    if not isinstance(splits, Mapping):
        raise _no_dataset("the given data set", splits)
    for name, rows in splits.items():
        if not isinstance(rows, datasets.Dataset):
            raise _no_dataset(f"split {name!r} of the given data set", rows)
    prints = " ".join(f"{name}={rows._fingerprint}" for name, rows in splits.items())
    plain = {str(name): rows.with_format(None) for name, rows in splits.items()}
    raw = RawData("the given data set", digest_of_text(prints), None, plain)
    return _hold_out(recipe, _with_numbers(recipe, raw))


def _with_numbers(recipe: Recipe, raw: RawData) -> RawData:
    """The same data, with numbers where the recipe says how they are written."""
    if not number_columns(recipe):
        return raw
    splits = {name: with_numbers(recipe, rows, f"{raw.name}, split {name}") for name, rows in raw.splits.items()}
    return replace(raw, digest=digest_of_text(raw.digest + spelling(recipe)), splits=splits)


def dataset_identity(digest: str, recipe: Recipe) -> str:
    """What identifies the data that splits are taken from: their content and their configuration."""
    return digest_of_text(f"{digest} {recipe.dataset.name}")


def _no_dataset(what: str, got: Any) -> RecipeError:
    kind = f"{type(got).__module__.partition('.')[0]}.{type(got).__name__}".removeprefix("builtins.")
    made_by = {
        "pandas.DataFrame": "Use datasets.Dataset.from_pandas(frame).",
        "list": "Use datasets.Dataset.from_list(rows), or datasets.Dataset.from_dict(columns).",
        "dict": "Use datasets.Dataset.from_dict(columns).",
        "datasets.IterableDataset": "Use datasets.Dataset.from_list(list(rows)).",
        "str": "Name a path in the recipe's dataset.path.",
    }
    return RecipeError(
        f"{what} is a {kind}",
        where="dataset",
        allowed="a datasets.Dataset, or a mapping from the names of splits to them",
        fix=made_by.get(kind, ""),
    )


def _hold_out(recipe: Recipe, raw: RawData) -> RawData:
    """The same data, with the rows of the training split that the recipe holds out as a split of their own."""
    splits, where = recipe.dataset.splits, recipe.where("dataset.splits.hold_out")
    if splits.hold_out is None:
        return raw
    if HELD_OUT in raw.splits:
        raise RecipeError(f"{raw.name} has a split {HELD_OUT!r} of its own", where=where, fix="Remove hold_out.")
    name = base_of(splits.train)
    raw.split(name, recipe.where("dataset.splits.train"))
    rows, label, classes = raw.splits[name], recipe.task.label_columns[0], None
    if splits.stratify:
        require_columns(rows, [label], f"{raw.name}, split {name}", recipe.where("task.label"))
        values = column(rows, label).combine_chunks()
        if is_list(values.type):
            raise DataError(f"{name}: column {label!r} holds {values.type}", where=where, fix="Remove stratify.")
        classes = values.dictionary_encode("encode").indices.to_numpy()
    remaining, aside = held_out(len(rows), splits.hold_out, recipe.seed, classes, where)
    parts = {**raw.splits, name: rows.select(remaining), HELD_OUT: rows.select(aside)}
    by = f"{name} {splits.hold_out} {recipe.seed} {label if splits.stratify else None}"
    whole = rows if name == splits.train else None
    places, digest = dict(raw.places), digest_of_text(f"{raw.digest} held out of {by}")
    if (all_rows := places.get(name)) is not None:
        places |= {name: all_rows.select(remaining), HELD_OUT: all_rows.select(aside)}
    return replace(raw, digest=digest, splits=parts, whole=whole, places=places)

"""Slices of a split: by column, by length and by expression, and every way to get them wrong."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pytest

from hfpipe.errors import DataError, HfpipeError, RecipeError
from hfpipe.evaluation.slices import cut

ROWS = datasets.Dataset.from_dict(
    {
        "text": ["a b", "c", "d e f", "g"],
        "genre": ["news", "blog", "news", None],
        "stars": [1, 2, 1, 3],
        "tags": [["x"]] * 4,
    },
)
LENGTHS = np.array([4, 3, 9, 3])


def named(*specs: Any) -> dict[str, list[int]]:
    """The row numbers of each slice by its value."""
    return {one.value: np.flatnonzero(one.rows).tolist() for one in cut(specs, ROWS, LENGTHS, "data", "here")}


def test_by_a_column() -> None:
    """Each value is a slice, a missing one too, and class numbers go by their names."""
    assert named("genre") == {"blog": [1], "news": [0, 2], "None": [3]}
    assert named("stars") == {"1": [0, 2], "2": [1], "3": [3]}
    classes = ROWS.cast_column("stars", datasets.ClassLabel(names=["zero", "one", "two", "three"]))
    assert [one.value for one in cut(["stars"], classes, LENGTHS, "data", "here")] == ["one", "two", "three"]


def test_by_length_every_row_is_in_one_slice() -> None:
    """Edges belong to the slice below them; without edges the quarters of the split; empty slices are left out."""
    assert named({"length": [3, 5]}) == {"1 to 3 tokens": [1, 3], "4 to 5 tokens": [0], "over 5 tokens": [2]}
    assert named({"length": [100]}) == {"1 to 100 tokens": [0, 1, 2, 3]}
    quarters = named("length")
    assert sorted(row for rows in quarters.values() for row in rows) == [0, 1, 2, 3]


def test_by_an_expression() -> None:
    """Over columns and length, with a few functions."""
    assert named({"name": "short", "where": "words(text) < 2 or length > 8"}) == {
        "words(text) < 2 or length > 8": [1, 2, 3]
    }
    assert named({"name": "news", "where": "genre == 'news' and stars in [1, 2]"}) == {
        "genre == 'news' and stars in [1, 2]": [0, 2]
    }


@pytest.mark.parametrize(
    ("spec", "kind", "told"),
    [
        ("genres", RecipeError, "data has no column 'genres'; did you mean 'genre'"),
        ("tags", RecipeError, "'tags' holds list"),
        ({"name": "x", "where": "stars >"}, RecipeError, "is no expression"),
        ({"name": "x", "where": "star > 1"}, RecipeError, "can't be computed for row 0 of data"),
        ({"name": "x", "where": "len(genre) > 1"}, RecipeError, "can't be computed for row 3 of data"),
        ({"name": "x", "where": "text.__class__"}, RecipeError, "can't be computed"),
        ({"name": "x", "where": "__import__('os')"}, RecipeError, "can't be computed"),
        ({"name": "x", "where": "9 ** 9 ** 9 > 1"}, RecipeError, "can't be computed"),
    ],
)
def test_what_can_not_be_cut_is_told(spec: Any, kind: type[HfpipeError], told: str) -> None:
    """A misspelt column, a list, and expressions that are wrong or reach too far, each with the place and the row."""
    with pytest.raises(kind, match=r"^here: ") as error:
        named(spec)
    assert told in str(error.value)


def test_a_column_of_ids_is_no_slice() -> None:
    """More values than anyone reads are refused with the way out."""
    many = datasets.Dataset.from_dict({"id": list(range(51))})
    with pytest.raises(DataError, match="'id' has 51 different values"):
        cut(["id"], many, np.ones(51), "data", "here")

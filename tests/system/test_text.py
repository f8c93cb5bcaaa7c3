"""Counts, lists and errors in words, and JSON."""

from __future__ import annotations

import json

import pytest

from hfpipe.system import text


@pytest.mark.parametrize(
    ("count", "words", "expected"),
    [
        (1, ("row",), "1 row"),
        (0, ("row",), "0 rows"),
        (2000, ("row",), "2,000 rows"),
        (2, ("class", "classes"), "2 classes"),
    ],
)
def test_counts(count: int, words: tuple[str, ...], expected: str) -> None:
    """One of a thing, or several, with separators."""
    assert text.plural(count, *words) == expected


def test_lists_name_the_first_ones() -> None:
    """Of many values the first are named and the others counted; of few all are."""
    assert text.listed(range(3), 3) == "0, 1, 2"
    assert text.listed(range(2003), 3) == "0, 1, 2 and 2,000 more"
    assert text.listed([]) == ""


def test_errors_of_libraries_on_one_line() -> None:
    """Line ends and spaces are folded, a long text is cut, and an error without a text is named by its type."""
    error = ValueError("\n  no such\n file.  ")
    assert text.one_line(error) == "no such file."
    assert text.first_line(error) == "no such"
    assert text.one_line(ValueError("abc"), 2) == "ab"
    assert text.one_line(KeyError()) == text.first_line(KeyError()) == "KeyError"


def test_json_has_no_nan() -> None:
    """What is not finite is null, and letters stay letters."""
    value = {"é": [float("nan"), (1.0, float("inf"))]}
    assert text.json_line(value) == '{"é": [null, [1.0, null]]}'
    assert json.loads(text.json_page(value)) == {"é": [None, [1.0, None]]}

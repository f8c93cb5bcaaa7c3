"""Numbers that are written as text, with a decimal comma or signs between thousands, become numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from hfpipe.parts.data.columns import column, is_text, refuse
from hfpipe.recipe.schema import Recipe

_SPACES = " \u00a0\u202f\u2009"  # protected, narrow and thin ones too, as spreadsheets write them


def number_columns(recipe: Recipe) -> tuple[str, ...]:
    """The columns that hold numbers which another than Python's way of writing was declared for."""
    spec, task = recipe.dataset, recipe.task
    is_plain = spec.decimal == "." and spec.thousands is None
    of_classes = task.traits.has_classes and len(task.label_columns) == 1  # a list or text of them, and no number
    return () if is_plain or of_classes or not task.traits.has_numbers else task.label_columns


def spelling(recipe: Recipe) -> str:
    """How numbers are written, as a part of what identifies the data; empty where as in Python."""
    spec = recipe.dataset
    return f" numbers {spec.decimal}{spec.thousands} in {number_columns(recipe)}" if number_columns(recipe) else ""


def with_numbers(recipe: Recipe, rows: datasets.Dataset, split: str) -> datasets.Dataset:
    """The same rows with numbers in the columns that the task learns, where text is in them.

    Raises:
        DataError: with the first rows that hold no number.
    """
    where = recipe.where("dataset.decimal" if recipe.dataset.decimal != "." else "dataset.thousands")
    for name in number_columns(recipe):
        if name not in rows.column_names or not is_text(column(rows, name).type):
            continue
        values = read_numbers(column(rows, name), recipe, f"{split}: column {name!r}", where)
        place = rows.column_names.index(name)
        table = rows.with_format("arrow")[:].set_column(place, name, values)
        features = datasets.Features({**rows.features, name: datasets.Value("float64")})
        rows = datasets.Dataset(table, info=datasets.DatasetInfo(features=features))
    return rows


def batch_reader(recipe: Recipe, split: str) -> Callable[[dict[str, list[Any]]], dict[str, Any]]:
    """The function that reads the numbers in a batch of a stream."""
    where = recipe.where("dataset.decimal" if recipe.dataset.decimal != "." else "dataset.thousands")

    def read(batch: dict[str, list[Any]]) -> dict[str, Any]:
        found = {}
        for name in number_columns(recipe):
            values = pa.chunked_array([pa.array(batch[name])])
            if is_text(values.type):
                found[name] = read_numbers(values, recipe, f"{split}: column {name!r}", where).to_pylist()
        return {**batch, **found}

    return read


def read_numbers(texts: pa.ChunkedArray, recipe: Recipe, what: str, where: str) -> pa.ChunkedArray:
    """Texts as numbers.

    Args:
        texts: `[rows]`; null stays null.
        recipe: says what is before the fraction and between thousands.
        what: names the column in errors.
        where: the place in the recipe.

    Raises:
        DataError: with the first rows that are written otherwise.
    """
    decimal, thousands = recipe.dataset.decimal, recipe.dataset.thousands
    between = f"[{_SPACES}]" if thousands == " " else re.escape(thousands or "")
    whole = rf"([0-9]{{1,3}}({between}[0-9]{{3}})+|[0-9]+)" if thousands else "[0-9]+"
    fraction = rf"{re.escape(decimal)}[0-9]+"
    pattern = rf"^[+-]?({whole}({fraction})?|{fraction})([eE][+-]?[0-9]+)?$"
    plain = pc.utf8_trim_whitespace(texts)
    plain = pc.replace_substring(plain, "\u2212", "-")  # the minus sign of typesetting
    bad = pc.fill_null(pc.invert(pc.match_substring_regex(plain, pattern)), False)
    if pc.any(bad).as_py():
        first = texts.filter(bad)[0].as_py()
        shown = f"3{decimal}5" + (f" or 1{thousands}250{decimal}5" if thousands else "")
        fix = "Mend these rows."
        if not thousands and re.fullmatch(r"[+-]?\d{1,3}([.,' \u00a0\u202f]\d{3})+([.,]\d+)?", first.strip()):
            fix = "If a sign parts thousands there, name it: dataset.thousands."
        refuse(bad, f"{what} holds {first!r}, which is no number written as {shown}", where, fix)
    if thousands:
        plain = pc.replace_substring_regex(plain, between, "")
    return pc.replace_substring(plain, decimal, ".").cast(pa.float64())

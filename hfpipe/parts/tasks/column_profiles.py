"""What a column looks like to somebody who makes a recipe: text, classes, numbers, lists of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from hfpipe.parts.data.columns import column, is_list, is_text

_LOOKED_AT = 20_000  # rows whose texts are measured; values are counted in all
_WITH_COMMA = re.compile(r"[+-]?\d{1,3}(\.\d{3})*(,\d+)?|[+-]?\d+(,\d+)?")


@dataclass(frozen=True)
class Profile:
    """One column of raw rows.

    Attributes:
        name: of the column.
        kind: `text`, `whole` (whole numbers), `number`, `flag` (true or false), `texts`, `numbers` and `flags` (lists),
            `answers` (SQuAD's), `choices` (objects with their texts), `fields` (objects of 0 and 1), `empty` or `other`.
            Numbers that a csv file holds as text are numbers.
        rows: that have a value.
        distinct: how many different values there are; of lists, different items.
        values: some of the values, at most 60; of lists, items.
        words: mean number of words of a text.
        longest: words that 95 % of the texts do not exceed.
        is_declared: whether the data name the classes themselves.
        is_written: whether numbers are held as text.
        is_float: whether whole numbers are held as numbers with fractions, as pandas does where some are missing.
    """

    name: str
    kind: str
    rows: int
    distinct: int
    values: tuple[Any, ...]
    words: float = 0.0
    longest: int = 0
    is_declared: bool = False
    is_written: bool = False
    is_float: bool = False

    @property
    def is_prose(self) -> bool:
        """Whether it is text to read rather than names: nearly every row has its own, or they are long."""
        return self.kind == "text" and (self.words >= 4 or (self.words >= 1.5 and self.distinct > 0.5 * self.rows))

    @property
    def is_classes(self) -> bool:
        """Whether few values come again and again."""
        few = 2 <= self.distinct <= max(2, min(1000, self.rows // 2))
        return few and not self.is_prose and (self.kind in ("text", "whole", "flag") or self.is_declared)

    @property
    def has_decimal_comma(self) -> bool:
        """Whether texts are numbers such as `3,5` or `1.250,75`; `1,250` alone could be a thousand."""
        values = [str(one).strip() for one in self.values if str(one).strip()]
        return (
            self.kind == "text"
            and all(_WITH_COMMA.fullmatch(one) for one in values)
            and any("," in one and len(one.rpartition(",")[2]) != 3 for one in values)
        )

    def described(self) -> str:
        """In a few words, for a list of columns."""
        return f"{self.name} ({self.contents})"

    @property
    def contents(self) -> str:
        """What it holds, in a few words."""
        about = {"whole": "whole numbers", "number": "numbers", "flag": "true or false", "texts": "lists of text",
                 "numbers": "lists of numbers", "flags": "lists of 0 and 1", "fields": "objects of numbers"}  # fmt: skip
        what = "classes" if self.is_declared else about.get(self.kind, self.kind)
        return f"{what}, {self.distinct:,} values" if self.kind != "empty" else "empty"


def profile(rows: datasets.Dataset, name: str, decimal: str = ".", thousands: str | None = None) -> Profile:
    """Look at one column of some rows.

    Args:
        rows: of which it is a column.
        name: of the column.
        decimal: what stands before the fraction of numbers that are written as text.
        thousands: what stands between groups of three of their digits.
    """
    values = column(rows, name)
    feature = rows.features.get(name)
    present = values.drop_null()
    if pa.types.is_floating(present.type):
        present = present.filter(pc.invert(pc.is_nan(present)))
    count = len(present)
    if not count:
        return Profile(name, "empty", 0, 0, ())
    if is_list(values.type):
        return _of_lists(name, present, count)
    if pa.types.is_struct(values.type):
        return Profile(name, _kind_of_objects(values.type), count, count, ())
    if isinstance(feature, datasets.ClassLabel):
        return Profile(name, "whole", count, len(feature.names), tuple(feature.names[:60]), is_declared=True)
    distinct = pc.unique(present)
    some = tuple(distinct.slice(0, 60).to_pylist())
    if is_text(values.type):
        return _of_texts(name, present, count, distinct, some, (decimal, thousands))
    kind = "other"
    if pa.types.is_boolean(values.type):
        kind = "flag"
    elif pa.types.is_integer(values.type):
        kind = "whole"
    elif pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        numbers = distinct.slice(0, _LOOKED_AT).to_pylist()
        kind = "whole" if all(float(one).is_integer() for one in numbers) else "number"  # infinity is no whole one
    is_float = kind == "whole" and not pa.types.is_integer(values.type)
    return Profile(name, kind, count, len(distinct), some, is_float=is_float)


def _kind_of_objects(kind: pa.StructType) -> str:
    """What objects with these fields are: answers, the choices of a question, 0 and 1 for each class, or something else."""
    fields = {field.name: field.type for field in kind}
    if {"text", "answer_start"} <= fields.keys():
        return "answers"
    if is_list(fields.get("text", pa.null())) or all(
        len(name) == 1 and name.isalpha() and is_text(one) for name, one in fields.items()
    ):
        return "choices"
    is_flags = all(pa.types.is_integer(one) or pa.types.is_boolean(one) for one in fields.values())
    return "fields" if is_flags and len(fields) > 1 else "other"


def _of_texts(
    name: str,
    present: pa.ChunkedArray,
    count: int,
    distinct: Any,
    some: tuple[Any, ...],
    spelling: tuple[str, str | None],
) -> Profile:
    filled = [text.strip() for text in distinct.slice(0, _LOOKED_AT).to_pylist() if text.strip()]
    numbers = [_as_number(text, *spelling) for text in filled]
    if filled and all(number is not None for number in numbers):
        whole = all(
            float(number or 0).is_integer() and spelling[0] not in text
            for number, text in zip(numbers, filled, strict=True)
        )
        return Profile(name, "whole" if whole else "number", count, len(distinct), some, is_written=True)
    lengths = sorted(len(text.split()) for text in present.slice(0, _LOOKED_AT).to_pylist())
    mean = sum(lengths) / len(lengths)
    return Profile(name, "text", count, len(distinct), some, mean, lengths[int(0.95 * (len(lengths) - 1))])


def _as_number(text: str, decimal: str, thousands: str | None) -> float | None:
    text = text.replace(thousands, "") if thousands else text
    if decimal != ".":
        text = text.replace(".", "?").replace(decimal, ".")
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _of_lists(name: str, present: pa.ChunkedArray, count: int) -> Profile:
    items = pa.chunked_array([chunk.flatten() for chunk in present.chunks], present.type.value_type).drop_null()
    if pa.types.is_struct(items.type):
        is_choices = any(field.name == "text" and is_text(field.type) for field in items.type)
        return Profile(name, "choices" if is_choices else "other", count, 0, ())
    if is_list(items.type) or not len(items):
        return Profile(name, "other", count, 0, ())
    distinct = pc.unique(items)
    some = tuple(distinct.slice(0, 60).to_pylist())
    lengths = sorted(pc.list_value_length(present.slice(0, _LOOKED_AT)).to_pylist())
    kind = "texts" if is_text(items.type) else "numbers"
    if kind == "numbers" and set(some) <= {0, 1} and lengths[0] == lengths[-1] > 1:
        kind = "flags"
    mean = sum(lengths) / len(lengths)
    return Profile(name, kind, count, len(distinct), some, mean, lengths[int(0.95 * (len(lengths) - 1))])


def lengths_of_lists(rows: datasets.Dataset, name: str) -> list[int | None]:
    """Items in each list of a column, `[rows]`."""
    lengths: list[int | None] = pc.list_value_length(column(rows, name)).to_pylist()
    return lengths

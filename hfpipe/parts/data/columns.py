"""Looking at columns of raw rows, in Arrow: none of it makes Python objects of a whole split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hfpipe.errors import DataError
from hfpipe.parts.data.formats.delimited import named_by_separator
from hfpipe.recipe.catalog import near
from hfpipe.system.text import listed

Array = np.ndarray[Any, Any]

IGNORED = -100  # a label with this value is no item: torch's and transformers' convention
ROW = "__row__"  # beside the columns of a batch that is encoded: the number of each row in its split
_SHOWN = 5  # rows named in an error


def is_item(labels: Array) -> Array:
    """Which encoded labels count, in their shape: all but the class -100, or the number NaN; -100.0 is a number like others."""
    return ~np.isnan(labels) if labels.dtype.kind == "f" else labels != IGNORED


def column(rows: datasets.Dataset, name: str) -> pa.ChunkedArray:
    """One column as it lies in memory."""
    return rows.select_columns([name]).with_format("arrow")[:].column(0)


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def require_columns(rows: datasets.Dataset, names: Sequence[str], split: str, where: str) -> None:
    """Refuse rows without one of the columns.

    Raises:
        DataError: naming the near columns and all there are.
    """
    for name in names:
        if name not in rows.column_names:
            raise DataError(
                f"{split}: no column {name!r}{near(name, rows.column_names)}",
                where=where,
                allowed=", ".join(rows.column_names),
                fix=named_by_separator(rows.column_names),
            )


def require_text(rows: datasets.Dataset, name: str, split: str, where: str) -> None:
    """Refuse a column that is not all text.

    Raises:
        DataError: with the type and a row, or with the rows that have none, or bytes that are no characters.
    """
    texts = column(rows, name)
    if not is_text(texts.type):
        shown = f", such as {str(texts[0].as_py())[:40]!r} in row 0" if len(texts) else ""
        raise DataError(f"{split}: column {name!r} holds {texts.type}{shown}", where=where, allowed="text")
    if texts.null_count:
        refuse(pc.is_null(texts), f"{split}: column {name!r} has no text", where, "Fill or drop these rows.")
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        bad = [_is_broken(text.as_buffer().to_pybytes()) for text in texts]
        refuse(
            bad, f"{split}: a text of {name!r} is no UTF-8, or has half of a surrogate pair", where, "Mend these rows."
        )


def _is_broken(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return True
    return False


def require_values(
    rows: datasets.Dataset, name: str, split: str, where: str, what: str = "no label"
) -> pa.ChunkedArray:
    """The column, which has a value in every row.

    Raises:
        DataError: with the rows that have none.
    """
    values = column(rows, name)
    if values.null_count:
        refuse(pc.is_null(values), f"{split}: {what}", where, "Label or drop these rows.")
    return values


def as_numbers(values: pa.ChunkedArray, split: str, name: str, where: str) -> pa.ChunkedArray:
    """The column as float64.

    Raises:
        DataError: where something is no number, with the first rows.
    """
    try:
        return values.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if not is_text(values.type):
            raise DataError(f"{split}: column {name!r} is not all numbers ({error})", where=where) from None
    bad = [not _is_number(one) for one in values.to_pylist()]
    first = values[bad.index(True)].as_py()
    looks = _with_sign.fullmatch(first.strip())
    fix = "Mend these rows."
    if looks:
        fix = f"If {looks['sign']!r} stands before the fraction there, say dataset.decimal: {looks['sign']!r}; if it parts "
        fix += (
            f"thousands, dataset.thousands: {looks['sign']!r}." if looks["sign"] in ".,' " else "thousands, remove it."
        )
    refuse(bad, f"{split}: column {name!r} is not all numbers, {first!r} is none", where, fix)
    raise AssertionError


_with_sign = re.compile(r"[+-]?\d+(?P<sign>[^\deE+-])[\d.,' \u00a0\u202f]*\d")  # 3,5 or 1.250,5


def _is_number(text: str | None) -> bool:
    try:
        pa.scalar(text).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def refuse(bad: Any, what: str, where: str, fix: str) -> None:
    """Raise the error about some rows, the first few by number.

    Args:
        bad: booleans, `[rows]`, at least one of them true.
        what: what is wrong with them.
        where: the place in the recipe.
        fix: what to do.

    Raises:
        DataError: always.
    """
    rows = np.flatnonzero(np.asarray(bad))
    noun = "rows" if len(rows) > 1 else "row"
    raise DataError(f"{what} ({noun} {listed(rows, _SHOWN)}, counted from 0)", where=where, fix=fix)

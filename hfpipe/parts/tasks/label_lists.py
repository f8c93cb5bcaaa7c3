"""Rows with several labels: how a cell says them, as names or numbers of classes or as 0 and 1 for each class."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hfpipe.errors import DataError
from hfpipe.parts.data.columns import IGNORED, column, is_list, is_text, refuse
from hfpipe.parts.tasks.classes import Names, is_missing

Array = np.ndarray[Any, Any]

CLASSES, COLUMNS = "classes", "columns"
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "true": 1, "false": 0}
_SEPARATORS = (",", ";", "|", "\t", "/")


def lists_of(values: pa.ChunkedArray, separator: str | None, split: str, name: str, where: str) -> pa.ChunkedArray:
    """A label column as lists of names, numbers or booleans; what is missing stays null.

    Texts are separated at `separator`, or read as lists where they are written as such (`[0, 1]`, `["a", "b"]`). Only
    the different texts become Python objects.

    Raises:
        DataError: no lists, and no texts that are read as such.
    """
    if is_list(values.type):
        if separator is not None:
            raise DataError(f"{split}: {name!r} holds lists", where=where, fix="Leave label.separator out.")
        return values
    if not is_text(values.type):
        raise DataError(
            f"{split}: column {name!r} holds {values.type}",
            where=where,
            allowed="lists of classes, lists or columns of 0 and 1, or texts with a label.separator",
            fix="For one class a row use task.kind: text-classification.",
        )
    coded = values.combine_chunks().dictionary_encode()
    texts = coded.dictionary.to_pylist()
    if all(looks_like_list(text) for text in texts if text.strip()):
        if separator is not None:
            what = f"{split}: {name!r} holds lists as texts, such as {texts[0]!r}"
            raise DataError(what, where=where, fix="Leave label.separator out.")
        parsed = [_parsed(text) for text in texts]
        if None in parsed:
            bad = np.asarray(pc.equal(values, texts[parsed.index(None)]).fill_null(False))
            refuse(
                bad, f"{split}: {name!r} is {texts[parsed.index(None)]!r}, which is no list", where, "Mend these rows."
            )
    elif separator is None:
        raise DataError(
            f"{split}: column {name!r} holds {values.type}, such as {texts[0]!r}",
            where=where,
            allowed="lists of classes, lists or columns of 0 and 1, or texts with a label.separator",
            fix=f"{_separator_in(texts, name)}For one class a row use task.kind: text-classification.",
        )
    else:
        parsed = [separated(text, separator) for text in texts]
    try:
        lists = pa.array(parsed, None if any(parsed) else pa.list_(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{split}: the lists of {name!r} hold different things ({error})", where=where) from None
    return pa.chunked_array([lists.take(coded.indices)])


def as_list(cell: Any, separator: str | None) -> list[Any]:
    """One cell that :func:`lists_of` can read, as a list."""
    if not isinstance(cell, str):
        return list(cell)
    return separated(cell, separator) if separator is not None else _parsed(cell) or []


def separated(text: str, separator: str) -> list[str]:
    """The names in a text; white space around them, and nothing between two separators, are no part of them."""
    return [name for piece in text.split(separator) if (name := piece.strip())]


def looks_like_list(text: str) -> bool:
    """Whether a text is a list as JSON, Python or numpy writes it."""
    text = text.strip()
    return text.startswith("[") and text.endswith("]")


def _parsed(text: str) -> list[Any] | None:
    """A list as JSON, Python or numpy writes it; None for what is none."""
    for read in (json.loads, ast.literal_eval, lambda text: [float(one) for one in text.strip("[]").split()]):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else None
    return None


def separator_of(texts: Sequence[str]) -> str | None:
    """What stands between the names in texts, where names come again in other texts, alone or with others; else None."""
    for separator in _SEPARATORS:
        pieces = [separated(text, separator) for text in texts]
        if any(len(names) > 1 for names in pieces) and len({one for names in pieces for one in names}) < len(texts):
            return separator
    return None


def _separator_in(texts: Sequence[str], name: str) -> str:
    """How to say the separator that most texts have, if one does."""
    counts = {one: sum(one in text for text in texts) for one in _SEPARATORS}
    likely = max(counts, key=lambda one: counts[one])
    return f"Say the separator: label: {{column: {name}, separator: {json.dumps(likely)}}}. " if counts[likely] else ""


def form_of(lists: pa.ChunkedArray, names: Names, feature: Any, split: str, name: str, where: str) -> str:
    """Whether lists hold classes, or 0 and 1 for each class in order.

    Numbers of classes are different within a row. Three or more of 0 and 1 never are, so that lists of one width which
    hold nothing else are columns. Of two numbers only rows of `[0, 0]` or `[1, 1]` tell.

    Args:
        lists: of the training split.
        names: as declared in the recipe, or None.
        feature: of what is in the lists.
        split: title for messages.
        name: of the column.
        where: the place in the recipe.

    Raises:
        DataError: lists that can be read in two ways, or in none.
    """
    inner, widths = pc.list_flatten(lists), np.asarray(pc.list_value_length(lists.drop_null()))
    kind = inner.type
    if not len(inner) or pa.types.is_null(kind) or pa.types.is_nested(kind):
        return CLASSES
    flags, other = _flags(inner)
    one_width = len(set(widths.tolist())) == 1
    if other.any() and (is_text(kind) or not _are_hidden(inner, other)):
        if pa.types.is_floating(kind) and one_width and widths[0] > 1:
            _refuse_other(lists, other, split, name, where)
        return CLASSES
    owner = np.asarray(pc.list_parent_indices(lists))
    ones, zeros = (np.bincount(owner[flags == one], minlength=len(lists)) for one in (1, 0))
    repeats = (ones > 1) | (zeros > 1)
    if one_width and (repeats.any() or pa.types.is_boolean(kind)) and widths[0] > 1:
        return COLUMNS
    if pa.types.is_boolean(kind) or repeats.any():
        common = int(np.bincount(widths).argmax())
        lengths = np.asarray(pc.list_value_length(lists).fill_null(common))
        what = (
            f"{split}: lists of 0 and 1 in {name!r} have {len(set(widths.tolist()))} different widths, mostly {common}"
        )
        if one_width:
            what = f"{split}: the lists of 0 and 1 in {name!r} have a width of {common}, which is a single class"
            raise DataError(what, where=where, fix="For two classes use task.kind: text-classification.")
        refuse(lengths != common, what, where, "Give every row 0 or 1 for each class.")
    if one_width and widths[0] == 2 and _fits_two(names, feature):
        raise DataError(
            f"{split}: every list of {name!r} has two numbers, 0 and 1: they could be the classes 0 and 1, which every row "
            "then has, or 0 and 1 for each of two classes",
            where=where,
            fix=f"Say which: label: {{column: {name}, form: columns}} for 0 and 1 of each class, or "
            f"label: {{column: {name}, form: classes}} for the numbers of classes.",
        )
    return CLASSES


def _are_hidden(values: pa.ChunkedArray, other: Array) -> bool:
    """Whether all that is neither 0 nor 1 is -1, -100 or nothing, as where labels are kept back."""
    numbers = np.asarray(values.cast(pa.float64()).fill_null(-1))[other]
    return bool(np.isin(numbers, (-1, IGNORED)).all())


def _fits_two(names: Names, feature: Any) -> bool:
    """Whether two columns would have a name each."""
    known = names if names is not None else feature.names if isinstance(feature, datasets.ClassLabel) else None
    return known is None or len(known) == 2


def column_names(
    lists: pa.ChunkedArray, names: Names, feature: Any, split: str, name: str, where: str
) -> tuple[str, ...]:
    """The classes of lists of 0 and 1: as declared, as the data name as many, or class_0, class_1, ...

    Raises:
        DataError: another number of names, or lists of no width.
    """
    width = int(pc.max(pc.list_value_length(lists)).as_py() or 0)
    if isinstance(names, tuple):
        if len(names) != width:
            raise DataError(
                f"{split}: the lists of {name!r} have 0 or 1 for {width} classes, and label.names has {len(names)}",
                where=where,
                fix="Name every class, in the order of the lists.",
            )
        return names
    if names is not None:
        what = f"{split}: {name!r} holds 0 and 1 for each of {width} classes, and label.names is a mapping"
        raise DataError(what, where=where, fix="Give the names of the classes as a list, in the order of the lists.")
    if width < 2:
        what = f"{split}: the lists of {name!r} have a width of {width}"
        raise DataError(what, where=where, allowed="0 or 1 for each of two classes or more")
    if isinstance(feature, datasets.ClassLabel) and len(feature.names) == width > 2:
        return tuple(feature.names)
    return tuple(f"class_{number}" for number in range(width))


def check_columns(lists: pa.ChunkedArray, width: int, rows: Array, split: str, name: str, where: str) -> None:
    """Refuse lists that are not 0 or 1 for each class.

    Args:
        lists: without nulls.
        width: how many classes there are.
        rows: the row of each list.
        split: title for messages.
        name: of the column.
        where: the place in the recipe.

    Raises:
        DataError: with the rows.
    """
    lengths = np.asarray(pc.list_value_length(lists))
    if (wrong := lengths != width).any():
        what = f"{split}: {lengths[wrong][0]} numbers in {name!r}, and there are {width} classes"
        refuse(np.isin(np.arange(rows[-1] + 1), rows[wrong]), what, where, "Give every row 0 or 1 for each class.")
    _, other = _flags(pc.list_flatten(lists))
    if other.any():
        require_kept(pc.list_flatten(lists), split, where)
        _refuse_other(lists, other, split, name, where, rows)


def require_kept(values: pa.ChunkedArray, split: str, where: str) -> None:
    """Refuse a split whose labels are all -1."""
    if not is_text(values.type) and len(values) and pc.all(pc.equal(values, -1)).as_py():
        raise DataError(
            f"{split}: every label is -1, as in a split whose labels are kept back",
            where=where,
            fix="Such a split can't be trained on or scored; `hfpipe predict` labels it.",
        )


def _refuse_other(
    lists: pa.ChunkedArray, other: Array, split: str, name: str, where: str, rows: Array | None = None
) -> None:
    owner = np.asarray(pc.list_parent_indices(lists))
    owner = owner if rows is None else rows[owner]
    value = pc.list_flatten(lists)[int(np.flatnonzero(other)[0])].as_py()
    what = f"{split}: {value!r} in a list of {name!r}, and a label column says 0 or 1"
    refuse(np.isin(np.arange(owner[-1] + 1), owner[other]), what, where, "Mend these rows.")


def _flags(values: pa.ChunkedArray) -> tuple[Array, Array]:
    """Each value as 0 or 1, and which are neither (-1 in the first), both `[values]`."""
    if pa.types.is_null(values.type):
        return np.full(len(values), -1), np.ones(len(values), bool)
    if is_text(values.type):
        coded = values.combine_chunks().dictionary_encode()
        of = np.array([*(flag_of(text) for text in coded.dictionary.to_pylist()), -1])
        flags = of[np.asarray(coded.indices.fill_null(len(of) - 1))]
        return flags, flags < 0
    numbers = np.asarray(values.cast(pa.float64()).fill_null(-1))
    flags = np.where(numbers == 1, 1, np.where(numbers == 0, 0, -1))
    return flags, flags < 0


def flag_of(value: Any) -> int:
    """A value of a label column as 0 or 1; -1 where it is neither."""
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower(), -1)
    return int(value) if value in (0, 1) else -1


def check_flags(values: pa.ChunkedArray, split: str, name: str, where: str, *, missing: bool) -> None:
    """Refuse a column of one class that is not 0 or 1 in every row; with `missing` it may also say nothing.

    Raises:
        DataError: with the rows.
    """
    absent = is_missing(values)
    if absent.any() and not missing:
        refuse(
            absent,
            f"{split}: no label in column {name!r}",
            where,
            "Label or drop these rows, or say label.missing: ignore.",
        )
    if pa.types.is_boolean(values.type):
        return
    if not (is_text(values.type) or pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise DataError(f"{split}: column {name!r} holds {values.type}", where=where, allowed="0 or 1")
    _, other = _flags(values)
    if (bad := other & ~absent).any():
        require_kept(values, split, where)
        value = values[int(np.flatnonzero(bad)[0])].as_py()
        shown = value if isinstance(value, str) else f"{value:g}"
        refuse(bad, f"{split}: {name!r} is {shown}, and a label column says 0 or 1", where,
               "Mend these rows, or name other columns.")  # fmt: skip


def flags_of(row: Iterable[Any]) -> list[float]:
    """A checked row of 0 and 1, in any of their forms."""
    return [float(flag_of(value)) for value in row]


def fields_of(rows: datasets.Dataset, name: str) -> tuple[str, ...]:
    """The fields of a label column of structs, each of which is a class; none of another column."""
    kind = column(rows, name).type
    return tuple(field.name for field in kind) if pa.types.is_struct(kind) else ()

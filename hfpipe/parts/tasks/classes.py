"""The classes of a label column: found in the data or declared in the recipe, and which value means which."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hfpipe.errors import DataError
from hfpipe.parts.data.columns import IGNORED, is_item, is_text, refuse
from hfpipe.system.text import listed

Array = np.ndarray[Any, Any]
Names = tuple[str, ...] | Mapping[str, str] | None
"""Classes as a recipe declares them: their names in order, the name of each value in the data, or nothing."""
_SHOWN_CLASSES = 8


@dataclass(frozen=True)
class Classes:
    """The names of the classes in order, and the class of each value of the data.

    `values`, of declared classes, maps a value, written as text, to its class. Without it a text is the class of that
    name, and a whole number is the class of that index. `ignores_missing` says that a missing label is no mistake.
    """

    names: tuple[str, ...]
    values: Mapping[str, int] | None = None
    ignores_missing: bool = False

    def of(self, values: Sequence[Any]) -> list[int]:
        """The class of each value; all of them have passed :func:`check_values`. What is missing or IGNORED is IGNORED."""
        blank = self.named_blanks
        if self.values is None:
            by_name = {name: index for index, name in enumerate(self.names)}
            return [
                IGNORED if is_blank(value, blank) else by_name[value] if isinstance(value, str) else int(value)
                for value in values
            ]
        known = self.values
        return [IGNORED if value == IGNORED or is_blank(value, blank) else known[written(value)] for value in values]

    @property
    def named_blanks(self) -> tuple[str, ...]:
        """Texts of nothing but white space that were declared as a value all the same."""
        return tuple(value for value in self.values or () if not value.strip())

    def __repr__(self) -> str:
        """The same text for the same classes: part of the key of the cache of tokens."""
        return (
            f"Classes({self.names!r}, {None if self.values is None else dict(self.values)!r}, {self.ignores_missing})"
        )


def is_blank(value: Any, blank: Sequence[str] = ()) -> bool:
    """Whether a value is no label: None, NaN, or a text of nothing but white space that was not declared."""
    if isinstance(value, str):
        return not value.strip() and value not in blank
    return value is None or value != value


def is_missing(values: pa.ChunkedArray, blank: Sequence[str] = ()) -> Array:
    """Which values of a column are no label, `[rows]`: null, NaN, and blank texts except those that were declared."""
    if is_text(values.type):
        empty = pc.equal(pc.utf8_trim_whitespace(values), "")
        if blank:
            empty = pc.and_(empty, pc.invert(pc.is_in(values, pa.array(blank, values.type))))
        return np.asarray(pc.fill_null(empty, True))
    return np.asarray(pc.is_null(values, nan_is_null=pa.types.is_floating(values.type)))


def present(
    values: pa.ChunkedArray, classes: Classes, split: str, name: str, where: str
) -> tuple[pa.ChunkedArray, Array]:
    """The labels that are there, and the row of each.

    Args:
        values: the column.
        classes: of the task; they say whether a missing label is a mistake.
        split: title for messages.
        name: of the column.
        where: the place in the recipe.

    Raises:
        DataError: with the rows that have none.
    """
    missing = is_missing(values, classes.named_blanks)
    refuse_missing(missing, split, name, where, ignore=classes.ignores_missing)
    return (values.filter(pa.array(~missing)) if missing.any() else values), np.flatnonzero(~missing)


def refuse_missing(missing: Array, split: str, name: str, where: str, *, ignore: bool) -> None:
    """Refuse rows without a label; where they are ignored, only a split of nothing else.

    Raises:
        DataError: with the rows.
    """
    if missing.any() and not ignore:
        fix = f"Label or drop these rows, or leave them out: label: {{column: {name}, missing: ignore}}."
        refuse(missing, f"{split}: no label", where, fix)
    if len(missing) and missing.all():
        raise DataError(f"{split}: not one row has a label in {name!r}", where=where)


def written(value: Any) -> str:
    """A value of the data as a recipe writes it: true, 3, 0.5, or the text itself."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def find_classes(
    names: Names, feature: Any, values: pa.ChunkedArray, name: str, title: str, where: str, *, other_kind: str
) -> Classes:
    """The classes of a label column.

    Args:
        names: as declared in the recipe, or None to find them.
        feature: the column's feature in `datasets`.
        values: the column; of a list column, its flattened values.
        name: of the column.
        title: of the split, for messages.
        where: the place in the recipe.
        other_kind: the fix for numbers that are no classes.

    Raises:
        DataError: values that are no classes, or a single class.
    """
    kind = values.type
    if isinstance(names, Mapping):
        order = tuple(dict.fromkeys(names.values()))
        index = {one: number for number, one in enumerate(order)}
        found = Classes(order, {written(_parsed(key, kind)): index[one] for key, one in names.items()})
    elif names is not None:
        found = _declared(tuple(names), feature, kind)
    elif isinstance(feature, datasets.ClassLabel):
        found = Classes(tuple(feature.names))
        _require_named(found.names, values, name, title, where)
    elif is_text(kind):
        texts = [value for value in pc.unique(values).to_pylist() if value is not None and value.strip()]
        found = Classes(
            tuple(sorted(texts, key=lambda text: (not text.isdecimal(), int(text) if text.isdecimal() else 0, text)))
        )
    elif pa.types.is_integer(kind):
        numbers = sorted(value for value in pc.unique(values).to_pylist() if value not in (None, IGNORED))
        if not numbers:
            raise DataError(f"{title}: no row has a label in {name!r}; all are {IGNORED} or missing", where=where)
        if numbers != list(range(len(numbers))):
            shown = _listed(numbers)
            stray = next(value for index, value in enumerate(numbers) if value != index)
            row = pc.index(values, stray).as_py()
            raise DataError(
                f"{title}: the values of {name!r} are {shown} ({stray} first in row {row}, counted from 0)",
                where=where,
                allowed="classes counted 0, 1, 2, ... without a gap, or text labels",
                fix=f"Declare what each value means, {_mapping(name, numbers)}. {other_kind}",
            )
        found = Classes(tuple(map(str, numbers)))
    else:
        shown_values = pc.unique(values).to_pylist()[:3] if not pa.types.is_nested(kind) else []
        raise DataError(
            f"{title}: {name!r} holds {kind}",
            where=where,
            allowed="class labels, text or whole numbers",
            fix=(f"Declare what each value means, {_mapping(name, shown_values)}. " if shown_values else "")
            + other_kind,
        )
    if len(found.names) < 2:
        only = found.names[0] if found.names else "None"
        raise DataError(f"{title}: {name!r} has only the class {only!r}", where=where)
    return found


def _require_named(names: Sequence[str], values: pa.ChunkedArray, name: str, title: str, where: str) -> None:
    """Refuse classes of the data whose name is blank, where a row has one: they are missing labels."""
    blank = [number for number, one in enumerate(names) if not one.strip()]
    bad = (
        np.asarray(pc.fill_null(pc.is_in(values, pa.array(blank, values.type)), False)) if blank else np.zeros(0, bool)
    )
    if bad.any():
        refuse(
            bad,
            f"{title}: the class {blank[0]} of {name!r} is called {names[blank[0]]!r}, as a missing label is",
            where,
            f"Label or drop these rows, or give it a name, {_mapping(name, range(len(names)))}.",
        )


def _declared(names: tuple[str, ...], feature: Any, kind: pa.DataType) -> Classes:
    """Names in order: of the classes that the data name themselves, or of the numbers 0, 1, 2, ..."""
    known = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()
    if known and set(known) == set(names):
        return Classes(names, {str(number): names.index(one) for number, one in enumerate(known)})
    if is_text(kind):
        return Classes(names, {one: number for number, one in enumerate(names)})
    if pa.types.is_boolean(kind):
        return Classes(names, {"false": 0, "true": 1})
    return Classes(names, {str(number): number for number in range(len(names))})


def _parsed(key: str, kind: pa.DataType) -> Any:
    """A key of a declared mapping, as the column's type has it: `1.0` and `1` are the same number."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        try:
            return float(key)
        except ValueError:
            return key
    return key


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:_SHOWN_CLASSES])) + (" ..." if len(values) > _SHOWN_CLASSES else "")


def _mapping(name: str, values: Sequence[Any]) -> str:
    pairs = ", ".join(f'"{written(value)}": NAME' for value in values[:3] if value is not None)
    return f"label: {{column: {name}, names: {{{pairs}}}}}"


def check_values(
    classes: Classes, values: pa.ChunkedArray, split: str, name: str, where: str, rows: Any = None
) -> None:
    """Refuse values outside the classes.

    Args:
        classes: of the task.
        values: the labels that are there.
        split: title for messages.
        name: of the column.
        where: the place in the recipe.
        rows: the row of each value, ascending; by default every value is a row.

    Raises:
        DataError: with the first rows, the value and the classes.
    """
    kind = values.type
    if not len(values):
        return
    if pa.types.is_integer(kind) and pc.all(pc.equal(values, -1)).as_py():
        raise DataError(
            f"{split}: every label is -1, as in a split whose labels are kept back",
            where=where,
            fix="Such a split can't be trained on or scored; `hfpipe predict` labels it.",
        )
    if pa.types.is_integer(kind) and pc.all(pc.equal(values, IGNORED)).as_py():
        raise DataError(f"{split}: every label is {IGNORED}, so nothing is left to learn or to score", where=where)
    if not (is_text(kind) or pa.types.is_integer(kind)) and classes.values is None:
        fix = f"Declare what each value means, {_mapping(name, pc.unique(values).to_pylist())}."
        what = f"{split}: column {name!r} holds {kind}"
        raise DataError(what, where=where, allowed="names of classes, or whole numbers", fix=fix)
    outside = is_outside(classes, values)
    if pc.any(outside).as_py():
        first = values.filter(outside)[0].as_py()
        bad = np.asarray(outside)
        refuse(
            bad if rows is None else np.isin(np.arange(rows[-1] + 1), rows[bad]),
            f"{split}: label {first!r} is outside the {len(classes.names)} classes",
            where,
            f"The values are {_listed(tuple(classes.values))}."
            if classes.values is not None
            else f"The classes are {_listed(classes.names)}.{_meant(first, classes.names)}{_other_words(classes, values, name)}",
        )


def numbered(classes: Classes, rows: datasets.Dataset, name: str) -> str:
    """Which class the numbers of a column are taken for, where neither the data nor a recipe says it; else nothing."""
    feature = getattr(rows.features[name], "feature", rows.features[name])
    is_plain = isinstance(feature, datasets.Value) and feature.dtype.lstrip("u").startswith("int")
    if classes.values is not None or not is_plain or classes.names == tuple(map(str, range(len(classes.names)))):
        return ""
    pairs = listed([f"{number} for {one!r}" for number, one in enumerate(classes.names)], 8)
    return f"{name!r} holds numbers, which are taken for the classes in their order: {pairs}"


def alike(name: str) -> str:
    """What names have in common that differ only in case, white space, or the Unicode form of their characters."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _meant(value: Any, names: Sequence[str]) -> str:
    """The class that a text differs from only in case or white space."""
    same = [name for name in names if isinstance(value, str) and alike(name) == alike(value)]
    return f" It differs from {same[0]!r} only in case, white space or Unicode form." if same else ""


def _other_words(classes: Classes, values: pa.ChunkedArray, name: str) -> str:
    """The mapping to declare, where not one of the values is a class: they are other words for the classes."""
    found = sorted(value for value in pc.unique(values).to_pylist() if value is not None)
    if not is_text(values.type) or set(found) & set(classes.names):
        return ""
    if set(found) <= {str(index) for index in range(len(classes.names))}:
        pairs = [f'"{index}": {json.dumps(one, ensure_ascii=False)}' for index, one in enumerate(classes.names)]
        order = f"label: {{column: {name}, names: {{{_listed(pairs)}}}}}"
        return f" If the numbers count them in this order, say so: {order}."
    return f" Declare which one each value means, {_mapping(name, found)}."


def is_outside(classes: Classes, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which values are no class, `[rows]`; IGNORED is none, and yet no mistake."""
    if classes.values is not None:
        known = {*classes.values, str(IGNORED)} if pa.types.is_integer(values.type) else set(classes.values)
        strange = [value for value in pc.unique(values).to_pylist() if written(value) not in known]
        return pc.is_in(values, pa.array(strange, values.type))
    if is_text(values.type):
        return pc.invert(pc.is_in(values, pa.array(classes.names, values.type)))
    outside = pc.or_(pc.less(values, 0), pc.greater_equal(values, len(classes.names)))
    return pc.and_(outside, pc.not_equal(values, IGNORED))


def check_order(classes: Classes, feature: Any, split: str, where: str) -> None:
    """Refuse a split whose class names come in another order than those of the task.

    Raises:
        DataError: with both orders.
    """
    if not isinstance(feature, datasets.ClassLabel):
        return
    agrees = tuple(feature.names) == classes.names
    if classes.values is not None:  # declared: the data's own names are put in another order by it, or replaced
        known = set(classes.names)
        meant = [classes.values.get(str(number)) for number in range(len(feature.names))]
        agrees = all(
            name not in known or index == classes.names.index(name)
            for name, index in zip(feature.names, meant, strict=True)
        )
    if not agrees:
        raise DataError(
            f"{split}: the classes are {feature.names}", where=where, allowed=f"{list(classes.names)}, as in training"
        )


def counts_of(labels: Sequence[Any], num_labels: int) -> list[int]:
    """How many items each class has: of class ids in any nesting, or of multi-hot rows.

    Args:
        labels: encoded, `[rows]`, `[rows, length]` ragged, or multi-hot `[rows, classes]` in floats; ignored ones do not count.
        num_labels: how many classes.
    """
    flat = np.concatenate([np.atleast_1d(one) for one in labels]) if len(labels) else np.zeros(0, int)
    if flat.dtype.kind == "f":
        hot = flat.reshape(-1, num_labels)
        return [int(count) for count in hot[is_item(hot[:, 0])].sum(axis=0)]
    counted = flat[is_item(flat)].astype(int)
    return [int(count) for count in np.bincount(counted, minlength=num_labels)]

"""What is learned: classes and their names, checked labels and texts, and the tokenized columns a model reads."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase
from transformers import __version__ as transformers_version

from hfpipe.errors import DataError
from hfpipe.recipe import schema
from hfpipe.recipe.catalog import near

IGNORED = -100  # a label with this value is no item: torch's and transformers' convention
_SHOWN = 5  # rows named in an error


@dataclass(frozen=True)
class TextTask:
    """One class or one number for a text or a pair of texts. `names` are the classes in order, empty for regression."""

    text: tuple[str, ...]
    label: str
    names: tuple[str, ...]

    @property
    def num_labels(self) -> int:
        """How many numbers the head puts out: one a class, or one."""
        return len(self.names) or 1

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number and not a class."""
        return not self.names


def make_task(spec: schema.Task, train: datasets.Dataset, title: str, where: str) -> TextTask:
    """Find the classes of the training split.

    Raises:
        DataError: a missing column, or labels that are no classes.
    """
    _require_columns(train, (*spec.text, spec.label), f"{title}, split of training", where)
    if spec.kind == "text-regression":
        return TextTask(spec.text, spec.label, ())
    feature, column = train.features[spec.label], _column(train, spec.label)
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        found = [value for value in pc.unique(column).to_pylist() if value is not None]
        names = tuple(
            sorted(found, key=lambda value: (not value.isdecimal(), int(value) if value.isdecimal() else 0, value))
        )
    elif pa.types.is_integer(column.type):
        found = sorted(value for value in pc.unique(column).to_pylist() if value is not None)
        if found != list(range(len(found))):
            shown = ", ".join(map(str, found[:8]))
            raise DataError(
                f"{title}: the values of {spec.label!r} are {shown}{' ...' if len(found) > 8 else ''}",
                where=where,
                allowed="classes counted 0, 1, 2, ... without a gap, or text labels",
                fix="For numbers that are no classes use task.kind: text-regression.",
            )
        names = tuple(map(str, found))
    else:
        raise DataError(
            f"{title}: {spec.label!r} holds {column.type}",
            where=where,
            allowed="class labels, text or whole numbers",
            fix="For numbers that are no classes use task.kind: text-regression.",
        )
    if len(names) < 2:
        raise DataError(f"{title}: {spec.label!r} has only the class {names[0] if names else 'None'!r}", where=where)
    return TextTask(spec.text, spec.label, names)


def check_rows(task: TextTask, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
    """Refuse rows that would train or measure something wrong.

    Raises:
        DataError: naming the split and the first rows: missing columns, texts that are no text, labels outside the
            classes or missing. With `labelled` false only the texts are looked at.
    """
    _require_columns(rows, (*task.text, *((task.label,) if labelled else ())), split, where)
    for name in task.text:
        column = _column(rows, name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise DataError(f"{split}: column {name!r} holds {column.type}", where=where, allowed="text")
        if column.null_count:
            _refuse(pc.is_null(column), f"{split}: column {name!r} has no text", where, "Fill or drop these rows.")
    if not labelled:
        return
    column = _column(rows, task.label)
    if column.null_count:
        _refuse(pc.is_null(column), f"{split}: no label", where, "Label or drop these rows.")
    if task.is_regression:
        values = np.asarray(_as_numbers(column, split, task.label, where))
        bad = ~np.isfinite(values) | (values == IGNORED)
        if bad.any():
            _refuse(pa.array(bad), f"{split}: label {values[bad][0]} is not a finite number", where, "Mend these rows.")
        return
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        outside = pc.invert(pc.is_in(column, pa.array(task.names, column.type)))
    else:
        if not pa.types.is_integer(column.type):
            raise DataError(f"{split}: column {task.label!r} holds {column.type}", where=where, allowed="whole numbers")
        if pc.all(pc.equal(column, -1)).as_py():
            raise DataError(
                f"{split}: every label is -1, as in a split whose labels are kept back",
                where=where,
                fix="Such a split can't be trained on or scored; `hfpipe predict` labels it.",
            )
        outside = pc.or_(pc.less(column, 0), pc.greater_equal(column, len(task.names)))
    if pc.any(outside).as_py():
        first = column.filter(outside)[0].as_py()
        _refuse(
            outside,
            f"{split}: label {first!r} is outside the {len(task.names)} classes",
            where,
            f"The classes are {', '.join(task.names)}.",
        )


def check_features_agree(task: TextTask, rows: datasets.Dataset, split: str, where: str) -> None:
    """Refuse a split whose class names come in another order than those of the training split.

    Raises:
        DataError: with both orders.
    """
    feature = rows.features.get(task.label)
    if isinstance(feature, datasets.ClassLabel) and tuple(feature.names) != task.names:
        raise DataError(
            f"{split}: the classes are {feature.names}", where=where, allowed=f"{list(task.names)}, as in training"
        )


def encode(
    task: TextTask,
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    identity: str,
    labelled: bool = True,
) -> datasets.Dataset:
    """Map the tokenizer over the rows, `batched=True`, and keep only what the model reads and `labels`.

    Args:
        task: which columns, and the classes.
        rows: the raw split.
        tokenizer: the checkpoint's own.
        max_length: tokens; longer inputs are cut, the longer text of a pair first.
        identity: names these very rows and this very tokenizer; with the arguments and the code here it is the key of
            the cache, so that neither edited data nor older code is ever served.
        labelled: whether to make `labels`.
    """
    classes = {name: index for index, name in enumerate(task.names)}
    code = inspect.getsource(_encode_batch) + inspect.getsource(_labels)
    key = repr((identity, task, max_length, labelled, transformers_version, code))
    return rows.map(
        _encode_batch,
        batched=True,
        remove_columns=rows.column_names,
        fn_kwargs={
            "tokenizer": tokenizer,
            "task": task,
            "classes": classes,
            "max_length": max_length,
            "labelled": labelled,
        },
        new_fingerprint=hashlib.sha256(key.encode()).hexdigest()[:32],
    )


def _encode_batch(
    batch: Mapping[str, Sequence[Any]],
    tokenizer: PreTrainedTokenizerBase,
    task: TextTask,
    classes: Mapping[str, int],
    max_length: int,
    labelled: bool,
) -> dict[str, Any]:
    encoded = dict(tokenizer(*(list(batch[name]) for name in task.text), truncation=True, max_length=max_length))
    if labelled:
        encoded["labels"] = _labels(batch[task.label], classes)
    return encoded


def _labels(values: Sequence[Any], classes: Mapping[str, int]) -> list[int] | list[float]:
    if not classes:
        return [float(value) for value in values]
    return [classes[value] if isinstance(value, str) else int(value) for value in values]


def lengths(encoded: datasets.Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens in each row, `[rows]`."""
    return np.asarray(pc.list_value_length(_column(encoded, "input_ids")), dtype=np.int64)


def _column(rows: datasets.Dataset, name: str) -> pa.ChunkedArray:
    return rows.select_columns([name]).with_format("arrow")[:].column(0)


def _require_columns(rows: datasets.Dataset, names: Sequence[str], split: str, where: str) -> None:
    for name in names:
        if name not in rows.column_names:
            raise DataError(
                f"{split}: no column {name!r}{near(name, rows.column_names)}",
                where=where,
                allowed=", ".join(rows.column_names),
            )


def _as_numbers(column: pa.ChunkedArray, split: str, name: str, where: str) -> pa.ChunkedArray:
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise DataError(f"{split}: column {name!r} is not all numbers ({error})", where=where) from None


def _refuse(bad: pa.Array | pa.ChunkedArray, what: str, where: str, fix: str) -> None:
    rows = np.flatnonzero(np.asarray(bad))
    shown = ", ".join(str(row) for row in rows[:_SHOWN])
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    raise DataError(f"{what} (row{'s' if len(rows) > 1 else ''} {shown}{more}, counted from 0)", where=where, fix=fix)

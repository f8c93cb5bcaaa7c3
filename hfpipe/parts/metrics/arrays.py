"""Predictions and references as arrays of one number an example, or a message about the row that is none."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from hfpipe.errors import DataError

Array = np.ndarray[Any, Any]
Inputs = Literal["labels", "numbers"]


def paired_arrays(predictions: Any, references: Any, inputs: Inputs) -> tuple[Array, Array]:
    """Class ids in int64 or numbers in float64, both `[examples]`; predicted numbers need not be finite.

    Raises:
        DataError: other shapes or values than these, with the row.
    """
    convert = _labels if inputs == "labels" else _numbers
    predictions, references = convert(predictions, "predictions"), convert(references, "references")
    if len(predictions) != len(references):
        raise DataError(
            f"{len(predictions)} predictions for {len(references)} references", allowed="as many of one as of the other"
        )
    if not np.isfinite(references).all():
        row = int(np.flatnonzero(~np.isfinite(references))[0])
        raise DataError(f"the reference is {references[row]}", where=f"row {row}", allowed="a finite number")
    return predictions, references


def shown(values: Array) -> str:
    """The first values, for a message."""
    return ", ".join(str(value) for value in values[:5]) + (", ..." if len(values) > 5 else "")


def _labels(values: Any, side: str) -> Array:
    array = _one_axis(values, side, "class ids")
    numeric = array.dtype.kind in "biuf"
    if not numeric or (array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.trunc(array))).all()):
        raise DataError(
            f"the {side} are no class ids: {shown(array)}",
            allowed="whole numbers from 0",
            fix="Take the argmax of logits, and the number of a class instead of its name.",
        )
    ids = array.astype(np.int64)
    if (ids < 0).any():
        row = int(np.flatnonzero(ids < 0)[0])
        raise DataError(
            f"the class id in the {side} is {ids[row]}",
            where=f"row {row}",
            allowed="whole numbers from 0",
            fix="A split without labels (-1) can't be scored, and ignored positions (-100) must be left out.",
        )
    return ids


def _numbers(values: Any, side: str) -> Array:
    array = _one_axis(values, side, "numbers")
    if array.dtype.kind not in "biuf":
        raise DataError(f"the {side} are no numbers: {shown(array)}", allowed="one number an example")
    return array.astype(np.float64)


def _one_axis(values: Any, side: str, kind: str) -> Array:
    if values is None:
        raise DataError(f"there are no {side}", allowed=f"{kind} of shape [examples]")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"the {side} make no array ({error})", allowed=f"{kind} of shape [examples]") from error
    if array.ndim != 1:
        raise DataError(f"the {side} have the shape {list(array.shape)}", allowed=f"{kind} of shape [examples]")
    return array

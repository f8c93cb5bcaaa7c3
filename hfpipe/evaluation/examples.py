"""Each example of a measured split: what was predicted and what is right, by name, and the mistakes made most certainly."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import datasets

Array = np.ndarray[Any, Any]

LISTED = 10  # mistakes that a document lists where nobody says how many
_MOST_WRITTEN = 2_000_000  # probabilities, of all rows and classes
_TOP = 5
_LONGEST = 2000  # characters of a text that are kept


def examples_of(
    names: Sequence[str],
    predictions: Array,
    references: Array,
    losses: Array,
    weights: Array,
    ids: Array,
    probabilities: Array | None,
) -> list[dict[str, Any]]:
    """Each row that counts, for evaluations/*.examples.jsonl.

    Args:
        names: the classes in order; empty where there are none.
        predictions: as the task decodes them, `[scored]`, and so on for the others.
        references: what is right.
        losses: summed over the items of a row.
        weights: how much the row counts in the loss.
        ids: the number of each row in its split.
        probabilities: of the classes, `[scored, classes]`, or None.
    """
    with _without_collector():
        found = _rows(names, predictions, references, losses, weights, ids)
        if probabilities is not None:
            _add_probabilities(found, probabilities)
    return found


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python's garbage collector looks at all small objects again and again while many are made: four times the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _rows(
    names: Sequence[str], predictions: Array, references: Array, losses: Array, weights: Array, ids: Array
) -> list[dict[str, Any]]:
    found = []
    # A whole array becomes plain values at once; what is no number or list of numbers already is one.
    columns = [side.tolist() for side in (ids, predictions, references, losses, weights)]
    for number, prediction, reference, loss, weight in zip(*columns, strict=True):
        one: dict[str, Any] = {
            "id": number,
            "prediction": prediction,
            "reference": reference,
            **_by_name(names, prediction, reference),
            "said": prediction,  # the names of the release before
            "right": reference,
            "loss": loss,
            "weight": weight,
        }
        found.append(one)
    return found


def _add_probabilities(examples: Sequence[dict[str, Any]], probabilities: Array) -> None:
    """The `probabilities` of all classes; of very many `top`, the five classes of a row with the greatest."""
    if probabilities.size <= _MOST_WRITTEN or probabilities.shape[1] <= _TOP:
        for one, row in zip(examples, np.round(probabilities.astype(float), 6).tolist(), strict=True):
            one["probabilities"] = row
        return
    top = np.argpartition(probabilities, -_TOP, axis=1)[:, -_TOP:]
    order = np.argsort(-np.take_along_axis(probabilities, top, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    best = np.round(np.take_along_axis(probabilities, top, axis=1), 6)
    for one, classes, row in zip(examples, top.tolist(), best.tolist(), strict=True):
        one["top"] = {"classes": classes, "probabilities": row}


def mistakes_of(examples: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The mistakes that the model is most certain of, the most certain first.

    That is the probability of the class that was predicted, or where a row has no such, the loss of the row.

    Returns:
        `id`, `prediction` and `reference` (by name where they have one), `loss`, and `place` and `probability` where there
        are some.
    """
    found = []
    for one in examples:
        if one["prediction"] == one["reference"]:
            continue
        mistake = {
            "id": one["id"],
            "prediction": one.get("prediction_name", one["prediction"]),
            "reference": one.get("reference_name", one["reference"]),
            "loss": one["loss"],
            **({"place": one["place"]} if "place" in one else {}),
        }
        if "probabilities" in one and isinstance(one["prediction"], int):
            mistake["probability"] = one["probabilities"][one["prediction"]]
        elif "top" in one and one["top"]["classes"][0] == one["prediction"]:
            mistake["probability"] = one["top"]["probabilities"][0]
        found.append(mistake)
    return sorted(found, key=lambda one: -one.get("probability", one["loss"]))[:most]


def add_places(examples: Sequence[dict[str, Any]], places: Sequence[str]) -> None:
    """Put `file:line` of each row beside what was predicted of it, under `place`."""
    for one, place in zip(examples, places, strict=True):
        one["place"] = place


def add_texts(
    examples: Sequence[dict[str, Any]], numbers: Sequence[int], rows: datasets.Dataset, columns: Sequence[str]
) -> None:
    """Put the texts of the rows of these numbers beside what was predicted of them, under `text`, by column."""
    by_id = {one["id"]: one for one in examples}
    for number in numbers:
        row = rows[number]
        by_id[number]["text"] = {name: _short(row[name]) for name in columns}


def _by_name(names: Sequence[str], prediction: Any, reference: Any) -> dict[str, Any]:
    """The classes by name, where prediction and reference are numbers of classes, or 0 and 1 for each class."""
    if not names:
        return {}
    pair = (prediction, reference)
    if all(isinstance(one, int) for one in pair):
        named = [names[one] for one in pair]
    elif all(isinstance(one, list) and len(one) == len(names) and set(one) <= {0, 1} for one in pair):
        named = [[name for name, is_on in zip(names, one, strict=True) if is_on] for one in pair]
    else:
        return {}
    return {"prediction_name": named[0], "reference_name": named[1]}


def _short(value: Any) -> Any:
    """A text, or a list of them, at most so long."""
    if isinstance(value, list):
        return [_short(one) for one in value]
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"

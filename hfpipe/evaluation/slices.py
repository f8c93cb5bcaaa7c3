"""Parts of a split that are measured by themselves: by a column, by length, or by an expression."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import datasets
import numpy as np
from simpleeval import EvalWithCompoundTypes, InvalidExpression

from hfpipe.errors import DataError, RecipeError
from hfpipe.evaluation.inference import raw_rows
from hfpipe.parts.data.columns import column, is_list
from hfpipe.parts.tasks import Task
from hfpipe.recipe.catalog import near
from hfpipe.recipe.schema import Recipe
from hfpipe.system.text import one_line

Array = np.ndarray[Any, Any]

_MOST_VALUES = 50
_FUNCTIONS = {"len": len, "lower": str.lower, "words": lambda text: len(text.split()), "abs": abs}


class Slice(NamedTuple):
    """Some rows of a split.

    `what` is `column`, `length` or `expression`; `by` the column or the name, `value` what the rows share; `rows` says
    which they are, `[rows]` of bool.
    """

    what: str
    by: str
    value: str
    rows: Array


def slices_of(recipe: Recipe, task: Task, split: str, encoded: datasets.Dataset, rows: datasets.Dataset) -> list[Slice]:
    """The rows of each slice that the recipe asks for; raises as `cut`."""
    longest = np.zeros(len(rows), np.int64)
    np.maximum.at(longest, raw_rows(encoded, len(rows)), task.lengths(encoded))
    where = recipe.where("evaluate.slices")
    return cut(recipe.evaluate.slices, rows, longest, f"{recipe.dataset.path}, split {split}", where)


def cut(
    specs: Sequence[str | dict[str, Any]], rows: datasets.Dataset, lengths: Array, title: str, where: str
) -> list[Slice]:
    """The slices that `evaluate.slices` asks for, those without any row left out.

    Args:
        specs: columns, `length`, `{length: edges}` or `{name, where}`, as in the recipe.
        rows: the raw split.
        lengths: tokens of each row, `[rows]`.
        title: of the split, for messages.
        where: the place in the recipe.

    Raises:
        RecipeError: no such column, or an expression that can't be computed, with the row.
        DataError: a column with more values than anyone would read.
    """
    found: list[Slice] = []
    for spec in specs:
        if spec == "length":
            edges = sorted({int(edge) for edge in np.quantile(lengths, [0.25, 0.5, 0.75])})
            found += _by_length(lengths, edges)
        elif isinstance(spec, str):
            found += _by_column(rows, spec, title, where)
        elif "length" in spec:
            found += _by_length(lengths, spec["length"])
        else:
            found += _by_expression(rows, lengths, spec["name"], spec["where"], title, where)
    return [one for one in found if one.rows.any()]


def _by_length(lengths: Array, edges: Sequence[int]) -> list[Slice]:
    ends = [0, *edges, int(max(lengths.max(initial=0), edges[-1] + 1))]
    found = []
    for low, high in pairwise(ends):
        value = f"over {low} tokens" if high == ends[-1] else f"{low + 1} to {high} tokens"
        found.append(Slice("length", "length", value, (lengths > low) & (lengths <= high)))
    return found


def _by_column(rows: datasets.Dataset, name: str, title: str, where: str) -> list[Slice]:
    if name not in rows.column_names:
        raise RecipeError(
            f"{title} has no column {name!r}{near(name, rows.column_names)}",
            where=where,
            allowed=f"length, {', '.join(rows.column_names)}, or {{name: ..., where: an expression}}",
        )
    values = column(rows, name)
    if is_list(values.type):
        raise RecipeError(
            f"{title}: {name!r} holds {values.type}", where=where, allowed="a column with one value a row"
        )
    coded = values.combine_chunks().dictionary_encode("encode")
    known, numbers = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    if len(known) > _MOST_VALUES:
        raise DataError(
            f"{title}: {name!r} has {len(known):,} different values",
            where=where,
            allowed=f"up to {_MOST_VALUES}",
            fix="Group them with expressions: {name: ..., where: ...}.",
        )
    feature = rows.features[name]
    named = feature.names if isinstance(feature, datasets.ClassLabel) else None
    label = {value: named[value] if named and value is not None and value >= 0 else str(value) for value in known}
    return [
        Slice("column", name, label[known[code]], numbers == code)
        for code in sorted(range(len(known)), key=_by_name(known))
    ]


def _by_name(known: Sequence[Any]) -> Any:
    return lambda code: (known[code] is None, str(type(known[code])), known[code])


def _by_expression(
    rows: datasets.Dataset, lengths: Array, name: str, expression: str, title: str, where: str
) -> list[Slice]:
    """The rows of which an expression holds; nothing but columns, numbers, texts and a few functions is within its reach."""
    machine = EvalWithCompoundTypes(functions=dict(_FUNCTIONS))
    chosen = np.zeros(len(rows), dtype=bool)
    try:
        parsed = machine.parse(expression)
    except (InvalidExpression, SyntaxError) as error:
        raise RecipeError(f"{expression!r} is no expression ({one_line(error, 200)})", where=where) from None
    for number, row in enumerate(rows):
        machine.names = {**row, "length": int(lengths[number])}
        try:
            chosen[number] = bool(machine.eval(expression, previously_parsed=parsed))
        except Exception as error:  # noqa: BLE001 - whatever the expression of a user leads to
            raise RecipeError(
                f"{expression!r} can't be computed for row {number} of {title}: {one_line(error, 200)}",
                where=where,
                allowed=f"{', '.join(rows.column_names)}, length, comparisons, and, or, not, in, {', '.join(_FUNCTIONS)}",
            ) from None
    return [Slice("expression", name, expression, chosen)]

"""What is in the data: classes, lengths, truncation, unknown tokens, repeated rows, contradictions and leaks.

Everything is counted in Arrow and numpy, without a Python object for each row: on 100,000 rows it takes less time than
tokenizing them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hfpipe.errors import DataError, ModelError
from hfpipe.parts import models, tasks
from hfpipe.parts.tasks.columns import IGNORED, column, is_list, is_text
from hfpipe.parts.tasks.oddities import oddities
from hfpipe.recipe.schema import Recipe
from hfpipe.rows import Rows

Array = np.ndarray[Any, Any]

UNKNOWN_TOLD, UNKNOWN_REFUSED = 0.01, 0.20  # shares of the tokens
CUT_TOLD = 0.01  # share of the rows
_BINS = 10
_BETWEEN = "\x1f"  # joins the texts of a row; no text of a data set has it
_IDS = ("id", "idx")


@dataclass(frozen=True)
class SplitAudit:
    """What one split holds.

    Attributes:
        rows: raw rows.
        labels: how many items each class has; None without classes.
        numbers: least, mean and greatest label of a regression, else None.
        lengths: tokens of a row after truncation: mean, median, p95, p99, longest, and a histogram of pairs (up to so
            many tokens, rows).
        full: rows that fill max_length and may have been cut.
        unknown: share of the tokens that the tokenizer does not know.
        empty: rows with a text that has no characters but white space.
        repeated: rows whose texts are those of an earlier row.
        contradicted: texts that have more than one label.
        repeated_ids: rows whose `id` or `idx` is that of an earlier row.
        ignored: rows whose label is -100.
    """

    rows: int
    labels: dict[str, int] | None
    numbers: dict[str, float] | None
    lengths: dict[str, Any]
    full: int
    unknown: float
    empty: int
    repeated: int
    contradicted: int
    repeated_ids: int
    ignored: int

    @property
    def only_class(self) -> str | None:
        """The one class that all items have, if they have only one."""
        present = [name for name, count in (self.labels or {}).items() if count]
        return present[0] if len(present) == 1 else None


@dataclass(frozen=True)
class Audit:
    """What the data of a recipe hold: each split, and the rows that a split shares with the training split."""

    splits: dict[str, SplitAudit]
    shared: dict[str, int]
    max_length: int
    notices: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def audit(recipe: Recipe, rows: Rows) -> Audit:
    """Count what a user should know, before any accelerator memory is taken.

    Raises:
        ModelError: a tokenizer that does not know the language of the data.
        DataError: with `dataset.strict`, anything that would be a notice about the rows.
    """
    train, *others = rows.raw
    keys = {split: _keys(part, recipe) for split, part in rows.raw.items()}
    known = pc.unique(keys[train])
    audited = {split: _look(recipe, rows, split, keys[split]) for split in rows.raw}
    shared = {split: int(pc.sum(pc.is_in(keys[split], known)).as_py() or 0) for split in others if split != train}
    found = Audit(audited, shared, rows.max_length)
    for split, one in audited.items():
        _require_known(rows, recipe, split, one.unknown)
    about_rows = [text for split, one in audited.items() for text in _about_rows(split, one)]
    about_rows += [
        f"{split}: {count:,} of {audited[split].rows:,} rows have the same text as a row of {train}"
        for split, count in shared.items()
        if count
    ]
    if about_rows and recipe.dataset.strict:
        raise DataError(
            "; ".join(about_rows), where=recipe.where("dataset.strict"), fix="Mend the rows, or drop dataset.strict."
        )
    found.notices.extend(about_rows)
    for split, one in audited.items():
        found.notices.extend(oddities(recipe.task, rows.raw[split], split))
        if one.full > CUT_TOLD * one.rows:
            found.notices.append(
                f"{split}: {one.full:,} of {one.rows:,} inputs reach max_length ({rows.max_length} tokens) and may have "
                "been cut"
            )
        if one.unknown > UNKNOWN_TOLD:
            found.notices.append(f"{split}: {one.unknown:.1%} of the tokens are unknown to the tokenizer")
    return found


def _about_rows(split: str, one: SplitAudit) -> list[str]:
    """What is odd about the rows of a split, each in one line."""
    told = []
    if one.only_class is not None:
        told.append(f"{split}: every label is {one.only_class!r}, so figures on it say little")
    if one.ignored:
        told.append(f"{split}: {one.ignored:,} labels are {IGNORED} and are left out")
    if one.empty:
        told.append(f"{split}: {one.empty:,} of {one.rows:,} rows have an empty text")
    if one.contradicted:
        told.append(f"{split}: texts with more than one label: {one.contradicted:,}")
    if one.repeated:
        told.append(f"{split}: {one.repeated:,} of {one.rows:,} rows repeat the text of an earlier row")
    if one.repeated_ids:
        told.append(f"{split}: rows that repeat an earlier id: {one.repeated_ids:,}")
    return told


def _look(recipe: Recipe, rows: Rows, split: str, keys: pa.ChunkedArray) -> SplitAudit:
    raw, encoded, task = rows.raw[split], rows.encoded[split].data, rows.task
    lengths = tasks.lengths(encoded)
    labels, ignored = _labels(task, encoded)
    return SplitAudit(
        rows=len(raw),
        labels=labels,
        numbers=_numbers(encoded) if not task.names and task.problem_type == "regression" else None,
        lengths=_summary(lengths),
        full=int((lengths >= rows.max_length).sum()) if len(encoded) == len(raw) else 0,
        unknown=_unknown(encoded, rows),
        empty=_empty(raw, recipe),
        repeated=len(keys) - len(pc.unique(keys)),
        contradicted=_contradicted(raw, keys, recipe),
        repeated_ids=sum(len(raw) - len(pc.unique(column(raw, name))) for name in _IDS if name in raw.column_names),
        ignored=ignored,
    )


def _require_known(rows: Rows, recipe: Recipe, split: str, unknown: float) -> None:
    if unknown > UNKNOWN_REFUSED:
        raise ModelError(
            f"{unknown:.0%} of the tokens of {split} are {rows.tokenizer.unk_token}: the tokenizer of "
            f"{rows.checkpoint.name!r} does not know this language",
            where=recipe.where("model.checkpoint"),
            allowed=f"at most {UNKNOWN_REFUSED:.0%}",
            fix="Take a checkpoint of the language of the data, with its own tokenizer.",
        )


def _keys(rows: datasets.Dataset, recipe: Recipe) -> pa.ChunkedArray:
    """The texts of each row as one text, `[rows]`."""
    names = [*recipe.task.text, *(recipe.task.choices or ())]
    return _joined([_as_text(column(rows, name)) for name in names])


def _joined(parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, _BETWEEN)


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as one text a row: lists are joined, numbers written."""
    if is_list(values.type):
        chunks = []
        for chunk in values.chunks:
            inner = chunk.flatten()
            inner = inner if is_text(inner.type) else inner.cast(pa.string())
            offsets = pa.array(np.concatenate([[0], np.cumsum(np.asarray(pc.list_value_length(chunk)))]), pa.int32())
            chunks.append(pc.binary_join(pa.ListArray.from_arrays(offsets, inner.cast(pa.string())), _BETWEEN))
        return pa.chunked_array(chunks, pa.string())
    return values.cast(pa.large_string()).cast(pa.string()) if not is_text(values.type) else values


def _contradicted(rows: datasets.Dataset, keys: pa.ChunkedArray, recipe: Recipe) -> int:
    """How many texts have more than one label."""
    labels = [column(rows, name) for name in recipe.task.label_columns]
    if any(
        pa.types.is_struct(one.type) or (is_list(one.type) and pa.types.is_struct(one.type.value_type))
        for one in labels
    ):
        return 0  # spans of a text: two questions about one context may be answered in two places
    table = pa.table({"text": keys, "label": _joined([_as_text(one) for one in labels])})
    counts = table.group_by("text").aggregate([("label", "count_distinct")])["label_count_distinct"]
    return int(pc.sum(pc.greater(counts, 1)).as_py() or 0)


def _empty(rows: datasets.Dataset, recipe: Recipe) -> int:
    """How many rows have an empty text; of a column of words, how many have no word."""
    empty = np.zeros(len(rows), dtype=bool)
    for name in recipe.task.text:
        values = column(rows, name)
        if is_list(values.type):
            empty |= np.asarray(pc.equal(pc.list_value_length(values), 0))
        else:
            empty |= np.asarray(pc.equal(pc.utf8_trim_whitespace(values), ""))
    return int(empty.sum())


def _flat(encoded: datasets.Dataset, name: str) -> Array:
    values = column(encoded, name)
    while is_list(values.type):
        values = pc.list_flatten(values)
    return np.asarray(values)


def _unknown(encoded: datasets.Dataset, rows: Rows) -> float:
    """The share of the tokens, special ones left out, that are unknown."""
    unknown = rows.tokenizer.unk_token_id
    if unknown is None:
        return 0.0
    ids = _flat(encoded, "input_ids")
    special = [token for token in rows.tokenizer.all_special_ids if token != unknown]
    words = len(ids) - int(np.isin(ids, special).sum())
    return int((ids == unknown).sum()) / max(words, 1)


def _labels(task: tasks.Task, encoded: datasets.Dataset) -> tuple[dict[str, int] | None, int]:
    """How many items each class has, and how many labels are ignored."""
    if not task.names:
        return None, 0
    flat = _flat(encoded, "labels")
    if task.problem_type == "multi_label_classification":
        counts = flat.reshape(-1, len(task.names)).sum(axis=0)
        return dict(zip(task.names, map(int, counts), strict=True)), 0
    counts = np.bincount(flat[flat != IGNORED].astype(int), minlength=len(task.names))
    ignored = int((flat == IGNORED).sum()) if len(flat) == len(encoded) else 0  # of words most tokens carry none
    return dict(zip(task.names, map(int, counts), strict=True)), ignored


def _numbers(encoded: datasets.Dataset) -> dict[str, float]:
    values = _flat(encoded, "labels")
    return {"least": float(values.min()), "mean": float(values.mean()), "greatest": float(values.max())}


def _summary(lengths: Array) -> dict[str, Any]:
    """Mean, quantiles and histogram of the tokens of a row."""
    median, p95, p99 = np.percentile(lengths, [50, 95, 99])
    width = max(1, -(-int(lengths.max()) // _BINS))
    edges = np.arange(width, width * _BINS + 1, width)
    counts = np.bincount(np.minimum((lengths - 1) // width, _BINS - 1), minlength=_BINS)
    histogram = [[int(edge), int(count)] for edge, count in zip(edges, counts, strict=True)]
    while len(histogram) > 1 and not histogram[-1][1]:
        histogram.pop()
    return {
        "mean": float(lengths.mean()),
        "median": float(median),
        "p95": float(p95),
        "p99": float(p99),
        "longest": int(lengths.max()),
        "histogram": histogram,
    }


def longer(rows: Rows, split: str) -> list[dict[str, Any]]:
    """What other values of max_length would cut and cost on a split.

    Only the rows that fill max_length are tokenized again, whole.

    Returns:
        For max_length and each greater length that the model can take, up to the longest row: `max_length`, `cut` rows,
        and `tokens`, how many times the tokens of now. Empty where nothing is cut, or where rows become windows.
    """
    raw, encoded = rows.raw[split], rows.encoded[split].data
    if len(raw) != len(encoded):
        return []
    lengths = tasks.lengths(encoded).copy()
    filled = np.flatnonzero(lengths >= rows.max_length)
    if not len(filled):
        return []
    whole = datasets.Dataset.from_dict(
        {"input_ids": rows.task.encode(raw.select(filled)[:], rows.tokenizer, 10**6, False)["input_ids"]}
    )
    lengths[filled] = tasks.lengths(whole)
    bound = models.longest_input(rows.checkpoint, rows.tokenizer) or int(lengths.max())
    sizes = [rows.max_length]
    while sizes[-1] < min(bound, int(lengths.max())):
        sizes.append(min(2 * sizes[-1], bound, int(lengths.max())))
    now = np.minimum(lengths, rows.max_length).sum()
    return [
        {
            "max_length": size,
            "cut": int((lengths > size).sum()),
            "tokens": float(np.minimum(lengths, size).sum() / now),
        }
        for size in sizes
    ]


def examples(rows: Rows, split: str, count: int = 3) -> list[dict[str, Any]]:
    """The first rows of a split: the raw columns that are read, and what the model sees, decoded."""
    shown = []
    encoded = rows.encoded[split].data
    for index in range(min(count, len(encoded))):
        one = encoded[index]
        ids = one["input_ids"]
        listed = ids if ids and isinstance(ids[0], list) else [ids]
        number = one.get("row", index)
        shown.append(
            {
                "row": number,
                "columns": {name: rows.raw[split][number][name] for name in rows.task.columns},
                "tokens": [rows.tokenizer.convert_ids_to_tokens(part) for part in listed],
                "decoded": [rows.tokenizer.decode(part) for part in listed],
                "labels": one.get("labels"),
            }
        )
    return shown

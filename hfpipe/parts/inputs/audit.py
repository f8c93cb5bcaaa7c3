"""What is in the data: classes, lengths, truncation, unknown tokens, repeated rows, contradictions and leaks.

Everything is counted in Arrow and numpy, some thousand rows at a time, so that memory does not grow with the rows; what
must be compared across rows goes by hashes on disk (duplicates.py). On 100,000 rows it takes less time than tokenizing
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hfpipe.errors import DataError, ModelError
from hfpipe.parts import tasks
from hfpipe.parts.data.columns import IGNORED, is_item, is_list, is_text
from hfpipe.parts.data.streams import RawStream
from hfpipe.parts.inputs import duplicates
from hfpipe.parts.inputs.class_notices import alike_names, rare_classes
from hfpipe.parts.inputs.rows import Rows
from hfpipe.parts.model import models
from hfpipe.parts.tasks.classes import counts_of, is_missing
from hfpipe.parts.tasks.oddities import oddities
from hfpipe.recipe.schema import Recipe
from hfpipe.system.text import listed

Array = np.ndarray[Any, Any]
TextRows = tuple[datasets.Dataset, Sequence[str]]
"""Rows, and the columns that make their texts."""

UNKNOWN_TOLD, UNKNOWN_REFUSED = 0.01, 0.20  # shares of the tokens
CUT_TOLD = 0.01  # share of the rows
_BINS = 10
_BETWEEN = "\x1f"  # joins the texts of a row; no text of a data set has it
_IDS = ("id", "idx")
_PIECE = 8192  # rows that are looked at together
_SHOWN = 5  # rows named in a notice


@dataclass(frozen=True)
class SplitAudit:
    """What one split holds.

    Attributes:
        rows: raw rows.
        labels: how many items each class has; None without classes.
        numbers: least, mean and greatest label, where labels are numbers and no classes, else None.
        lengths: tokens of a row after truncation: mean, median, p95, p99, longest, and a histogram of pairs (up to so
            many tokens, rows).
        full: rows that fill max_length and may have been cut.
        unknown: share of the tokens that the tokenizer does not know.
        empty: rows with a text that has no characters but white space.
        repeated: rows whose texts are those of an earlier row.
        contradicted: texts that have more than one label.
        repeated_ids: rows whose `id` or `idx` is that of an earlier row.
        ignored: rows whose label is -100.
        unlabelled: rows without a label, where the recipe says that they are left out.
        without_items: inputs without a label that counts: an empty sentence, or -100 alone.
        first_without_items: the numbers of the first of them.
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
    unlabelled: int = 0
    without_items: int = 0
    first_without_items: tuple[int, ...] = ()

    @property
    def only_class(self) -> str | None:
        """The one class that all items have, if they have only one."""
        present = [name for name, count in (self.labels or {}).items() if count]
        return present[0] if len(present) == 1 else None


@dataclass(frozen=True)
class Audit:
    """What the data of a recipe hold: each split, and the rows that a split shares with the training split.

    `in_train` says of each other split which of its rows have the text of a training row, `[rows]` of bool.
    """

    splits: dict[str, SplitAudit]
    in_train: dict[str, Array]
    max_length: int
    notices: list[str] = field(default_factory=list)

    @property
    def shared(self) -> dict[str, int]:
        """How many rows of each other split have the text of a training row."""
        return {split: int(rows.sum()) for split, rows in self.in_train.items()}

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        splits = {split: asdict(one) for split, one in self.splits.items()}
        return {"splits": splits, "shared": self.shared, "max_length": self.max_length, "notices": self.notices}


def audit(recipe: Recipe, rows: Rows) -> Audit:
    """Count what a user should know, before any accelerator memory is taken.

    Raises:
        ModelError: a tokenizer that does not know the language of the data.
        DataError: with `dataset.strict`, anything that would be a notice about the rows.
    """
    train, *others = rows.raw
    audited, columns = {}, recipe.task.input_columns
    with duplicates.fingerprints({split: len(part) for split, part in rows.raw.items()}) as prints:
        for split in rows.raw:
            audited[split] = _look(recipe, rows, split, prints[split])
    measured = {split: (rows.raw[split], columns) for split in others if split != train}
    found = Audit(audited, rows_in_train((rows.raw[train], columns), measured), rows.max_length)
    for split, one in audited.items():
        _require_known(rows, recipe, split, one.unknown)
        _require_items(rows, recipe, split, one)
    about_rows = [text for split, one in audited.items() for text in _about_rows(split, one)]
    if recipe.task.names is None:
        about_rows += alike_names(train, audited[train].labels or {})
    about_rows += [
        f"{split}: {count:,} of {audited[split].rows:,} rows have the same text as a row of {train}"
        for split, count in found.shared.items()
        if count
    ]
    if about_rows and recipe.dataset.strict:
        raise DataError(
            "; ".join(about_rows), where=recipe.where("dataset.strict"), fix="Mend the rows, or drop dataset.strict."
        )
    found.notices.extend(about_rows)
    found.notices.extend(_about_labels(rows, train, audited))
    special = getattr(rows.tokenizer, "all_special_tokens", ())
    for split, one in audited.items():
        found.notices.extend(oddities(recipe.task, rows.raw[split], split, special))
        if one.full > CUT_TOLD * one.rows:
            found.notices.append(
                f"{split}: {one.full:,} of {one.rows:,} inputs reach max_length ({rows.max_length} tokens) and may have "
                "been cut"
            )
        if one.unknown > UNKNOWN_TOLD:
            found.notices.append(f"{split}: {one.unknown:.1%} of the tokens are unknown to the tokenizer")
    return found


def rows_in_train(train: TextRows, splits: Mapping[str, TextRows]) -> dict[str, Array]:
    """Which rows of each split have the text of a row of the training split, case and white space aside, `[rows]` of bool."""
    if not splits:
        return {}
    with duplicates.fingerprints({"train": len(train[0])}) as prints:
        for part in _folded_hashes(*train):
            prints["train"].add(part)
        hashed = {name: [*_folded_hashes(*rows)] or [np.zeros(0, np.uint64)] for name, rows in splits.items()}
        return {name: duplicates.among(np.concatenate(parts), prints["train"]) for name, parts in hashed.items()}


def _folded_hashes(rows: datasets.Dataset, columns: Sequence[str]) -> Iterator[duplicates.Hashes]:
    """The hash of the texts of each row, in which case and white space make no difference, some rows at a time."""
    for piece in _pieces(rows, columns):
        texts = pc.utf8_lower(pc.utf8_normalize(_keys(piece, columns), form="NFKC"))
        yield duplicates.hashes(pc.replace_substring_regex(pc.utf8_trim_whitespace(texts), r"\s+", " "))


def _about_labels(rows: Rows, train: str, audited: dict[str, SplitAudit]) -> list[str]:
    """How labels are read where the data decide it, and classes of few rows."""
    reading = getattr(rows.task, "reading", "")
    counts = {split: one.labels for split, one in audited.items() if one.labels and one.only_class is None}
    is_whole = train in counts and not isinstance(rows.source, RawStream)
    return [*([reading] if reading else []), *(rare_classes(train, counts) if is_whole else [])]


def _about_rows(split: str, one: SplitAudit) -> list[str]:
    """What is odd about the rows of a split, each in one line."""
    notices = []
    if one.only_class is not None:
        notices.append(f"{split}: every label is {one.only_class!r}, so metrics on it say little")
    if one.ignored:
        notices.append(f"{split}: {one.ignored:,} labels are {IGNORED} and are left out")
    if one.unlabelled:
        notices.append(f"{split}: {one.unlabelled:,} of {one.rows:,} rows have no label, or lack one, and are left out")
    if one.without_items:
        more = one.without_items - len(one.first_without_items)
        which = listed(one.first_without_items) + (f" and {more:,} more" if more else "")
        notices.append(
            f"{split}: inputs without a label that counts: {one.without_items:,} of {one.rows:,} (number {which}, from "
            "0); an update of such rows alone changes nothing"
        )
    if one.empty:
        notices.append(f"{split}: {one.empty:,} of {one.rows:,} rows have an empty text")
    if one.contradicted:
        notices.append(f"{split}: texts with more than one label: {one.contradicted:,}")
    if one.repeated:
        notices.append(f"{split}: {one.repeated:,} of {one.rows:,} rows repeat the text of an earlier row")
    if one.repeated_ids:
        notices.append(f"{split}: rows that repeat an earlier id: {one.repeated_ids:,}")
    return notices


def _look(recipe: Recipe, rows: Rows, split: str, prints: duplicates.Fingerprints) -> SplitAudit:
    """Count a split; the hashes of its texts and labels go into `prints`."""
    raw, encoded, task = rows.raw[split], rows.encoded[split].data, rows.task
    seen = _look_at_tokens(rows, encoded)
    empty, unlabelled = 0, 0
    ids = [name for name in _IDS if name in raw.column_names]
    with duplicates.fingerprints({name: len(raw) for name in ids}) as own:
        for piece in _pieces(raw, [*recipe.task.input_columns, *recipe.task.label_columns, *ids]):
            empty += _empty(piece, recipe)
            unlabelled += _unlabelled(piece, recipe) if recipe.task.ignores_missing else 0
            prints.add(duplicates.hashes(_keys(piece, recipe.task.input_columns)), _label_hashes(piece, recipe))
            for name in ids:
                own[name].add(duplicates.hashes(_as_text(piece[name])))
        repeated_ids = sum(duplicates.repeated(one) for one in own.values())
    return SplitAudit(
        rows=len(raw),
        labels=dict(zip(task.names, map(int, seen.labels), strict=True)) if task.names else None,
        numbers=seen.numbers,
        lengths=_summary(seen.lengths),
        full=int(seen.lengths[rows.max_length :].sum()) if len(encoded) == len(raw) else 0,
        unknown=seen.unknown / max(seen.words, 1),
        empty=empty,
        repeated=duplicates.repeated(prints),
        contradicted=duplicates.contradicted(prints),
        repeated_ids=repeated_ids,
        # of words most tokens carry no label
        ignored=max(0, seen.ignored - unlabelled) if task.names and seen.items == len(encoded) else 0,
        unlabelled=unlabelled,
        without_items=len(seen.without_items),
        first_without_items=tuple(seen.without_items[:_SHOWN]),
    )


@dataclass
class _Seen:
    """What was counted of encoded rows.

    Attributes:
        lengths: how many rows have so many tokens, `[longest + 1]`.
        words: tokens that are not special.
        unknown: of these, how many the tokenizer does not know.
        labels: how many items each class has, `[classes]`.
        items: labels, ignored ones included.
        ignored: how many of them are.
        numbers: least, mean and greatest label, where labels are numbers and no classes.
        without_items: the numbers of the rows of which no label counts.
    """

    lengths: Array
    words: int
    unknown: int
    labels: Array
    items: int
    ignored: int
    numbers: dict[str, float] | None
    without_items: list[int] = field(default_factory=list)


def _look_at_tokens(rows: Rows, encoded: datasets.Dataset) -> _Seen:
    task, unknown = rows.task, rows.tokenizer.unk_token_id
    special = [token for token in rows.tokenizer.all_special_ids if token != unknown]
    seen = _Seen(np.zeros(rows.max_length + 1, np.int64), 0, 0, np.zeros(len(task.names), np.int64), 0, 0, None)
    least, greatest, total, rows_before = np.inf, -np.inf, 0.0, 0
    for piece in _pieces(encoded, ["input_ids", "labels"]):
        counts = np.bincount(tasks.lengths_of(piece["input_ids"]), minlength=len(seen.lengths))
        if len(counts) > len(seen.lengths):
            counts[: len(seen.lengths)] += seen.lengths
            seen.lengths = counts
        else:
            seen.lengths += counts
        if unknown is not None:
            ids = _flat(piece["input_ids"])
            seen.words += len(ids) - int(np.isin(ids, special).sum())
            seen.unknown += int((ids == unknown).sum())
        flat = _flat(piece["labels"])
        seen.without_items += (rows_before + _without_items(piece["labels"], flat)).tolist()
        rows_before += len(piece)
        seen.items += len(flat)
        if task.names:
            seen.labels += counts_of([flat], len(task.names))
            seen.ignored += int((~is_item(flat)).sum())
        elif flat.dtype.kind == "f" and len(flat):
            least, greatest = min(least, float(flat.min())), max(greatest, float(flat.max()))
            total += float(flat.sum(dtype=float))
    if np.isfinite(least):
        seen.numbers = {"least": least, "mean": total / seen.items, "greatest": greatest}
    return seen


def _without_items(labels: pa.ChunkedArray, flat: Array) -> Array:
    """The rows of a piece of which no label is an item, by their place in it."""
    counts = np.asarray(pc.list_value_length(labels)) if is_list(labels.type) else np.ones(len(labels), np.int64)
    row_of = np.repeat(np.arange(len(labels)), counts)
    return np.flatnonzero(np.bincount(row_of[is_item(flat)], minlength=len(labels)) == 0)


def _require_items(rows: Rows, recipe: Recipe, split: str, one: SplitAudit) -> None:
    if one.without_items == len(rows.encoded[split].data) and not recipe.dataset.streaming:
        raise DataError(
            f"{split}: no input has a label that counts, so nothing is left to learn or to score",
            where=recipe.where("task.label"),
            fix="Look at the labels, and at texts or sentences that are empty.",
        )


def _pieces(rows: datasets.Dataset, names: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of consecutive rows, piece after piece, as they lie on disk."""
    wanted = rows.select_columns([name for name in dict.fromkeys(names) if name in rows.column_names])
    arrow = wanted.with_format("arrow")
    for start in range(0, len(rows), _PIECE):
        yield arrow[start : start + _PIECE]


def _require_known(rows: Rows, recipe: Recipe, split: str, unknown: float) -> None:
    if unknown > UNKNOWN_REFUSED:
        raise ModelError(
            f"{unknown:.0%} of the tokens of {split} are {rows.tokenizer.unk_token}: the tokenizer of "
            f"{rows.checkpoint.name!r} does not know this language",
            where=recipe.where("model.checkpoint"),
            allowed=f"at most {UNKNOWN_REFUSED:.0%}",
            fix="Take a checkpoint of the language of the data, with its own tokenizer.",
        )


def _keys(piece: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
    """The texts of each row as one text, `[rows]`."""
    return _joined([_as_text(piece[name]) for name in columns])


def _joined(parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, _BETWEEN)


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as one text a row: lists and structs are joined, numbers written, and what is missing is empty."""
    if pa.types.is_null(values.type):
        return pa.chunked_array([pa.array([""] * len(values), pa.string())])
    if pa.types.is_struct(values.type):
        return _joined([_as_text(pc.struct_field(values, [place])) for place in range(values.type.num_fields)])
    if is_list(values.type):
        chunks = []
        for chunk in values.chunks:
            inner = chunk.flatten()
            inner = _as_text(pa.chunked_array([inner])).combine_chunks()
            offsets = pa.array(
                np.concatenate([[0], np.cumsum(np.asarray(pc.fill_null(pc.list_value_length(chunk), 0)))]), pa.int32()
            )
            chunks.append(pc.binary_join(pa.ListArray.from_arrays(offsets, inner.cast(pa.string())), _BETWEEN))
        return pc.fill_null(pa.chunked_array(chunks, pa.string()), "")
    texts = values.cast(pa.large_string()).cast(pa.string()) if not is_text(values.type) else values
    return pc.fill_null(texts, "")


def _label_hashes(piece: pa.Table, recipe: Recipe) -> duplicates.Hashes | None:
    """A number for the label of each row; None where two labels of one text contradict nothing."""
    labels = [piece[name] for name in recipe.task.label_columns]
    if any(
        pa.types.is_struct(one.type) or (is_list(one.type) and pa.types.is_struct(one.type.value_type))
        for one in labels
    ):
        return None  # spans of a text: two questions about one context may be answered in two places
    return duplicates.hashes(_joined([_as_text(one) for one in labels]))


def _empty(piece: pa.Table, recipe: Recipe) -> int:
    """How many rows have an empty text; of a column of words, how many have no word."""
    empty = np.zeros(len(piece), dtype=bool)
    for name in recipe.task.text:
        values = piece[name]
        if is_list(values.type):
            empty |= np.asarray(pc.equal(pc.list_value_length(values), 0))
        else:
            empty |= np.asarray(pc.equal(pc.utf8_trim_whitespace(values), ""))
    return int(empty.sum())


def _unlabelled(piece: pa.Table, recipe: Recipe) -> int:
    """How many rows have no label, or a list with a hole in it."""
    missing = np.zeros(len(piece), dtype=bool)
    for name in recipe.task.label_columns:
        values = piece[name]
        if is_list(values.type):
            missing |= np.asarray(pc.is_null(values))
            missing[np.asarray(pc.list_parent_indices(values))[is_missing(pc.list_flatten(values))]] = True
        elif not (is_text(values.type) and recipe.task.separator is not None):  # an empty text has no class
            missing |= is_missing(values)
        else:
            missing |= np.asarray(pc.is_null(values))
    return int(missing.sum())


def _flat(values: pa.ChunkedArray) -> Array:
    while is_list(values.type):
        values = pc.list_flatten(values)
    return np.asarray(values)


def _summary(counts: Array) -> dict[str, Any]:
    """Mean, quantiles and histogram of the tokens of a row, from how many rows have so many, `[longest + 1]`."""
    longest = int(np.flatnonzero(counts)[-1]) if counts.any() else 0
    median, p95, p99 = (_quantile(counts, share) for share in (0.5, 0.95, 0.99))
    width = max(1, -(-longest // _BINS))
    edges = range(width, width * _BINS + 1, width)
    bins = np.minimum(np.maximum(np.arange(len(counts)) - 1, 0) // width, _BINS - 1)
    binned = np.bincount(bins, weights=counts, minlength=_BINS)
    histogram = [[edge, int(count)] for edge, count in zip(edges, binned, strict=True)]
    while len(histogram) > 1 and not histogram[-1][1]:
        histogram.pop()
    return {
        "mean": float(counts @ np.arange(len(counts)) / max(int(counts.sum()), 1)),
        "median": median,
        "p95": p95,
        "p99": p99,
        "longest": longest,
        "histogram": histogram,
    }


def _quantile(counts: Array, share: float) -> float:
    """The quantile of whole numbers of which there are so many each, between two of them as `numpy.percentile` has it."""
    ends = np.cumsum(counts)
    rank = share * max(int(ends[-1]) - 1, 0)
    below, above = np.searchsorted(ends, [np.floor(rank), np.ceil(rank)], side="right")
    return float(below + (above - below) * (rank - np.floor(rank)))


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
    lengths = rows.task.lengths(encoded).copy()
    filled = np.flatnonzero(lengths >= rows.max_length)
    if not len(filled):
        return []
    whole = datasets.Dataset.from_dict(
        {"input_ids": rows.task.encode(raw.select(filled)[:], rows.tokenizer, 10**6, False)["input_ids"]}
    )
    lengths[filled] = rows.task.lengths(whole)
    bound = models.longest_input(rows.checkpoint, rows.tokenizer, rows.max_length) or int(lengths.max())
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

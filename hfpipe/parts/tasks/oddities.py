"""What is odd about raw texts and columns without being wrong: a notice each."""

from __future__ import annotations

import re
from collections.abc import Sequence

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from hfpipe.parts.data.columns import column, is_list, is_text
from hfpipe.recipe import schema

_MARKS = {
    "a NUL character": "\0",
    "an invisible mark of writing direction": "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]",  # Unicode's Bidi_Control
}
_LOOKED_FOR = 256  # special tokens: some tokenizers have thousands that are reserved, and no text has those


def oddities(spec: schema.Task, rows: datasets.Dataset, split: str, special: Sequence[str] = ()) -> list[str]:
    """What a user should know about the columns and characters of a split, each in one line.

    Args:
        spec: the section of the recipe.
        rows: the raw split.
        split: its name, for the message.
        special: the tokenizer's special tokens, as they are written.
    """
    notices = []
    if set(spec.label_columns) in ({"label"}, {"labels"}) and {"label", "labels"} <= set(rows.column_names):
        (learned,) = spec.label_columns
        notices.append(
            f"{split}: there are the columns 'label' and 'labels', and {learned!r} is learned, as task.label says"
        )
    for name in spec.input_columns:
        values = column(rows, name)
        for mark, pattern in _MARKS.items():
            if count := _rows_with(values, pattern):
                notices.append(f"{split}: {count:,} of {len(rows):,} texts in {name!r} have {mark}")
        escaped = [re.escape(token) for token in special[:_LOOKED_FOR]]
        if escaped and (count := _rows_with(values, "|".join(escaped))):
            seen = next(token for token, one in zip(special, escaped, strict=False) if _rows_with(values, one))
            notices.append(
                f"{split}: {count:,} of {len(rows):,} texts in {name!r} have the name of a special token in them, such as "
                f"{seen!r}, and it is read as text; a mark that is to be a token is one of tokenizer.add_tokens"
            )
    return notices


def _rows_with(values: pa.ChunkedArray, pattern: str) -> int:
    """How many rows of a column of texts, or of lists of texts, match a regular expression."""
    inner = pc.list_flatten(values) if is_list(values.type) else values
    if not is_text(inner.type):
        return 0
    found = pc.match_substring_regex(inner, pattern) if len(pattern) > 1 else pc.match_substring(inner, pattern)
    if not is_list(values.type):
        return int(pc.sum(found).as_py() or 0)
    return len(pc.unique(pc.list_parent_indices(values).filter(found)))

"""Raw sentences as words, for tasks that label words, and where each word stands in its sentence."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from hfpipe.evaluation.prediction.chunks import Chunk

Span = tuple[int, int]
"""The first and one past the last character of a word."""

COLUMNS = ("words", "offsets")
"""What is said of a raw sentence beside its labels."""
# Beside the brackets and quotes that Unicode calls so; the last are those of Chinese and Japanese.
_OPENING, _CLOSING = "\"'`¿¡", "\"'.,;:!?…%\u3002\uff0c\u3001\uff01\uff1f\uff1b\uff1a"
_OWN = ("'s", "\u2019s")
_SHORT = re.compile(r"(\w\.)+|\w+(\.\w+)+\.", re.UNICODE)  # J. and U.S. and e.g. keep their last point


def words_of(text: str) -> list[Span]:
    """The words of a sentence: what stands between white space, with the marks at its ends as words of their own.

    So are a genitive 's; the points of an abbreviation stay in it.
    """
    return [span for found in re.finditer(r"\S+", text) for span in _parts(text, *found.span())]


def _parts(text: str, start: int, end: int) -> list[Span]:
    before: list[Span] = []
    after: list[Span] = []
    while end - start > 1 and _is_mark(text[start], _OPENING, ("Ps", "Pi")):
        before.append((start, start + 1))
        start += 1
    while end - start > 1:
        if text[start:end].endswith(_OWN) and end - start > len(_OWN[0]):
            size = len(_OWN[0])
        elif _is_mark(text[end - 1], _CLOSING, ("Pe", "Pf")) and not _SHORT.fullmatch(text, start, end):
            size = len(text[start:end]) - len(text[start:end].rstrip(text[end - 1]))  # ... is one word
            size = min(size, end - start - 1)
        else:
            break
        after.append((end - size, end))
        end -= size
    return [*before, (start, end), *reversed(after)]


def _is_mark(letter: str, marks: str, kinds: Sequence[str]) -> bool:
    return letter in marks or unicodedata.category(letter) in kinds


def split_chunk(chunk: Chunk, column: str) -> tuple[Chunk, list[list[Span]] | None]:
    """A chunk whose rows are sentences as one of words, with where these stand; one of words stays, with None."""
    texts = chunk.values[column]
    if not any(isinstance(text, str) for text in texts):
        return chunk, None
    spans = [words_of(text) if isinstance(text, str) else [] for text in texts]
    words = [[text[slice(*span)] for span in each] for text, each in zip(texts, spans, strict=True)]
    place = chunk.table.column_names.index(column)
    table = chunk.table.set_column(place, column, pa.array(words, pa.list_(pa.string())))
    return replace(chunk, table=table, values={**chunk.values, column: words}), spans


def with_offsets(prediction: dict[str, Any], text: str, spans: Sequence[Span]) -> dict[str, Any]:
    """The prediction for a sentence with its `words`, their `offsets`, and the characters of its entities."""
    found = {**prediction, "words": [text[slice(*span)] for span in spans], "offsets": [list(span) for span in spans]}
    if "entities" in prediction:
        found["entities"] = [_placed(entity, text, spans) for entity in prediction["entities"]]
    return found


def _placed(entity: dict[str, Any], text: str, spans: Sequence[Span]) -> dict[str, Any]:
    first, last = spans[entity["start"]][0], spans[entity["end"] - 1][1]
    return {**entity, "text": text[first:last], "start_character": first, "end_character": last}

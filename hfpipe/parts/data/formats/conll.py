"""conll: a word a line with its tags beside it, and an empty line behind each sentence.

Source: Tjong Kim Sang and De Meulder 2003 (CoNLL-2003); https://universaldependencies.org/format.html (CoNLL-U).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from hfpipe.errors import DataError
from hfpipe.parts.data.formats.layout import Layout, Notify
from hfpipe.system.text import listed, plural

CONLL_U = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_DOCUMENT = "-DOCSTART-"
_NUMBER = re.compile(
    r"\d+([-.]\d+)?"
)  # of a word; 3-4 of two words that are written as one, 8.1 of one that is not written
_SPACE = re.compile(r"[ \t]+")

Batch = tuple[list[int], dict[str, Sequence[list[str]]]]
"""The first line of each sentence, `[sentences]`, and the columns, a list of texts for each sentence."""


def read_sentences(file: TextIO, path: str, layout: Layout, batch_size: int, notice: Notify) -> Iterator[Batch]:
    """The sentences of an open file.

    Empty lines and lines that begin with -DOCSTART- part sentences. A line that begins with # is a comment where no word
    can be: before a sentence, with other than as many fields as a row or without a tag that other rows have, and anywhere
    in a file whose rows begin with a number.

    Args:
        file: that can be read twice.
        path: of the file, for errors.
        layout: the separator, by default a tab where the first row has one, else white space; the names of the columns, by
            default those of CoNLL-U in such a file, else the text column for the first and the label column for the last.
        batch_size: sentences in a batch.
        notice: is told of comments, and of columns that are not read.

    Raises:
        DataError: a row with more or fewer fields, an empty field, or columns whose names nobody said.
    """
    about = _look(file, path, layout)
    if about is None:
        return
    file.seek(0)
    names = _names(about, path, layout, notice)
    lines: list[int] = []
    sentences: list[list[list[str]]] = []
    comments = 0
    for line, rows, skipped in _sentences(file, path, about):
        comments += skipped
        if not rows:
            continue
        lines.append(line)
        sentences.append(rows)
        if len(sentences) == batch_size:
            yield lines, _columns(sentences, names)
            lines, sentences = [], []
    if sentences:
        yield lines, _columns(sentences, names)
    if comments:
        notice(
            f"{path}: {plural(comments, 'line')} with # at the start {'is' if comments == 1 else 'are'} read as comments"
        )


@dataclass(frozen=True)
class _About:
    """What the whole of a file says.

    Its separator, None for white space; its first row and how wide that is; whether rows begin with the number of the word;
    and the texts in the last column.
    """

    separator: str | None
    first: int
    width: int
    numbered: bool
    tags: frozenset[str]

    def fields(self, line: str) -> list[str]:
        """The fields of a line."""
        return _fields(line, self.separator)


def _fields(line: str, separator: str | None) -> list[str]:
    if separator is None or separator == " ":
        return _SPACE.split(line.strip(" \t\r\n"))
    return line.rstrip("\r\n").rstrip(separator).split(separator)


def _is_between(line: str) -> bool:
    """Whether a line is between sentences; some files have a tab in theirs."""
    return not line.strip(" \t\r\n") or line.startswith(_DOCUMENT)


def _look(file: TextIO, path: str, layout: Layout) -> _About | None:
    """Read a file once; None where it has no rows."""
    separator, first, width, numbered, tags = layout.separator, 0, 0, True, set()
    for number, line in enumerate(file, 1):
        if "\0" in line:
            fix = "Look whether it is a text file, and `dataset.encoding` its encoding."
            raise DataError("a NUL character", where=f"{path}:{number}", fix=fix)
        if _is_between(line) or line.startswith("#"):
            continue
        if not first:
            first = number
            separator = separator or ("\t" if "\t" in line else None)
        fields = _fields(line, separator)
        width = width or len(fields)
        numbered = numbered and width > 1 and _NUMBER.fullmatch(fields[0]) is not None
        if len(fields) == width:
            tags.add(fields[-1])
    return _About(separator, first, width, numbered, frozenset(tags)) if first else None


def _names(about: _About, path: str, layout: Layout, notice: Notify) -> dict[int, str]:
    """The names of the columns that are read, by their number."""
    where, width = f"{path}:{about.first}", about.width
    if layout.columns:
        if len(layout.columns) != width:
            raise DataError(
                f"{plural(width, 'field')}, and dataset.columns names {len(layout.columns)}: {listed(layout.columns)}",
                where=where,
                fix="Name every column of the file, or its separator (dataset.separator).",
            )
        return dict(enumerate(layout.columns))
    if about.numbered and width == len(CONLL_U):
        return dict(enumerate(CONLL_U))
    text, label = layout.text or "tokens", layout.label or "tags"
    if about.numbered:
        raise DataError(
            f"the first of {width} columns counts the words, and nobody says what the others are",
            where=where,
            fix=f"Name the columns in their order, such as dataset.columns: [id, {text}, {label}].",
        )
    if width > 2:
        notice(
            f"{path} has {width} columns: the first is read as {text!r}, the last as {label!r}; name them all to read the "
            "others (dataset.columns)"
        )
    return {0: text} if width == 1 else {0: text, width - 1: label}


def _sentences(file: TextIO, path: str, about: _About) -> Iterator[tuple[int, list[list[str]], int]]:
    """The first line of each sentence, its rows, and how many comments were before the next."""
    rows: list[list[str]] = []
    start = comments = 0
    for number, line in enumerate(file, 1):
        if _is_between(line):
            yield start, rows, comments
            rows, comments = [], 0
            continue
        fields = about.fields(line)
        if line.startswith("#") and _is_comment(fields, about, inside=bool(rows)):
            comments += 1
            continue
        if about.numbered and not fields[0].isdecimal() and _NUMBER.fullmatch(fields[0]):
            continue
        _require_whole(fields, line, path, number, about)
        start = start if rows else number
        rows.append(fields)
    yield start, rows, comments


def _is_comment(fields: list[str], about: _About, *, inside: bool) -> bool:
    if about.numbered:
        return True
    return not inside and (len(fields) != about.width or (about.width > 1 and fields[-1] not in about.tags))


def _require_whole(fields: list[str], line: str, path: str, number: int, about: _About) -> None:
    """Refuse a row of another width, or without one of its fields."""
    where = f"{path}:{number}"
    if len(fields) != about.width:
        between = "white space" if about.separator is None else repr(about.separator)
        raise DataError(
            f"{plural(len(fields), 'field')} between {between}, and line {about.first} has {about.width}: {line.strip()[:60]!r}",
            where=where,
            fix="Give every word all of its columns, with tabs between them where a word holds a space.",
        )
    if "" in fields:
        what = f"field {fields.index('') + 1} of {about.width} is empty"
        raise DataError(what, where=where, fix="Write _ or O where there is nothing.")


def _columns(sentences: list[list[list[str]]], names: dict[int, str]) -> dict[str, Sequence[list[str]]]:
    return {name: [[row[number] for row in rows] for rows in sentences] for number, name in names.items()}

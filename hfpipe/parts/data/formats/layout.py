"""How a file of rows is written, as a recipe says it, and what of that a file says itself."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hfpipe.errors import DataError
from hfpipe.recipe.schema import Recipe

TEXT_FORMATS = ("csv", "tsv", "json", "jsonl", "text", "conll")
SUFFIXES = {
    **{f".{form}": form for form in TEXT_FORMATS if form != "text"},
    ".txt": "text",
    **dict.fromkeys((".conllu", ".bio", ".iob", ".iob2", ".bioes"), "conll"),
}
"""The text format of a file by its ending."""

Notify = Callable[[str], None]

# The longer mark first: that of utf-16 begins that of utf-32.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LONGEST_START = 1024
"""Bytes of a file that tell its encoding."""


@dataclass(frozen=True)
class Layout:
    """How files of rows are written.

    Attributes:
        form: one of TEXT_FORMATS.
        encoding: of the text, where no byte order mark says it.
        separator: between fields; None where nobody said it.
        quote: csv and tsv: around fields that hold a separator or a line end; None for no such character.
        field: json: where in the document the rows are, keys with dots between them; None where nobody said it.
        columns: conll: the names of the columns; empty where nobody said them.
        text: the first text column of the task: it tells a row from an object that holds rows, and is what the words of
            conll files are called. Empty where there is no task.
        label: what the last column of conll files is called.
        words: whether the text of a row is a list of words.
    """

    form: str
    encoding: str = "utf-8"
    separator: str | None = None
    quote: str | None = '"'
    field: str | None = None
    columns: tuple[str, ...] = ()
    text: str = ""
    label: str = ""
    words: bool = False

    @classmethod
    def of(cls, recipe: Recipe, form: str) -> Layout:
        """Of the files of a recipe."""
        spec, task = recipe.dataset, recipe.task
        found = cls(form, spec.encoding, spec.separator, spec.quote, spec.field, spec.columns or ())
        if form not in ("json", "conll"):  # the same rows, whatever is learned from them
            return found
        return replace(found, text=task.text[0], label=task.label_columns[0], words=task.traits.is_words)


def encoding_of(start: bytes, layout: Layout, path: str, notice: Notify) -> str:
    """The encoding that a file is read with: that of its byte order mark, which is no part of the data.

    Args:
        start: the first bytes of the file.
        layout: with the encoding where there is no mark.
        path: of the file.
        notice: is told when the mark says another encoding.

    Raises:
        DataError: no mark, and the zeros of UTF-16 in what should be UTF-8.
    """
    declared = codecs.lookup(layout.encoding).name
    found = next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), None)
    if found is not None:
        if not declared.startswith(found.removesuffix("-sig")):
            notice(f"{path} is read as {found.removesuffix('-sig')}, by the byte order mark that it begins with")
        return found
    if declared == "utf-8" and len(start) >= 4:
        for encoding, zeros, others in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
            if zeros.count(0) > len(zeros) // 2 and not others.count(0):
                raise DataError(
                    f"every second byte is zero: it looks like {encoding} without a byte order mark",
                    where=path,
                    fix=f"Say dataset.encoding: {encoding}.",
                )
    return layout.encoding


def undecodable(path: str, encoding: str, opened: Callable[[str], Any]) -> DataError:
    """What stands where a file is not of its encoding.

    Args:
        path: of the file.
        encoding: that it was read with.
        opened: opens it unpacked.
    """
    fix = "Save it as UTF-8, or name the encoding it has (dataset.encoding=latin-1)."
    decoder = codecs.getincrementaldecoder(encoding)()
    read, line = 0, 1
    with opened(path) as file:
        while True:
            chunk = file.read(1 << 20)
            read += len(chunk)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                byte = read - len(error.object) + error.start
                line += error.object[: error.start].decode(encoding, errors="ignore").count("\n")
                got = error.object[error.start]
                what = f"not {encoding.removesuffix('-sig')} at byte {byte} (0x{got:02x})"
                return DataError(what, where=f"{path}:{line}", fix=_other_reading(error) or fix)
            except UnicodeError as error:
                return DataError(f"not {encoding}: {error}", where=f"{path}:{line}", fix=fix)
            if not chunk:
                return DataError(f"not {encoding}", where=path, fix=fix)


def _other_reading(error: UnicodeDecodeError) -> str:
    """What the line around a byte that is no UTF-8 would be in the encodings of Windows and of older files."""
    if not error.encoding.startswith("utf-8") and error.encoding != "utf-8":
        return ""
    before, after = error.object[: error.start], error.object[error.start :]
    near = before[before.rfind(b"\n") + 1 :][-20:] + after.split(b"\n", 1)[0][:20].rstrip(b"\r")
    for encoding in ("cp1252", "latin-1"):
        try:
            shown = near.decode(encoding)
        except UnicodeDecodeError:
            continue
        if shown.isprintable():
            return f"Save it as UTF-8, or name the encoding it has: with dataset.encoding={encoding} it reads {shown!r} there."
    return ""

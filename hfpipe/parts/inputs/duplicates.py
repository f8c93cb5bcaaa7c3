"""Rows that occur again, counted in memory that does not grow with the rows.

Every row leaves a hash of its text and one of its label. They go to files on disk, parted by the text, so that equal texts
meet in one part, and a part at a time is sorted: some MB, whatever the number of rows, and 16 bytes a row on disk.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import numpy as np
import pyarrow as pa

Hashes = np.ndarray[Any, np.dtype[np.uint64]]

PART_ROWS = 1 << 16  # rows of the largest split in a part, on average
_MOST_PARTS = 256  # files that are open at once for a split; above 16 million rows the parts grow


def hashes(texts: pa.Array | pa.ChunkedArray) -> Hashes:
    """A number for each text, `[rows]`: 64 bits of BLAKE2b, a microsecond each.

    Two different texts among five million share one with a probability of one in a million. A text that is missing has the
    number of an empty one.
    """
    found = [_hashes_of(chunk) for chunk in (texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts])]
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


def _hashes_of(texts: pa.Array) -> Hashes:
    wide = pa.types.is_large_string(texts.type)
    _, ends, characters = texts.buffers()
    numbers = np.frombuffer(ends, np.int64 if wide else np.int32) if ends is not None else np.zeros(1, np.int32)
    bounds = numbers[texts.offset : texts.offset + len(texts) + 1].tolist()
    held = memoryview(characters or b"")
    digests = [hashlib.blake2b(held[start:end], digest_size=8).digest() for start, end in itertools.pairwise(bounds)]
    return np.frombuffer(b"".join(digests), np.uint64)


class Fingerprints:
    """The hashes of one split, on disk, in parts."""

    def __init__(self, folder: Path, name: str, parts: int) -> None:
        self.rows = 0
        self._files: list[BinaryIO] = [open(folder / f"{name}-{part}", "w+b") for part in range(parts)]  # noqa: SIM115

    def add(self, texts: Hashes, labels: Hashes | None = None) -> None:
        """Keep the hashes of some more rows, both `[rows]`."""
        self.rows += len(texts)
        pairs = np.stack([texts, labels if labels is not None else np.zeros_like(texts)], axis=1)
        place = texts % np.uint64(len(self._files))
        order = np.argsort(place, kind="stable")
        sizes = np.bincount(place.astype(np.int64), minlength=len(self._files))
        for file, share in zip(self._files, np.split(pairs[order], np.cumsum(sizes)[:-1]), strict=True):
            file.write(share.tobytes())

    def parts(self) -> Iterator[Hashes]:
        """The hashes of text and label, `[rows, 2]`, part after part."""
        for file in self._files:
            file.seek(0)
            yield np.frombuffer(file.read(), np.uint64).reshape(-1, 2)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()


@contextmanager
def fingerprints(sizes: dict[str, int]) -> Iterator[dict[str, Fingerprints]]:
    """Empty prints by name, whose parts match; their files go when the block ends.

    Args:
        sizes: how many rows there will be, by name.
    """
    parts = min(max(1, -(-max(sizes.values(), default=0) // PART_ROWS)), _MOST_PARTS)
    # Beside the cache of the data, which is meant for what grows with them; a folder for temporary files may be memory.
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hfpipe-prints-", dir=cache) as folder:
        found: dict[str, Fingerprints] = {}
        try:
            for number, name in enumerate(sizes):
                found[name] = Fingerprints(Path(folder), str(number), parts)
            yield found
        finally:
            for one in found.values():
                one.close()


def repeated(prints: Fingerprints) -> int:
    """How many rows have the text of an earlier row."""
    return prints.rows - sum(len(np.unique(part[:, 0])) for part in prints.parts())


def contradicted(prints: Fingerprints) -> int:
    """How many texts have more than one label."""
    return sum(_with_two_labels(part) for part in prints.parts())


def _with_two_labels(part: Hashes) -> int:
    texts, labels = part[np.lexsort((part[:, 1], part[:, 0]))].T
    same_text = texts[1:] == texts[:-1]
    another_label = same_text & (labels[1:] != labels[:-1])
    return len(np.unique(texts[1:][another_label]))


def among(texts: Hashes, known: Fingerprints) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the texts occur among the known, `[rows]`."""
    found = np.zeros(len(texts), bool)
    for part in known.parts():
        found |= np.isin(texts, part[:, 0])
    return found

"""Repeated, contradicted and shared rows, counted part by part: the same as counting them all at once."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest

from hfpipe.parts.inputs import duplicates


@pytest.fixture
def drawn() -> tuple[list[str], list[str]]:
    """Texts of which many repeat, and labels of which some contradict."""
    random_ = random.Random(0)
    texts = [f"text {random_.randrange(700)}" for _ in range(1000)]
    return texts, [str(random_.random() < 0.1) for _ in texts]


@pytest.mark.parametrize("part_rows", [50, 1 << 16])
def test_counts_are_those_of_plain_python(
    drawn: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch, part_rows: int
) -> None:
    """In twenty parts as in one, what is counted by hashes on disk is what sets and dictionaries say."""
    monkeypatch.setattr(duplicates, "PART_ROWS", part_rows)
    texts, labels = drawn
    others = [f"text {row}" for row in range(650, 750)]
    with duplicates.fingerprints({"train": len(texts), "other": len(others)}) as prints:
        for start in range(0, len(texts), 64):
            window = slice(start, start + 64)
            prints["train"].add(duplicates.hashes(pa.array(texts[window])), duplicates.hashes(pa.array(labels[window])))
        prints["other"].add(duplicates.hashes(pa.array(others)))
        assert len(list(prints["train"].parts())) == -(-1000 // part_rows)
        assert duplicates.repeated(prints["train"]) == len(texts) - len(set(texts))
        labels_of = defaultdict(set)
        for text, label in zip(texts, labels, strict=True):
            labels_of[text].add(label)
        assert duplicates.contradicted(prints["train"]) == sum(len(found) > 1 for found in labels_of.values()) > 0
        among = duplicates.among(duplicates.hashes(pa.array(others)), prints["train"])
        assert among.tolist() == [text in texts for text in others]
        assert 0 < among.sum() < len(others)


def test_a_part_holds_few_rows_whatever_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory at once, one part, does not grow with the rows: 4,000 and 64,000 rows have parts alike in size."""
    monkeypatch.setattr(duplicates, "PART_ROWS", 1000)
    for rows in (4000, 64000):
        with duplicates.fingerprints({"train": rows}) as prints:
            for start in range(0, rows, 500):
                prints["train"].add(duplicates.hashes(pa.array([f"{row}" for row in range(start, start + 500)])))
            sizes = [len(part) for part in prints["train"].parts()]
        assert sum(sizes) == rows
        assert max(sizes) < 1300


def test_the_files_are_gone_afterwards() -> None:
    """Nothing is left in the cache, also when counting fails."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)

    def fail() -> None:
        with duplicates.fingerprints({"train": 1}):
            assert list(cache.glob("hfpipe-prints-*"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(cache.glob("hfpipe-prints-*"))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_hashes_tell_texts_apart(kind: pa.DataType) -> None:
    """Equal texts have one hash, different ones several, wherever they lie in a slice of a column; a missing one is empty."""
    texts = ["", "a", "b", "ab", "a", "é", "a\0", None]
    whole = duplicates.hashes(pa.array(texts, kind))
    assert Counter(whole.tolist()).most_common(2)[1][1] == 2  # the two 'a'; the empty and the missing text
    assert len(np.unique(whole)) == 6
    sliced = duplicates.hashes(pa.chunked_array([pa.array(texts, kind).slice(3, 2), pa.array(texts, kind).slice(5)]))
    assert sliced.tolist() == whole[3:].tolist()
    assert len(duplicates.hashes(pa.chunked_array([], kind))) == 0

"""The manifest of a folder: one format, and every change of a file is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hfpipe.system import manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files and their manifest."""
    (tmp_path / "a").write_text("aaa")
    (tmp_path / "b").write_text("")
    manifest.write(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda folder: None, None),
        (lambda folder: (folder / "more").write_text("x"), None),
        (lambda folder: (folder / "a").write_text("aab"), "a has changed since it was written"),
        (lambda folder: (folder / "a").write_text("aa"), "a has 2 bytes, and 3 were written"),
        (lambda folder: (folder / "b").unlink(), "b is missing"),
        (lambda folder: (folder / manifest.FILE).unlink(), "manifest.json is missing: it was never finished"),
        (lambda folder: (folder / manifest.FILE).write_bytes(b"\xff{"), "manifest.json has changed"),
        (lambda folder: (folder / manifest.FILE).write_text("[1]"), "manifest.json has changed"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, damage: Callable[[Path], object], found: str | None) -> None:
    """The file and what is wrong with it; files that the manifest does not name may be there."""
    damage(folder)
    assert manifest.find_corruption(folder) == found


def test_files_may_be_passed_over(folder: Path) -> None:
    """A file that is ignored may be gone or changed."""
    (folder / "a").unlink()
    assert manifest.find_corruption(folder, ignored=["a"]) is None


def test_the_format_is_that_of_earlier_checkpoints(folder: Path) -> None:
    """Sizes and SHA-256 by name, and a hash of them: what hfpipe 0.1 wrote beside its checkpoints is read as before."""
    files = {name: {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text in
             (("a", b"aaa"), ("b", b""))}  # fmt: skip
    own = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    text = json.dumps({"format": 1, "sha256": own, "files": files}, indent=1, sort_keys=True) + "\n"
    assert (folder / manifest.FILE).read_text() == text
    assert manifest.digests(folder) == {name: entry["sha256"] for name, entry in files.items()}

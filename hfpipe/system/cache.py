"""Folders of the cache that are there as a whole or not at all, and that notice when a file of theirs has changed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets

from hfpipe.system.snapshot import digests

_MANIFEST = "manifest.json"


def entry_folder(kind: str, key: str) -> Path:
    """Where the cache of data sets keeps what has this key."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hfpipe" / kind / key


@contextmanager
def build_entry(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `folder`, with the hashes of its files, when the block ends well."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        yield staging
        (staging / _MANIFEST).write_text(json.dumps(digests(staging)))
        try:
            staging.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster: what it made is the same
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def find_corruption(folder: Path) -> str | None:
    """What is wrong with a filled folder, or None: every file must be there with the bytes that were written."""
    try:
        manifest = _manifest(folder)
    except (OSError, ValueError):
        return "its manifest can't be read"
    found = digests(folder)
    for name, digest in manifest.items():
        if found.get(name) != digest:
            return f"{name} has changed" if name in found else f"{name} is gone"
    return None


def entry_files(folder: Path) -> list[Path]:
    """The files that a folder was filled with, in order; `datasets` puts files of its own beside them."""
    return [folder / name for name in sorted(_manifest(folder))]


def _manifest(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / _MANIFEST).read_text()))

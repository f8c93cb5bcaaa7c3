"""Folders of the cache that are there as a whole or not at all, and that notice when a file of theirs has changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets

from hfpipe.system import atomic, manifest


def entry_folder(kind: str, key: str) -> Path:
    """Where the cache of data sets keeps what has this key."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hfpipe" / kind / key


@contextmanager
def build_entry(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `folder`, with a manifest of its files, when the block ends well."""
    with atomic.replaced_folder(folder, keep_if=lambda there: manifest.find_corruption(there) is None) as staging:
        yield staging
        manifest.write(staging)


def entry_files(folder: Path) -> list[Path]:
    """The files that a folder was filled with, in order; `datasets` puts files of its own beside them."""
    return [folder / name for name in sorted(manifest.read(folder))]

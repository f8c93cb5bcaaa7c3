"""The manifest of a folder: the size and SHA-256 of each of its files, and whether they are still those that were written.

One format, `manifest.json`, for checkpoints of runs, entries of the cache and the embedded data set; a file of the
manifest itself that changed shows too. `run.json` has the SHA-256 of the files of `model/` alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from hfpipe.system import atomic
from hfpipe.system.snapshot import digest_of_file, digest_of_text

FILE = "manifest.json"


class Entry(TypedDict):
    """What is known of a file."""

    bytes: int
    sha256: str


def write(folder: Path) -> None:
    """Write the manifest of the files that are in a folder."""
    (folder / FILE).write_bytes(_content(_measured(_files(folder))))


def leave_out(folder: Path, names: Iterable[str]) -> None:
    """Take files out of the manifest of a folder; they may be removed then."""
    gone = set(names)
    kept = {name: entry for name, entry in read(folder).items() if name not in gone}
    atomic.write(folder / FILE, _content(kept))


def read(folder: Path) -> dict[str, Entry]:
    """What a manifest says of each file, by name.

    Raises:
        OSError: there is none.
        ValueError: it is no manifest, or a bit of it has changed.
    """
    content = (folder / FILE).read_bytes()
    try:
        files: dict[str, Entry] = json.loads(content)["files"]
        if content == _content(files):
            return files
    except (KeyError, TypeError):
        pass
    raise ValueError(f"{FILE} has changed")


def find_corruption(folder: Path, ignored: Iterable[str] = ()) -> str | None:
    """What is wrong with a folder, beginning with the name of the file, or None: every bit is as it was written.

    Args:
        folder: the folder; files that its manifest does not name may be there.
        ignored: files that may be missing or changed.
    """
    try:
        files = read(folder)
    except OSError:
        return f"{FILE} is missing: it was never finished"
    except ValueError:
        return f"{FILE} has changed"
    passed_over = set(ignored)
    names = [name for name in files if name not in passed_over]
    for name in names:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != files[name]["bytes"]:
            return f"{name} has {size:,} bytes, and {files[name]['bytes']:,} were written"
    found = _measured([folder / name for name in names])
    changed = next((name for name in names if found[name] != files[name]), None)
    return changed and f"{changed} has changed since it was written"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder, by name."""
    return {name: entry["sha256"] for name, entry in _measured(_files(folder)).items()}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != FILE)


def _measured(files: list[Path]) -> dict[str, Entry]:
    """Size and SHA-256 by name; hashing lets go of Python's lock, so files are hashed side by side."""
    with ThreadPoolExecutor(max_workers=4) as threads:
        found = list(threads.map(digest_of_file, files))
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": digest} for path, digest in zip(files, found, strict=True)
    }


def _content(files: Mapping[str, Entry]) -> bytes:
    """The manifest's bytes, with a hash of their own: a changed bit anywhere in it shows."""
    own = digest_of_text(json.dumps(files, sort_keys=True))
    return (json.dumps({"format": 1, "sha256": own, "files": files}, indent=1, sort_keys=True) + "\n").encode()

"""Compressed data files: read as what they hold, and no further than an honest file would go."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from hfpipe.errors import DataError, RefusedError

RATIO = 100  # csv and JSON lines shrink to a tenth, logs that repeat themselves to a fiftieth; a bomb to a thousandth
_BZIP2_BLOCK = slice(4, 10)
_BZIP2_BLOCKS = (bytes.fromhex("314159265359"), bytes.fromhex("177245385090"))  # a first block, and the end of no data
FLOOR = 64 << 20  # bytes that a file of any size may unpack to


class Kind(NamedTuple):
    """A way to compress one file.

    Attributes:
        name: what it is called.
        suffix: behind the file's own.
        magic: the first bytes of such a file.
        open: opens a path, to be read unpacked.
    """

    name: str
    suffix: str
    magic: bytes
    open: Callable[[str], Any]


class _Streams(io.RawIOBase):
    """Compressed streams one after the other. `bz2.open` and `lzma.open` read a damaged one behind the first as the end."""

    def __init__(self, make: Callable[[], Any], path: str) -> None:
        self._make, self._stream = make, make()
        self._source, self._held = open(path, "rb"), b""  # noqa: SIM115 - closed by `close`

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._stream.eof:
                # Nothing but zeros, with which xz may fill up, stands between streams or behind the last.
                self._held = (self._stream.unused_data or self._held).lstrip(b"\0") or self._source.read(1 << 16)
                if not self._held:
                    return 0
                if not self._held.strip(b"\0"):
                    continue
                self._stream, self._held = self._make(), self._held.lstrip(b"\0")
            elif self._stream.needs_input and not self._held:
                self._held = self._source.read(1 << 16)
                if not self._held:
                    raise EOFError("the end of the data is missing")
            found = self._stream.decompress(self._held, max_length=len(buffer))
            self._held = b""
            if found:
                buffer[: len(found)] = found
                return len(found)

    def close(self) -> None:
        self._source.close()
        super().close()


def _streams(make: Callable[[], Any], path: str) -> io.BufferedReader:
    return io.BufferedReader(_Streams(make, path), buffer_size=1 << 16)


KINDS = (
    Kind("gzip", ".gz", b"\x1f\x8b", gzip.open),
    Kind("bzip2", ".bz2", b"BZh", partial(_streams, bz2.BZ2Decompressor)),
    Kind("xz", ".xz", b"\xfd7zXZ\x00", partial(_streams, partial(lzma.LZMADecompressor, lzma.FORMAT_XZ))),
    Kind("Zstandard", ".zst", b"\x28\xb5\x2f\xfd", partial(pa.CompressedInputStream, compression="zstd")),
    Kind("LZ4", ".lz4", b"\x04\x22\x4d\x18", partial(pa.CompressedInputStream, compression="lz4")),
)


def bare(name: str) -> str:
    """The name of a file without the ending that says how it is compressed: `rows.csv` of `rows.csv.gz`."""
    for kind in KINDS:
        if name.lower().endswith(kind.suffix):
            return name[: -len(kind.suffix)]
    return name


def kind_of(path: str) -> Kind | None:
    """How a file is compressed, by its first bytes; None for one that is not."""
    with open(path, "rb") as file:
        start = file.read(_BZIP2_BLOCK.stop)
    kind = next((kind for kind in KINDS if start.startswith(kind.magic)), None)
    if kind is not None and kind.name == "bzip2" and start[_BZIP2_BLOCK] not in _BZIP2_BLOCKS:
        return None  # a text that happens to start with BZh
    return kind


def opened(path: str, into: Path | None = None) -> io.BufferedReader:
    """A file open for reading, unpacked where it is compressed.

    Args:
        path: of the file.
        into: a folder whose disk must have room for what it unpacks to.

    Raises:
        RefusedError: while reading, where it unpacks to more than an honest file would.
        DataError: while reading, where the compressed data are damaged.
    """
    kind = kind_of(path)
    if kind is None:
        return open(path, "rb")
    return io.BufferedReader(_Unpacked(path, kind, _limit(path, into)), buffer_size=1 << 20)


def require_bounded(path: str, into: Path | None = None) -> None:
    """Unpack a compressed file into nothing, before another library unpacks it; arguments and errors as of `opened`."""
    if kind_of(path) is None:
        return
    with opened(path, into) as file:
        while file.read(1 << 20):
            pass


def _limit(path: str, into: Path | None) -> int:
    """The bytes that a file may unpack to."""
    most = max(FLOOR, RATIO * Path(path).stat().st_size)
    if into is None:
        return most
    existing = next(folder for folder in (into, *into.parents) if folder.is_dir())
    return min(most, shutil.disk_usage(existing).free)


class _Unpacked(io.RawIOBase):
    """What a compressed file holds, counted as it is read; it can be read again from the start."""

    def __init__(self, path: str, kind: Kind, limit: int) -> None:
        self._path, self._kind, self._limit, self._count = path, kind, limit, 0
        self._source = kind.open(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset or whence not in (io.SEEK_SET, io.SEEK_CUR):
            raise io.UnsupportedOperation("only the start can be gone back to")
        if whence == io.SEEK_SET and self._count:
            self._source.close()
            self._source, self._count = self._kind.open(self._path), 0
        return self._count

    def readinto(self, buffer: Any) -> int:
        try:
            found = self._source.read(len(buffer))
        except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
            what = f"the {self._kind.name} data are damaged or cut short: {error}"
            raise DataError(what, where=self._path, fix="Get the file again, or compress it again.") from None
        self._count += len(found)
        if self._count > self._limit:
            raise self._too_large()
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._source.close()
        super().close()

    def _too_large(self) -> RefusedError:
        size = Path(self._path).stat().st_size
        return RefusedError(
            f"{self._kind.name} data of {size:,} bytes that unpack to more than {self._limit:,} bytes",
            where=self._path,
            allowed=f"{RATIO} times the size of the file ({FLOOR:,} bytes of a small one), and no more than the disk has room "
            "for",
            fix="If you trust it, unpack it yourself and name the file that comes out.",
        )

"""Data files that somebody else wrote: archives, names and links that lead out of their folder, and what unpacks without end."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import DatasetCard

from hfpipe.errors import RefusedError
from hfpipe.parts.data.formats.compressed import kind_of, require_bounded
from hfpipe.system.hub import own_root

_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_TAR_MODES = {"gzip": "r:gz", "bzip2": "r:bz2", "xz": "r:xz"}


def refuse_archive(file: str, where: str) -> None:
    """Refuse a zip or tar: what it unpacks to, and where, only unpacking would tell.

    Raises:
        RefusedError: naming the file.
    """
    is_there = Path(file).is_file()
    if file.endswith(_ARCHIVES) or (is_there and (zipfile.is_zipfile(file) or _is_tar(file))):
        raise RefusedError(f"{file} is an archive", where=where, fix="Unpack it yourself and name the files in it.")


def _is_tar(file: str) -> bool:
    """Whether a file is a tar once it is unpacked: compressed bytes themselves pass for the header of one now and then."""
    kind = kind_of(file)
    mode = "r:" if kind is None else _TAR_MODES.get(kind.name)
    if mode is None:
        return False
    try:
        with tarfile.open(file, mode):  # type: ignore[call-overload]
            return True
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError):
        return False  # damaged data are reported when they are read


def refuse_named_outside(folder: Path, where: str) -> None:
    """Refuse a folder whose README names data at an address or outside of it, before anything looks there.

    Raises:
        RefusedError: with what it names; a folder must not decide what else is read or fetched.
    """
    readme = folder / "README.md"
    if not readme.is_file():
        return
    card = DatasetCard.load(readme, ignore_metadata_errors=True)
    for name in _texts([[one.get("data_files"), one.get("data_dir")] for one in card.data.get("configs") or []]):
        if "://" in name or not Path(os.path.normpath(folder / name)).is_relative_to(folder):
            what = f"the README of {folder} names {name!r} as its data"
            raise RefusedError(what, where=where, fix="Put the file itself into the folder.")


def refuse_outside(files: Iterable[str], folder: Path, where: str) -> None:
    """Refuse a folder whose files lie elsewhere, by a link, or are archives.

    Raises:
        RefusedError: naming the file.
    """
    root = own_root(folder)
    for file in files:
        refuse_archive(file, where)
        if not Path(file).resolve().is_relative_to(root):
            what = f"{file!r} leads out of {folder}, to {Path(file).resolve()}"
            raise RefusedError(what, where=where, fix="Put the file itself into the folder, or name its own folder.")


def streamable(path: str, folder: Path | None, where: str, **options: Any) -> datasets.DatasetBuilder:
    """The builder of a data set that is read where it lies, after a look at its files.

    Args:
        path: as `load_dataset_builder` takes it.
        folder: the same, where it is a local folder.
        where: the place in the recipe.
        options: for `load_dataset_builder`.

    Raises:
        RefusedError: as of the other functions here.
    """
    if folder is not None:
        refuse_named_outside(folder, where)
    builder = datasets.load_dataset_builder(path, **options)
    if folder is not None:
        refuse_outside(data_files(builder), folder, where)
    for file in data_files(builder):
        if Path(file).is_file():
            require_bounded(file)
    return builder


class Downloads(datasets.DownloadManager):
    """Hands files to a builder, after seeing how far the compressed ones unpack."""

    def __init__(self, builder: datasets.DatasetBuilder) -> None:
        """Download what a builder asks for as the builder itself would."""
        config = datasets.DownloadConfig(
            use_etag=False, token=builder.token, storage_options=builder.storage_options
        )  # the files of a commit never change
        super().__init__(
            dataset_name=builder.dataset_name,
            data_dir=builder.config.data_dir,
            download_config=config,
            base_path=builder.base_path,
            record_checksums=False,
        )

    def download(self, url_or_urls: Any) -> Any:
        """The paths of what was downloaded; raises as `require_bounded`."""
        found = super().download(url_or_urls)
        for path in self.downloaded_paths.values():
            require_bounded(str(path), Path(datasets.config.HF_DATASETS_CACHE))
        return found


def data_files(builder: datasets.DatasetBuilder) -> list[str]:
    """The paths or addresses of the files that a builder reads."""
    return [str(file) for files in (builder.config.data_files or {}).values() for file in files]


def _texts(value: Any) -> list[str]:
    """The paths among the data files of a README's configuration: all texts but the names of splits."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return _texts([part for key, part in value.items() if key != "split"])
    return [text for part in value for text in _texts(part)] if isinstance(value, list) else []

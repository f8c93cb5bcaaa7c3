"""The files that a run wrote into `model/`, and whether they are still the same."""

from __future__ import annotations

from pathlib import Path

from hfpipe.errors import ModelError
from hfpipe.runs.store import Run
from hfpipe.system import manifest


def model_folder(run: Run) -> Path:
    """The folder with the weights of a run.

    Raises:
        ModelError: there is none.
    """
    folder = (run.path / "model").resolve()
    if not folder.is_dir():
        raise ModelError(
            f"run {run.id!r} is {run.status} and has no model", where=str(run.path), fix="Train it to its end."
        )
    return folder


def require_own_files(run: Run, folder: Path, *, with_config: bool = False) -> None:
    """Refuse a model folder whose weights or tokenizer are not those that the run wrote.

    Args:
        run: says which they were.
        folder: `model/` of the run.
        with_config: refuse another config.json, too: what is shared has to be what was measured.

    Raises:
        ModelError: with the first such file.
    """
    found, prefixes = manifest.digests(folder), ("model", "tokenizer", "vocab", *(["config"] if with_config else []))
    for name, digest in (run.metadata.get("model") or {}).items():
        if name.startswith(prefixes) and found.get(name) != digest:
            raise ModelError(
                f"{name} {'has changed' if name in found else 'is gone'}: it is not the one that run {run.id!r} wrote",
                where=str(folder / name),
                fix="Put the file back, or train again; to measure a changed model, copy its folder and name the copy.",
            )

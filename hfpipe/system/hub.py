"""The Hub and its cache: whether it can be reached, and what is already here."""

from __future__ import annotations

import glob
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfpipe.errors import HfpipeError, ModelError, RecipeError
from hfpipe.system.text import first_line

_PROBE_SECONDS = 3.0
_WEIGHT_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
QUICKSTART = "`hfpipe finetune quickstart` needs neither the Hub nor a cache."


def is_local(name: str) -> bool:
    """Whether a path in a recipe means a local folder: `./x`, `../x`, `/x` or `~/x`."""
    return name.startswith(("./", "../", "/", "~/", ".\\")) or name in (".", "..", "~")


def local_folder(name: str, where: str, error: type[HfpipeError]) -> Path:
    """The local folder that a recipe names.

    Raises:
        HfpipeError: of the given type, when there is no such folder.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        what = "a file, not a folder" if path.is_file() else "no such folder"
        fix = near_here(name) or "Local folders are written ./x, /x or ~/x; ./x lies beside the recipe that says it."
        raise error(f"{name!r}: {what}", where=where, fix=fix)
    return path.resolve()


def near_here(path: str) -> str:
    """What to do where a local path leads to nothing, and its end leads from the working directory to something."""
    parts = Path(path).parts
    here = Path.cwd()
    for length in range(len(parts) - 1, 0, -1):
        tail = str(Path(*parts[-length:]))
        pattern = os.path.join(glob.escape(str(here)), tail)
        if not {"..", "**"} & set(parts[-length:]) and any(glob.iglob(pattern)):
            return (
                f"{tail!r} is in the working directory, and paths in a recipe start from the folder of its file: write "
                f"{str(here / tail)!r}, or move one of the two."
            )
    return ""


def refuse_ambiguous(name: str, where: str) -> None:
    """Refuse a Hub id that is also a folder here, so that nobody trains on the wrong one.

    Raises:
        RecipeError: with both spellings.
    """
    if Path(name).is_dir():
        raise RecipeError(
            f"{name!r} would be a Hub id, and a folder of that name is here too",
            where=where,
            fix=f"Write ./{name} for the folder, or work in another folder for the Hub.",
        )


def is_offline() -> bool:
    """Whether the Hugging Face libraries were set to stay off the network."""
    if constants := sys.modules.get("huggingface_hub.constants"):
        return bool(constants.HF_HUB_OFFLINE)
    flags = (os.environ.get("HF_HUB_OFFLINE"), os.environ.get("TRANSFORMERS_OFFLINE"))
    return any(str(flag).upper() in ("1", "TRUE", "YES", "ON") for flag in flags)


def detect_offline(notice: Callable[[str], None]) -> bool:
    """Find out once whether the Hub answers, and go offline when it does not.

    The libraries would retry for minutes at every file; one request of three seconds decides for all of them.

    Args:
        notice: gets a sentence when the Hub does not answer.

    Returns:
        Whether the process is offline now.
    """
    if is_offline():
        return True
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
        return False
    except urllib.error.HTTPError:
        return False  # any answer is one
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        notice(f"{endpoint} can't be reached ({reason}); going on from the local cache, as with HF_HUB_OFFLINE=1")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported
    for module, names in {
        "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
        "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    }.items():
        if loaded := sys.modules.get(module):
            for name in names:
                setattr(loaded, name, True)
    return True


def snapshot(repo: str, kind: str, revision: str | None) -> Path | None:
    """The folder of a repository in the local Hub cache, or None. `kind` is `model` or `dataset`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, repo_type=kind, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None


def own_root(folder: Path) -> Path:
    """The folder that files of this one may lie in: of a snapshot in the Hub's cache that of the whole repository."""
    folder = folder.resolve()
    return folder.parent.parent if folder.parent.name == "snapshots" else folder


def checkpoint_folder(checkpoint: str, revision: str | None, where: str) -> tuple[Path, str | None]:
    """The local folder of a checkpoint, downloaded if need be, and its commit (None for a local folder).

    Raises:
        RecipeError: ambiguous name, or a revision given for a local folder.
        ModelError: neither on the Hub nor in its cache.
    """
    if checkpoint.startswith("embedded:"):
        from hfpipe.system import embedded

        return embedded.checkpoint_folder(checkpoint.removeprefix("embedded:")), None
    if is_local(checkpoint):
        if revision is not None:
            raise RecipeError(f"revision {revision!r} for a local folder", where=where, fix="Remove `revision`.")
        return local_folder(checkpoint, where, ModelError), None
    refuse_ambiguous(checkpoint, where)
    folder = snapshot(checkpoint, "model", revision) if is_offline() else _download(checkpoint, revision, where)
    if folder is None or not (folder / "config.json").is_file():
        raise ModelError(
            f"checkpoint {checkpoint!r}{f' at revision {revision!r}' if revision else ''} is not in the local cache, "
            "and the Hub is out of reach",
            where=where,
            fix=f"Where the Hub can be reached: `hf download {checkpoint}`, then bring that cache here (HF_HOME). "
            f"{QUICKSTART}",
        )
    return folder, folder.name


def _download(checkpoint: str, revision: str | None, where: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError

    try:
        return Path(
            snapshot_download(checkpoint, revision=revision, allow_patterns=_WEIGHT_FILES, ignore_patterns=["*/*"])
        )
    except (HFValidationError, HfHubHTTPError) as error:
        raise ModelError(
            f"checkpoint {checkpoint!r}: {first_line(error)}",
            where=where,
            fix="Accept its terms on the Hub and log in with `hf auth login`."
            if isinstance(error, GatedRepoError)
            else "Look for its exact name on the Hub; a local folder is written ./x, /x or ~/x.",
        ) from error


def dataset_commit(repo: str, revision: str | None, where: str) -> str:
    """The commit of a data set on the Hub.

    Raises:
        DataError: no such data set or revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from hfpipe.errors import DataError

    try:
        info: Any = HfApi().dataset_info(repo, revision=revision)
    except (HfHubHTTPError, HFValidationError) as error:
        raise DataError(
            f"data set {repo!r}: {first_line(error)}",
            where=where,
            fix="Look for its exact name on the Hub; a local folder is written ./x, /x or ~/x.",
        ) from error
    return str(info.sha)

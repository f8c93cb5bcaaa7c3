"""`hfpipe push`: the model of a run as a repository on the Hub, private by default, and nothing that leaks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpipe.errors import HfpipeError, MachineError, ModelError, RecipeError, RefusedError
from hfpipe.recipe.source import to_yaml
from hfpipe.runs.given_parts import require_given
from hfpipe.runs.model_files import require_own_files
from hfpipe.runs.store import Run
from hfpipe.sharing.model_card import PLACE
from hfpipe.system import hub
from hfpipe.system.redaction import find_private, redact, strip_path, strip_paths
from hfpipe.system.text import first_line, json_page

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
_LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN."


@dataclass(frozen=True)
class Upload:
    """One file of a push.

    Attributes:
        name: its path in the repository.
        content: the file, or its bytes where they are not those of a file.
    """

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        repo: the repository.
        url: of its commit.
        commit: what the Hub calls it.
        private: whether others can't see it.
        files: name to bytes.
    """

    repo: str
    url: str
    commit: str
    private: bool
    files: dict[str, int]


def uploads(run: Run, repo: str, model: Any = None) -> list[Upload]:
    """The files that a push sends: `model/`, the recipe and the metrics; no record, no log, no path of this machine.

    Args:
        run: a finished one.
        repo: `NAME/REPOSITORY`, which the example of the model card will name.
        model: an object of the class that was trained, where that can't be found; the weights are loaded into it once.

    Raises:
        RecipeError: no such name can be, or the model was given from Python and is not given now.
        ModelError: no model, or not the one that the run measured.
        RefusedError: a pickle, a link, a token or the home folder in what would be sent.
    """
    if not _REPO.fullmatch(repo):
        raise RecipeError(f"{repo!r} is no repository", where="REPO", allowed="NAME/REPOSITORY, as in ann/mrpc-minilm")
    folder = run.path / "model"
    if run.status != "finished" or not folder.is_dir():
        raise ModelError(f"run {run.id!r} is {run.status} and has no finished model", where=str(run.path),
                         fix="Train it to its end.")  # fmt: skip
    require_given(run, () if model is None else ("model",), ("model",), call="hfpipe.sharing.push.push(run, repo, ...)")
    if model is not None:
        run.model(model)
    found = [Upload(file.name, file) for file in sorted(folder.iterdir())]
    for one in found:
        _require_plain(one, folder)
    require_own_files(run, folder, with_config=True)
    found = [Upload(one.name, _named(one, repo)) if one.name == "README.md" else one for one in found]
    found.append(Upload("recipe.yaml", strip_path(to_yaml(run.recipe)).encode()))
    for file in (run.path / "metrics.json", *sorted((run.path / "evaluations").glob("*.json"))):
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(content, dict) and "target" in content:
                content["target"] = repo  # it names the folder of the run
            text = json_page(strip_paths(content)) + "\n"
            found.append(Upload(file.relative_to(run.path).as_posix(), text.encode()))
    for one in found:
        _require_nothing_private(one)
    return found


def _require_plain(one: Upload, folder: Path) -> None:
    assert isinstance(one.content, Path)
    if one.content.is_symlink() or not one.content.is_file():
        raise RefusedError(f"{one.name} is a {'link' if one.content.is_symlink() else 'folder'}", where=str(folder),
                           fix="Only plain files are sent: put the file itself there, or remove it.")  # fmt: skip
    with open(one.content, "rb") as file:
        start = file.read(4)
    # A pickle of protocol 2 and later starts with 0x80 and its number, and torch.save writes a zip around it. A
    # safetensors file starts with the length of its header, whose first byte may be 0x80, too.
    is_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if one.content.suffix in _PICKLES or (
        one.content.suffix != ".safetensors" and (is_pickle or start == b"PK\x03\x04")
    ):
        raise RefusedError(f"{one.name} may be a pickle, which runs code where it is loaded", where=str(folder),
                           allowed="safetensors, JSON and text", fix="Remove it.")  # fmt: skip


def _named(card: Upload, repo: str) -> bytes:
    """The model card whose example loads the repository."""
    assert isinstance(card.content, Path)
    return card.content.read_text(encoding="utf-8").replace(PLACE, f'checkpoint = "{repo}"').encode()


def _require_nothing_private(one: Upload) -> None:
    """Refuse a text that holds a token or the user's home folder, whoever wrote it there."""
    if one.name.endswith(".safetensors"):
        return
    content = one.content if isinstance(one.content, bytes) else one.content.read_bytes()
    if (found := find_private(content.decode(errors="replace"))) is not None:
        raise RefusedError(f"{one.name} {found}", where="push", fix="Take it out.")


def push(
    run: Run,
    repo: str,
    *,
    public: bool = False,
    revision: str | None = None,
    model: Any = None,
    notice: Callable[[str], None] = lambda text: None,
) -> Pushed:
    """Send the model of a run to the Hub, in one commit.

    A repository that is not there is made, private unless `public`. One that is there keeps its visibility, and a
    public one is refused unless `public`.

    Args:
        run: a finished one.
        repo: `NAME/REPOSITORY`.
        public: whether everybody may see it.
        revision: a branch, made where it is not there; by default the main one.
        model: as for `uploads`.
        notice: gets what is worth knowing, a sentence at a time.

    Raises:
        HfpipeError: as `uploads`; RefusedError for a repository that others can see; MachineError without network, token
            or permission.
    """
    files = uploads(run, repo, model)
    if hub.detect_offline(notice):
        raise MachineError("the Hub can't be reached, so nothing was sent", where="push",
                           fix="Try again with a network, and without HF_HUB_OFFLINE.")  # fmt: skip
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not get_token():
        raise MachineError("no token of the Hub is here", where="push", fix=_LOG_IN)
    api = HfApi(library_name="hfpipe")
    with _translated_errors(repo):
        private = _open(api, repo, public, notice)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        operations = [
            CommitOperationAdd(one.name, one.content if isinstance(one.content, bytes) else str(one.content))
            for one in files
        ]
        made = api.create_commit(
            repo, operations, commit_message=f"{run.recipe.name}, fine-tuned with hfpipe", revision=revision
        )
    return Pushed(repo, made.commit_url, made.oid, private, {one.name: one.size for one in files})


def _open(api: HfApi, repo: str, public: bool, notice: Callable[[str], None]) -> bool:
    """Make the repository if it is not there, and return whether it is private."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        private = bool(api.repo_info(repo).private)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=not public)
        private = bool(api.repo_info(repo).private)
        notice(f"made {repo}, {'private' if private else 'public'}")
    else:
        notice(f"{repo} is there already, {'private' if private else 'public'}, and stays so")
    if not private and not public:
        raise RefusedError(f"{repo} is public: everybody could see the model", where="push",
                           fix="Pass --public if that is meant, or name another repository.")  # fmt: skip
    return private


@contextmanager
def _translated_errors(repo: str) -> Iterator[None]:
    """The Hub's answers in hfpipe's words."""
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    try:
        yield
    except HfpipeError:
        raise
    except RevisionNotFoundError as error:
        raise RecipeError(redact(first_line(error)), where="--revision") from error
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        fix = {401: f"The token is not accepted. {_LOG_IN}",
               403: f"The token may not write there: look at its permissions and at the name before the slash of {repo}.",
               404: f"The token may not see {repo}, or there is no such name.",
               409: "Somebody made it at this moment: try again."}.get(code or 0, "Try again; --debug shows more.")  # fmt: skip
        raise MachineError(f"the Hub refused {repo}: {redact(first_line(error))}", where="push", fix=fix) from error
    except OSError as error:
        raise MachineError(f"the way to the Hub broke: {redact(first_line(error))}", where="push",
                           fix="Push again: what arrived before is not sent twice, and without the commit nothing is there.",
                           ) from error  # fmt: skip
    except Exception as error:
        # The transport has errors of its own, by a library that differs between versions of huggingface_hub.
        if type(error).__module__.partition(".")[0] in (
            "httpx",
            "httpcore",
            "httpx2",
            "httpcore2",
            "requests",
            "hf_xet",
        ):
            raise MachineError(
                f"the way to the Hub broke: {redact(first_line(error))}", where="push", fix="Push again."
            ) from error
        raise

"""The Hub and its cache: names that are clear, and offline answers that say what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hfpipe.errors import DataError, HfpipeError, ModelError, RecipeError
from hfpipe.parts.data.open import open_data
from hfpipe.parts.model.models import open_checkpoint
from hfpipe.recipe import load_recipe
from hfpipe.system import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def recipe(checkpoint: str = "org/model", path: str = "org/data", **sections: Any) -> Any:
    """A recipe that names these."""
    model, dataset = sections.pop("model", {}), sections.pop("dataset", {})
    fields = {"dataset": {"path": path, **dataset}, "model": {"checkpoint": checkpoint, **model}}
    return load_recipe({**fields, "task": {"text": "t"}, **sections})


@pytest.mark.parametrize("name", ["./x", "../x", "/x", "~/x", ".", "..", "~", "./a/b"])
def test_local_folders_are_written_as_such(name: str) -> None:
    """A path with a leading dot, slash or tilde is local."""
    assert hub.is_local(name)


@pytest.mark.parametrize("name", ["org/model", "bert-base-cased", "embedded:tiny-bert", "x/./y", ".x", "~x"])
def test_other_names_are_not_local(name: str) -> None:
    """Whatever else stands there is an id of the Hub, or embedded."""
    assert not hub.is_local(name)


def test_an_ambiguous_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub id that is also a folder here is nobody's guess: both spellings are told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "data").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"Write \./org/model for the folder"):
        open_checkpoint(recipe())
    with pytest.raises(RecipeError, match=r"Write \./org/data for the folder"):
        open_data(recipe())


@pytest.mark.parametrize(("revision", "at"), [(None, ""), ("v1", " at revision 'v1'")])
def test_what_is_in_no_cache_is_told(revision: str | None, at: str) -> None:
    """Offline, the error says what is missing, how to fetch it, and that the quickstart needs nothing."""
    asked = recipe(model={"revision": revision}, dataset={"revision": revision})
    with pytest.raises(ModelError) as model:
        open_checkpoint(asked)
    with pytest.raises(DataError) as data:
        open_data(asked)
    assert f"checkpoint 'org/model'{at} is not in the local cache" in str(model.value)
    assert "`hf download org/model`" in str(model.value)
    assert f"data set 'org/data'{at} is not in the local cache" in str(data.value)
    assert "`hf download --repo-type dataset org/data`" in str(data.value)
    for error in (model, data):
        assert "`hfpipe finetune quickstart`" in str(error.value)


@pytest.mark.parametrize("name", ["a b/c", "a/b/c", "x" * 200, "a\0b", "https://huggingface.co/org/model"])
def test_names_that_no_repository_can_have_are_told(name: str) -> None:
    """An impossible id is an error with an exit code, not a traceback of the Hub's library."""
    with pytest.raises(HfpipeError):
        open_checkpoint(recipe(checkpoint=name))
    with pytest.raises(HfpipeError):
        open_data(recipe(path=name))


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, pairs_folder: Path) -> Path:
    """A Hub cache with one checkpoint and one data set in it, without a network."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    for kind, source in (("models--org--model", tiny_checkpoint), ("datasets--org--data", pairs_folder)):
        snapshot = cache / kind / "snapshots" / COMMIT
        snapshot.parent.mkdir(parents=True)
        (cache / kind / "refs").mkdir()
        (cache / kind / "refs" / "main").write_text(COMMIT)
        snapshot.symlink_to(source, target_is_directory=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def test_a_filled_cache_answers_offline(cached: Path) -> None:
    """Checkpoint and data come from the snapshot of the cache, and their commit is recorded."""
    checkpoint = open_checkpoint(recipe())
    assert (checkpoint.commit, checkpoint.config.model_type) == (COMMIT, "bert")
    raw = open_data(recipe())
    assert (raw.commit, raw.digest, len(raw.splits["train"])) == (COMMIT, COMMIT, 44)


def test_a_revision_is_never_another(cached: Path) -> None:
    """A pinned revision that is not in the cache is an error, although another one is there."""
    assert open_checkpoint(recipe(model={"revision": COMMIT})).commit == COMMIT
    other = COMMIT[::-1]
    with pytest.raises(ModelError, match=f"at revision '{other}' is not in the local cache"):
        open_checkpoint(recipe(model={"revision": other}))
    with pytest.raises(DataError, match=f"at revision '{other}' is not in the local cache"):
        open_data(recipe(dataset={"revision": other}))


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)])
def test_the_variables_are_read_before_the_library_is_there(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    """HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE count before huggingface_hub is imported."""
    for variable, other in (("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), ("TRANSFORMERS_OFFLINE", "HF_HUB_OFFLINE")):
        monkeypatch.delitem(sys.modules, "huggingface_hub.constants", raising=False)
        monkeypatch.setenv(variable, value)
        monkeypatch.delenv(other, raising=False)
        assert hub.is_offline() is expected


def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that refuses the connection is told once, and makes this process and its children offline."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", False, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said: list[str] = []
    assert hub.detect_offline(said.append)
    assert hub.detect_offline(said.append)
    assert len(said) == 1
    assert "127.0.0.1:9 can't be reached" in said[0]
    assert "local cache" in said[0]
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert huggingface_hub.is_offline_mode()
    assert datasets.config.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any answer of the endpoint, an error included, means that it can be reached."""
    import http.server
    import threading

    import huggingface_hub.constants

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(503)

        def log_message(self, *args: Any) -> None:
            pass

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        said: list[str] = []
        assert not hub.detect_offline(said.append)
        thread.join()
    assert said == []

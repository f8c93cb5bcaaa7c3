"""This machine taken out of a text: secrets, the home folder, and paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfpipe.system.redaction import find_private, redact, relative, shorten_folders, strip_path, strip_paths

TOKEN = "hf_" + "AbCdEfGhIj" * 4


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see /home/me/data/pairs here", "see .../pairs here"),
        ("'~/data/a.csv' and C:\\Users\\me\\x", "'.../a.csv' and .../x"),
        ("dataset.path=/root/d", "dataset.path=.../d"),
        ("(/root/x:3:2)", "(.../x:3:2)"),
        ("file:///home/me/x", ".../x"),
        ("google-bert/bert-base-cased ./here ../there and/or 1/2 https://hf.co/a/b embedded:tiny-bert", None),
    ],
)
def test_paths_of_this_machine_are_cut(text: str, left: str | None) -> None:
    """Absolute paths lose all but their last part; Hub ids, addresses and relative paths stay."""
    assert strip_path(text) == (text if left is None else left)


def test_every_text_of_a_value_is_cut() -> None:
    """Lists and mappings are gone through; numbers stay as they are."""
    assert strip_paths({"a": ["/home/me/x", 1], "b": ("~/y", None)}) == {"a": [".../x", 1], "b": [".../y", None]}


def test_no_strength_lets_a_secret_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token by its shape and a secret by the name of its variable are out of what a run keeps and what others read."""
    monkeypatch.setenv("MY_API_KEY", "planted-value")
    text = f"with {TOKEN} and planted-value"
    assert redact(text) == strip_path(text) == "with *** and ***"
    assert find_private(text) == "holds what looks like a token"


def test_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that names it is said to, and what a run keeps has `~/` in its place."""
    monkeypatch.setenv("HOME", "/home/someone")
    assert redact("at /home/someone/x") == "at ~/x"
    assert find_private("at /home/someone/x") == "names your home folder /home/someone"
    assert find_private("at /home/someonelse/x") is None


def test_folders_are_shortened_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies under a folder, the working directory or the home is `./NAME`; addresses and other paths stay."""
    monkeypatch.chdir(tmp_path)
    text = f"'{tmp_path}/a/b', /data/sets/x https://host/data/sets/x /elsewhere/y"
    assert shorten_folders(text, ["/data/sets"]) == "'./b', ./x https://host/data/sets/x /elsewhere/y"


def test_a_word_of_a_command_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path below the working directory loses it, behind a key too; any other word stays."""
    monkeypatch.chdir(tmp_path)
    words = [f"{tmp_path}/a.yaml", f"dataset.path={tmp_path}/data", "/elsewhere/x", "train.epochs=1"]
    assert [relative(word) for word in words] == ["a.yaml", "dataset.path=data", "/elsewhere/x", "train.epochs=1"]

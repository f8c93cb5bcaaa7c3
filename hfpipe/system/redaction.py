"""Taking this machine out of a text, in two strengths.

`redact` is for what a run writes down: no secret, and `~/` for the home folder, so that the paths in it still work here.
`strip_path` is for what others read (reports, model cards, uploads): no secret, and of every path its last part alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)
_TOKENS = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})", re.ASCII)
_SHORTEST = 8  # characters; a shorter value would be found in innocent words
# A path of this machine: from the root or the home folder, at least one folder deep; and a drive's.
_ABSOLUTE = re.compile(
    r"(?<![\w:/.~<])(?:file://)?(?:~[\w.-]*/|/(?=[\w.@+-]+/)|[A-Za-z]:\\)[^\s'\"`,;:()\[\]{}<>|]*", re.ASCII
)


def redact(text: str) -> str:
    """The text with secrets as `***` and the user's home folder as `~/`.

    Secrets are the values of environment variables that are named like one (HF_TOKEN, AWS_SECRET_ACCESS_KEY, ...), and
    whatever has the shape of a token of the Hub, GitHub or an API.
    """
    home = _home()
    text = _without_secrets(text)
    # `~/` and not `~`, which is null in YAML.
    return re.sub(rf"{re.escape(home)}(/|(?=[\\'\"\s,:;\]}})]|$))", "~/", text) if home else text


def strip_path(text: str) -> str:
    """The text without secrets, and every path of this machine as its last part: `/home/me/data/pairs` is `.../pairs`."""
    return _ABSOLUTE.sub(lambda found: f".../{last_part(found.group())}", _without_secrets(text))


def strip_paths(value: Any) -> Any:
    """Plain values with `strip_path` in every text of them."""
    if isinstance(value, str):
        return strip_path(value)
    if isinstance(value, Mapping):
        return {key: strip_paths(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [strip_paths(part) for part in value]
    return value


def last_part(path: str) -> str:
    """The last folder or file of a path."""
    parts = [part for part in re.split(r"[/\\]", path) if part and part != "~"]
    return parts[-1] if parts else ""


def relative(word: str) -> str:
    """A word of a command line, with a path below the working directory as it is written from there."""
    key, equals, path = word.rpartition("=")
    try:
        return f"{key}{equals}{Path(path).relative_to(os.getcwd())}" if os.path.isabs(path) else word
    except ValueError:
        return word


def shorten_folders(text: str, folders: Iterable[str]) -> str:
    """The text with whatever lies under one of the folders, the working directory or the home as `./NAME`; no part of a URL.

    For files that programs read, in which other paths may stand for something else.
    """
    found = {str(Path.cwd()), str(Path.home()), *folders}
    found |= {str(Path(folder).expanduser().resolve()) for folder in list(found)}
    longest_first = sorted((path for path in found if len(path) > 1), key=len, reverse=True)
    end = r"""(?![^\s"'`),;:\]/])(?:/[^\s"'`),;:\]]*)?"""
    ours = re.compile(rf"(?<![\w/.:-])(?:{'|'.join(map(re.escape, longest_first))}){end}")
    return ours.sub(lambda match: f"./{last_part(match[0])}", text)


def find_private(content: str) -> str | None:
    """What a text would give away, in words, or None: a token, or the user's home folder."""
    token = os.environ.get("HF_TOKEN", "")
    if _TOKENS.search(content) or (len(token) >= _SHORTEST and token in content):
        return "holds what looks like a token"
    home = _home()
    return f"names your home folder {home}" if home and f"{home}/" in content else None


def _without_secrets(text: str) -> str:
    for secret in _secrets():
        text = text.replace(secret, "***")
    return _TOKENS.sub("***", text)


def _secrets() -> list[str]:
    found = {value for name, value in os.environ.items() if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST}
    # A path such as SSH_AUTH_TOKEN_FILE=/run/x is where a secret is, not the secret.
    return sorted((value for value in found if not value.startswith("/")), key=len, reverse=True)


def _home() -> str:
    home = str(Path.home())
    return home if home not in ("/", "") else ""

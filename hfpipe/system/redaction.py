"""What no file of a run may hold: tokens, secrets of the environment, and whose home it was."""

from __future__ import annotations

import os
import re
from pathlib import Path

_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)
_TOKENS = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")
_SHORTEST = 8  # characters; a shorter value would be found in innocent words


def redact(text: str) -> str:
    """The text with secrets as `***` and the user's home folder as `~`.

    Secrets are the values of environment variables that are named like one (HF_TOKEN, AWS_SECRET_ACCESS_KEY, ...), and
    whatever has the shape of a token of the Hub, GitHub or an API.
    """
    for secret in _secrets():
        text = text.replace(secret, "***")
    text = _TOKENS.sub("***", text)
    home = _home()
    # `~/` and not `~`, which is null in YAML.
    return re.sub(rf"{re.escape(home)}(/|(?=[\\'\"\s,:;\]}})]|$))", "~/", text) if home else text


def _secrets() -> list[str]:
    found = {value for name, value in os.environ.items() if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST}
    # A path such as SSH_AUTH_TOKEN_FILE=/run/x is where a secret is, not the secret.
    return sorted((value for value in found if not value.startswith("/")), key=len, reverse=True)


def _home() -> str:
    home = str(Path.home())
    return home if home not in ("/", "") else ""

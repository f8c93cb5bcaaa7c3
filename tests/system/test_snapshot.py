"""What a run records about the world: here the digest of the code that computes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import hfpipe
from hfpipe.training.resume_plan import code

PACKAGE = Path(hfpipe.__file__).parent


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package's code."""
    return Path(
        shutil.copytree(PACKAGE, tmp_path / "hfpipe", ignore=shutil.ignore_patterns("__pycache__", "tiny-bert"))
    )


def digest(package: Path) -> str:
    """The digest that a run would record of a copy; each change needs a digest of its own, as a process has one code."""
    code.cache_clear()
    return code(package)["hfpipe"]


def changed(file: Path, pattern: str, instead: str) -> None:
    """Change the first place in a file where a pattern is found."""
    text = file.read_text(encoding="utf-8")
    after = re.sub(pattern, instead, text, count=1)
    assert after != text, f"nothing of {pattern!r} in {file}"
    file.write_text(after, encoding="utf-8")


@pytest.mark.parametrize(
    "reword",
    [
        lambda package: changed(package / "parts/optim/reduction.py", r'"""', '"""In other words: '),
        lambda package: changed(package / "parts/optim/reduction.py", r"\n\n\ndef ", "\n\n\n# A comment.\ndef "),
        lambda package: changed(package / "parts/data/columns.py", r"is not all numbers", "holds what is no number"),
        lambda package: changed(package / "parts/data/columns.py", r'f"\{what\} \(', 'f"So: {what} ('),
        lambda package: changed(package / "training/session.py", r"resumed from step", "went on behind step"),
        lambda package: changed(package / "errors.py", r"exit_code = 1", "exit_code = 99"),
        lambda package: (package / "cli" / "app.py").unlink(),
    ],
    ids=["docstring", "comment", "message of an error", "arguments of an error", "notice", "errors", "the command line"],
)  # fmt: skip
def test_a_reworded_message_is_the_same_code(copied: Path, reword: Callable[[Path], None]) -> None:
    """No docstring, comment or message of an error, and no file outside parts/ and training/, stops a resumption."""
    assert digest(copied) == code()["hfpipe"]
    reword(copied)
    assert digest(copied) == code()["hfpipe"]


@pytest.mark.parametrize(
    ("file", "pattern", "instead"),
    [
        ("parts/optim/reduction.py", r"divided_away / divisor", "divided_away * divisor"),
        ("parts/optim/updaters.py", r"momentum: float = 0\.9", "momentum: float = 0.8"),
        ("parts/optim/reduction.py", r'reduction == "mean"', 'reduction != "mean"'),
        ("parts/tasks/text.py", r'"labels"', '"label"'),
    ],
    ids=["arithmetic", "constant", "condition", "a string that is data"],
)
def test_what_computes_is_another_code(copied: Path, file: str, pattern: str, instead: str) -> None:
    """An operator, a number, a condition or a key of a batch is what decides a result."""
    changed(copied / file, pattern, instead)
    assert digest(copied) != code()["hfpipe"]

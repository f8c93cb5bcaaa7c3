"""What a run records about the world: content hashes, library versions, commit and machine."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "hfpipe",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "evaluate",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
    "scipy",
)


def digest_of_files(files: Iterable[Path], *, relative_to: Path | None = None, label: str = "") -> str:
    """SHA-256 over the names and contents of files, in the order given."""
    whole = hashlib.sha256(label.encode())
    for file in files:
        name = file.relative_to(relative_to).as_posix() if relative_to else file.name
        whole.update(f"{name}\0{digest_of_file(file)}\n".encode())
    return whole.hexdigest()


_TWO_WORDS = re.compile(r"[^\W\d_]{2,}[,;:.]? [^\W\d_]{2,}")


def digest_of_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_file(file: Path) -> str:
    """SHA-256 of a file's content."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digest_of_code(*paths: Path) -> str:
    """SHA-256 of what Python files and folders compute, by their names below the folder that they are in.

    Comments, docstrings, the arguments of errors and every text with two words in it are no part of it: who rewords a
    message changes no result.
    """
    whole = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            words = [file.relative_to(path.parent).as_posix()]
            _add_code(ast.parse(file.read_bytes()), words)
            whole.update("\0".join(words).encode(errors="surrogatepass"))
    return whole.hexdigest()


def _add_code(node: object, words: list[str]) -> None:
    """Add a part of a syntax tree as words, without texts that people read and without the arguments of errors."""
    if isinstance(node, list):
        words.append("[")
        for one in node:
            _add_code(one, words)
        words.append("]")
    elif not isinstance(node, ast.AST):
        words.append(repr(node))
    elif not _is_text(node):
        words.append(type(node).__name__)
        is_error = isinstance(node, ast.Call) and _name_of(node.func).endswith("Error")
        for field in ("func",) if is_error else node._fields:
            _add_code(getattr(node, field), words)


def _is_text(node: ast.AST) -> bool:
    """Whether it is a docstring, or a string for people: one that has two words."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return any(
        isinstance(part, ast.Constant) and isinstance(part.value, str) and _TWO_WORDS.search(part.value) is not None
        for part in parts
    )


def _name_of(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that decide a result, without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Operating system, processor and cores."""
    return {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The git commit of the working directory, marked `-dirty` when files differ; None outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        status = subprocess.run(
            # Without locks: a status that is killed when its time is over would leave one in the user's repository.
            ["git", "--no-optional-locks", "status", "--porcelain", "-uno"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("-dirty" if status.stdout.strip() else "")

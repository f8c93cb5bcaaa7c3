"""What a run records about the world: content hashes, library versions, commit and machine."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
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


def digest_of_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_file(file: Path) -> str:
    """SHA-256 of a file's content."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@cache
def digest_of_code(*paths: Path) -> str:
    """SHA-256 of what Python files and folders compute, by their names below the folder that they are in.

    Comments, docstrings and what an error says are no part of it: who rewords a message changes no result.
    """
    whole = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = _WithoutTexts().visit(ast.parse(file.read_bytes()))
            whole.update(f"{file.relative_to(path.parent).as_posix()}\0{ast.dump(tree)}\n".encode())
    return whole.hexdigest()


class _WithoutTexts(ast.NodeTransformer):
    """Takes strings that stand alone (docstrings) and the arguments of errors out of a syntax tree."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name.endswith("Error"):
            node.args, node.keywords = [], []
        return self.generic_visit(node)


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
            ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("-dirty" if status.stdout.strip() else "")

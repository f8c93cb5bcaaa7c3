"""The rooms of hfpipe, from the ground up: a module imports only from below, wherever in the text that import is.

The table of rooms is `[tool.hfpipe]` in pyproject.toml; docs/architecture.md and ruff's list are written from it.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hfpipe"
ROOMS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hfpipe"]["rooms"]
HEIGHT = {room["name"]: room["floor"] for room in ROOMS}
MODULES = sorted(PACKAGE.rglob("*.py"))
TOP = "__init__"  # the public names: nothing inside may import them back


def room_of(module: list[str]) -> str:
    """The room of a module, given without `hfpipe`: the longest name in the table that it begins with."""
    for length in (2, 1):
        if "/".join(module[:length]) in HEIGHT:
            return "/".join(module[:length])
    return TOP


def path_of(file: Path) -> list[str]:
    """A file as the pieces of its module's name, without `hfpipe`."""
    return list(file.relative_to(PACKAGE).with_suffix("").parts)


def imported(source: str, package: list[str]) -> list[tuple[int, str]]:
    """Line and room of each import of hfpipe in a module of `package`, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[list[str]] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            start = start + (node.module.split(".") if node.module else [])
            names = [[*start, alias.name] for alias in node.names]
        found += [(node.lineno, room_of(name[1:])) for name in names if name[0] == "hfpipe"]
    return found


def upward(room: str, source: str, package: list[str]) -> list[str]:
    """The imports of a module that reach sideways or up, each as `line N imports ROOM`."""
    top = max(HEIGHT.values()) + 1
    return [
        f"line {line} imports {name}"
        for line, name in imported(source, package)
        if name != room and HEIGHT.get(name, top) >= HEIGHT.get(room, top)
    ]


def test_every_module_has_a_room() -> None:
    """The table names every folder and module of the package, so none escapes the next test, and names no other."""
    assert len(MODULES) > 10, f"found only {len(MODULES)} modules under {PACKAGE}"
    found = {room_of(path_of(file)) for file in MODULES}
    missing = [file for file in MODULES if room_of(path_of(file)) == TOP and file.stem not in ("__init__", "__main__")]
    assert not missing, f"say in [tool.hfpipe] of pyproject.toml where these belong: {missing}"
    assert {*HEIGHT} <= found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_below(path: Path) -> None:
    """No import, not even one inside a function, reaches a room beside or above its own."""
    package = ["hfpipe", *path.relative_to(PACKAGE).parent.parts]
    wrong = upward(room_of(path_of(path)), path.read_text(encoding="utf-8"), package)
    assert not wrong, f"{path.relative_to(PACKAGE.parent)}: {'; '.join(wrong)}"


@pytest.mark.parametrize(
    ("room", "package", "line", "is_upward"),
    [
        ("parts/optim", ["hfpipe", "parts", "optim"], "from hfpipe.training.prepare import prepare", True),
        ("parts/optim", ["hfpipe", "parts", "optim"], "def f():\n    import hfpipe.training.engines.loop", True),
        ("parts/optim", ["hfpipe", "parts", "optim"], "from ...training import engines", True),
        ("parts/optim", ["hfpipe", "parts", "optim"], "from ..model import kernels", True),
        ("parts/optim", ["hfpipe", "parts", "optim"], "from hfpipe.parts import build", True),
        ("parts/optim", ["hfpipe", "parts", "optim"], "from hfpipe import finetune", True),
        ("parts/optim", ["hfpipe", "parts", "optim"], "import hfpipe", True),
        ("evaluation", ["hfpipe", "evaluation"], "from hfpipe.reports import wording", True),
        ("parts/optim", ["hfpipe", "parts", "optim"], "from .losses import focal", False),
        ("parts/optim", ["hfpipe", "parts", "optim"], "from ..tasks import classes", False),
        ("parts/optim", ["hfpipe", "parts", "optim"], "from hfpipe import errors", False),
        ("cli", ["hfpipe", "cli"], "from ..training import finetune\nimport torch", False),
    ],
)
def test_every_form_of_import_is_seen(room: str, package: list[str], line: str, is_upward: bool) -> None:
    """Absolute, relative, nested and whole-package imports are told apart as upward or not."""
    assert bool(upward(room, line, package)) is is_upward

"""The layers of hfpipe, from the ground up: a module imports only from below, wherever in the text that import is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hfpipe"

# One row a layer, the ground first. Names in one row stand beside each other and know nothing of each other.
LAYERS = [
    ["errors"],
    ["embedded", "machine", "stops"],
    ["recipe"],
    ["runs"],
    ["parts"],
    ["evaluation", "rows"],
    ["audit", "measurement"],
    ["job"],
    ["engines"],
    [
        "chatter",
        "data_page",
        "display",
        "evaluation_page",
        "model_card",
        "peek",
        "report",
        "resuming",
        "scale_check",
        "scoring",
        "seeds_page",
    ],
    ["prediction", "tracking"],
    ["export", "pipeline", "probes", "runs_page"],
    ["comparison", "doctor", "push", "seeds"],
    ["reproduction"],
    ["cli"],
    ["__init__", "__main__"],  # the public names: nothing inside may import them back
]
HEIGHT = {name: height for height, row in enumerate(LAYERS) for name in row}
MODULES = sorted(PACKAGE.rglob("*.py"))


def top(path: Path) -> str:
    """The layer's name of a file: its folder or module right under hfpipe/."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str, package: list[str], tops: set[str]) -> list[tuple[int, str]]:
    """Line and layer's name of each import of hfpipe in a module of `package`, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[list[str]] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            start = start + (node.module.split(".") if node.module else [])
            names = [[*start, alias.name] for alias in node.names]
        for name in names:
            if name[0] == "hfpipe":
                # `from hfpipe import finetune` is no module: it asks the package's own __init__.
                found.append((node.lineno, name[1] if len(name) > 1 and name[1] in tops else "__init__"))
    return found


def upward(layer: str, source: str, package: list[str], tops: set[str]) -> list[str]:
    """The imports of a module that reach sideways or up, each as `line N imports NAME`."""
    return [
        f"line {line} imports {name}"
        for line, name in imported(source, package, tops)
        if name != layer
        and HEIGHT.get(name, 0) >= HEIGHT.get(layer, 0)  # test_every_module_has_a_layer names the others
    ]


def test_every_module_has_a_layer() -> None:
    """The table above names every module and folder of the package, so none escapes the next test."""
    assert len(MODULES) > 10, f"found only {len(MODULES)} modules under {PACKAGE}"
    missing = sorted({top(path) for path in MODULES} - HEIGHT.keys())
    assert not missing, f"say in LAYERS of tests/test_layers.py where these belong: {', '.join(missing)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_below(path: Path) -> None:
    """No import, not even one inside a function, reaches a layer beside or above its own."""
    package = ["hfpipe", *path.relative_to(PACKAGE).parent.parts]
    tops = {top(module) for module in MODULES}
    wrong = upward(top(path), path.read_text(encoding="utf-8"), package, tops)
    assert not wrong, f"{path.relative_to(PACKAGE.parent)}: {'; '.join(wrong)}"


@pytest.mark.parametrize(
    ("layer", "package", "line", "is_upward"),
    [
        ("parts", ["hfpipe", "parts"], "from hfpipe.job import prepare", True),
        ("parts", ["hfpipe", "parts"], "def f():\n    import hfpipe.engines.loop", True),
        ("parts", ["hfpipe", "parts"], "from ..engines import loop", True),
        ("parts", ["hfpipe", "parts"], "from hfpipe import finetune", True),
        ("parts", ["hfpipe", "parts"], "import hfpipe", True),
        ("doctor", ["hfpipe"], "from hfpipe import compare", True),
        ("doctor", ["hfpipe"], "from . import compare", True),
        ("parts", ["hfpipe", "parts"], "from .losses import focal", False),
        ("parts", ["hfpipe", "parts"], "from hfpipe import errors", False),
        ("cli", ["hfpipe"], "from .pipeline import finetune\nimport torch", False),
    ],
)
def test_every_form_of_import_is_seen(layer: str, package: list[str], line: str, is_upward: bool) -> None:
    """Absolute, relative, nested and whole-package imports are told apart as upward or not."""
    assert bool(upward(layer, line, package, set(HEIGHT) - {"__init__"})) is is_upward

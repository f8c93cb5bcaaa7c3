"""What a kind of task needs stands in its module and its row: nowhere else is a kind asked for by name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hfpipe.recipe.catalog import LOSSES, METRICS
from hfpipe.recipe.kinds import KINDS, kind_of, task_class

PACKAGE = Path(__file__).parents[2] / "hfpipe"
OWN = (PACKAGE / "parts" / "tasks", PACKAGE / "recipe" / "kinds.py")
ELSEWHERE = [
    file for file in sorted(PACKAGE.rglob("*.py")) if not any(file == own or own in file.parents for own in OWN)
]


def is_name(node: ast.expr | None) -> bool:
    """Whether this is the name of a kind, as a text."""
    return isinstance(node, ast.Constant) and node.value in KINDS


def by_kind(source: str) -> list[int]:
    """The lines that compare with the name of a kind, look one up, or list what is known by their names."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            sides += [one for side in sides if isinstance(side, ast.Tuple | ast.List | ast.Set) for one in side.elts]
        elif isinstance(node, ast.Dict):
            sides = list(node.keys)
        elif isinstance(node, ast.Subscript):
            sides = [node.slice]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        else:
            continue
        if any(is_name(side) for side in sides):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("file", ELSEWHERE, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_module_asks_which_kind_of_task_it_has(file: Path) -> None:
    """Outside of parts/tasks and recipe/kinds.py no kind is compared with, and no table has their names as keys."""
    assert not by_kind(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("source", "is_by_kind"),
    [
        ('if recipe.task.kind == "text-regression": ...', True),
        ('many = kind not in ("text-classification", "multiple-choice")', True),
        ('_COLUMNS = {"question-answering": ("answer",)}', True),
        ('found = TABLE["token-classification"]', True),
        ('match kind:\n    case "multiple-choice": ...', True),
        ('"""Of text-regression."""\nif kind == "finetune": ...', False),
        ("if recipe.task.traits.calibratable: ...", False),
    ],
)
def test_every_way_to_ask_is_seen(source: str, is_by_kind: bool) -> None:
    """Comparisons, tables, look-ups and patterns; not a mention in words."""
    assert bool(by_kind(source)) is is_by_kind
    assert len(ELSEWHERE) > 100


@pytest.mark.parametrize("name", KINDS)
def test_every_row_names_what_is_there(name: str) -> None:
    """The class of a row has the row, everything that `Task` asks, and a loss and a metric that the catalogue has."""
    from hfpipe.parts.tasks import Task

    row, task = KINDS[name], task_class(name)
    assert task.kind is row is kind_of(name)
    members = set(Task.__annotations__) | {one for one in vars(Task) if not one.startswith("_")}
    fields = set(getattr(task, "__dataclass_fields__", {}))
    assert len(members) > 20
    assert [one for one in sorted(members) if not hasattr(task, one) and one not in fields] == []
    assert {row.loss, *row.losses} <= set(LOSSES)
    assert row.metric in METRICS


def test_a_row_has_a_default_loss_once() -> None:
    """The loss whose arguments are checked is the one that the resolved recipe has, of every kind of task."""
    from hfpipe.recipe.named_parts import named_part_problems

    for name, row in KINDS.items():
        (problem,) = named_part_problems({"task": {"kind": name}, "loss": {"gamma": 1}})
        assert f"loss {row.loss!r} takes no 'gamma'" in problem[1]

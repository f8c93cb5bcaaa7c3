"""The tables of names: every row leads to an object that takes the arguments the row lists."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from hfpipe.errors import RecipeError
from hfpipe.recipe import catalog
from hfpipe.recipe.catalog import ENGINES, LOSSES, METRICS, OPTIMIZERS, SCHEDULES, Entry, check_name, near, resolve

TABLES = {"engine": ENGINES, "loss": LOSSES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "metric": METRICS}
ROWS = [(what, name) for what, table in TABLES.items() for name in table]


def taken(what: str, name: str) -> list[str]:
    """The parameters that the object behind a row takes, beyond what hfpipe gives it itself."""
    if what == "schedule":
        from hfpipe.parts.optim.schedules import schedule_arguments

        return schedule_arguments(name)[1]
    return list(inspect.signature(resolve(TABLES[what], name, what)).parameters)


def test_the_tables_hold_what_the_issue_names() -> None:
    """No name that users were promised is missing."""
    assert set(ENGINES) == {"trainer", "loop"}
    losses = {"cross_entropy", "bce_with_logits", "mse", "l1", "smooth_l1", "kl_div", "cosine_embedding", "focal"}
    assert set(LOSSES) >= losses
    scores = {"accuracy", "f1", "precision", "recall", "matthews_correlation", "pearson", "spearmanr", "glue/mrpc"}
    assert set(METRICS) >= scores
    assert {"adamw", "sgd", "updater_sgd", "updater_adamw"} <= set(OPTIMIZERS)
    assert {"linear", "cosine", "constant", "reduce_lr_on_plateau"} <= set(SCHEDULES)


def test_every_table_is_tested() -> None:
    """A table that is added to the catalog has to be added here."""
    tables = [value for value in vars(catalog).values() if isinstance(value, dict) and value]
    tables = [table for table in tables if all(isinstance(row, Entry) for row in table.values())]
    assert len(tables) == len(TABLES)
    assert all(any(table is known for known in TABLES.values()) for table in tables)


@pytest.mark.parametrize(("what", "name"), ROWS, ids=lambda value: str(value))
def test_a_row_resolves_and_takes_its_arguments(what: str, name: str) -> None:
    """The object is there, can be called, and every argument that the row lists is a parameter of it."""
    entry = TABLES[what][name]
    assert callable(resolve(TABLES[what], name, what))
    parameters = taken(what, name)
    assert not set(entry.arguments) - set(parameters)
    assert len(set(entry.arguments)) == len(entry.arguments)


GIVEN_ELSEWHERE: dict[str, set[str]] = {
    # What hfpipe hands over itself, or has a field of the section for.
    "loss": {"logits", "targets", "label_smoothing", "class_weights"},
    "optimizer": {"params", "lr", "weight_decay"},
    "schedule": set(),
    "metric": {"names"},
}


@pytest.mark.parametrize(("what", "name"), [row for row in ROWS if row[0] != "engine"], ids=lambda value: str(value))
def test_a_row_lists_every_argument(what: str, name: str) -> None:
    """An argument that the object takes can be written in a recipe."""
    assert not set(taken(what, name)) - GIVEN_ELSEWHERE[what] - set(TABLES[what][name].arguments)


def test_a_colon_imports_ones_own() -> None:
    """`module:attribute` is imported as it is, nested attributes too."""
    assert resolve(LOSSES, "math:hypot", "loss") is __import__("math").hypot
    assert resolve(LOSSES, "collections:OrderedDict.fromkeys", "loss")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cross_entropi", "did you mean 'cross_entropy'?"),
        ("no_such_module_here:f", "can't be imported"),
        ("math:hypott", "did you mean 'hypot'?"),
        ("math:", "unknown loss"),
        (":f", "unknown loss"),
        ("../x:f", "unknown loss"),
        ("os.system('x'):f", "unknown loss"),
    ],
)
def test_a_name_that_leads_nowhere_is_told(name: str, told: str) -> None:
    """Unknown names, modules and attributes are recipe errors with near names."""
    with pytest.raises(RecipeError) as caught:
        resolve(LOSSES, name, "loss")
    assert told in str(caught.value)


def test_near_is_silent_when_nothing_is_near() -> None:
    """Nobody is offered a name that they can't have meant."""
    assert near("zzz", LOSSES) == ""
    with pytest.raises(RecipeError, match="module:attribute"):
        check_name(LOSSES, "zzz", "loss")


def test_a_check_costs_no_import() -> None:
    """A misspelt argument is found from the table alone, before torch is imported."""
    arguments: Any = ("loss", LOSSES, "focal", "gama")
    with pytest.raises(RecipeError, match="did you mean 'gamma'"):
        catalog.check_argument(arguments[1], arguments[2], arguments[3], ("reduction",), arguments[0])

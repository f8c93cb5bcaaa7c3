"""The page of faults: every number, only tests that are there, and not stale."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script as a module."""
    return script("fault_table")


def test_every_fault_has_a_row_and_a_test(table: ModuleType) -> None:
    """The numbers are 1 to 74; each has a test or says why there is none, and what is not held says what is missing."""
    assert list(table.FAULTS) == list(range(1, 75))
    names = table.defined()
    for number, fault in table.FAULTS.items():
        assert bool(table.tests_of(number, names)) == (fault.outcome != table.NOT_HERE), number
        assert bool(fault.why) == (fault.outcome != table.HELD), number


def test_every_test_of_the_table_is_there(table: ModuleType) -> None:
    """Each listed test is a function of its file, and each test that is named after a fault has a number of the table."""
    names = table.defined()
    for number, fault in table.FAULTS.items():
        for test in fault.also:
            file, _, name = test.partition("::")
            assert name in names.get(file, []), (number, test)
    numbered = [name for found in names.values() for name in found if name.startswith("test_fault_")]
    assert len(numbered) > 74
    for name in numbered:
        found = re.match(r"test_fault_(\d\d)_", name)
        assert found, name
        assert int(found[1]) in table.FAULTS, name


def test_the_page_is_fresh(table: ModuleType) -> None:
    """docs/faults.md is what the script writes today."""
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "run python scripts/fault_table.py"

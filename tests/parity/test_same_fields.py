"""Both engines read the same fields of a recipe, so that no field works in one and does nothing in the other."""

from __future__ import annotations

import pytest

from hfpipe.recipe import schema


@pytest.fixture
def fields_read(monkeypatch):
    """The fields of recipe sections that are read from now on, as Section.field."""
    read: set[str] = set()

    for base in (schema.Section, schema.NamedPart):

        def recording(self, name, _original=base.__getattribute__):
            if name in type(self).__pydantic_fields__:
                read.add(f"{type(self).__name__}.{name}")
            return _original(self, name)

        monkeypatch.setattr(base, "__getattribute__", recording)
    return read


def test_engines_read_the_same_fields(fields_read, recipe_for, train_with, data):
    """From preparation to the last step the two engines read equal sets of fields; `trainer` alone is Trainer's own."""
    found = {}
    for engine in ("trainer", "loop"):
        recipe = recipe_for("bert", "train.max_steps=2", "evaluate.every=1", "evaluate.best=accuracy")
        fields_read.clear()
        train_with(recipe, engine, data)
        found[engine] = set(fields_read) - {"Recipe.trainer"}
    assert found["trainer"] == found["loop"]
    for field in ("Recipe.seed", "Train.accumulate", "Train.max_grad_norm", "Loss.reduction", "Evaluate.every"):
        assert field in found["loop"]

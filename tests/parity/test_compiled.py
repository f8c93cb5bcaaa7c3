"""A compiled model: as many graphs as there are modes, whatever the lengths, and the same in both engines."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from hfpipe.errors import MachineError, RecipeError


@pytest.fixture
def graphs(monkeypatch):
    """Counts the graphs, and runs them without a C++ compiler, which takes a minute."""
    counter = CompileCounter()
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **given: compiled(self, backend=counter, **given))
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_few_graphs_for_all_lengths(engine, graphs, recipe_for, train_with, data, weight_difference):
    """Two epochs over rows of many lengths and their evaluations take a handful of graphs, and give the same weights."""
    overrides = ["train.accumulate=2", "evaluate.every=3", "train.batch_size=3"]
    plain, records = train_with(recipe_for("bert", *overrides), engine, data)
    assert len({len(row) for row in plain.train_data["input_ids"]}) > 6
    assert graphs.frame_count == 0
    compiled, compiled_records = train_with(recipe_for("bert", *overrides, "train.compile=true"), engine, data)
    assert 0 < graphs.frame_count <= 6, graphs.frame_count
    assert len(compiled_records) == len(records)
    assert weight_difference(plain, compiled) == 0.0


def test_without_a_compiler_it_is_told(recipe_for, train_with, data, monkeypatch):
    """A machine that can't compile says so before the first step."""
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(MachineError, match=r"no C\+\+ compiler") as caught:
        train_with(recipe_for("bert", "train.compile=true"), "loop", data)
    assert "train.compile" in str(caught.value)


def test_one_way_at_a_time(recipe_for):
    """What is written to do without a compiler is not compiled."""
    with pytest.raises(RecipeError, match="exclude each other"):
        recipe_for("bert", "train.compile=true", "train.kernels=fast")

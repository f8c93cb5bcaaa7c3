"""The simulation of the intervals' coverage knows the truth that it measures against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_coverage.py"


@pytest.fixture(scope="module")
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script as a module."""
    return script("bench_coverage")


@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews_correlation", "pearson", "mse"])
def test_the_closed_form_is_the_figure_of_very_many_examples(bench: ModuleType, name: str) -> None:
    """A million examples reach the figure that draws are judged by, to two thousandths."""
    draw, truth = bench.truths()[name]
    said, right = draw(np.random.default_rng(0), 1_000_000)
    assert compute_all([(name, load_metric(name))], said, right)[name] == pytest.approx(truth, abs=0.002)


def test_it_prints_a_line_a_metric(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With few draws the shares mean little, and the number of draws and resamples is printed with them."""
    options = ["--draws", "4", "--examples", "60", "--resamples", "99", "--bca", "2"]
    monkeypatch.setattr("sys.argv", ["bench_coverage.py", *options])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 draws, 99 resamples of each")
    assert sum(" percentile  " in line for line in lines) == 5
    assert sum(" BCa " in line for line in lines) == 5

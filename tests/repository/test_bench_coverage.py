"""The simulation of the intervals' coverage knows the truth that it measures against."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import norm


@pytest.fixture(scope="module")
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script as a module."""
    return script("bench_coverage")


@pytest.mark.parametrize(
    ("group", "examples", "cases"),
    [
        ("classes", 1_000_000, 27),
        ("own", 20_000, 1),
        ("numbers", 1_000_000, 6),
        ("losses", 1_000_000, 1),
        ("labels", 1_000_000, 5),
    ],
)
def test_the_closed_form_is_the_figure_of_very_many_examples(
    bench: ModuleType, group: str, examples: int, cases: int
) -> None:
    """The interval of very many examples is narrow, and about the figure that draws are judged by, for every metric."""
    middle = ("0.85", "r 0.8", "normal errors", "Laplace errors", "margin 2")
    found = [case for case in bench.GROUPS[group]() if case[1] in middle]
    assert len(found) == cases
    for metric, rate, truth, draw in found:
        low, high = draw(np.random.default_rng(0), examples, 0).ends
        assert high - low < 0.02, (metric, rate)
        assert (low + high) / 2 == pytest.approx(truth, abs=high - low), (metric, rate)


def test_what_has_no_closed_form_in_the_script_is_drawn_of_very_many(bench: ModuleType) -> None:
    """The area under the ROC curve of normal scores has one in books; entities are judged by other sentences."""
    metric, apart, truth, _ = next(iter(bench.of_rankings()))
    assert (metric, apart) == ("roc_auc, 50% positive", "0.5 apart")
    assert truth == pytest.approx(norm.cdf(0.5 / 2**0.5), abs=0.002)
    metric, _, truth, draw = next(iter(bench.of_sentences()))
    low, high = draw(np.random.default_rng(1), 10_000, 0).ends
    assert high - low < 0.02, metric
    assert (low + high) / 2 == pytest.approx(truth, abs=high - low), metric


def test_it_prints_a_line_a_metric(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With few draws the shares mean little, and the number of draws is printed with them; the file has the same."""
    options = ["--draws", "4", "--examples", "20", "60", "--only", "numbers", "--json", str(tmp_path / "shares.json")]
    monkeypatch.setattr("sys.argv", ["bench_coverage.py", *options])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 draws each; a share of 0.95 is within ±0.214 ")
    assert lines[1].split() == ["metric", "rate", "truth", "n=20", "n=60", "none", "ms"]
    content = json.loads((tmp_path / "shares.json").read_text())
    assert content["draws"] == 4
    rows = content["results"]
    assert [row["metric"] for row in rows] == ["pearson, normal"] * 5 + ["spearmanr, normal"] * 5 + ["mse", "mae"] * 2
    for line, row in zip(lines[2:], rows, strict=False):
        shares = "".join(f"{row['covered'][n]:>7.3f}" for n in ("20", "60"))
        assert line.startswith(f"{row['metric']:<46} {row['rate']:<15} {row['truth']:>7.4f} {shares} ")
    table = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert table == ["| metric", "| ---", "| pearson, normal", "| spearmanr, normal", "| mse", "| mae"]

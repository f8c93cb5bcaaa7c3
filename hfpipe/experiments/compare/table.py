"""A comparison as tables for a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hfpipe.experiments.compare.compare import Comparison
from hfpipe.experiments.compare.traces import GROWTH

_METRICS = 4  # of each variant that are shown; --json has them all

if TYPE_CHECKING:
    from rich.table import Table


def show(comparison: Comparison) -> None:
    """Print the tables, what their words mean, and where the files are, to standard output."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False, markup=False)
    metrics = metrics_table(comparison)
    console.print(metrics if metrics is not None else "no metrics: nothing was evaluated")
    for notice in metrics_notices(comparison):
        console.print(f"note: {notice}", soft_wrap=True)
    for table in tables(comparison):
        console.print(table)
    console.print(
        f"Rounding: up to {GROWTH:g} float32 eps (1.2e-7) for each step taken, times the number where it is above 1."
    )
    unknown = {row.run.recipe.optimizer.name for row in comparison.variants if row.effective_learning_rate is None}
    if unknown:
        names = ", ".join(sorted(unknown))
        console.print(f"No effective lr for {names}: a step that is not proportional to the gradient hides its scale.")
    console.print(f"{comparison.path}: compare.json, losses.svg, and a run for each variant", soft_wrap=True)


def metrics_table(comparison: Comparison) -> Table | None:
    """The metrics of all variants, and how far each is from the baseline's; None where nothing was measured."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    names = [name for name in comparison.variants[0].metrics if not name.endswith("_support")][:_METRICS]
    if not names:
        return None
    table = Table(box=SIMPLE_HEAD, title="metrics", title_justify="left", pad_edge=False)
    for head in ("variant", "metric"):
        table.add_column(head, overflow="fold")
    for head in ("value", "difference", "95 % interval\nof the difference", "p"):
        table.add_column(head, justify="right")
    for row in comparison.variants:
        tested = {one["name"]: one for one in (row.comparisons[0]["metrics"] if row.comparisons else ())}
        for index, name in enumerate(names):
            one = tested.get(name, {})
            low_high = one.get("interval")
            table.add_row(
                row.name if index == 0 else "",
                name,
                number(row.metrics.get(name), ".4f"),
                "" if row is comparison.variants[0] else number(one.get("difference"), "+.4f"),
                "" if low_high is None else f"{low_high[0]:+.4f} to {low_high[1]:+.4f}",
                "" if one.get("p") is None else "< 0.001" if one["p"] < 0.001 else f"{one['p']:.3f}",
            )
    return table


def metrics_notices(comparison: Comparison) -> list[str]:
    """What the tests are, and what they leave open."""
    from hfpipe.experiments.diff import sentences

    first = [one for row in comparison.variants for one in row.comparisons[:1]]
    kinds = sorted({str(row["test"]) for one in first for row in one["metrics"] if row.get("p") is not None})
    why = dict.fromkeys(str(one["text"]) for one in first if not one["comparable"])
    told = [f"p by {' and '.join(kinds)}, on the same {first[0]['examples']:,} examples of one seed"] if kinds else []
    tests = sum(row.get("p") is not None for one in first for row in one["metrics"])
    several = sentences.of_tests(tests)
    return [*told, *why, *([several] if several else [])]


def tables(comparison: Comparison) -> list[Table]:
    """The differences of all variants, and the verdicts; both fit 100 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    numbers = Table(box=SIMPLE_HEAD, title=f"against {comparison.baseline}", title_justify="left", pad_edge=False)
    numbers.add_column("variant", overflow="fold")
    heads = (
        "loss\ndiffers by",
        "weights\ndiffer by",
        "from\nstep",
        "gradient\nmeasured",
        "ratio\npredicted",
        "effective\nlr",
    )
    for head in heads:
        numbers.add_column(head, justify="right")
    words = Table(box=SIMPLE_HEAD, pad_edge=False)
    words.add_column("variant", overflow="fold")
    words.add_column("verdict")
    for row in comparison.variants:
        numbers.add_row(
            row.name,
            number(row.max_abs_loss_difference, ".2g"),
            number(row.max_abs_weight_difference, ".2g"),
            number(row.first_differing_step, "d"),
            number(row.gradient_ratio, ".6g"),
            number(row.predicted_gradient_ratio, ".6g"),
            number(row.effective_learning_rate, ".4g"),
        )
        words.add_row(row.name, row.verdict)
    return [numbers, words]


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else format(value, form)

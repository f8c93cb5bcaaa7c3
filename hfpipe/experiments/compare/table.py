"""A comparison as tables for a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hfpipe.experiments.compare.compare import Comparison
from hfpipe.experiments.compare.traces import GROWTH

if TYPE_CHECKING:
    from rich.table import Table


def show(comparison: Comparison) -> None:
    """Print the tables, what their words mean, and where the files are, to standard output."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False, markup=False)
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

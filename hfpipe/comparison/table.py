"""A comparison as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hfpipe.comparison.compare import Comparison

if TYPE_CHECKING:
    from rich.table import Table


def tables(comparison: Comparison) -> list[Table]:
    """The figures of all variants, and the verdicts; both fit 100 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    figures = Table(box=SIMPLE_HEAD, title=f"against {comparison.baseline}", title_justify="left", pad_edge=False)
    figures.add_column("variant", overflow="fold")
    for head in ("loss\ndiffers by", "weights\ndiffer by", "from\nstep", "gradient\nratio", "\npredicted", "effective\nlr"):
        figures.add_column(head, justify="right")
    said = Table(box=SIMPLE_HEAD, pad_edge=False)
    said.add_column("variant", overflow="fold")
    said.add_column("verdict")
    for row in comparison.variants:
        figures.add_row(
            row.name,
            number(row.max_abs_loss_difference, ".2g"),
            number(row.max_abs_weight_difference, ".2g"),
            number(row.first_differing_step, "d"),
            number(row.gradient_ratio, ".6g"),
            number(row.predicted_gradient_ratio, ".6g"),
            number(row.effective_learning_rate, ".4g"),
        )
        said.add_row(row.name, row.verdict)
    return [figures, said]


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else format(value, form)

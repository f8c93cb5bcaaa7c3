"""What several seeds say together, for a terminal and as one JSON object."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from typing import Any

from hfpipe.reports.wording import notices_of
from hfpipe.runs.groups import Group

_SHOWN = 8  # metrics that have sentences; a table has them all


def as_json(group: Group) -> dict[str, Any]:
    """What `finetune` prints with `--json`: the fields of one run, with the means of the seeds, and the summary."""
    summary, notices = group.summary, notices_of(group.summary)
    runs = [{**one, "run": str(group.path / one["run"])} for one in summary["runs"]]
    return {
        "run": str(group.path),
        "group": group.id,
        "status": group.status,
        "engine": group.metadata["engine"],
        "seeds": group.seeds,
        "metrics": {name: one.get("mean") for name, one in summary["metrics"].items()},
        "split": summary["split"],
        "steps": sum(one["steps"] for one in runs),
        "examples_per_second": statistics.fmean(one["examples_per_second"] for one in runs),
        "runs": runs,
        "summary": {key: summary[key] for key in ("metrics", "also") if key in summary},
        "notices": notices,
        "remarks": notices,  # their key before, for one release
    }


def show(group: Group) -> None:
    """Print the table of the metrics, and what they mean, to standard output."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False, markup=False)
    summary = group.summary
    console.print(str(group.path), soft_wrap=True)
    by_split = {summary["split"]: summary["metrics"], **summary.get("also", {})}
    for split, metrics in by_split.items():
        if metrics:
            console.print(_table(f"{split}, {len(summary['runs'])} seeds", metrics))
        for one in list(metrics.values())[:_SHOWN]:
            console.print(one["text"])
    for notice in notices_of(summary):
        console.print(f"note: {notice}")


def _table(title: str, metrics: Mapping[str, Mapping[str, Any]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    table.add_column("metric", overflow="fold")
    heads = ("mean", "standard\ndeviation", "95 % interval\nof the mean", "best\n(seed)", "worst\n(seed)", "baseline")
    for head in heads:
        table.add_column(head, justify="right")
    for name, one in metrics.items():
        if not one["seeds"]:
            table.add_row(name, "undefined")
            continue
        low_high = one["interval"]
        table.add_row(
            name,
            _number(one["mean"]),
            _number(one["standard_deviation"]),
            "-" if low_high is None else f"{low_high[0]:.4f} to {low_high[1]:.4f}",
            *(f"{one[side]['value']:.4f} ({one[side]['seed']})" for side in ("best", "worst")),
            _number(one["baseline"]),
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

"""What `hfpipe runs diff` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def show(first: str, second: str, rows: Sequence[tuple[str, Any, Any]], compared: Mapping[str, Any]) -> None:
    """Print the fields that differ as a table, and what the metrics say, to standard output.

    Args:
        first: what one run or group is called.
        second: the other.
        rows: path, value in the first and in the second, from `runs.difference`.
        compared: `comparisons` and `notices` of the metrics.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("what", first, second)
    for path, before, after in rows:
        table.add_row(path, str(before), str(after))
    console = Console(highlight=False, markup=False)
    console.print(table if rows else "no difference")
    for one in compared["comparisons"]:
        console.print(f"\n{one['text'] or one['split']}", soft_wrap=True)
        for row in one["metrics"]:
            console.print(row["text"], soft_wrap=True)
    for notice in compared["notices"]:
        console.print(f"\nnote: {notice}", soft_wrap=True)

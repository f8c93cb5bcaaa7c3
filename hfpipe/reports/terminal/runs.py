"""What `hfpipe runs list` and `hfpipe runs show` print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hfpipe.recipe import to_yaml
from hfpipe.recipe.catalog import near
from hfpipe.runs import Run, listing
from hfpipe.runs.cleaning import Removal
from hfpipe.runs.evaluations import evaluation_names, read_evaluation
from hfpipe.system.display import duration, metrics_line
from hfpipe.system.text import amount

_FACTS = ("engine", "device", "seed", "commit", "error")


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """The rows of `listing.table` as a table; what can't be read stands below it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console()

    def drawn(*names: str) -> tuple[Table, int]:
        """A table in which no cell is cut, and its width."""
        table = Table(*(Column(name, no_wrap=True) for name in names), box=SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            cells = {
                "run": row["id"],
                "recipe": row["recipe"],
                "engine": row["engine"],
                "status": row["status"],
                "metric": metrics_line(row["metric"]),
                "started": _local(row["started"]),
                "took": "" if row["seconds"] is None else duration(row["seconds"]),
                "size": amount(row["bytes"]),
            }
            table.add_row(*(escape(str(cells[name] or "")) for name in names))
        return table, max(table.__rich_measure__(console, console.options.update(width=10_000)).maximum, 1)

    table, width = drawn("run", "recipe", "engine", "status", "metric", "started", "took", "size")
    if console.is_terminal and width > console.width:
        table, width = drawn("run", "status", "metric", "took", "size")
    # An id that is cut can't be copied: what is too wide for a terminal runs over its edge, as in a pipe.
    console.width = max(width, console.width)
    console.print(table)
    if len(rows) > 1:
        console.print(f"{len(rows):,} runs, {amount(sum(row['bytes'] for row in rows))} on disk", highlight=False)
    for row in rows:
        if row["problem"]:
            console.print(f"{row['id']}: {row['problem']}", markup=False, highlight=False, soft_wrap=True)


def print_removals(planned: Sequence[Removal], skipped: Sequence[str]) -> None:
    """What `hfpipe runs clean` would remove, run by run, with sizes."""
    for one in planned:
        print(f"{amount(one.bytes):>9}  {one.run.id}  {one.what}")
    for text in skipped:
        print(f"left alone: {text}")
    if planned:
        print(f"{amount(sum(one.bytes for one in planned)):>9}  in all")


def none_there(folder: Path, recipe: str | None, *, filtered: bool) -> str:
    """A line for an empty list; for a recipe that no run has, with the near names."""
    names = listing.recipe_names(folder)
    if recipe is not None and recipe not in names:
        return f"no run of a recipe {recipe!r} in {folder}{near(recipe, names)}"
    return f"no such runs in {folder}" if filtered and names else f"no runs in {folder}"


def everything(run: Run) -> dict[str, Any]:
    """All that a run remembers, as `--json` prints it.

    Returns:
        What `run.json` says, and `run` (path), `status`, `metrics`, `recipe`, `notices`, `model_folder` (path or None),
        `evaluations` (name to document) and `broken_records` (line numbers).

    Raises:
        RecipeError: `run.json` or the recipe can't be read.
    """
    recipe = run.recipe.model_dump(mode="json")
    folder = run.path / "model"
    return {
        **run.metadata,
        "run": str(run.path),
        "status": run.status,
        "metrics": run.metrics,
        "recipe": recipe,
        "notices": listing.notices(run.records),
        "model_folder": str(folder) if folder.is_dir() else None,
        "evaluations": {name: read_evaluation(run, name) for name in evaluation_names(run)},
        "broken_records": run.broken_lines,
    }


def page(run: Run, about: dict[str, Any]) -> str:
    """The same for a person; `about` comes from `everything`."""
    row = listing.row(run)
    took = "" if row["seconds"] is None else f", {duration(row['seconds'])}"
    lines = [str(run.path), _fact("status", about["status"])]
    if about.get("started"):
        lines.append(_fact("started", f"{_local(about['started'])}{took}"))
    lines += [_fact(key, about[key]) for key in _FACTS if about.get(key) is not None]
    if about["metrics"]:
        lines.append(_fact("metrics", metrics_line(about["metrics"])))
    lines.append(_fact("model", about["model_folder"] or "none"))
    lines.append(_fact("size", amount(row["bytes"])))
    given = ", ".join(f"{key} ({name})" for key, name in (about.get("given") or {}).items())
    if given:
        lines.append(_fact("given", f"{given}: from Python, not in the recipe"))
    for name, document in about["evaluations"].items():
        lines.append(_fact("measured", f"{name}: {_with_intervals(document or {})}"))
    lines += [_fact("notice", text) for text in about["notices"]]
    return "\n".join([*lines, "", to_yaml(run.recipe)])


def tell_broken(run: Run, notice: Callable[[str], None]) -> None:
    """Say it when lines of `records.jsonl` are no whole records."""
    broken = run.broken_lines
    if broken:
        shown = ", ".join(map(str, broken[:8])) + (f" and {len(broken) - 8} more" if len(broken) > 8 else "")
        what = (
            f"line {shown} is no whole record and is"
            if len(broken) == 1
            else f"lines {shown} are no whole records and are"
        )
        notice(f"note: {run.path / 'records.jsonl'}: {what} left out; {len(run.records):,} are used")


def _with_intervals(document: dict[str, Any]) -> str:
    intervals = document.get("intervals") or {}
    parts = []
    for name, value in list((document.get("metrics") or {}).items())[:8]:
        between = intervals.get(name)
        parts.append(metrics_line({name: value}) + (f" ({between[0]:.4f} to {between[1]:.4f})" if between else ""))
    known = (document.get("leak") or {}).get("rows")
    leak = f", {known:,} of them with the text of a row of {document['leak']['train']}" if known else ""
    return "  ".join(parts) + f"  on {document.get('examples', '?')} examples{leak}"


def _fact(name: str, value: Any) -> str:
    return f"{name:<8} {value}"


def _local(text: Any) -> str:
    """A recorded time in the time zone of the reader, to the minute."""
    try:
        return datetime.fromisoformat(str(text)).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""

"""What `hfpipe evaluate` prints: the document of an evaluation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hfpipe.reports.wording import (
    baseline_notes,
    between,
    interval_notes,
    is_interval,
    leak_of,
    main_metric,
    notices_of,
    number,
    worst_first,
)

_MOST_CLASSES = 20  # printed; report.html and the document have all of them


def show(document: Mapping[str, Any]) -> None:
    """Print metrics with intervals and baseline, notices, classes, ranking and calibration, slices."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    console.print(f"{document['target']}: {document['examples']:,} examples of {document['split']}", soft_wrap=True)
    console.print(_metrics(document))
    for note in interval_notes(document):
        console.print(note, style="dim")
    for notice in notices_of(document):
        console.print(f"note: {notice}")
    if (name := main_metric(None, document["metrics"])) and (leak := leak_of(document, name)):
        console.print(f"note: {leak['sentence']}")
    if document["baseline"]:
        console.print(f"baseline: {'; '.join(baseline_notes(document))}", style="dim")
    if document["fitted_on"]:
        console.print(f"{_fitted(document)}, fitted on {document['fitted_on']}", style="dim")
    for line in _probabilities(document):
        console.print(line)
    for title, table in (("classes", _classes(document["classes"])), ("slices", _slices(document))):
        if table is not None:
            console.print(f"\n{title}")
            console.print(table)
    if document["errors"]:
        found = document["errors"]
        r2 = "undefined" if found["r2"] is None else f"{found['r2']:.4f}"
        places = [str(one.get("place") or f"row {one['id']}") for one in found["worst"][:5]]
        console.print(
            f"errors: mean {found['mean']:+.4f}, median {found['median_absolute']:.4f}, root mean square {found['rmse']:.4f}, "
            f"R2 {r2}; the worst at {', '.join(places)}"
        )


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, name in enumerate(columns):
        table.add_column(name, justify="left" if column == 0 or "interval" in name else "right", no_wrap=column > 0)
    return table


def _metrics(document: Mapping[str, Any]) -> Any:
    metrics, baseline = document["metrics"], (document["baseline"] or {}).get("metrics", {})
    # The metrics of each class stand in the table of the classes.
    own = {f"{one['name']}_{name}" for one in document["classes"] or () for name in (*_THREE, "support")}
    leak = document.get("leak") or {}
    others = leak.get("metrics") or {}
    not_in_train = [f"not in {leak['train']}"] if others else []
    table = _table("metric", "value", "95 % interval", *not_in_train, *(["baseline"] if baseline else []))
    for name in [name for name in metrics if name not in own]:
        beside = [number(baseline[name]) if name in baseline else ""] if baseline else []
        if others:
            beside.insert(0, number(others.get(name)))
        table.add_row(name, number(metrics[name]), between(document["intervals"].get(name)), *beside)
    return table


_THREE = ("precision", "recall", "f1")


def _classes(classes: Sequence[Mapping[str, Any]] | None) -> Any:
    if not classes:
        return None
    table = _table("class", "precision", "recall", "F1", "95 % interval of F1", "support")
    shown = classes if len(classes) <= _MOST_CLASSES else worst_first(classes)[:_MOST_CLASSES]
    for one in shown:
        support = "" if one["support"] is None else f"{int(one['support']):,}"
        f1 = between(one.get("intervals", {}).get("f1"))
        table.add_row(one["name"], *(number(one[name]) for name in _THREE), f1, support)
    if len(classes) > _MOST_CLASSES:
        table.add_row(f"and {len(classes) - _MOST_CLASSES:,} better ones")
    return table


def _slices(document: Mapping[str, Any]) -> Any:
    if not document["slices"]:
        return None
    own = {f"{one['name']}_{name}" for one in document["classes"] or () for name in (*_THREE, "support")}
    names = [name for name in document["metrics"] if name != "loss" and name not in own][:2]
    table = _table("slice", "rows", *(part for name in names for part in (name, "95 % interval")))
    for one in document["slices"]:
        cells = [(number(one["metrics"].get(name)), between(one["intervals"].get(name))) for name in names]
        table.add_row(_slice_name(one), f"{one['examples']:,}", *(cell for pair in cells for cell in pair))
    return table


def _slice_name(one: Mapping[str, Any]) -> str:
    """An expression goes by its name, a length by itself, and the value of a column with the column."""
    if one["what"] == "length":
        return str(one["value"])
    return str(one["by"]) if one["what"] == "expression" else f"{one['by']}: {one['value']}"


def _probabilities(document: Mapping[str, Any]) -> list[str]:
    lines = []
    ranking, calibration = document["ranking"], document["calibration"]
    if ranking:
        intervals = ranking["intervals"]
        lines.append(
            f"ROC-AUC {_with_interval(ranking['roc_auc'], intervals['roc_auc'])}, average precision "
            f"{_with_interval(ranking['average_precision'], intervals['average_precision'])}, {ranking['what']}"
        )
    if calibration:
        intervals, before = calibration["intervals"], calibration.get("before")
        was = f"; before calibration {before['ece']:.4f} and {before['brier']:.4f}" if before else ""
        lines.append(
            f"calibration error {_with_interval(calibration['ece'], intervals['ece'])}, Brier score "
            f"{_with_interval(calibration['brier'], intervals['brier'])}{was}"
        )
    return lines


def _fitted(document: Mapping[str, Any]) -> str:
    parts = [f"temperature {document['temperature']:.3f}"] if document["temperature"] is not None else []
    if document["threshold"]:
        parts.append("threshold " + ", ".join(f"{one:.3f}" for one in document["threshold"][:8]))
    return " and ".join(parts)


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """A number, with its interval where there is one."""
    return f"{number(value)} ({between(interval)})" if is_interval(interval) else number(value)

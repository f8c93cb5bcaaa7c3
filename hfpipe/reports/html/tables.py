"""The tables of a report, as plain values for its template. Every key of a document may be missing or null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hfpipe.reports.wording import baseline_notes, between, interval_notes, is_interval, number, worst_first

Document = Mapping[str, Any]
MOST_CLASSES = 20  # of a confusion matrix; of more classes the most confused pairs are listed
_MOST_METRICS, _MOST_ROWS = 20, 1_000


def metrics(document: Document, first: str | None) -> dict[str, Any]:
    """Each metric with its interval, the baseline's, and where they lie between 0 and 1.

    Returns:
        `rows` of `name`, `value`, `interval`, `baseline`, `not_in_train` and `picture` (percentages, or None); `more`, how
        many metrics are left out; `notes` on the intervals; whether any row has an interval, a baseline, a picture; and
        under `not_in_train` what heads the metrics of the examples that the training split does not have, if there is one
        that it has.
    """
    values, intervals = document.get("metrics") or {}, document.get("intervals") or {}
    baseline = (document.get("baseline") or {}).get("metrics") or {}
    leak = document.get("leak") or {}
    others = leak.get("metrics") or {}
    names = sorted(values, key=lambda name: (name != first, name == "loss"))
    rows = [
        {
            "name": name,
            "value": number(values[name]),
            "interval": between(intervals.get(name)),
            "baseline": number(baseline[name]) if baseline.get(name) is not None else "",
            "not_in_train": number(others[name]) if name in others else "",
            "picture": None if name == "loss" else _picture(values[name], intervals.get(name), baseline.get(name)),
        }
        for name in names[:_MOST_METRICS]
    ]
    return {
        "rows": rows,
        "more": max(0, len(names) - _MOST_METRICS),
        "notes": [
            *([f"Baseline: {'; '.join(found)}."] if len(found := baseline_notes(document)) > 1 else []),
            *interval_notes(document),
        ],
        "has_interval": any(row["interval"] for row in rows),
        "has_baseline": any(row["baseline"] for row in rows),
        "not_in_train": f"not in {leak['train']} ({leak['examples']:,})" if others else "",
        "has_picture": any(row["picture"] for row in rows),
    }


def _picture(value: Any, interval: Any, baseline: Any) -> dict[str, float | None] | None:
    if not is_interval(interval) or not all(0 <= one <= 1 for one in (value or 0, *interval)):
        return None
    low, high = (100 * float(one) for one in interval)
    base = 100 * float(baseline) if baseline is not None and 0 <= baseline <= 1 else None
    return {"value": 100 * float(value), "low": low, "width": max(high - low, 0.6), "baseline": base}


def classes(document: Document) -> dict[str, Any] | None:
    """Precision, recall and what else there is of each class; only columns that hold something.

    Of more than twenty classes `rows` are the twenty worst by F1, the worst first, and `by_name` all of them, at most 1,000.
    """
    found = [one for one in document.get("classes") or [] if one]
    keys = [key for key in _OF_CLASS if any(one.get(key) is not None for one in found)]
    if not found or not keys:
        return None

    def written(some: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"name": one.get("name"), "cells": [number(one[key]) if one.get(key) is not None else "" for key in keys]}
            for one in some
        ]

    table = {"columns": [_OF_CLASS[key] for key in keys], "classes": len(found)}
    if len(found) <= MOST_CLASSES:
        return {**table, "rows": written(found), "by_name": [], "more": 0}
    by_name = sorted(found, key=lambda one: str(one.get("name")))
    return {
        **table,
        "rows": written(worst_first(found)[:MOST_CLASSES]),
        "by_name": written(by_name[:_MOST_ROWS]),
        "more": max(0, len(found) - _MOST_ROWS),
    }


_OF_CLASS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "support": "references",
    "predicted": "predictions",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
}


def confusion(document: Document) -> dict[str, Any] | None:
    """The matrix with the share of each row in each cell, or the most confused pairs of many classes."""
    found = document.get("confusion") or {}
    if pairs := found.get("pairs"):
        made = [(one["count"], one["of"], one["reference"], one["prediction"]) for one in pairs[:MOST_CLASSES]]
        return {"pairs": [_pair(*one) for one in made], "classes": found["classes"]}
    names, counts = found.get("names") or [], found.get("counts") or []
    if not counts or len(names) != len(counts):
        return None
    if len(names) > MOST_CLASSES:
        return {"pairs": _pairs(names, counts), "classes": len(names)}
    rows = [
        {
            "name": name,
            "total": f"{sum(row):,}",
            "cells": [
                {"count": f"{count:,}", "share": count / max(sum(row), 1), "is_correct": prediction == name}
                for prediction, count in zip(names, row, strict=True)
            ],
        }
        for name, row in zip(names, counts, strict=True)
    ]
    return {"names": names, "rows": rows, "is_upright": len(names) > 4}


def _pairs(names: Sequence[str], counts: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    wrong = [
        (count, sum(row), names[actual], names[predicted])
        for actual, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if actual != predicted and count
    ]
    wrong.sort(key=lambda one: (-one[0], one[1]))
    return [_pair(*one) for one in wrong[:MOST_CLASSES]]


def _pair(count: int, total: int, actual: str, predicted: str) -> dict[str, Any]:
    counts = {"count": f"{count:,}", "of": f"{total:,}", "share": f"{count / max(total, 1):.0%}"}
    return {"reference": actual, "prediction": predicted, **counts}


def mistakes(document: Document, texts: Mapping[int, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The mistakes that the model is most certain of, with the texts that were kept of them by row and column."""
    found = [one for one in document.get("mistakes") or [] if not isinstance(one.get("prediction"), float)]
    if not found or (document.get("confusion") is None and not texts):
        return None
    rows = [
        {
            "place": one.get("place") or number(one.get("id")),
            "texts": [_text(value) for value in (texts.get(one.get("id", -1)) or {}).values()],
            "reference": _text(one.get("reference")),
            "prediction": _text(one.get("prediction")),
            "probability": number(one["probability"]) if "probability" in one else "",
        }
        for one in found
    ]
    return {"rows": rows, "has_texts": any(row["texts"] for row in rows)}


def _text(value: Any) -> str:
    """A class, classes, tags, or the text of an answer."""
    if isinstance(value, Mapping):
        answers = (value.get("answers") or {}).get("text") or []
        return str(value.get("prediction_text") or " / ".join(answers) or "(no answer)")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def slices(document: Document, first: str | None) -> list[dict[str, Any]]:
    """Metrics of parts of the split, a table for each way that it was sliced."""
    found = [one for one in document.get("slices") or [] if one]
    tables: dict[str, dict[str, Any]] = {}
    for one in found:
        metrics, intervals = one.get("metrics") or {}, one.get("intervals") or {}
        names = sorted(metrics, key=lambda name: (name != first, name == "loss"))[:3]
        table = tables.setdefault(
            str(one.get("by")),
            {"by": one.get("by"), "columns": [{"name": name, "has_interval": False} for name in names], "rows": []},
        )
        cells = []
        for column in table["columns"]:
            name, interval = column["name"], between(intervals.get(column["name"]))
            column["has_interval"] |= bool(interval)
            cells.append({"value": number(metrics[name]) if name in metrics else "", "interval": interval})
        table["rows"].append({"value": one.get("value"), "examples": number(one.get("examples")), "cells": cells})
    return list(tables.values())


def data(audit: Document | None) -> dict[str, Any] | None:
    """What the audit counted: a row for each split, and the balance of the classes."""
    splits: dict[str, Any] = (audit or {}).get("splits") or {}
    if not splits:
        return None
    shared = (audit or {}).get("shared") or {}
    rows = [
        {"name": name, "cells": [_cell(one, keys, shared.get(name)) for _, keys in _OF_SPLIT]}
        for name, one in splits.items()
    ]
    filled = [number for number in range(len(_OF_SPLIT)) if any(row["cells"][number] for row in rows)]
    for row in rows:
        row["cells"] = [row["cells"][number] or "0" for number in filled]
    return {
        "columns": [_OF_SPLIT[number][0] for number in filled],
        "rows": rows,
        "max_length": (audit or {}).get("max_length"),
        "balance": _balance(splits),
        "numbers": [
            {"name": name, **{key: number(value) for key, value in one["numbers"].items()}}
            for name, one in splits.items()
            if one.get("numbers")
        ],
    }


_OF_SPLIT: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("rows", ("rows",)),
    ("median tokens", ("lengths", "median")),
    ("95 %", ("lengths", "p95")),
    ("longest", ("lengths", "longest")),
    ("at max_length", ("full",)),
    ("unknown tokens", ("unknown",)),
    ("empty", ("empty",)),
    ("repeated", ("repeated",)),
    ("contradicted", ("contradicted",)),
    ("without a label", ("ignored",)),
    ("also in training", ()),
)


def _cell(split: Document, keys: tuple[str, ...], shared: int | None) -> str:
    value: Any = split if keys else shared
    for key in keys:
        value = (value or {}).get(key)
    if not value:
        return ""
    return f"{value:.2%}" if keys == ("unknown",) else f"{value:,.0f}"


def _balance(splits: Mapping[str, Any]) -> dict[str, Any] | None:
    """How many items of each class a split has, the most frequent of many classes."""
    with_classes = {name: one["labels"] for name, one in splits.items() if one.get("labels")}
    if not with_classes:
        return None
    names = list(dict.fromkeys(label for labels in with_classes.values() for label in labels))
    first = next(iter(with_classes.values()))
    shown = names if len(names) <= MOST_CLASSES else sorted(names, key=lambda name: -first.get(name, 0))[:MOST_CLASSES]
    totals = {split: sum(labels.values()) for split, labels in with_classes.items()}
    rows = [
        {
            "name": name,
            "cells": [
                {"count": f"{labels.get(name, 0):,}", "share": f"{labels.get(name, 0) / max(totals[split], 1):.1%}"}
                for split, labels in with_classes.items()
            ],
        }
        for name in shown
    ]
    return {"splits": list(with_classes), "rows": rows, "more": len(names) - len(shown)}

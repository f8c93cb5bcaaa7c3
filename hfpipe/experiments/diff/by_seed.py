"""The metrics of two groups of seeds, or of a run beside a group, measured by the noise between seeds."""

from __future__ import annotations

from typing import Any

from hfpipe.experiments.diff import sentences
from hfpipe.runs import Run
from hfpipe.runs.evaluations import evaluation_names, file_name, read_evaluation
from hfpipe.runs.groups import Group

ALPHA = 0.05


def compare_seeds(first: Run | Group, second: Run | Group, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Compare two groups by Welch's t test, or say where a run lies among the seeds of a group.

    Args:
        first: a run or a group.
        second: the same; one of the two is a group.
        names: what they are called in the sentences.

    Returns:
        For each split that all runs were measured on `kind`, `split`, `comparable`, `why` (not), `metrics` and `text`,
        see docs/seeds.md.
    """
    sides = [_measured(first), _measured(second)]
    kind = "groups" if isinstance(first, Group) and isinstance(second, Group) else "run and group"
    found = []
    for split in (one for one in sides[0] if one in sides[1]):
        why = _why_not(sides[0][split], sides[1][split])
        rows = []
        for metric in dict.fromkeys(name for side in sides for one in side[split] for name in one["metrics"]):
            if metric.endswith("_support"):
                continue
            values = [[one["metrics"].get(metric) for one in side[split]] for side in sides]
            known = [[value for value in side if value is not None] for side in values]
            if not all(known):
                continue
            if kind == "groups":
                rows.append(_groups(metric, known[0], known[1], names, testable=why is None))
            else:
                is_first = isinstance(first, Run)
                rows.append(_run_in_group(metric, known[0], known[1], names, is_first=is_first, testable=why is None))
        text = None if why is None else f"{split}: no test: {why}"
        found.append(
            {"kind": kind, "split": split, "examples": None, "comparable": why is None, "why": why, "metrics": rows}
            | {"text": text}
        )
    return found


def _measured(one: Run | Group) -> dict[str, list[dict[str, Any]]]:
    """By split the `metrics`, and what identifies the rows, of each run; only splits that every run has."""
    runs = list(one.runs.values()) if isinstance(one, Group) else [one]
    each: list[dict[str, dict[str, Any]]] = []
    for run in runs:
        summary = run.read_json("metrics.json") or {}
        source = ((run.metadata.get("identity") or {}).get("dataset") or {}).get("digest")
        by_split = dict(summary.get("also", {}))
        if summary.get("split"):
            by_split[summary["split"]] = summary.get("metrics") or {}
        found = {split: {"metrics": metrics, "source": source, "rows": None} for split, metrics in by_split.items()}
        splits = {file_name(split): split for split in by_split}
        for name in evaluation_names(run):
            document = read_evaluation(run, name) or {}
            one_split = found.setdefault(
                splits.get(name, name), {"metrics": document.get("metrics") or {}, "source": source}
            )
            one_split["rows"] = document.get("dataset")
        each.append(found)
    common = [split for split in (each[0] if each else {}) if all(split in found for found in each)]
    return {split: [found[split] for found in each] for split in common}


def _why_not(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> str | None:
    key = "rows" if all(one["rows"] for one in (*first, *second)) else "source"
    ours, theirs = ({one[key] for one in side} for side in (first, second))
    # Where each seed holds out rows of its own, both sides have those of the same seeds, or can't be compared.
    return None if ours <= theirs or theirs <= ours else "they were measured on other data"


def _groups(
    metric: str, first: list[float], second: list[float], names: tuple[str, str], *, testable: bool
) -> dict[str, Any]:
    from hfpipe.evaluation.statistics.significance import deviation, seeds_needed, smallest_difference, welch

    tested = welch(first, second)
    scatters = [deviation(side) for side in (first, second)]
    known = [one for one in scatters if one is not None]
    pooled = (sum(one**2 for one in known) / len(known)) ** 0.5 if len(known) == 2 else None
    p = tested.p if testable else None
    row: dict[str, Any] = {
        "name": metric,
        "first": float(sum(first) / len(first)),
        "second": float(sum(second) / len(second)),
        "seeds": [len(first), len(second)],
        "standard_deviations": scatters,
        "difference": tested.difference,
        "interval": tested.interval if testable else None,
        "p": p,
        "test": None if p is None else "Welch's t",
        "effect": tested.difference / pooled if pooled else None,
        "seeds_needed": seeds_needed(tested.difference, pooled, groups=2) if pooled else None,
        "smallest_difference": smallest_difference(pooled, [len(first), len(second)]) if pooled else None,
        "distinguishable": None if p is None else p < ALPHA,
    }
    return {**row, "text": sentences.of_groups(row, names)}


def _run_in_group(
    metric: str, first: list[float], second: list[float], names: tuple[str, str], *, is_first: bool, testable: bool
) -> dict[str, Any]:
    from hfpipe.evaluation.statistics.significance import deviation, prediction_interval

    (value,), others = (first, second) if is_first else (second, first)
    scatter = deviation(others)
    expected = prediction_interval(others) if testable and scatter else None
    mean = float(sum(others) / len(others))
    row: dict[str, Any] = {
        "name": metric,
        "first": value if is_first else mean,
        "second": mean if is_first else value,
        "seeds": [1, len(others)] if is_first else [len(others), 1],
        "difference": (mean - value) if is_first else (value - mean),
        "run": value,
        "standard_deviation": scatter,
        "below": sum(other < value for other in others),
        "equal": sum(other == value for other in others),
        "above": sum(other > value for other in others),
        "expected": expected,
        "inside": None if expected is None else expected[0] <= value <= expected[1],
    }
    return {**row, "text": sentences.of_run_in_group(row, names if is_first else (names[1], names[0]))}

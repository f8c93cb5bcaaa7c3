"""The metrics of two groups of seeds, or of a run beside a group, measured by the noise between seeds."""

from __future__ import annotations

from typing import Any

from hfpipe.experiments.diff import sentences
from hfpipe.runs import Run
from hfpipe.runs.evaluations import evaluation_names, file_name, read_evaluation
from hfpipe.runs.groups import Group

ALPHA = 0.05


def compare_seeds(first: Run | Group, second: Run | Group, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Compare two groups by a t test, or say where a run lies among the seeds of a group.

    The test is paired where the groups have the same seeds, each measured on the same rows in both; else it is Welch's.

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
        both = [list(side[split].values()) for side in sides]
        why = _why_not(*both)
        unpaired = _why_unpaired(sides[0][split], sides[1][split])
        rows = []
        for metric in dict.fromkeys(name for side in both for one in side for name in one["metrics"]):
            if metric.endswith("_support"):
                continue
            values = [{seed: one["metrics"].get(metric) for seed, one in side[split].items()} for side in sides]
            known = [{seed: value for seed, value in side.items() if value is not None} for side in values]
            if not all(known):
                continue
            if kind == "groups":
                reason = unpaired or (
                    "it is undefined for other seeds in each" if known[0].keys() != known[1].keys() else None
                )
                rows.append(_groups(metric, known[0], known[1], names, testable=why is None, unpaired=reason))
            else:
                is_first = isinstance(first, Run)
                lists = [list(side.values()) for side in known]
                rows.append(_run_in_group(metric, lists[0], lists[1], names, is_first=is_first, testable=why is None))
        text = None if why is None else f"{split}: no test: {why}"
        found.append(
            {"kind": kind, "split": split, "examples": None, "comparable": why is None, "why": why, "metrics": rows}
            | ({"paired": unpaired is None, "why_unpaired": unpaired} if kind == "groups" else {})
            | {"text": text}
        )
    return found


def _measured(one: Run | Group) -> dict[str, dict[int, dict[str, Any]]]:
    """By split and seed the `metrics`, and what identifies the rows; only splits that every run has."""
    runs = one.runs if isinstance(one, Group) else {0: one}
    each: dict[int, dict[str, dict[str, Any]]] = {}
    for seed, run in runs.items():
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
        each[seed] = found
    first = next(iter(each.values()), {})
    common = [split for split in first if all(split in found for found in each.values())]
    return {split: {seed: found[split] for seed, found in each.items()} for split in common}


def _why_unpaired(first: dict[int, dict[str, Any]], second: dict[int, dict[str, Any]]) -> str | None:
    """Why the runs of two groups don't belong together seed by seed; None where they do."""
    if first.keys() != second.keys():
        return "the groups have other seeds"
    for seed, one in first.items():
        key = "rows" if one["rows"] and second[seed]["rows"] else "source"
        if one[key] != second[seed][key]:
            return f"seed {seed} was measured on other rows in each"
    return None


def _why_not(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> str | None:
    key = "rows" if all(one["rows"] for one in (*first, *second)) else "source"
    ours, theirs = ({one[key] for one in side} for side in (first, second))
    # Where each seed holds out rows of its own, both sides have those of the same seeds, or can't be compared.
    return None if ours <= theirs or theirs <= ours else "they were measured on other data"


def _groups(
    metric: str,
    first: dict[int, float],
    second: dict[int, float],
    names: tuple[str, str],
    *,
    testable: bool,
    unpaired: str | None,
) -> dict[str, Any]:
    from hfpipe.evaluation.statistics.significance import (
        deviation,
        differences_of,
        paired_t,
        seeds_needed,
        smallest_difference,
        welch,
    )

    sides = [[side[seed] for seed in sorted(side)] for side in (first, second)]
    scatters = [deviation(side) for side in sides]
    if unpaired is None:
        tested, sizes = paired_t(*sides), [len(first)]
        scatter = deviation(differences_of(*sides))
    else:
        tested, sizes = welch(*sides), [len(first), len(second)]
        known = [one for one in scatters if one is not None]
        scatter = (sum(one**2 for one in known) / len(known)) ** 0.5 if len(known) == 2 else None
    p = tested.p if testable else None
    row: dict[str, Any] = {
        "name": metric,
        "first": float(sum(sides[0]) / len(first)),
        "second": float(sum(sides[1]) / len(second)),
        "seeds": [len(first), len(second)],
        "standard_deviations": scatters,
        "paired": unpaired is None,
        "why_unpaired": unpaired,
        "standard_deviation_of_differences": scatter if unpaired is None else None,
        "difference": tested.difference,
        "interval": tested.interval if testable else None,
        "p": p,
        "test": None if p is None else "paired t" if unpaired is None else "Welch's t",
        "effect": tested.difference / scatter if scatter else None,
        "seeds_needed": seeds_needed(tested.difference, scatter, groups=len(sizes)) if scatter else None,
        "smallest_difference": smallest_difference(scatter, sizes) if scatter else None,
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

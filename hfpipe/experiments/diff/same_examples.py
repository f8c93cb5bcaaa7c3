"""The metrics of two runs on the same examples, and whether chance alone could make the difference."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from hfpipe.experiments.diff import sentences
from hfpipe.runs import Run
from hfpipe.runs.evaluations import evaluation_names, prediction_of, read_evaluation, read_examples, reference_of

_SEED = 0  # of the resamples: the same two runs always get the same answer
ALPHA = 0.05


def compare_runs(first: Run, second: Run, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Compare two runs on every split that both were measured on.

    Args:
        first: a run with `evaluations/`.
        second: another.
        names: what they are called in the sentences.

    Returns:
        For each split `kind`, `split`, `examples`, `comparable`, `why` (not), `metrics` and `text`, see docs/seeds.md.
    """
    theirs = [evaluation_names(run) for run in (first, second)]
    common = [name for name in theirs[0] if name in theirs[1]]
    found = [_compare_split(first, second, name, names) for name in common]
    for label, own, other in ((names[0], *theirs), (names[1], *theirs[::-1])):
        for name in own:
            if name not in other:
                found.append(_not_comparable(name, f"only {label} was measured on {name}", {}, {}, names))
    if common:
        return found
    split = [(run.read_json("metrics.json") or {}).get("split") for run in (first, second)]
    why = f"{' and '.join(n for n, own in zip(names, theirs, strict=True) if not own)} have no predictions of single examples"
    if not all(theirs) and split[0] == split[1]:
        found.append(_not_comparable(str(split[0]), why, first.metrics, second.metrics, names))
    return found


def _compare_split(first: Run, second: Run, name: str, names: tuple[str, str]) -> dict[str, Any]:
    documents = [read_evaluation(run, name) or {} for run in (first, second)]
    split, metrics = documents[0].get("split", name), [dict(one.get("metrics") or {}) for one in documents]
    examples, why = _joined(first, second, name, documents, names)
    if why is not None:
        return _not_comparable(split, why, metrics[0], metrics[1], names)
    differences, reasons = _differences(first, second, documents, examples)
    rows = []
    for metric in dict.fromkeys((*metrics[0], *metrics[1])):
        row = _row(metric, metrics[0].get(metric), metrics[1].get(metric))
        tested = differences.get(metric)
        if tested is not None and row["difference"] is not None:
            pairs = tested.pairs
            row |= {
                "interval": tested.interval,
                "interval_method": tested.method if tested.interval else None,
                "p": tested.p,
                "test": "McNemar" if pairs else "paired bootstrap",
                "resamples": tested.resamples,
                "only_first_correct": pairs and pairs.only_first,
                "only_second_correct": pairs and pairs.only_second,
                "distinguishable": None if tested.p is None else tested.p < ALPHA,
            }
        row["why"] = None if row["p"] is not None else reasons.get(metric)
        row["text"] = sentences.of_pairs(row, names, len(examples[0]))
        rows.append(row)
    return {
        "kind": "paired",
        "split": split,
        "examples": len(examples[0]),
        "comparable": True,
        "why": None,
        "metrics": rows,
        "text": None,
    }


def _not_comparable(
    split: str,
    why: str,
    first: Mapping[str, float | None],
    second: Mapping[str, float | None],
    names: tuple[str, str],
) -> dict[str, Any]:
    rows = [_row(name, first.get(name), second.get(name)) for name in dict.fromkeys((*first, *second))]
    for row in rows:
        row["text"] = sentences.of_values(row, names)
    text = f"{split}: no test on the same examples: {why}"
    return {
        "kind": "paired",
        "split": split,
        "examples": None,
        "comparable": False,
        "why": why,
        "metrics": rows,
        "text": text,
    }


def _row(metric: str, first: float | None, second: float | None) -> dict[str, Any]:
    nothing = (
        "interval",
        "interval_method",
        "p",
        "test",
        "resamples",
        "only_first_correct",
        "only_second_correct",
        "distinguishable",
        "why",
    )
    difference = None if first is None or second is None else second - first
    return {"name": metric, "first": first, "second": second, "difference": difference, **dict.fromkeys(nothing)}


def _joined(
    first: Run, second: Run, name: str, documents: list[dict[str, Any]], names: tuple[str, str]
) -> tuple[list[list[dict[str, Any]]], str | None]:
    """The examples of both in one order, or why they can't be compared."""
    for key, what in (
        ("split", "they were measured on other splits"),
        ("dataset", "the rows that they were measured on are not the same"),
        ("kind", "they are of other kinds of task"),
        ("names", "their classes are not the same, or not in the same order"),
        ("scheme", "their labels are written in other schemes"),
    ):
        if documents[0].get(key) != documents[1].get(key):
            return [], what
    sides = []
    for run, label in zip((first, second), names, strict=True):
        try:
            examples = read_examples(run, name)
        except ValueError:
            return [], f"the predictions of {label} on {name} are damaged"
        if not examples:
            return [], f"{label} has no predictions of the examples of {name}"
        sides.append({one["id"]: one for one in examples})
    if sides[0].keys() != sides[1].keys():
        alone = len(sides[0].keys() ^ sides[1].keys())
        return [], f"{alone:,} example{' was' if alone == 1 else 's were'} scored by one of them only"
    joined = [[side[key] for key in sorted(sides[0])] for side in sides]
    for one, other in zip(*joined, strict=True):
        if reference_of(one) != reference_of(other):
            return [], f"example {one['id']} has another label in each"
    return joined, None


def _differences(
    first: Run, second: Run, documents: list[dict[str, Any]], examples: list[list[dict[str, Any]]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What the resamples say of each metric, and why of others they say nothing."""
    import numpy as np

    from hfpipe.evaluation.statistics.paired import compare_losses, compare_metrics
    from hfpipe.parts.build import load_metrics

    recipes = [run.recipe for run in (first, second)]
    both = [metric for metric in recipes[0].evaluate.metrics if metric in recipes[1].evaluate.metrics]
    is_default = not recipes[0].evaluate.metrics and not recipes[1].evaluate.metrics
    reasons = dict.fromkeys(documents[0].get("metrics", {}), "hfpipe can't compute it again from the saved predictions")
    found: dict[str, Any] = {}
    task: Any = SimpleNamespace(names=documents[0].get("names"), scheme=documents[0].get("scheme"))
    if both or is_default:
        evaluate = recipes[0].evaluate.model_copy(update={"metrics": tuple(both)})
        # No code from the Hub or of a file is run to show a difference.
        metrics = load_metrics(recipes[0].model_copy(update={"evaluate": evaluate}), task, foreign=False)
        predictions = [column([prediction_of(one) for one in side]) for side in examples]
        references = column([reference_of(one) for one in examples[0]])
        found |= compare_metrics(metrics, predictions[0], predictions[1], references, seed=_SEED)
    if recipes[0].loss == recipes[1].loss:
        sides = [tuple(np.array([one[key] for one in side]) for key in ("loss", "weight")) for side in examples]
        found["loss"] = compare_losses(sides[0], sides[1], seed=_SEED)  # type: ignore[arg-type]
    else:
        reasons["loss"] = "the recipes have other losses"
    return found, reasons


def column(values: list[Any]) -> Any:
    """Predictions or references as the metrics take them: numbers `[examples]`, `[examples, labels]`, or an object each."""
    import numpy as np

    if all(isinstance(one, int | float) for one in values):
        return np.array(values)
    if all(isinstance(one, list) and one and all(isinstance(part, int) for part in one) for one in values):
        return np.array(values)
    objects = np.empty(len(values), object)
    objects[:] = values
    return objects

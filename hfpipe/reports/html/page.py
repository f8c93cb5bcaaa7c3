"""`report.html`: a run, or a group of them, as one static page without script or network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe.schema import Recipe
from hfpipe.reports import wording
from hfpipe.reports.html import figures, tables
from hfpipe.runs.evaluations import file_name, prediction_of, read_examples, reference_of
from hfpipe.runs.store import Run
from hfpipe.system.redaction import strip_path, strip_paths

_TEMPLATES = Path(__file__).parent.parent / "templates"
_WORST, _MOST_NOTICES = 10, 60


def write_report(run: Run) -> None:
    """Write `report.html` from what the run folder holds; what is missing there is left out.

    Raises:
        OSError: the page can't be written.
    """
    recipe, about, records = _recipe(run), run.metadata, run.records
    best = recipe.evaluate.best if recipe else None
    summary, own = run.read_json("metrics.json") or {}, wording.own_evaluation(run)
    others, damaged = wording.other_evaluations(run)
    for split, metrics in (summary.get("also") or {}).items():
        if not any(one.get("split") == split for one in others.values()):
            others[split] = {"split": split, "metrics": metrics}
    name = wording.main_metric(best, own.get("metrics") or {})
    audit = run.read_json("audit.json")
    splits = (audit or {}).get("splits") or {}
    notices = wording.notices(records)
    errors = own.get("errors") or {}
    page = {
        "title": run.id,
        "about": strip_paths(about),
        "recipe_name": about.get("name"),
        "result": wording.result(own, best),
        "is_chosen": wording.is_chosen(run, best, bool(recipe and recipe.checkpoints.keep_best)),
        "best": best,
        "findings": strip_paths(wording.notices_of(own)),
        "summary": summary,
        "metrics": tables.metrics(own, name),
        "notices": (notices + damaged)[:_MOST_NOTICES],
        "more_notices": max(0, len(notices + damaged) - _MOST_NOTICES),
        "curves": figures.curves(records, summary.get("evaluated_step"), name),
        "caption_of_curves": figures.caption_of_curves(records, summary.get("evaluated_step")),
        "evaluation": own,
        "classes": tables.classes(own),
        "confusion": tables.confusion(own),
        "reliability": figures.reliability(own.get("calibration")),
        "residuals": figures.residuals(errors),
        "errors": [
            (name_of, wording.number(errors[key]))
            for key, name_of in _OF_ERRORS.items()
            if isinstance(errors.get(key), int | float)
        ],
        "worst": [
            {
                "place": one.get("place") or wording.number(one.get("id")),
                "prediction": prediction_of(one),
                "reference": reference_of(one),
            }
            for one in (errors.get("worst") or [])[:_WORST]
        ],
        "mistakes": tables.mistakes(own, _texts(run, own) if recipe and recipe.evaluate.mistakes else {}),
        "slices": tables.slices(own, name),
        "others": [_other_evaluation(one.get("split") or key, one, best, name) for key, one in others.items()],
        "data": tables.data(audit),
        "lengths": figures.lengths(first, (splits[first].get("lengths") or {}).get("histogram") or [])
        if (first := next(iter(splits), None)) is not None
        else None,
        "command": wording.command(about),
        "changes": wording.changes(about),
        "subject": wording.subject(recipe, about.get("given") or {}),
        "written": strip_path(str(about.get("written") or "")).rstrip(),
        "recipe": _recipe_text(run),
        "facts": _facts(strip_paths(about)),
    }
    run.write_text("report.html", render("report.html", page))


def _texts(run: Run, document: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The texts that were kept of some rows of the evaluation split, by row and column."""
    try:
        examples = read_examples(run, file_name(str(document.get("split")))) or []
    except (OSError, ValueError):
        return {}
    return {one["id"]: one["text"] for one in examples if one.get("text")}


def _other_evaluation(title: str, document: Mapping[str, Any], best: str | None, first: str | None) -> dict[str, Any]:
    """What the page shows of a split beside the evaluation split."""
    return {
        "name": title,
        "document": strip_paths(document),
        "result": wording.result(dict(document), best),
        "findings": strip_paths(wording.notices_of(document)),
        "metrics": tables.metrics(document, first),
    }


_OF_ERRORS = {
    "mean": "mean error",
    "median_absolute": "median absolute error",
    "rmse": "root mean square error",
    "r2": "R², the share of the variance that is explained",
}


def write_group_report(folder: Path, title: str, runs: Sequence[Run], summary: Mapping[str, Any]) -> None:
    """Write `report.html` of runs that differ in their seed.

    Args:
        folder: of the group, where the page goes; the runs are linked relative to it.
        title: of the page.
        runs: in the order of their seeds.
        summary: `metrics` (name to `mean`, `standard_deviation`, `interval`, `best` and `worst` with `value` and `seed`,
            `baseline`, `seeds_needed`, `text`), `split` and `notices`; each may be missing.

    Raises:
        OSError: the page can't be written.
    """
    metrics: dict[str, Any] = summary.get("metrics") or {}
    recipe = _recipe(runs[0]) if runs else None
    best = recipe.evaluate.best if recipe else None
    name = wording.main_metric(best, metrics)
    order = sorted(metrics, key=lambda one: (one != name, one == "loss"))
    of_runs = {run.id: run.metrics for run in runs}
    records = {run.id: run.records for run in runs}
    page = {
        "title": title,
        "recipe_name": recipe.name if recipe else None,
        "runs": len(runs),
        "split": summary.get("split"),
        "main": name,
        "mean": (metrics.get(name) or {}) if name else {},
        "leak": _leak_of_seeds(summary.get("leak"), name),
        "findings": strip_paths(wording.notices_of(summary)),
        "rows": [{"name": one, **_spread(metrics[one] or {})} for one in order],
        "curves": figures.seeds_curves(records, name),
        "strip": figures.strip(
            [
                (
                    one,
                    [value for own in of_runs.values() if (value := own.get(one)) is not None],
                    interval if wording.is_interval(interval := (metrics[one] or {}).get("interval")) else None,
                    (metrics[one] or {}).get("baseline"),
                )
                for one in order
            ]
        ),
        "columns": order[:6],
        "seeds": [_seed(folder, run, order[:6]) for run in runs],
        "subject": wording.subject(recipe, (runs[0].metadata.get("given") if runs else None) or {}),
        "written": strip_path(str(runs[0].metadata.get("written") or "")).rstrip() if runs else "",
        "recipe": _recipe_text(runs[0]) if runs else "",
    }
    Run(folder).write_text("report.html", render("group.html", page))


def _seed(folder: Path, run: Run, columns: Sequence[str]) -> dict[str, Any]:
    summary = run.read_json("metrics.json") or {}
    metrics = summary.get("metrics") or {}
    has_report = (run.path / "report.html").is_file()
    return {
        "seed": run.metadata.get("seed"),
        "id": run.id,
        "link": Path(os.path.relpath(run.path / "report.html", folder)).as_posix() if has_report else None,
        "cells": [wording.number(metrics[one]) if one in metrics else "" for one in columns],
        "steps": wording.number(summary.get("steps")) if summary.get("steps") else "",
    }


def _leak_of_seeds(leak: Mapping[str, Any] | None, name: str | None) -> dict[str, Any] | None:
    """The text of a leak, and the mean of the metric on the examples that the training split does not have."""
    if not leak:
        return None
    mean = ((leak.get("metrics") or {}).get(name) or {}).get("mean")
    return {"text": leak.get("text"), "train": leak.get("train"), "mean": mean}


def _spread(found: Mapping[str, Any]) -> dict[str, str]:
    def written(key: str) -> str:
        value = found.get(key)
        if isinstance(value, Mapping):
            seed = value.get("seed")
            return wording.number(value.get("value")) + ("" if seed is None else f" (seed {seed})")
        return "" if value is None else wording.number(value)

    keys = ("mean", "standard_deviation", "best", "worst", "baseline", "seeds_needed")
    return {**{key: written(key) for key in keys}, "interval": wording.between(found.get("interval")),
            "text": str(found.get("text") or "")}  # fmt: skip


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page of `reports/templates`; whatever comes from data is escaped."""
    from jinja2 import Environment, FileSystemLoader

    pages = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters["number"] = wording.number
    return pages.get_template(template).render(**values)


def _recipe(run: Run) -> Recipe | None:
    """The recipe, or None where this version can't read what another one wrote."""
    try:
        return run.recipe
    except (RecipeError, OSError):
        return None


def _recipe_text(run: Run) -> str:
    try:
        return strip_path((run.path / "recipe.yaml").read_text(encoding="utf-8")).rstrip()
    except OSError:
        return ""


def _facts(about: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a result hangs on, as names and values."""
    machine = about.get("machine") or {}
    facts = list(_flat("", about.get("identity") or {}))
    facts += _flat("", {"rows": about.get("rows"), "freshly initialised": about.get("fresh")})
    facts.append(("versions", ", ".join(f"{name} {value}" for name, value in (about.get("versions") or {}).items())))
    cores = f"{machine['cores']} cores" if machine.get("cores") else None
    facts.append(("machine", ", ".join(filter(None, (machine.get("processor"), cores, machine.get("system"))))))
    facts += _flat("", {"precision": (about.get("precision") or {}).get("why"), "commit": about.get("commit")})
    return [(name, value) for name, value in facts if value]


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{path} {key}".strip(), part)
    elif isinstance(value, list):
        if value:
            yield path, ", ".join(map(str, value))
    elif value is not None:
        yield path, f"{value:,}" if isinstance(value, int) else value

"""What a list of runs shows of each: read from the runs' own files, never from the times of those files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import greater_is_better, near
from hfpipe.runs.store import Run, list_runs
from hfpipe.system.machine import bytes_below

STATUSES = (
    "preparing",
    "running",
    "finished",
    "failed",
    "stopped",
    "interrupted",
    "died",
    "damaged",
    "newer",
    "unknown",
)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def table(
    folder: Path,
    *,
    recipe: str | None = None,
    status: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int | None = None,
    sort: str | None = None,
) -> list[dict[str, Any]]:
    """One row a run, the newest first, or the best first by a metric.

    Args:
        folder: of the runs.
        recipe: only runs of the recipe of that name.
        status: only runs with that status.
        since: only runs started at that time or later, see `moment`.
        until: only runs started no later; a day counts whole.
        limit: no more rows than that.
        sort: a metric, by which the best run is first, and runs without it last; `metric` is then this one. Which
            direction is better, hfpipe knows of its own metrics, and the recipes of others (`evaluate.greater_is_better`);
            of one that nobody knows the greatest is first.

    Returns:
        Rows with `id`, `path`, `recipe`, `engine`, `status`, `metric` ({name: number or None}, the metric that the
        recipe calls best, else its first one), `metrics`, `started` (ISO 8601, UTC), `seconds` at work, from start to end
        or to now without the time between a stop and a resume, `bytes` on disk, and `problem` where something of the run
        can't be read.

    Raises:
        RecipeError: a status or a time that is none, or a metric that no such run has.
    """
    if status is not None and status not in STATUSES:
        raise RecipeError(
            f"unknown status {status!r}{near(status, STATUSES)}", where="--status", allowed=", ".join(STATUSES)
        )
    first = moment(since, "--since") if since else None
    last = moment(until, "--until", end_of_day=True) if until else None
    rows: list[dict[str, Any]] = []
    for run in list_runs(folder):
        if sort is None and limit is not None and len(rows) >= limit:
            break
        found = row(run)
        started = _time(found["started"])
        if (recipe is not None and found["recipe"] != recipe) or (status is not None and found["status"] != status):
            continue
        if (first or last) and started is None:
            continue
        if (first and started and started < first) or (last and started and started > last):
            continue
        rows.append(found)
    return (rows if sort is None else _sorted(rows, sort))[:limit]


def _sorted(rows: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The best first by a metric, the newer of equal ones first; runs without it last."""
    known = list(dict.fromkeys(name for one in rows for name in one["metrics"]))
    if rows and metric not in known:
        raise RecipeError(
            f"no run has a metric {metric!r}{near(metric, known)}", where="--sort", allowed=", ".join(known) or "none"
        )
    having = [one for one in rows if one["metrics"].get(metric) is not None]
    rising = greater_is_better(metric)
    if rising is None:
        rising = next((found for one in having if (found := _declared(Path(one["path"]), metric)) is not None), True)
    having.sort(key=lambda one: one["metrics"][metric], reverse=rising)
    ordered = [*having, *(one for one in rows if one["metrics"].get(metric) is None)]
    return [{**one, "metric": {metric: one["metrics"][metric]} if metric in one["metrics"] else {}} for one in ordered]


def _declared(path: Path, metric: str) -> bool | None:
    """What the recipe of a run says about the direction of its best metric, where it is this one."""
    try:
        evaluate = Run(path).recipe.evaluate
    except RecipeError:
        return None
    return evaluate.greater_is_better if evaluate.best == metric else None


def row(run: Run) -> dict[str, Any]:
    """What the list shows of one run, whatever state its files are in."""
    about: dict[str, Any] = {}
    metrics: dict[str, float | None] = {}
    problem = None
    try:
        about = run.metadata
        metrics = run.metrics
    except RecipeError as error:
        problem = str(error)
    status = run.status
    started = _time(about.get("started"))
    ended = _time(about.get("ended")) or (datetime.now(UTC) if status in ("preparing", "running") else None)
    return {
        "id": run.id,
        "path": str(run.path),
        "recipe": about.get("name"),
        "engine": about.get("engine"),
        "status": status,
        "metric": deciding(run, about, metrics),
        "metrics": metrics,
        "started": about.get("started"),
        "seconds": _seconds_at_work(started, ended, about) if started and ended else None,
        "bytes": bytes_below(run.path),
        "problem": problem,
    }


def _seconds_at_work(started: datetime, ended: datetime, about: dict[str, Any]) -> float:
    """From start to end, without the time in which nothing ran before a resume."""
    return max((ended - started).total_seconds() - float(about.get("idle_seconds", 0.0)), 0.0)


def idle_before(about: dict[str, Any], saved: str | None) -> float:
    """The seconds in which a run that goes on now did not run, those of earlier stops among them.

    Args:
        about: `run.json` as the stopped process left it.
        saved: when the checkpoint was saved that it goes on from, None from the start; what was made after it is lost,
            where nobody wrote down when the process ended.
    """
    until = _time(about.get("ended")) or _time(saved) or _time(about.get("started"))
    idle = (datetime.now(UTC) - until).total_seconds() if until else 0.0
    return float(about.get("idle_seconds", 0.0)) + max(idle, 0.0)


def deciding(run: Run, about: dict[str, Any], metrics: dict[str, float | None]) -> dict[str, float | None]:
    """The metric that says how good a run is: the recipe's `evaluate.best`, else the first beside the loss."""
    if not metrics:
        return {}
    best = about.get("best")
    if "best" not in about:  # written before run.json said it
        try:
            best = run.recipe.evaluate.best
        except RecipeError:
            best = None
    name = best if best in metrics else next((name for name in metrics if name != "loss"), "loss")
    return {name: metrics[name]}


def recipe_names(folder: Path) -> list[str]:
    """The names of the recipes that the runs of a folder have, each once."""
    return list(dict.fromkeys(found["recipe"] for found in map(row, list_runs(folder)) if found["recipe"]))


def moment(text: str, where: str, *, end_of_day: bool = False) -> datetime:
    """A time: a date or time in ISO 8601, local unless it says otherwise, or how long ago (`30m`, `12h`, `7d`, `2w`).

    Args:
        text: what was given.
        where: the option, for the message.
        end_of_day: a date without a time means its last moment.

    Raises:
        RecipeError: it is neither.
    """
    ago = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if ago:
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise RecipeError(
            f"{text!r} is no time",
            where=where,
            allowed="a date (2026-11-21), a time (2026-11-21T14:30), 30m, 12h, 7d, 2w",
        ) from None
    if end_of_day and re.fullmatch(r"[\dW-]{7,10}", text):
        found += timedelta(days=1) - timedelta(microseconds=1)
    return found.astimezone(UTC)


def _time(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def notices(records: Sequence[dict[str, Any]]) -> list[str]:
    """The texts of the notices among records, each once, in order."""
    return list(dict.fromkeys(str(one.get("text", "")) for one in records if one.get("type") == "notice"))

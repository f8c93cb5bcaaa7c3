"""What a run found, in words and numbers for people: what its report and its model card share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from hfpipe.errors import RecipeError
from hfpipe.recipe.schema import Recipe
from hfpipe.runs.evaluations import evaluation_names, file_name, read_evaluation
from hfpipe.runs.store import Run
from hfpipe.system.redaction import relative, strip_path
from hfpipe.system.text import plural

Document = dict[str, Any]

_IDLE = {"--runs-dir": 1, "--name": 1, "--json": 0, "--debug": 0}  # say where and how the result is shown


def number(value: Any) -> str:
    """A number with four digits; a great one with separators, a tiny one as a power of ten."""
    if value is None:
        return "undefined"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    size = abs(value)
    if isinstance(value, int):
        return f"{value:,}"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.2f}"
    return f"{value:.4f}" if size >= 0.001 or size == 0 else f"{value:.2e}"


def between(interval: Sequence[Any] | None) -> str:
    """An interval as `low to high`, or nothing."""
    return f"{number(interval[0])} to {number(interval[1])}" if is_interval(interval) else ""


def is_interval(interval: Any) -> TypeGuard[Sequence[float]]:
    """Whether there are two numbers."""
    return isinstance(interval, list | tuple) and len(interval) == 2 and None not in interval


def interval_notes(document: Mapping[str, Any]) -> list[str]:
    """How the intervals of an evaluation were computed, and why others are missing; versions before did not say."""
    classes = {str(one.get("name")) for one in document.get("classes") or [] if one}

    def grouped(key: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, why in (document.get(key) or {}).items():
            if name.rpartition("_")[0] not in classes:  # those of a class are of one kind, and many
                found.setdefault(str(why), []).append(name)
        return found

    methods = "; ".join(f"{', '.join(names)} by {method}" for method, names in grouped("interval_methods").items())
    notes = [f"Intervals: {methods}."] if methods else []
    return notes + [f"No interval of {', '.join(names)}: {why}." for why, names in grouped("no_interval").items()]


def baseline_notes(document: Mapping[str, Any]) -> list[str]:
    """Which constant prediction the baseline of each metric is; versions before had one for all."""
    baseline = document.get("baseline") or {}
    classes = {str(one.get("name")) for one in document.get("classes") or [] if one}
    of: dict[str, list[str]] = {}
    for name, what in (baseline.get("each") or {}).items():
        if name.rpartition("_")[0] not in classes and (baseline.get("metrics") or {}).get(name) is not None:
            of.setdefault(str(what), []).append(name)
    if len(of) < 2:
        return [str(one) for one in of or [baseline.get("what")] if one]
    return [f"{what} ({', '.join(names)})" for what, names in of.items()]


def worst_first(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Classes by their F1, the worst first; those that do not occur come last."""

    def key(one: Mapping[str, Any]) -> tuple[bool, float, int]:
        f1 = one.get("f1")
        return f1 is None, 0.0 if f1 is None else f1, -int(one.get("support") or 0)

    return sorted(classes, key=key)


def own_evaluation(run: Run) -> Document:
    """What was measured on the evaluation split when the run ended.

    The metrics of `metrics.json` win: they are of the weights that the run ended with. Where there is no document of
    that split, they are all there is.
    """
    summary = run.read_json("metrics.json") or {}
    split = summary.get("split")
    measured = {"split": split, "examples": summary.get("examples"), "metrics": summary.get("metrics") or {}}
    try:
        document = read_evaluation(run, file_name(split)) if split else None
    except RecipeError:
        document = None
    return {**(document or {}), **{key: value for key, value in measured.items() if value}}


def other_evaluations(run: Run) -> tuple[dict[str, Document], list[str]]:
    """The other documents of a run by name, and what can't be read of them."""
    split = (run.read_json("metrics.json") or {}).get("split")
    own = file_name(split) if split else None
    found, damaged = {}, []
    for name in evaluation_names(run):
        if name == own:
            continue
        try:
            found[name] = read_evaluation(run, name) or {}
        except RecipeError:
            damaged.append(f"evaluations/{name}.json can't be read")
    return found, damaged


def main_metric(best: str | None, metrics: Mapping[str, Any]) -> str | None:
    """The metric that a run is known by: the one its recipe calls best, else the first that is no loss, else the loss."""
    if best in metrics:
        return best
    return next((name for name in metrics if name != "loss"), next(iter(metrics), None))


def result(document: Document, best: str | None) -> dict[str, Any] | None:
    """The main metric of an evaluation in words, or None where nothing was measured.

    Returns:
        `name`, `value` and `sentences`: the number of examples with the interval, then the baseline. Of examples that the
        training split has too there is a sentence before them, and `of` and `beside` qualify the value: what it is
        measured on, and `name`, `value` and `of` of the same metric on the other examples.
    """
    metrics = document.get("metrics") or {}
    name = main_metric(best, metrics)
    if name is None:
        return None
    interval = (document.get("intervals") or {}).get(name)
    examples = document.get("examples")
    on = f"on {examples:,} example{'' if examples == 1 else 's'} of {document.get('split')}" if examples else ""
    level = f"{100 * (document.get('level') or 0.95):g} %"
    why = (document.get("no_interval") or {}).get(name)
    if is_interval(interval):
        measured = f"{level} interval {between(interval)}, {on}"
    else:
        measured = f"measured {on}" if on else ""
        measured += f", without an interval ({why})" if measured and why else ""
    sentences = [f"{measured.rstrip(', ')}."] if measured else []
    leak = leak_of(document, name)
    baseline = document.get("baseline") or {}
    other = (baseline.get("metrics") or {}).get(name)
    if other is not None:
        what = str((baseline.get("each") or {}).get(name) or baseline.get("what") or "a model that has learned nothing")
        position = ""
        if is_interval(interval):
            is_inside = interval[0] <= other <= interval[1]
            position = (
                ", inside the interval: this result may be no better than that"
                if is_inside
                else f", {'below' if other < interval[0] else 'above'} the whole interval"
            )
        sentences.append(f"{what[:1].upper()}{what[1:]}, would have {number(other)}{position}.")
    if leak is None:
        return {"name": name, "value": metrics[name], "sentences": sentences}
    return {"name": name, "value": metrics[name], "sentences": [leak["sentence"], *sentences], **leak}


def leak_of(document: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What a leak of the training split means for a metric, or None where there is none.

    Returns:
        `sentence`: all of it in one; `of`: what the metric of the whole split is measured on; `beside`: `name`, `value` and
        `of` of the examples that are not in the training split, or None where no such number is known.
    """
    leak = document.get("leak")
    if not leak:
        return None
    rows, train = int(leak["rows"]), leak["train"]
    others, value = int(leak["examples"]), (leak.get("metrics") or {}).get(name)
    of = f"with {rows:,} of {rows + others:,} examples that {train} has too"
    has = "has" if rows == 1 else "have"
    sentence = f"{rows:,} of these {rows + others:,} examples {has} the text of a row of {train}"
    if value is None:
        why = f"on the {plural(others, 'other')} {name} is undefined" if others else "no other example is left"
        return {"sentence": f"{sentence}; {why}.", "of": of, "beside": None}
    beside = {"name": name, "value": value, "of": f"on the {plural(others, 'example')} that {train} does not have"}
    interval = (leak.get("intervals") or {}).get(name)
    around = f" ({between(interval)})" if is_interval(interval) else ""
    return {"sentence": f"{sentence}; on the {plural(others, 'other')} {name} is {number(value)}{around}.", "of": of,
            "beside": beside}  # fmt: skip


def subject(recipe: Recipe | None, given: Mapping[str, str]) -> str:
    """What was trained on what: the checkpoint and the data, without this machine's paths; or what was given from Python."""
    if recipe is None:
        return ""
    data, files = recipe.dataset, recipe.dataset.data_files
    named = files if isinstance(files, dict) else {"": files or ()}
    listed = [one for part in named.values() for one in ([part] if isinstance(part, str) else part)]
    what = ", ".join(strip_path(one) for one in dict.fromkeys(listed)) or strip_path(data.path)
    what += f", {data.name}" if data.name else ""
    return (
        f"{given.get('model') or strip_path(recipe.model.checkpoint)} on {'given data' if 'dataset' in given else what}"
    )


def is_chosen(run: Run, best: str | None, keeps_best: bool) -> bool:
    """Whether the weights were chosen among several by the very metric that is shown, which flatters it a little."""
    seen = [record for record in run.records if record.get("type") == "evaluation"]
    return bool(best) and keeps_best and len(seen) > 1


def notices(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The notices of a run on its way, each once."""
    found = [str(one.get("text")) for one in records if one.get("type") in ("notice", "check") and one.get("text")]
    return [strip_path(text) for text in dict.fromkeys(found)]


def notices_of(document: Mapping[str, Any]) -> list[str]:
    """What a reader of an evaluation, or of a group's summary, should know; versions before called it `remarks`."""
    return [str(one) for one in document.get("notices", document.get("remarks")) or []]


def command(about: Mapping[str, Any]) -> str | None:
    """The command line that a run was started with, without this machine's paths; None when it came from Python.

    Where the run lands, its name and the form of the output are left out: the command is for doing it again.
    """
    argv = [str(word) for word in about.get("command") or []]
    if not argv or not _is_hfpipe(argv):
        return None
    words, skip = ["hfpipe"], 0
    for word in argv[1:]:
        option, has_value, _ = word.partition("=")
        if skip:
            skip -= 1
        elif option in _IDLE:
            skip = 0 if has_value else _IDLE[option]
        else:
            words.append(strip_path(relative(word)))
    return shlex.join(words)


def changes(about: Mapping[str, Any]) -> list[str]:
    """What was changed in the recipe when the run went on, a sentence a resumption; nothing where it was left as it was."""
    sentences = []
    for one in about.get("resumed") or []:
        fields = [
            f"{path} from {_written(before)} to {_written(now)}"
            for path, (before, now) in (one.get("changes") or {}).items()
        ]
        if fields:
            sentences.append(f"after step {one.get('step') or 0:,}: {', '.join(fields)}")
    return [strip_path(text) for text in sentences]


def _written(value: Any) -> str:
    """A value of a recipe, as a recipe writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_hfpipe(argv: list[str]) -> bool:
    program = Path(argv[0])
    return program.name in ("hfpipe", "hfpipe.exe") or (
        # A checkout's own file, and where it stood in runs of earlier versions.
        program.name in ("app.py", "cli.py", "__main__.py") and "hfpipe" in program.parts[-3:-1]
    )

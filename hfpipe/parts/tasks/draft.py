"""A recipe made from data: columns and kind of task are guessed, and every line says why it is there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.data.formats.files import other_separator
from hfpipe.parts.data.formats.layout import Layout
from hfpipe.parts.data.sources import format_of, open_source
from hfpipe.parts.tasks.column_profiles import Profile, profile
from hfpipe.parts.tasks.guess import Guess, guess_task
from hfpipe.recipe import Recipe, load_recipe, parse_value
from hfpipe.recipe.source import apply_overrides
from hfpipe.system import hub
from hfpipe.system.text import json_line, plural

_EVALUATION = ("validation", "valid", "val", "dev", "evaluation", "eval", "test")
_SPELLING = ("decimal", "thousands")  # of numbers, which are in the way only where the task is not known
_UPDATES = 300  # at least about so many, where the data are few
_ASCII = 0.9  # share of the letters above which a text is taken for English
TINY = "embedded:tiny-bert"
# Small checkpoints that learn well, the first choice first; the others are taken only where they are in the cache.
_ENGLISH = (
    "distilbert/distilbert-base-uncased",
    "google-bert/bert-base-uncased",
    "sentence-transformers/all-MiniLM-L6-v2",
)
_CASED = ("distilbert/distilbert-base-cased", "google-bert/bert-base-cased", "sentence-transformers/all-MiniLM-L6-v2")
_OTHER = ("distilbert/distilbert-base-multilingual-cased", "google-bert/bert-base-multilingual-cased")


@dataclass(frozen=True)
class Draft:
    """A recipe made from data.

    Attributes:
        source: the data as they were named.
        fields: of the recipe, as they would be written.
        reasons: dotted path to why it has its value.
    """

    source: str
    fields: Mapping[str, Any]
    reasons: Mapping[str, str]

    @property
    def recipe(self) -> Recipe:
        """The recipe, checked."""
        return load_recipe(self.fields)

    def lines(self) -> list[str]:
        """What was guessed, a line each."""
        found = []
        for path, why in self.reasons.items():
            section, _, name = path.partition(".")
            value = self.fields[section][name] if name else self.fields[section]
            found.append(f"{path}: {_flow(value)}{f' ({why})' if why else ''}")
        return found

    def yaml(self, target: str) -> str:
        """The recipe as a file to read and change: a field a line, and beside it why."""
        lines = [
            f"# Made from {self.source} by `hfpipe recipes new`. Columns and kind of task are guesses; what is wrong, change.",
            "#",
            f"#   hfpipe finetune {target}",
        ]
        for section, value in self.fields.items():
            if not isinstance(value, Mapping):
                lines.append(f"{section}: {_flow(value)}")
                continue
            lines.append(f"{section}:")
            for name, one in value.items():
                why = self.reasons.get(f"{section}.{name}", "")
                line = f"  {name}: {_flow(one)}"
                lines.append(f"{line}  # {' '.join(why.split())}" if why else line)
        return "\n".join(lines) + "\n"


def draft_recipe(
    source: str | Path, *, overrides: Sequence[str] = (), notice: Callable[[str], None] = lambda text: None
) -> Draft:
    """Make a recipe for data: a file, a folder, a glob, or a data set of the Hub.

    Args:
        source: csv, tsv, json, jsonl, parquet and whatever else `dataset.path` reads.
        overrides: `dotted.path=value` each; what they say is not guessed (`task.label=area`, `dataset.separator=;`).
        notice: gets what a user should know, such as that the Hub does not answer.

    Raises:
        RecipeError: mistakes in the overrides.
        DataError: data that can't be read, or columns of which it is not clear what they are for.
    """
    is_said = any(one.startswith("dataset.path=") for one in overrides)
    fields: dict[str, Any] = {"name": _name_of(source), "dataset": _dataset(str(source), is_said)}
    apply_overrides(fields, overrides)
    for section in ("dataset", "task", "model", "evaluate", "train", "optimizer", "schedule"):
        if not isinstance(fields.get(section, {}), dict):
            load_recipe({**fields, "task": fields.get("task", {"text": "x"}), "model": {"checkpoint": "x"}})
    raw, separator = _opened(fields)
    splits = fields["dataset"].pop("splits", {})
    train = splits.get("train") or _training_split(raw.splits)
    rows = raw.split(train, "dataset.splits.train")
    spelling = {key: fields["dataset"][key] for key in _SPELLING if isinstance(fields["dataset"].get(key), str)}
    profiles = [profile(rows, name, **spelling) for name in rows.column_names]
    guess = guess_task(rows, profiles, fields.get("task", {}))
    columns = plural(len(profiles), "column")
    reasons = {
        "dataset.data_files" if "data_files" in fields["dataset"] else "dataset.path": f"{len(rows):,} rows, {columns}"
    }
    if separator:
        reasons["dataset.separator"] = "the first line has it in place of commas"
    fields["dataset"]["splits"], reasons["dataset.splits"] = _splits(splits, train, raw.splits, rows, guess)
    fields["task"] = guess.fields
    reasons |= {f"task.{name}": why for name, why in guess.reasons.items()}
    _add_training(fields, reasons, rows, {one.name: one for one in profiles}, guess, notice)
    order = ("name", "dataset", "task", "model", "optimizer", "schedule", "train", "evaluate")
    fields = {name: fields[name] for name in (*order, *(name for name in fields if name not in order))}
    load_recipe(fields)
    return Draft(str(source), fields, reasons)


def write_draft(draft: Draft, target: Path | None = None) -> tuple[Path, Draft]:
    """Write a recipe to a file that is not there yet; by default the name of the data in this folder.

    Args:
        draft: the recipe.
        target: the file; in another folder than this one, local data are named from there.

    Returns:
        The file, and the draft as it stands there.

    Raises:
        RecipeError: the file is there, or can't be written.
    """
    target = target or Path(f"{draft.fields['name']}.yaml")
    if target.resolve().parent != Path.cwd():
        draft = replace(draft, fields=_seen_from(draft.fields, target.parent))
    try:
        with open(target, "x", encoding="utf-8") as file:
            file.write(draft.yaml(str(target)))
    except FileExistsError:
        raise RecipeError("is there already", where=str(target), fix="Name another file: --output FILE.") from None
    except OSError as error:
        raise RecipeError(f"can't be written: {error.strerror}", where=str(target)) from None
    return target, draft


def _seen_from(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The fields with what is local named from a folder, as a recipe there names it."""
    seen = {section: dict(value) if isinstance(value, Mapping) else value for section, value in fields.items()}
    for section, key in (("dataset", "data_files"), ("dataset", "path"), ("model", "checkpoint")):
        given: Any = seen[section].get(key)
        is_path = isinstance(given, str) and "://" not in given and (key == "data_files" or hub.is_local(given))
        if is_path and given[:1] not in ("/", "~"):
            moved = str(os.path.relpath(str(Path(given).absolute()), str(folder.resolve())))
            seen[section][key] = moved if key == "data_files" or moved.startswith("..") else f"./{moved}"
    return seen


def _name_of(source: str | Path) -> str:
    stem = re.split(r"[.\[*?]", Path(str(source)).name)[0] or Path(str(source)).resolve().name
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:40] or "run"


def _dataset(source: str, is_said: bool) -> dict[str, Any]:
    """The fields that name the data, by their ending where nobody said the format."""
    path = Path(source).expanduser()
    if path.is_dir():
        return {"path": source if hub.is_local(source) else f"./{source}"}
    form = format_of(source)
    if is_said and path.is_file():
        return {"path": form or "", "data_files": source}
    words = "a word a line with its tag is dataset.path=conll, fields with tabs between them are dataset.path=tsv"
    if form == "text":
        raise DataError(f"the lines of {source!r} have no label", where="DATA", fix=f"Say what is in them: {words}.")
    if form is not None:
        return {"path": form, "data_files": source}
    if path.is_file():
        what = f"{source!r} has no ending of a format"
        raise DataError(
            what, where="DATA", fix=f"Name it with one, such as .csv or .jsonl, or say the format: {words}."
        )
    return {"path": source}


def _opened(fields: dict[str, Any]) -> tuple[Any, str | None]:
    """The data, read; where something else than a comma parts the header of a csv file, by that."""
    dataset = {key: value for key, value in fields["dataset"].items() if key not in ("splits", *_SPELLING)}
    found, file = None, dataset.get("data_files")
    if (
        dataset["path"] in ("csv", "tsv")
        and "separator" not in dataset
        and isinstance(file, str)
        and Path(file).is_file()
    ):
        encoding = dataset.get("encoding", "utf-8")
        if found := other_separator(file, Layout(dataset["path"], encoding, quote=dataset.get("quote", '"'))):
            dataset["separator"] = fields["dataset"]["separator"] = found
    # What the columns of conll files without names are called.
    task = {"text": "x"} if dataset["path"] == "json" else {"text": "tokens", "label": "tags"}
    return open_source(load_recipe({"dataset": dataset, "task": task, "model": {"checkpoint": "x"}})), found


def _training_split(splits: Mapping[str, Any]) -> str:
    if "train" in splits or len(splits) == 1:
        return "train" if "train" in splits else next(iter(splits))
    raise DataError(
        "no split is called train",
        where="dataset.splits.train",
        allowed=", ".join(splits),
        fix=f"Say which: dataset.splits.train={next(iter(splits))}.",
    )


def _splits(
    given: Mapping[str, Any], train: str, splits: Mapping[str, Any], rows: datasets.Dataset, guess: Guess
) -> tuple[dict[str, Any], str]:
    """Which rows train and which measure, and why."""
    found: dict[str, Any] = {"train": train, **given}
    if "evaluation" in given or "hold_out" in given:
        return found, "as was said"
    there = [name for name in _EVALUATION if name in splits and name != train]
    if there:
        return {**found, "evaluation": there[0]}, f"the data have {', '.join(splits)}"
    if len(rows) < 4:
        raise DataError(f"{plural(len(rows), 'row')}: too few to train and to measure", where="DATA")
    share = 0.25 if len(rows) < 200 else 0.2 if len(rows) < 10_000 else 0.1
    found["hold_out"] = share
    if guess.is_stratified:
        found["stratify"] = True
    return found, f"no split to measure on, so {share:.0%} of the rows are set aside"


def _add_training(
    fields: dict[str, Any],
    reasons: dict[str, str],
    rows: datasets.Dataset,
    columns: Mapping[str, Profile],
    guess: Guess,
    notice: Callable[[str], None],
) -> None:
    """Fill in checkpoint, lengths, rate and metrics where they were not said."""
    texts = guess.fields["text"]
    names = [texts] if isinstance(texts, str) else list(texts)
    model, train = fields.setdefault("model", {}), fields.setdefault("train", {})
    if "checkpoint" not in model:
        model["checkpoint"], reasons["model.checkpoint"] = _checkpoint(rows, names, columns, notice)
    if "max_length" not in model:
        words = sum(columns[name].longest for name in names)
        model["max_length"] = next((size for size in (64, 128, 256) if size >= 1.6 * words + 8), None)
        reasons["model.max_length"] = f"95 % of the texts have up to {plural(words, 'word')}"
        if model["max_length"] is None:
            reasons["model.max_length"] += ": as many tokens as the checkpoint takes"
    if guess.fields["kind"] == "question-answering" and "stride" not in guess.fields:
        window = model["max_length"] if isinstance(model["max_length"], int) else 512
        guess.fields["stride"] = 16 if model["checkpoint"] == TINY else window // 4
        reasons["task.stride"] = "what windows of a long context share fits into a window"
    size = train.setdefault("batch_size", 16)
    if "epochs" not in train and "max_steps" not in train and isinstance(size, int) and size > 0:
        train["epochs"] = max(3, min(20, round(_UPDATES * size / len(rows))))
        if train["epochs"] > 3:
            reasons["train.epochs"] = f"more than 3, since {len(rows):,} rows make few updates"
    optimizer = fields.setdefault("optimizer", {})
    if optimizer.get("name", "adamw") == "adamw":
        rate = 3e-4 if model["checkpoint"] == TINY else 5e-5
        fields["optimizer"] = {"lr": rate, "weight_decay": 0.01, **optimizer}
    fields.setdefault("schedule", {"warmup": 0.1})
    evaluate = fields.setdefault("evaluate", {})
    if "metrics" not in evaluate and "best" not in evaluate:
        if guess.metrics:
            evaluate["metrics"] = guess.metrics
        evaluate["best"] = guess.best


def _checkpoint(
    rows: datasets.Dataset, texts: Sequence[str], columns: Mapping[str, Profile], notice: Callable[[str], None]
) -> tuple[str, str]:
    """A small checkpoint for the language of the texts, of the Hub or of its cache; without both the tiny one."""
    is_words = any(columns[name].kind == "texts" for name in texts)
    letters = [one for name in texts for text in rows[name][:500] for one in str(text) if one.isalpha()]
    is_english = sum(one.isascii() for one in letters) >= _ASCII * len(letters)
    listed = _OTHER if not is_english else _CASED if is_words else _ENGLISH
    what = "small, and good at English" if is_english else "small, and knows many languages"
    if not hub.detect_offline(notice):
        return listed[0], f"{what}; any Hub id or folder can stand here"
    for name in listed:
        folder = hub.snapshot(name, "model", None)
        if folder is not None and (folder / "config.json").is_file():
            return name, f"{what}; in the cache, since the Hub can't be reached"
    return TINY, "the Hub can't be reached: a tiny one to try the way, which knows no language"


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(str(key))}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        return re.sub(r"e-0(\d)$", r"e-\1", repr(value))
    if isinstance(value, str) and re.fullmatch(r"[\w./-]+( [\w./-]+)*", value) and parse_value(value) == value:
        return value
    return json_line(value)

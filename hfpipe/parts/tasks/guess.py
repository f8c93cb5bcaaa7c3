"""Which columns are learned from, which one is learned, and what kind of task that is: guessed, or refused where unsure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from hfpipe.errors import DataError
from hfpipe.parts.tasks.column_profiles import Profile, lengths_of_lists
from hfpipe.parts.tasks.label_lists import looks_like_list, separator_of
from hfpipe.recipe.catalog import near

# Names that columns have by habit, the most telling first.
_LABELS = (
    "label", "labels", "class", "category", "target", "y", "ner_tags", "pos_tags", "tags", "answers", "intent", "topic",
    "verdict", "gold", "gold_label", "outcome",
)  # fmt: skip
_TEXTS = (
    "text", "sentence", "review", "message", "comment", "content", "body", "tweet", "document", "utterance", "query",
    "description", "abstract", "post",
)  # fmt: skip
_PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "context"), ("question1", "question2"),
    ("question", "passage"), ("question", "sentence"), ("text1", "text2"), ("text_a", "text_b"), ("claim", "evidence"),
    ("query", "document"), ("sent1", "sent2"),
)  # fmt: skip
_WORDS = ("tokens", "words")
_NAMES_OF_TEXTS = {*_TEXTS, *_WORDS, *(name for pair in _PAIRS for name in pair)}
_CHOICES = ("choices", "options", "endings", "candidates")
# A column for each choice: numbered or lettered, from the first on.
_CHOICE = re.compile(
    r"(choice|option|opt?|ending|sol|solution|answer|ans|candidate|)[_ -]?([0-9]|[a-j])", re.IGNORECASE
)
_READ = ("context", "passage", "article", "story", "paragraph", "premise", "support", "text")
_ANSWERS = ("label", "answer", "answerkey", "answer_key", "correct", "correct_answer", "correct_option", "gold")
_OBJECTS = " Objects and lists of them are not looked into: write what they hold as columns of their own."
_WORD_A_LINE = (
    " A word a line with its tag is dataset.path=conll with 'dataset.data_files={train: FILE, validation: FILE}'."
)
_RUNS = ("0123456789", "123456789", "abcdefghij")
_IDS = ("id", "idx", "index", "uuid", "guid", "row", "unnamed: 0", "")
_SCALES = ("stars", "rating", "score", "grade", "similarity", "price", "value", "amount", "age", "year")
_MOST_CLASSES = 50  # whole numbers beyond that are a quantity


@dataclass(frozen=True)
class Guess:
    """The task of a recipe, and why.

    Attributes:
        fields: of `task`.
        best: the metric by which the best checkpoint is chosen.
        metrics: beside the kind's own, None for those.
        reasons: for each field of `task`, what was seen.
        is_stratified: whether held out rows can be shared out by class.
    """

    fields: dict[str, Any]
    best: str
    metrics: list[Any] | None
    reasons: Mapping[str, str]
    is_stratified: bool = False


def guess_task(rows: datasets.Dataset, profiles: Sequence[Profile], given: Mapping[str, Any]) -> Guess:
    """The task that rows are made for.

    Args:
        rows: of the training split.
        profiles: of its columns.
        given: the fields of `task` that a user has said; they are kept.

    Raises:
        DataError: no column, or several, could be the text or the label; nothing to learn; a label that can be read in
            two ways. What to pass is said.
    """
    columns = {one.name: one for one in profiles}
    labels = _named(columns, given.get("label"), "task.label")
    texts = _named(columns, given.get("text"), "task.text")
    choices = _named(columns, given.get("choices"), "task.choices") or _choices(columns, {*labels, *texts})
    labels = labels or _label(columns, {*texts, *choices}, _ANSWERS if choices else _LABELS)
    texts = texts or (choices and _asked(columns, {*labels, *choices})) or _text(columns, {*labels, *choices})
    if not given.get("label"):
        _require_header(columns[labels[0]], columns)
    fields: dict[str, Any] = {
        "kind": given.get("kind"),
        "text": texts[0] if len(texts) == 1 else texts,
        "label": given.get("label")
        if isinstance(given.get("label"), Mapping)
        else labels[0]
        if len(labels) == 1
        else labels,
    }
    found = _kind(rows, columns, texts, labels, choices, given)
    reasons = {
        "kind": "as was said" if given.get("kind") else found.reasons["kind"],
        "text": "as was said" if given.get("text") else _about(columns, texts),
        "label": "as was said" if given.get("label") else _about(columns, labels),
    }
    fields |= {key: value for key, value in found.fields.items() if given.get(key) is None}
    fields |= {key: value for key, value in given.items() if value is not None and key not in ("text", "label")}
    return Guess(fields, found.best, found.metrics, reasons, found.is_stratified)


def _named(columns: Mapping[str, Profile], given: Any, where: str) -> list[str]:
    """The columns that a user named, which are there."""
    if isinstance(given, Mapping):
        given = given.get("column")
    names = [] if given is None else [given] if isinstance(given, str) else [str(one) for one in given]
    for name in names:
        if name not in columns:
            raise DataError(f"no column {name!r}{near(name, columns)}", where=where, allowed=", ".join(columns))
    return names


def _about(columns: Mapping[str, Profile], names: Sequence[str]) -> str:
    """What the columns of a field hold; several by name."""
    return columns[names[0]].contents if len(names) == 1 else ", ".join(columns[name].described() for name in names)


def _is_id(one: Profile) -> bool:
    name = one.name.lower()
    return name in _IDS or (name.endswith(("_id", "-id")) and one.kind in ("whole", "text") and not one.is_prose)


def _choices(columns: Mapping[str, Profile], taken: set[str]) -> list[str]:
    free = [one for one in columns.values() if one.name not in taken]
    for name in _CHOICES:
        if found := [one.name for one in free if one.name.lower() == name and one.kind in ("texts", "choices")]:
            return found
    series: dict[str, dict[str, str]] = {}
    for one in free:
        match = _CHOICE.fullmatch(one.name)
        if match and one.kind in ("text", "whole", "number") and not {str(value) for value in one.values} <= {"0", "1"}:
            series.setdefault(match[1].lower(), {})[match[2].lower()] = one.name
    for marks in series.values():
        if len(marks) > 1 and "".join(sorted(marks)).startswith(tuple(run[: len(marks)] for run in _RUNS)):
            return [marks[mark] for mark in sorted(marks)]
    return []


def _asked(columns: Mapping[str, Profile], taken: set[str]) -> list[str]:
    """What is read first, and the question that the choices follow; nothing where there are not both."""
    by_name = {one.name.lower(): one.name for one in columns.values() if one.name not in taken and one.kind == "text"}
    read = [by_name[name] for name in _READ if name in by_name]
    return [read[0], by_name["question"]] if read and "question" in by_name else []


def _require_header(label: Profile, columns: Mapping[str, Profile]) -> None:
    """Refuse a label column that is called like one of its values: that name is the label of a row."""
    values = [str(one) for one in label.values]
    if label.name not in values:
        return
    is_conll = any(str(value).startswith(("B-", "I-")) for one in columns.values() for value in one.values)
    raise DataError(
        f"column {label.name!r} is called like one of its values, so that the first line seems to be a row",
        where="DATA",
        fix=("A file with a word a line is read with dataset.path=conll. " if is_conll else "")
        + f"Write a line with the names of the columns first; or say --label {shlex.quote(label.name)}, where that is its name.",
    )


def _label(columns: Mapping[str, Profile], taken: set[str], habits: Sequence[str]) -> list[str]:
    free = [one for one in columns.values() if one.name not in taken and one.kind not in ("empty", "other")]
    by_name = {one.name.lower(): one.name for one in free}
    for name in habits:
        if name in by_name and (name not in ("tags", "ner_tags", "pos_tags") or columns[by_name[name]].kind != "text"):
            return [by_name[name]]
    declared = [one.name for one in free if one.is_declared]
    if len(declared) == 1:
        return declared
    likely = [
        one.name for one in free
        if not _is_id(one) and (one.is_classes or one.kind in ("number", "flags", "answers", "flag", "fields"))
    ]  # fmt: skip
    likely = [name for name in likely if name.lower() not in _NAMES_OF_TEXTS] or likely
    if len(likely) == 1:
        return likely
    what = "no column looks like a label" if not likely else f"several columns may be the label: {', '.join(likely)}"
    flags = [name for name in likely if columns[name].kind in ("flag", "whole") and columns[name].distinct == 2]
    several = f", or several columns of 0 and 1: --label {','.join(flags)}" if len(flags) > 1 else ""
    fix = f"Say which: --label {shlex.quote((likely or ['COLUMN'])[0])}{several}."
    for name in likely:
        _require_header(columns[name], columns)
    for one in columns.values():
        if one.has_decimal_comma and not likely:
            fix += f" {_with_comma(one)}"
    if any(one.kind == "other" for one in columns.values()):
        fix += _OBJECTS
    raise DataError(what, where="task.label", allowed=_all(columns), fix=fix)


def _with_comma(one: Profile) -> str:
    thousands = " dataset.thousands=." if any("." in str(value) for value in one.values) else ""
    return f"For numbers with a decimal comma in {one.name} pass `dataset.decimal=,{thousands}`."


def _text(columns: Mapping[str, Profile], taken: set[str]) -> list[str]:
    free = [one for one in columns.values() if one.name not in taken and one.kind in ("text", "texts")]
    by_name = {one.name.lower(): one.name for one in free}
    for pair in _PAIRS:
        if all(name in by_name for name in pair):
            return [by_name[name] for name in pair]
    for name in (*_WORDS, *_TEXTS):
        if name in by_name and (name not in _WORDS or columns[by_name[name]].kind == "texts"):
            return [by_name[name]]
    prose = [one.name for one in free if one.is_prose and not _is_id(one)]
    if len(prose) != 1 and len(free) == 1:
        prose = [free[0].name]
    if len(prose) == 1:
        return prose
    what = f"several columns may be the text: {', '.join(prose)}" if prose else "no column looks like the text"
    shown = prose or ["COLUMN"]
    both = f", or both as a pair: --text {prose[0]},{prose[1]}" if len(prose) > 1 else ""
    objects = _OBJECTS if any(one.kind == "other" for one in columns.values()) else ""
    if len(columns) == 1:  # lines of text, which a folder may have
        what, objects = f"nothing to learn beside {next(iter(columns))}", _WORD_A_LINE
    fix = f"Say which: --text {shlex.quote(shown[0])}{both}.{objects}"
    raise DataError(what, where="task.text", allowed=_all(columns), fix=fix)


def _all(columns: Mapping[str, Profile]) -> str:
    return ", ".join(one.described() for one in columns.values())


def _kind(
    rows: datasets.Dataset,
    columns: Mapping[str, Profile],
    texts: Sequence[str],
    labels: Sequence[str],
    choices: Sequence[str],
    given: Mapping[str, Any],
) -> Guess:
    """The kind of task by the columns, unless it was said; with it what only that kind needs."""
    label, kind = columns[labels[0]], given.get("kind")
    if kind == "text-regression" or (kind is None and len(labels) == 1 and label.kind == "number"):
        return Guess(
            {"kind": "text-regression"}, "mse", ["mse", "mae", "pearson"], {"kind": f"{label.name} holds numbers"}
        )
    if kind == "multiple-choice" or (kind is None and choices):
        if not choices:
            fix = "Say which: task.choices=COLUMN for lists, or task.choices=[A, B, C] for a column each."
            raise DataError("no column looks like the choices", where="task.choices", allowed=_all(columns), fix=fix)
        fields = {"kind": "multiple-choice", "choices": choices[0] if len(choices) == 1 else list(choices)}
        return Guess(fields, "accuracy", None, {"kind": f"{', '.join(choices)} hold the choices"})
    if kind == "question-answering" or (kind is None and label.kind == "answers"):
        return Guess(
            {"kind": "question-answering"}, "f1", None, {"kind": f"{label.name} holds answers and their places"}
        )
    if kind is None and columns[texts[0]].kind == "texts":
        return _of_tokens(rows, columns, texts[0], label)
    if kind == "token-classification":
        return Guess({"kind": kind}, "f1", None, {"kind": ""})
    if kind == "multi-label-classification" or (
        kind is None
        and (len(labels) > 1 or label.kind in ("texts", "numbers", "flags", "fields") or _is_written_list(label))
    ):
        what = "0 and 1 for each class" if label.kind == "fields" else "lists"
        why = f"{label.name} holds {what}" if len(labels) == 1 else f"{len(labels)} label columns"
        return Guess({"kind": "multi-label-classification"}, "f1_macro", None, {"kind": why})
    return _of_classes(label, kind)


def _of_tokens(rows: datasets.Dataset, columns: Mapping[str, Profile], text: str, label: Profile) -> Guess:
    if label.kind not in ("texts", "numbers", "flags") or lengths_of_lists(rows, text) != lengths_of_lists(
        rows, label.name
    ):
        raise DataError(
            f"{text} holds lists of words, and {label.name} has not one label for each word",
            where="task.label",
            allowed=_all(columns),
            fix="Say which column has: --label COLUMN.",
        )
    names = [str(one) for one in label.values]
    marks = label.kind != "texts" or any(name.startswith(("B-", "I-")) for name in names)
    fields = {"kind": "token-classification"} | ({} if marks else {"scheme": "none"})
    why = f"{text} holds lists of words, {label.name} one label for each"
    return Guess(fields, "f1" if marks else "accuracy", None, {"kind": why if marks else f"{why}; none begins with B-"})


def _is_written_list(label: Profile) -> bool:
    """Whether texts are lists as JSON or Python writes them: `["a", "b"]`, `[1, 0]`."""
    filled = [str(one) for one in label.values if str(one).strip()]
    return label.kind == "text" and bool(filled) and all(map(looks_like_list, filled))


def _require_single(label: Profile) -> None:
    """Refuse texts that may name several classes: the same names come again, alone or with others."""
    if label.has_decimal_comma:
        raise DataError(
            f"{label.name} may hold classes or numbers, such as {label.values[0]!r}",
            where="task.kind",
            fix=f"{_with_comma(label)} For classes: --kind text-classification.",
        )
    separator = separator_of([str(one) for one in label.values])
    if separator is None:
        return
    several = shlex.quote(f'task.label={{column: {json.dumps(label.name)}, separator: "{separator}"}}')
    shown = next(str(one) for one in label.values if separator in str(one))
    raise DataError(
        f"{label.name} may hold several classes a row, such as {shown!r}",
        where="task.kind",
        fix=f"Say which: --kind multi-label-classification {several}; or --kind text-classification where each is one class.",
    )


def _of_classes(label: Profile, kind: str | None) -> Guess:
    """One class a row, or a number: whole numbers may be either, and are asked for."""
    if label.distinct < 2:
        raise DataError(f"{label.name} has one value, {label.values[0]!r}: nothing to learn", where="task.label")
    is_whole = label.kind == "whole" and not label.is_declared
    numbers = sorted(int(float(one)) for one in label.values) if is_whole else []
    if kind is None and is_whole:
        if label.distinct > _MOST_CLASSES:
            why = f"{label.name} holds {label.distinct:,} different whole numbers"
            return Guess({"kind": "text-regression"}, "mse", ["mse", "mae", "pearson"], {"kind": why})
        is_counted = numbers == list(range(label.distinct))
        if (not is_counted and label.distinct > 2) or (label.name.lower() in _SCALES and label.distinct > 2):
            raise DataError(
                f"{label.name} holds {label.distinct} whole numbers from {numbers[0]} to {numbers[-1]}: classes or a quantity",
                where="task.kind",
                fix="Say which: --kind text-classification for classes, --kind text-regression for a number.",
            )
    if kind is None and label.kind == "text":
        _require_single(label)
    if kind is None and label.kind == "text" and not label.is_classes:
        raise DataError(
            f"{label.name} holds {label.distinct:,} different texts in {label.rows:,} rows: no classes",
            where="task.label",
            fix="Say which column has the label: --label COLUMN; or that these are classes: --kind text-classification.",
        )
    fields: dict[str, Any] = {"kind": "text-classification"}
    is_plain = numbers == list(range(label.distinct)) and not label.is_float
    if (is_whole and not label.is_written and not is_plain) or label.kind == "flag":
        values = ["false", "true"] if label.kind == "flag" else [str(one) for one in numbers]
        fields["label"] = {"column": label.name, "names": {one: one for one in values}}
    reasons = {"kind": f"{label.name} has {label.distinct:,} classes"}
    return Guess(fields, "f1_macro", ["accuracy", {"name": "f1", "average": "macro"}], reasons, is_stratified=True)

"""What a comparison trains: every combination of the varied fields, all of them checked before the first is trained."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe import Recipe, parse_value, with_overrides

_FIXED = {
    "seed": "all variants train from the one seed",
    "name": "a name changes nothing; runs are called after what is varied",
}


@dataclass(frozen=True)
class Variant:
    """One cell of the grid."""

    name: str
    """Id of its run: the varied values, joined."""
    recipe: Recipe


def parse_vary(options: Sequence[str]) -> dict[str, list[Any]]:
    """Read `KEY=A,B,...` options; commas inside brackets or quotes belong to a value.

    Raises:
        RecipeError: every option that is not of that form.
    """
    varied: dict[str, list[Any]] = {}
    problems = []
    for option in options:
        key, equals, text = option.partition("=")
        key = key.strip()
        try:
            if not equals or not key:
                raise RecipeError("not of the form KEY=A,B", allowed="such as loss.reduction=mean,sum")
            if key in varied:
                raise RecipeError(f"{key} is varied twice", fix=f"Say it once: --vary {key}=A,B,C.")
            varied[key] = [parse_value(piece) for piece in split_values(text)]
        except RecipeError as error:
            problems.append(f"--vary {option!r}: {error}")
    _refuse(problems)
    return varied


def split_values(text: str) -> list[str]:
    """Cut at the commas that stand outside brackets and quotes: `[0.9, 0.99],x` gives two pieces.

    Raises:
        RecipeError: a piece is empty, or a bracket or quote is left open.
    """
    pieces, start, open_brackets, quote = [], 0, "", ""
    for index, character in enumerate(text):
        before = text[:index].rstrip()[-1:]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and before in ("", ",", "[", "{", ":"):
            quote = character  # elsewhere it is an apostrophe
        elif character in "[{":
            open_brackets += character
        elif character in "]}":
            open_brackets = open_brackets[:-1]
        elif character == "," and not open_brackets:
            pieces.append(text[start:index].strip())
            start = index + 1
    pieces.append(text[start:].strip())
    if quote or open_brackets:
        raise RecipeError(f"{(quote or open_brackets[-1])!r} is never closed")
    if not all(pieces):
        raise RecipeError("an empty value", fix="Write null or '' if that is meant.")
    return pieces


def grid(recipe: Recipe, vary: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """Every combination of the varied values, the last key varying fastest.

    Args:
        recipe: what is the same in all.
        vary: dotted path to its values.

    Raises:
        RecipeError: every mistake in any variant, or fewer than two variants.
    """
    _refuse(_misuses(vary))
    cells, problems = [], []
    for values in itertools.product(*vary.values()):
        chosen = dict(zip(vary, values, strict=True))
        try:
            changed = with_overrides(recipe, [f"{key}={_as_text(value)}" for key, value in chosen.items()])
            cells.append((_name(chosen), changed))
        except RecipeError as error:
            problems += str(error).splitlines()
    _refuse(problems)
    if len(cells) < 2:
        raise RecipeError(
            "a comparison needs two variants",
            where="--vary",
            fix="Give a field two values: --vary engine=trainer,loop.",
        )
    names = [name for name, _ in cells]
    if len(set(names)) < len(names) or max(map(len, names)) > 64:
        names = [f"{number:02d}-{name[:60]}".rstrip("-") for number, name in enumerate(names, start=1)]
    return [Variant(name, changed) for name, (_, changed) in zip(names, cells, strict=True)]


def _misuses(vary: Mapping[str, Sequence[Any]]) -> list[str]:
    problems = []
    for key, values in vary.items():
        if key in _FIXED:
            problems.append(f"--vary {key}: {_FIXED[key]}")
        if isinstance(values, str) or not isinstance(values, Sequence):
            problems.append(f"--vary {key}: {values!r} is no list of values")
            continue
        try:
            texts = [_as_text(value) for value in values]
        except TypeError:
            problems.append(
                f"--vary {key}: {list(values)!r}; allowed: what YAML can say; other parts are passed to hfpipe.finetune"
            )
            continue
        problems += [f"--vary {key}: {text} is given twice" for text in dict.fromkeys(texts) if texts.count(text) > 1]
        problems += [
            f"--vary {key}: {other} is varied too, and lies inside it" for other in vary if other.startswith(f"{key}.")
        ]
    return problems


def _as_text(value: Any) -> str:
    """A value as an override writes it: plain where that reads back the same, else in quotes or brackets.

    Raises:
        TypeError: YAML has no word for it.
    """
    if isinstance(value, str):
        try:
            if parse_value(value) == value:
                return value
        except RecipeError:
            pass
    return json.dumps(value)


def _name(chosen: Mapping[str, Any]) -> str:
    """The values joined, as a run id: those of text as they are, others after the last word of their key."""
    pieces = [
        value if isinstance(value, str) else f"{key.rpartition('.')[2]}-{json.dumps(value)}"
        for key, value in chosen.items()
    ]
    cleaned = [re.sub(r"[^a-z0-9._]+", "-", piece.lower()).strip("-._") for piece in pieces]
    return "-".join(piece for piece in cleaned if piece) or "variant"


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(problems)))

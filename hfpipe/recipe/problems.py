"""What pydantic finds wrong with a recipe, as sentences: one a mistake, with its path and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from hfpipe.recipe.catalog import close_names, near
from hfpipe.recipe.hints import hint_for, main_field, meant_fields, section_of
from hfpipe.recipe.kinds import KINDS, kind_in
from hfpipe.recipe.schema import Recipe, Task
from hfpipe.recipe.trainer_options import OLD_NAMES

Path = tuple[str, ...]
Problem = tuple[Path, str]
Located = list[tuple[Path, ErrorDetails]]
"""Errors, each with what is left of its location."""

# Types by pydantic's codes for "it is none", as a recipe has them; its other texts say what users say.
_WANTED = {"string_type": "text", "tuple_type": "a list", "list_type": "a list", "dict_type": "a mapping",
           "model_type": "a mapping"}  # fmt: skip
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping",
          list: "a list", tuple: "a list"}  # fmt: skip


def schema_problems(errors: Sequence[ErrorDetails], fields: Mapping[str, Any], written: set[Path]) -> Iterator[Problem]:
    """Every mistake once: where a field takes one of several types, what is wrong with the type that was meant.

    Args:
        errors: of pydantic.
        fields: of the recipe, as they were written.
        written: the paths that were set by overrides, which hints are written as.

    Yields:
        The path, and what is wrong there.
    """
    located = [(tuple(map(str, detail["loc"])), detail) for detail in errors]
    for path, detail, section in _told(Recipe, (), located, fields, None):
        yield path, detail if isinstance(detail, str) else _sentence(path, detail, section, fields, path in written)


def _told(
    annotation: Any, path: Path, errors: Located, value: Any, section: type[BaseModel] | None
) -> Iterator[tuple[Path, ErrorDetails | str, type[BaseModel] | None]]:
    """The errors at a place and below it: the path of each, itself or a sentence, and the section its field would be in."""
    alternatives = _alternatives(annotation)
    if len(alternatives) > 1 and all(location for location, _ in errors):
        tags = list(dict.fromkeys(location[0] for location, _ in errors))
        for tag, one in zip(tags, alternatives, strict=False):
            if _takes(one, value) and get_origin(one) is not Literal and len(tags) == len(alternatives):
                inner = [(location[1:], detail) for location, detail in errors if location[0] == tag]
                yield from _told(one, path, inner, value, section)
                return
        yield path, _one_of(alternatives, value), section
        return
    model = section_of(alternatives[0]) if alternatives else None
    groups: dict[str, Located] = {}
    for location, detail in errors:
        if location in ((), ("[key]",)):  # what is wrong with the key of a mapping is told at its place
            yield path, detail, section
        else:
            groups.setdefault(location[0], []).append((location[1:], detail))
    for piece, inner in groups.items():
        field = model.model_fields.get(piece) if model else None
        below = field.annotation if field else None if model else _inside(alternatives)
        yield from _told(below, (*path, piece), inner, _part(value, piece), model)


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a value may have, null left out."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [one for part in get_args(annotation) if part is not type(None) for one in _alternatives(part)]
    return [] if annotation is None else [annotation]


def _inside(alternatives: list[Any]) -> Any:
    """The type of what a list or a mapping holds, None where nothing says it."""
    inner = [one for one in get_args(alternatives[0]) if one is not Ellipsis] if alternatives else []
    return inner[-1] if inner and not isinstance(inner[-1], str) else None


def _part(value: Any, piece: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(piece)
    if isinstance(value, list | tuple) and piece.isdigit() and int(piece) < len(value):
        return value[int(piece)]
    return value  # one text in place of a list of one


def _takes(annotation: Any, value: Any) -> bool:
    """Whether a value is of the shape of a type, whatever is in it."""
    kind = get_origin(annotation) or annotation
    if kind is Literal:
        return isinstance(value, str)
    if isinstance(kind, type) and issubclass(kind, BaseModel | dict):
        return isinstance(value, Mapping)
    if kind in (list, tuple):
        return isinstance(value, list | tuple)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(kind, type) and type(value) is kind


def _one_of(alternatives: list[Any], value: Any) -> str:
    """That a value is none of several, and which one was probably meant."""
    words: list[str] = []
    for one in alternatives:
        kind = get_origin(one) or one
        if kind is Literal:
            words += [repr(option) for option in get_args(one)]
        else:
            words.append("a mapping" if isinstance(kind, type) and issubclass(kind, BaseModel) else _WORDS[kind])
    if "a number" in words:
        words = [one for one in words if one != "a whole number"]
    *others, last = dict.fromkeys(words)
    listed = f"{', '.join(others)} or {last}" if others else last
    options = [str(option) for one in alternatives if get_origin(one) is Literal for option in get_args(one)]
    return f"input should be {listed}, got {value!r}{near(value, options) if isinstance(value, str) else ''}"


def _sentence(
    path: Path, detail: ErrorDetails, section: type[BaseModel] | None, fields: Mapping[str, Any], is_override: bool
) -> str:
    """What is wrong, what was got, what is allowed, what was probably meant."""
    kind, got = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        value = (str(got).lower() if isinstance(got, bool) else str(got)) if is_override else None
        if isinstance(got, Mapping):  # a section, for which no single field stands
            return f"unknown field{near(path[-1], _fields_of(section, fields)) or _all_of(section, fields)}"
        return f"unknown field{_meant_field(path, section, fields, value)}"
    if kind == "missing":
        return "missing"
    if kind == "idle":
        return detail["msg"]
    if kind in _WANTED:
        return f"input should be {_WANTED[kind]}, got {got!r}{_meant_value('.'.join(path), got, is_override)}"
    if kind == "string_pattern_mismatch":
        return (
            f"up to 64 lower-case letters, digits, `.`, `_` and `-`, of which a letter or digit is first; got {got!r}"
        )
    own = detail["msg"].removeprefix("Value error, ")  # pydantic's title before a text of the schema's own
    what = own if own != detail["msg"] else own[0].lower() + own[1:]
    if kind == "literal_error" and isinstance(got, str):
        hint = near(got, KINDS if path == ("task", "kind") else re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
        return f"{what}, got {got!r}{hint}"
    return f"{what}, got {got!r}"


def _meant_field(path: Path, section: type[BaseModel] | None, fields: Mapping[str, Any], value: str | None) -> str:
    """What was meant by a field that is none: a name of other tools, a field nearby, one elsewhere; else all there are."""
    key = path[-1]
    if key in OLD_NAMES and (value is None or not meant_fields(key)):
        return f"; in hfpipe: {OLD_NAMES[key]}"
    allowed = _fields_of(section, fields)
    elsewhere = meant_fields(key)
    is_here = any(field.rpartition(".")[0] == ".".join(path[:-1]) for field in elsewhere)
    nearby = near(key, allowed) if is_here or not elsewhere else ""
    return nearby or hint_for(key, value) or _all_of(section, fields)


def _fields_of(section: type[BaseModel] | None, fields: Mapping[str, Any]) -> list[str]:
    allowed = list(section.model_fields) if section else []
    return allowed + [one for one in kind_in(fields).fields if section is Task and one not in allowed]


def _all_of(section: type[BaseModel] | None, fields: Mapping[str, Any]) -> str:
    return f"; allowed: {', '.join(_fields_of(section, fields)) or 'none here'}"


def _meant_value(path: str, got: Any, is_override: bool) -> str:
    """The field that a single value in place of a section is for: `task=ner` means `task.kind=token-classification`."""
    field = main_field(path)
    if field is None or not isinstance(got, str | int | float) or isinstance(got, bool):
        return ""
    close = close_names(str(got), KINDS) if field == "task.kind" else []
    value = close[0] if close else got
    return f"; write {field}={value}" if is_override else f"; did you mean {field}: {value}?"

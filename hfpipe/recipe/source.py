"""Recipes as text: YAML 1.2 with positions, `extends`, overrides, and every mistake reported at its place."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from hfpipe.errors import RecipeError, RefusedError
from hfpipe.recipe import paths, shipped
from hfpipe.recipe.hints import hint_for
from hfpipe.recipe.named_parts import named_part_problems
from hfpipe.recipe.problems import schema_problems
from hfpipe.recipe.schema import Recipe

Positions = dict[tuple[str, ...], str]
Overrides = Sequence[str] | Mapping[str, Any]
"""Changes of a recipe: `dotted.path=value` each, or a mapping from paths to values."""

_LONGEST_FILE = 100_000  # bytes; a recipe is a page, so more is a mistake or an attack
_MOST_BRACKETS = 1_000  # the parser takes time that grows with the square of their depth
_MOST_NODES = 20_000  # values after aliases are followed, which stops an alias bomb
_MOST_EXTENDS = 8
# What a separator or a decimal may be, and is of itself no YAML: `dataset.decimal=,`, `dataset.separator=\t`.
_SIGNS = {",": ",", "|": "|", "'": "'", '"': '"', "\\t": "\t"}
_OVERRIDE = "override "  # where a value stands that was set by one


class _Constructor(RoundTripConstructor):
    """Builds plain values only: a date is text, as the core schema of YAML 1.2 has it."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda self, node: node.value)


def load_recipe(
    source: Recipe | str | Path | Mapping[str, Any], overrides: Overrides = (), *, folder: Path | None = None
) -> Recipe:
    """Read a recipe, apply overrides, and check all of it; local paths become absolute.

    Args:
        source: a YAML file, the name of a shipped recipe (`mrpc`), the fields themselves, or a recipe.
        overrides: `dotted.path=value` each, the value a YAML 1.2 scalar or flow value; or a mapping from paths to values.
            Relative paths in them start from the working directory.
        folder: what the other relative paths start from: by default the folder of the file that says them, of fields the
            working directory.

    Raises:
        RecipeError: every mistake at once, each as file:line:column: path: what.
        RefusedError: a YAML tag that would build an object.
    """
    overrides = as_overrides(overrides)
    positions: Positions = {}
    if isinstance(source, Recipe):
        return with_overrides(source, overrides)
    if not isinstance(source, str | os.PathLike | Mapping):
        raise RecipeError(
            f"got {type(source).__name__} {source!r}"[:100],
            where="load_recipe()",
            allowed="a YAML file, the name of a shipped recipe, a mapping of fields, or a Recipe",
        )
    if isinstance(source, Mapping):
        plain, name = _plain(source, (), "the recipe", positions, [0]), "the recipe"
        fields = paths.absolute(plain, folder or Path.cwd())
    else:
        path = shipped.find(source)
        fields, name = _read(path, positions, 0, folder), str(path)
    problems = _override(fields, overrides, positions)
    return _validate(fields, positions, name, problems)


def as_overrides(overrides: Overrides | None) -> list[str]:
    """Changes of a recipe as a list of `dotted.path=value`, whichever way they are given.

    Args:
        overrides: that list; or a mapping from paths to values, in which the fields of a section may be a mapping themselves.

    Raises:
        RecipeError: neither, or a value that no recipe can have.
    """
    if isinstance(overrides, Mapping):
        fields: dict[str, Any] = {}
        for key, value in overrides.items():
            is_section = isinstance(value, Mapping) and key in Recipe.model_fields
            fields |= {f"{key}.{name}": one for name, one in value.items()} if is_section else {key: value}
        return [f"{key}={_flow(str(key), value)}" for key, value in fields.items()]
    allowed = "a list, such as ['train.epochs=1'], or a mapping, such as {'train.epochs': 1}"
    if isinstance(overrides, str):  # whose letters would else be taken for overrides
        raise RecipeError(f"got the text {overrides!r}", where="overrides", allowed=allowed)
    if overrides is None:
        return []
    if not isinstance(overrides, Sequence) or not all(isinstance(one, str) for one in overrides):
        raise RecipeError(f"got {overrides!r}"[:100], where="overrides", allowed=allowed)
    return list(overrides)


def _flow(key: str, value: Any) -> str:
    """A value as YAML 1.2 reads it; JSON is that too."""

    def plain(value: Any) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if callable(getattr(value, "item", None)):  # a number of numpy
            return value.item()
        raise TypeError

    try:
        return json.dumps(value, ensure_ascii=False, default=plain)
    except (TypeError, ValueError):
        raise RecipeError(
            f"{key} is {value!r}"[:100],
            where="overrides",
            allowed="text, a number, true, false, null, a list or a mapping",
            fix="An object is passed as an argument of its own: loss=..., model=..., dataset=..., metrics=...",
        ) from None


def with_overrides(recipe: Recipe, overrides: Sequence[str], origin: str = "") -> Recipe:
    """The same recipe with some fields changed, checked anew. Errors as in :func:`load_recipe`.

    Args:
        recipe: to change.
        overrides: `dotted.path=value` each.
        origin: what the changes come from, where nobody wrote them as overrides; errors name it as their place.
    """
    fields, positions = recipe.model_dump(mode="json", exclude_unset=True), dict(recipe._positions)
    problems = _override(fields, overrides, positions, origin)
    return _validate(fields, positions, "the recipe", problems)


def apply_overrides(fields: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set `dotted.path=value` each in the plain fields of a recipe that is still to be made.

    Raises:
        RecipeError: every override that is none.
    """
    if problems := _override(fields, overrides, {}):
        raise RecipeError("\n".join(problems))


def to_yaml(recipe: Recipe, *, defaults: bool = True) -> str:
    """The recipe as YAML, which :func:`load_recipe` reads back to an equal recipe.

    Args:
        recipe: to write.
        defaults: write every field; else only those that somebody gave, in a file or as an override.
    """
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 120
    text = io.StringIO()
    yaml.dump(recipe.model_dump(mode="json", exclude_unset=not defaults), text)
    return text.getvalue()


def parse_value(text: str) -> Any:
    """Read one YAML 1.2 scalar or flow value, as on the right of KEY=VALUE.

    Raises:
        RecipeError: not YAML.
    """
    return _plain(_parse(text, "value"), (), "value", {}, [0])


def _parse(text: str, name: str) -> Any:
    if text.count("[") + text.count("{") > _MOST_BRACKETS:
        raise RecipeError(f"more than {_MOST_BRACKETS:,} brackets", where=name, allowed="a page of plain values")
    yaml = YAML(typ="rt", pure=True)
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        what = " ".join(str(error.problem or error.context or error).split())
        raise RecipeError(
            f"not YAML 1.2: {what}", where=where, fix="Mend the line, and look at the one above it."
        ) from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"not YAML 1.2: {' '.join(str(error).split())}", where=name) from None


def _read(path: Path, positions: Positions, depth: int, folder: Path | None) -> dict[str, Any]:
    """The plain fields of a file, with those of the files it extends beneath them; each has its own relative paths."""
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_FILE + 1)  # a pipe or a device doesn't say its size
        if len(content) > _LONGEST_FILE:
            raise RecipeError("too long", where=str(path), allowed=f"recipes up to {_LONGEST_FILE:,} bytes")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"not UTF-8 at byte {error.start}", where=str(path), fix="Save the file as UTF-8.") from None
    except IsADirectoryError:
        raise RecipeError("a folder, not a recipe", where=str(path), fix="Name the YAML file in it.") from None
    except OSError as error:
        raise RecipeError(f"can't be read: {error.strerror}", where=str(path)) from None
    tree = _parse(text, str(path))
    if not isinstance(tree, Mapping):
        got = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise RecipeError(
            f"holds {got}", where=str(path), allowed="a mapping of sections; `hfpipe recipes show quickstart`"
        )
    own: Positions = {}
    fields = paths.absolute(_plain(tree, (), str(path), own, [0]), folder or path.absolute().parent)
    parent = fields.pop("extends", None)
    if parent is None:
        positions.update(own)
        return fields
    if not isinstance(parent, str):
        raise RecipeError(f"extends: {parent!r}", where=own[("extends",)], allowed="the name of one other recipe")
    if depth == _MOST_EXTENDS:
        raise RecipeError(
            f"extends: more than {_MOST_EXTENDS} recipes deep",
            where=own[("extends",)],
            fix="Look for a circle of `extends`.",
        )
    beside = path.parent / parent
    inherited = _read(
        beside if beside.is_file() else shipped.find(parent, own[("extends",)]), positions, depth + 1, folder
    )
    positions.update(own)
    return _merge(inherited, fields)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings are joined key by key; everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _plain(node: Any, path: tuple[str, ...], file: str, positions: Positions, seen: list[int]) -> Any:
    """The parsed tree as plain Python values; the place of every key goes into `positions`."""
    seen[0] += 1
    if seen[0] > _MOST_NODES or len(path) > 50:
        raise RecipeError(
            f"more than {_MOST_NODES:,} values, or nested too deeply",
            where=file,
            fix="Look for aliases (*name) inside aliases.",
        )
    tag = getattr(getattr(node, "tag", None), "value", None)
    if isinstance(node, TaggedScalar) and tag == "tag:yaml.org,2002:str":
        return str(node.value)
    if isinstance(node, TaggedScalar) or (tag and not str(tag).startswith("tag:yaml.org,2002:")):
        place = positions.get(path, file)
        raise RefusedError(f"the YAML tag {tag} would build an object", where=place, fix="Write the plain value.")
    if tag and "python" in str(tag):
        place = positions.get(path, file)
        raise RefusedError(f"the YAML tag {tag} would build an object", where=place, fix="Write the plain value.")
    if isinstance(node, Mapping):
        result = {}
        for key, value in node.items():
            if not isinstance(key, str):
                place = positions.get(path, file)
                if isinstance(node, CommentedMap) and key in (node.lc.data or {}):
                    line, column = node.lc.key(key)
                    place = f"{file}:{line + 1}:{column + 1}"
                raise RecipeError(f"the key {key!r} is not text", where=place, fix="Put it in quotes.")
            here = (*path, str(key))
            if isinstance(node, CommentedMap) and key in (node.lc.data or {}):
                line, column = node.lc.key(key)
                positions[here] = f"{file}:{line + 1}:{column + 1}"
            result[str(key)] = _plain(value, here, file, positions, seen)
        return result
    if isinstance(node, (list, tuple, CommentedSeq)):
        items = []
        for index, value in enumerate(node):
            here = (*path, str(index))
            if isinstance(node, CommentedSeq) and index in (node.lc.data or {}):
                line, column = node.lc.item(index)
                positions[here] = f"{file}:{line + 1}:{column + 1}"
            items.append(_plain(value, here, file, positions, seen))
        return items
    if type(node).__name__ == "ScalarBoolean":
        return bool(node)
    for plain in (bool, int, float, str):  # ruamel's scalars remember their style; a recipe needs only the value
        if isinstance(node, plain):
            return node if isinstance(node, bool) else plain(node)
    if node is None:
        return None
    raise RecipeError(
        f"{'.'.join(path) or 'the value'} is of type {type(node).__name__.removeprefix('Commented').lower()}",
        where=positions.get(path, file),
        allowed="text, a number, true, false, null, a list or a mapping",
    )


def _override(fields: dict[str, Any], overrides: Sequence[str], positions: Positions, origin: str = "") -> list[str]:
    """Set each `dotted.path=value` in place, and return what is wrong with the overrides themselves."""
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        label = origin or f"{_OVERRIDE}{override!r}"
        path = tuple(key.strip().split("."))
        if not equals or not all(re.fullmatch(r"[\w-]+", piece) for piece in path):
            problems.append(f"{label}: an override is KEY=VALUE, such as train.epochs=1{_meant_override(override)}")
            continue
        try:
            value = _SIGNS[text] if text in _SIGNS else _plain(_parse(text, label), (), label, {}, [0])
        except RecipeError as error:
            problems.append(str(error))
            continue
        section: Any = fields
        for depth, piece in enumerate(path[:-1]):
            if section.get(piece) is None:
                section[piece] = {}
                positions[path[: depth + 1]] = label
            if not isinstance(section[piece], dict):
                problems.append(
                    f"{label}: {'.'.join(path[: depth + 1])} is a single value and has no {path[depth + 1]!r}"
                )
                break
            section = section[piece]
        else:
            section[path[-1]] = _from_here(path, value)
            for place in [p for p in positions if p[: len(path)] == path]:
                del positions[place]
            positions[path] = label
    return problems


def _meant_override(text: str) -> str:
    """What was probably meant by an override without `=`, or with something else than a path before it."""
    key, _, value = re.sub(r"^-+", "", text).replace("=", ":", 1).partition(":")
    if Path(text).suffix in (".yaml", ".yml") or os.path.isfile(text):
        return f"; {text!r} is a file, and RECIPE comes first and alone"
    return hint_for(key.strip(), value.strip() or "VALUE") if re.search(r"[A-Za-z]", key) else ""


def _from_here(path: Sequence[str], value: Any) -> Any:
    """The value of an override, whose relative paths start from the working directory."""
    whole: Any = value
    for piece in reversed(path):
        whole = {piece: whole}
    whole = paths.absolute(whole, Path.cwd())
    for piece in path:
        whole = whole[piece]
    return whole


def _validate(fields: dict[str, Any], positions: Positions, name: str, problems: list[str]) -> Recipe:
    recipe = None
    try:
        recipe = Recipe.model_validate(fields)
    except ValidationError as error:
        written = {path for path, place in positions.items() if place.startswith(_OVERRIDE)}
        told = schema_problems(error.errors(), fields, written)
        problems = problems + [f"{_place(path, positions, name)}: {what}" for path, what in told]
    problems = problems + [f"{_place(path, positions, name)}: {what}" for path, what in named_part_problems(fields)]
    if problems or recipe is None:
        raise RecipeError("\n".join(sorted(dict.fromkeys(problems), key=_by_line)))
    recipe._positions.update(positions)
    return recipe


def _place(path: Sequence[str], positions: Positions, name: str) -> str:
    """file:line:column of the path, or of the nearest thing above it, and the path itself."""
    ends = range(len(path), 0, -1)
    place = next((positions[tuple(path[:end])] for end in ends if tuple(path[:end]) in positions), name)
    return f"{place}: {'.'.join(path)}" if path else place


def _by_line(problem: str) -> tuple[str, int, int]:
    """Sort key: problems in the order of the file, overrides after it."""
    found = re.match(r"(.*?):(\d+):(\d+): ", problem)
    return (found[1], int(found[2]), int(found[3])) if found else ("~", 0, 0)

"""What the public functions take: a wrong kind of argument is told with what is allowed, before anything is done."""

from __future__ import annotations

import functools
import inspect
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import near
from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.source import as_overrides
from hfpipe.runs.groups import Group
from hfpipe.runs.store import Run

P = ParamSpec("P")
T = TypeVar("T")

_PATH = (str, os.PathLike)


def _texts(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and all(isinstance(one, str) for one in value)


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _seeds(value: Any) -> bool:
    return _whole(value) or (
        isinstance(value, Sequence | range) and not isinstance(value, str) and all(map(_whole, value))
    )


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


_FLAG = (_is(bool), "True or False")
_NAME = (_is(str), "a text")
_FOLDER = (_is(*_PATH), "a folder, as text or Path")
_TEXTS = (_texts, "a list of texts")
_TARGET = (_is(Run, *_PATH), "a Run, its id or folder, a checkpoint folder, or a Hub id")
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "recipe": (_is(Recipe, Mapping, *_PATH), "a Recipe, a YAML file, the name of a shipped recipe, or a mapping"),
    "engine": (
        lambda value: isinstance(value, str) or callable(value),
        "trainer, loop, module:attribute, or a function",
    ),
    "runs_dir": _FOLDER,
    "name": _NAME,
    "resume": (_is(Run, Group, *_PATH), "a Run or a Group, or its id or folder"),
    "allow_change": _TEXTS,
    "reset_optimizer": _FLAG,
    "use_previous": _FLAG,
    "overwrite": _FLAG,
    "max_minutes": (lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool), "a number"),
    "seeds": (_seeds, "how many, as 5, or which, as [1, 2, 3]"),
    "vary": (
        lambda value: isinstance(value, Mapping) and all(not isinstance(one, str) for one in value.values()),
        'a mapping from paths to lists of values, as {"engine": ["trainer", "loop"]}',
    ),
    "target": _TARGET,
    "split": (
        lambda value: isinstance(value, str) or (_texts(value) and bool(value)),
        "the name of a split or slice, or a list of them",
    ),
    **dict.fromkeys(
        ("text", "label", "choices"),
        (lambda value: isinstance(value, str) or _texts(value), "the name of a column, or a list of them"),
    ),
    "output": (_is(*_PATH), "a file, as text or Path"),
    "output_format": _NAME,
    "input_format": _NAME,
    "chunk_rows": (_whole, "a number of rows"),
    "keep": _TEXTS,
    "notice": (callable, "a function of a text"),
}
"""What an argument of this name may be, in every public function, and that in words. None is what is not given."""


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """A public function that refuses arguments of another kind, and takes overrides as a list or as a mapping.

    Raises:
        RecipeError: with the function, the argument and what is allowed.
    """
    signature = inspect.signature(function)
    others = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            known = list(signature.parameters)
            unknown = [] if others else [name for name in kwargs if name not in known]
            what = f"no argument {unknown[0]!r}{near(unknown[0], known)}" if unknown else str(error)
            raise RecipeError(
                what, where=f"{function.__name__}()", allowed=f"{function.__name__}{_shown(signature)}"
            ) from None
        for name, value in bound.arguments.items():
            if name == "overrides":
                bound.arguments[name] = as_overrides(value)
            elif name in _KINDS and value is not None and not _KINDS[name][0](value):
                got = repr(value)
                raise RecipeError(
                    f"{name} is {got if len(got) <= 80 else f'a {type(value).__name__}'}",
                    where=f"{function.__name__}()",
                    allowed=_KINDS[name][1],
                )
        return function(*bound.args, **bound.kwargs)

    return call


def _shown(signature: inspect.Signature) -> str:
    """The names of the arguments, without their types."""
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(inspect.Signature(bare))

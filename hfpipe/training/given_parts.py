"""The parts that may be given as objects, in place of the recipe's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import near

PARTS = ("dataset", "tokenizer", "collate", "model", "loss", "optimizer", "schedule", "metrics")
"""What may be given as an object, in place of the recipe's: the keyword arguments of `hfpipe.prepare`."""


def require_parts(parts: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Refuse keyword arguments that neither a function nor `prepare` has, before anything is made.

    Raises:
        RecipeError: with the near names.
    """
    known = [name for name in inspect.signature(function).parameters if name != "parts"]
    for name in parts:
        if name not in PARTS:
            raise RecipeError(
                f"no argument {name!r}{near(name, [*known, *PARTS])}",
                where=f"{function.__name__}()",
                allowed=", ".join([*known, *PARTS]),
                fix="A field of the recipe is changed with overrides=['train.epochs=1'].",
            )


def given_parts(parts: Mapping[str, Any]) -> dict[str, str]:
    """The parts that came as objects and stand in no recipe, by the names of their classes or functions."""
    named = {key: part if hasattr(part, "__qualname__") else type(part) for key, part in parts.items()}
    return {key: f"{part.__module__}:{part.__qualname__}" for key, part in named.items()}

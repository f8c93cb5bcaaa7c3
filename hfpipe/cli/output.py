"""How a command answers: one JSON object or a page, from one process of several; and how it asks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from hfpipe.errors import RecipeError
from hfpipe.system.text import json_page


def answer(as_json: bool, document: Callable[[], Any], page: Callable[[], None]) -> None:
    """Print a result once, whatever the number of processes that train or evaluate together.

    Args:
        as_json: whether `--json` was given.
        document: the result as plain values; asked only with `--json`.
        page: prints it for a person; called only without.
    """
    if os.environ.get("RANK", "0") != "0":  # torchrun and `accelerate launch` set it
        return
    if as_json:
        print_json(document())
    else:
        page()


def print_json(document: Any) -> None:
    """Print one JSON object."""
    print(json_page(document))


def require_confirmed(question: str, *, where: str, yes: bool, as_json: bool = False) -> None:
    """Ask on standard error, unless `--yes` was given.

    Raises:
        RecipeError: standard input is not a terminal, or the answer is read by a program.
        typer.Abort: the answer is no.
    """
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise RecipeError("not a terminal, so nothing can be confirmed; pass --yes", where=where)
    typer.confirm(question, abort=True, err=True)

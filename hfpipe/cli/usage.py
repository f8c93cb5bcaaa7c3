"""What was meant by an option or a command that there is none of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Commands of habit, and what hfpipe calls them.
_COMMANDS = {
    "train": "finetune", "fit": "finetune", "fine-tune": "finetune", "tune": "finetune", "run": "finetune",
    "resume": "finetune --resume RUN", "continue": "finetune --resume RUN",
    "eval": "evaluate", "test": "evaluate", "score": "evaluate",
    "infer": "predict", "inference": "predict", "label": "predict", "generate": "predict",
    "upload": "push", "publish": "push", "check": "doctor", "validate": "recipes validate",
    "init": "recipes new", "new": "recipes new", "create": "recipes new",
    "schema": "recipes schema", "list": "runs list", "ls": "runs list", "show": "runs show", "diff": "runs diff",
    "report": "runs report", "delete": "runs delete", "rm": "runs delete", "remove": "runs delete",
    "reproduce": "runs reproduce", "export": "runs export", "tokenize": "preprocess", "version": "--version",
}  # fmt: skip


def explain(error: Any, arguments: Sequence[str]) -> None:
    """Add to a usage error what was probably meant: by `--learning_rate` the option `--lr`, or the field.

    Args:
        error: click's, changed in place.
        arguments: of the command line.
    """
    option, command = getattr(error, "option_name", None), getattr(getattr(error, "ctx", None), "command", None)
    if option is not None and hasattr(error, "possibilities") and command is not None:
        _explain_option(error, str(option), command, arguments)
    elif "No such command" in error.message:
        typed = error.message.split("'")[1] if "'" in error.message else ""
        group = f"{command.name} " if command is not None and command.name in ("recipes", "runs") else ""
        meant = _COMMANDS.get(typed)
        if meant and not group:
            error.message = f"No such command {typed!r}. Did you mean '{meant}'?"


def _explain_option(error: Any, option: str, command: Any, arguments: Sequence[str]) -> None:
    from hfpipe.recipe.catalog import close_names, plain_name
    from hfpipe.recipe.hints import hint_for, meant_fields

    names = {plain_name(name): name for one in command.params for name in one.opts if name.startswith("--")}
    takes_fields = any(one.name == "overrides" for one in command.params)
    value = _value_after(option, arguments)
    fields = meant_fields(option) if takes_fields else ()
    same = next((name for name in names.values() if fields and meant_fields(name)[:1] == fields[:1]), None)
    close = close_names(option, names)
    if fields and same:
        hint = f"; write {same} {value}, or {fields[0]}={value}"
    elif fields and command.name in ("evaluate", "predict") and _is_of_a_training(fields[0]):
        hint = f"; it would be {fields[0]}, which does nothing where nothing is trained"
    elif close and not fields:
        hint = f"; did you mean {' or '.join(names[one] for one in close)}?"
    else:
        hint = hint_for(option, value) if takes_fields else ""
    if hint:
        error.possibilities = None
        error.message = f"No such option: {option}{hint}"


def _value_after(option: str, arguments: Sequence[str]) -> str:
    for index, one in enumerate(arguments):
        if one.startswith(f"{option}="):
            return one.partition("=")[2]
        if one == option and index + 1 < len(arguments) and not arguments[index + 1].startswith("--"):
            return arguments[index + 1]
    return "VALUE"


def _is_of_a_training(field: str) -> bool:
    from hfpipe.errors import RecipeError
    from hfpipe.runs.targets import require_effect

    try:
        require_effect([f"{field}=VALUE"])
    except RecipeError:
        return True
    return False

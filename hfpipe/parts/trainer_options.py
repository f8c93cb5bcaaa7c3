"""The `trainer` section of a recipe, checked against the TrainingArguments of the installed transformers."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError
from transformers import TrainingArguments

from hfpipe.recipe.schema import Recipe


def option_problems(recipe: Recipe) -> list[str]:
    """What is wrong with the names and types of the `trainer` section, each with its place."""
    problems = []
    hints = TrainingArguments.__dataclass_fields__
    for key, value in recipe.trainer.items():
        if key not in hints:
            problems.append(f"{recipe.where(f'trainer.{key}')}: TrainingArguments has no such field")
            continue
        try:
            TypeAdapter(hints[key].type, config={"arbitrary_types_allowed": True}).validate_python(value, strict=True)
        except ValidationError as error:
            told = "; ".join(dict.fromkeys(_lowered(detail["msg"]) for detail in error.errors()))
            problems.append(f"{recipe.where(f'trainer.{key}')}: {told}, got {value!r}")
        except Exception:  # noqa: BLE001 - a type that pydantic can't read is left to TrainingArguments itself
            continue
    return problems


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]

"""Checks of everything that a recipe names: parts, their arguments, and the options of TrainingArguments.

They look at the plain fields and not at the validated model, so that a mistake elsewhere in a section hides none here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe import trainer_options
from hfpipe.recipe.catalog import (
    ENGINES,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SCHEDULES,
    Entry,
    check_argument,
    check_name,
    is_metric_script,
    near,
)
from hfpipe.recipe.hints import hint_for
from hfpipe.recipe.kinds import kind_in
from hfpipe.recipe.schema import Loss, Optimizer, Schedule

Problem = tuple[tuple[str, ...], str]


def named_part_problems(fields: Mapping[str, Any]) -> Iterator[Problem]:
    """Every problem with a name in the recipe, as its path and what is wrong."""
    sections = (("loss", LOSSES, Loss), ("optimizer", OPTIMIZERS, Optimizer), ("schedule", SCHEDULES, Schedule))
    for section, table, model in sections:
        given = fields.get(section)
        if not isinstance(given, Mapping):
            continue
        own = tuple(model.model_fields)
        name = given.get("name") or model().name or kind_in(fields).loss
        arguments = [key for key in given if key not in own]
        yield from _part((section, "name"), table, name, section)
        for key in arguments:
            yield from _argument((section, key), table, name, key, own[1:], section)
    if isinstance(engine := fields.get("engine"), str):
        yield from _part(("engine",), ENGINES, engine, "engine")
    evaluate = fields.get("evaluate")
    metrics = evaluate.get("metrics") if isinstance(evaluate, Mapping) else None
    for index, metric in enumerate([metrics] if isinstance(metrics, str) else metrics or []):
        yield from _metric(("evaluate", "metrics", str(index)), metric)
    if isinstance(trainer := fields.get("trainer"), Mapping):
        yield from _trainer(trainer)


def _part(path: tuple[str, ...], table: Mapping[str, Entry], name: Any, what: str) -> Iterator[Problem]:
    if isinstance(name, str) and name:
        try:
            check_name(table, name, what)
        except RecipeError as error:
            yield path, str(error)


def _argument(
    path: tuple[str, ...], table: Mapping[str, Entry], name: Any, key: str, common: tuple[str, ...], what: str
) -> Iterator[Problem]:
    try:
        check_argument(table, name, key, common, what)
    except RecipeError as error:
        if "did you mean" not in error.what:
            error.what += hint_for(key)
        yield path, str(error)


def _metric(path: tuple[str, ...], metric: Any) -> Iterator[Problem]:
    given = metric if isinstance(metric, Mapping) else {"name": metric}
    name = given.get("name")
    if not isinstance(metric, str | Mapping):
        return  # the schema says so
    if not isinstance(name, str):
        yield path, f"a metric is a name, or a mapping with a `name`; got {metric!r}"
    elif not is_metric_script(name):
        yield from _part(path, METRICS, name, "metric")
        for key in given:
            if key != "name":
                yield from _argument(path, METRICS, name, key, (), "metric")


def _trainer(trainer: Mapping[str, Any]) -> Iterator[Problem]:
    known = trainer_options.names()
    for key in trainer:
        if key in trainer_options.OWNED:
            yield ("trainer", key), f"hfpipe sets this one itself; the place for it is {trainer_options.OWNED[key]}"
        elif key in trainer_options.OLD_NAMES:
            yield ("trainer", key), f"not a name of this transformers; in hfpipe: {trainer_options.OLD_NAMES[key]}"
        elif known and key not in known:
            yield ("trainer", key), f"TrainingArguments has no such field{near(key, known)}"

"""What is certain of a recipe without torch, the parts themselves accept; and options have the types of TrainingArguments."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from hfpipe.errors import RecipeError
from hfpipe.recipe import load_recipe, shipped
from hfpipe.recipe.catalog import METRICS, OPTIMIZERS, SCHEDULES
from hfpipe.recipe.certainty import is_certain
from hfpipe.recipe.trainer_options import ALWAYS_TAKEN, OWNED, names, option_problems, type_problem

FIELDS: dict[str, Any] = {"dataset": {"path": "./d"}, "task": {"text": "s"}, "model": {"checkpoint": "./m"}}
# At the edges of what may be certain, and beyond them.
VALUES: list[Any] = [0, 0.0, 1, 0.5, 0.999, 1.0, 3, -1, 1e9, True, "x", None, [0.9, 0.99], [0, 0], [0.9, 1.0], [0.9]]


def accepted(fields: dict[str, Any]) -> bool | None:
    """Whether the parts take it; None where it is not certain, and so not asked."""
    from hfpipe.parts.build import check_parts, check_scores

    try:
        recipe = load_recipe({**FIELDS, **fields})
    except RecipeError:
        return None
    if not is_certain(recipe):
        return None
    check_parts(recipe)
    check_scores(recipe)
    return True


def test_what_is_certain_is_accepted() -> None:
    """For every optimizer, schedule and metric, each of its arguments at many values, with and without decay and warm-up."""
    asked = []
    for name, row in OPTIMIZERS.items():
        for decay, lr in itertools.product((0.0, 0.1), (1e-9, 2e-5, 100.0)):
            asked.append(accepted({"optimizer": {"name": name, "weight_decay": decay, "lr": lr}}))
        for argument, value in itertools.product(row.arguments, VALUES):
            asked.append(accepted({"optimizer": {"name": name, argument: value}}))
    for name, row in SCHEDULES.items():
        for warmup, lr in itertools.product((0.0, 0.1, 100), (1e-9, 2e-5)):
            asked.append(accepted({"schedule": {"name": name, "warmup": warmup}, "optimizer": {"lr": lr}}))
        for argument, value in itertools.product(row.arguments, VALUES):
            asked.append(accepted({"schedule": {"name": name, argument: value}}))
        asked.append(accepted({"schedule": {"name": name}, "evaluate": {"every": "never"}}))
    for name, row in METRICS.items():
        asked.append(accepted({"evaluate": {"metrics": [name]}}))
        for argument, value in itertools.product(row.arguments, [*VALUES, "binary", "macro", "IOB2", "auto"]):
            asked.append(accepted({"evaluate": {"metrics": [{"name": name, argument: value}]}}))
    assert sum(one is True for one in asked) > 200
    assert sum(one is None for one in asked) > 200


KIND_FIELDS: dict[str, dict[str, Any]] = {
    "text-classification": {},
    "text-regression": {},
    "multi-label-classification": {},
    "token-classification": {},
    "question-answering": {"text": ["q", "c"]},
    "multiple-choice": {"choices": "endings"},
}


@pytest.mark.parametrize("kind", KIND_FIELDS)
def test_scores_that_are_certain_are_given(kind: str) -> None:
    """Every metric for every kind, with no, two and three declared classes and every score as the best one."""
    labels: list[Any] = ["label"]
    if kind in ("text-classification", "token-classification", "multi-label-classification"):
        labels += [{"column": "label", "names": list(names)} for names in (("O", "B-x"), ("O", "B-x", "B-y"))]
    if kind == "multi-label-classification":
        labels.append(["a", "b", "c"])
    averaged = [{"name": name, "average": "macro"} for name in ("f1", "precision", "recall")]
    scores = {"loss", "f1_macro", "f1_micro", "subset_accuracy", "exact_match", "glue", "accuracy", "f1", *METRICS}
    certain = 0
    for label, metric, best in itertools.product(labels, [*METRICS, *averaged], [None, *sorted(scores)]):
        fields: dict[str, Any] = {"task": {"kind": kind, "text": "s", "label": label, **KIND_FIELDS[kind]}}
        certain += accepted({**fields, "evaluate": {"metrics": [metric], "best": best}}) is True
    assert certain >= len(labels)


@pytest.mark.parametrize("name", shipped.names())
def test_shipped_recipes_are_certain(name: str) -> None:
    """None of them needs torch to be checked."""
    assert is_certain(load_recipe(name))


@pytest.mark.parametrize(
    "change",
    ["loss.name=math:sqrt", "engine=math:sqrt", "optimizer.betas=[0.9, 2.0]", "schedule.name=warmup_stable_decay",
     "evaluate.metrics=[{name: f1, average: none}]", "optimizer={name: rprop, weight_decay: 0.1}",
     "schedule={name: constant, warmup: 0.1}"],
)  # fmt: skip
def test_what_only_a_part_knows_is_left_to_it(change: str) -> None:
    """Code of one's own, and values that may be refused."""
    assert not is_certain(load_recipe(FIELDS, [change]))


def test_options_have_the_types_of_transformers() -> None:
    """Read from the source, each type judges values as the real one does."""
    from pydantic import TypeAdapter, ValidationError
    from transformers import TrainingArguments

    fields = TrainingArguments.__dataclass_fields__
    assert set(names()) == {name for name, field in fields.items() if field.init}
    judged = 0
    for name in names():
        try:
            checker = TypeAdapter(fields[name].type, config={"arbitrary_types_allowed": True})
        except Exception:  # noqa: BLE001 - a type that pydantic can't read is left to transformers
            continue
        for value in (True, 1, 0.5, "x", "steps", None, ["x"], [1], {"a": 1}, {"a": True}, []):
            try:
                checker.validate_python(value, strict=True)
                expected = True
            except ValidationError:
                expected = False
            assert (type_problem(name, value) is None) == expected, (name, value)
            judged += 1
    assert judged > 500


def test_a_wrong_option_is_told_with_its_place() -> None:
    """As every other mistake, without torch."""
    assert "use_cpu" not in OWNED
    (problem,) = option_problems(load_recipe(FIELDS, ["trainer.use_cpu=maybe"]))
    assert problem == "override 'trainer.use_cpu=maybe': trainer.use_cpu: input should be a valid boolean, got 'maybe'"


@pytest.mark.parametrize(("name", "value"), sorted(ALWAYS_TAKEN))
def test_options_that_are_always_taken(name: str, value: bool) -> None:
    """`recipes validate` does not try these: a step of Trainer with each shows that there is nothing to find."""
    from hfpipe.training.engines.trainer import check_options

    recipe = load_recipe(FIELDS, [f"trainer.{name}={str(value).lower()}"])
    assert recipe.engine == "trainer"
    check_options(recipe)

"""The schema: frozen, strict, described, and with the defaults of the task written out."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from hfpipe.recipe import Recipe
from hfpipe.recipe import schema as schema_module

FIELDS: dict[str, Any] = {"dataset": {"path": "./d"}, "task": {"text": "s"}, "model": {"checkpoint": "./m"}}
MODELS = [
    model
    for model in vars(schema_module).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == schema_module.__name__
]


def test_the_module_holds_all_sections() -> None:
    """The list of models that the next tests go through is not empty by accident."""
    assert {model.__name__ for model in MODELS} >= {
        "Recipe",
        "Dataset",
        "Task",
        "Model",
        "Loss",
        "Train",
        "Checkpoints",
    }


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_described(model: type[BaseModel]) -> None:
    """Each field has a sentence under it, which the reference page and the JSON Schema show."""
    missing = [name for name, field in model.model_fields.items() if not (field.description or "").strip()]
    assert not missing


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_recipes_are_frozen(model: type[BaseModel]) -> None:
    """No section can be changed after it was checked."""
    assert model.model_config["frozen"]
    recipe = Recipe.model_validate(FIELDS)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train.epochs = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("train", "epochs", "3"),
        ("train", "epochs", 0),
        ("train", "epochs", -1.0),
        ("train", "epochs", float("inf")),
        ("train", "batch_size", 2.0),
        ("train", "batch_size", True),
        ("train", "accumulate", 0),
        ("train", "max_grad_norm", 0.0),
        ("train", "precision", "float32"),
        ("train", "workers", -1),
        ("train", "gradient_checkpointing", "no"),
        ("optimizer", "lr", float("nan")),
        ("optimizer", "weight_decay", -0.1),
        ("schedule", "warmup", -1),
        ("loss", "reduction", "average"),
        ("loss", "label_smoothing", 1.0),
        ("loss", "class_weights", "balancd"),
        ("loss", "class_weights", {"effective": "0.9"}),
        ("evaluate", "every", 0),
        ("evaluate", "every", "steps"),
        ("checkpoints", "keep_last", 0),
        ("checkpoints", "every", "step"),
        ("task", "text", []),
        ("task", "text", ["a", "b", "c"]),
        ("model", "checkpoint", ""),
        ("model", "max_length", 0),
    ],
)
def test_values_are_checked_strictly(section: str, field: str, value: Any) -> None:
    """A value of another type or outside its range is refused, never converted."""
    given = {**FIELDS, section: {**FIELDS.get(section, {}), field: value}}
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(given)
    assert all(error["loc"][:2] == (section, field) for error in caught.value.errors())


@pytest.mark.parametrize("name", ["A", "", "a b", "../x", "-a", ".a", "a" * 65, "a\n", "ä"])
def test_names_are_fit_for_folders(name: str) -> None:
    """The name of a recipe, which becomes part of a folder's name, is short and plain."""
    with pytest.raises(ValidationError):
        Recipe.model_validate({**FIELDS, "name": name})


def test_the_defaults_of_the_task_are_written_out() -> None:
    """Loss and metrics that depend on the kind of task stand in the resolved recipe."""
    plain = Recipe.model_validate(FIELDS)
    assert (plain.loss.name, plain.evaluate.metrics) == ("cross_entropy", ("accuracy",))
    regression = Recipe.model_validate({**FIELDS, "task": {"text": "s", "kind": "text-regression"}})
    assert (regression.loss.name, regression.evaluate.metrics) == ("mse", ("mse",))
    own = Recipe.model_validate({**FIELDS, "loss": {"name": "focal", "gamma": 1.0}, "evaluate": {"metrics": "f1"}})
    assert (own.loss.name, own.loss.arguments, own.evaluate.metrics) == ("focal", {"gamma": 1.0}, ("f1",))


def test_a_section_may_be_left_out_or_half_given() -> None:
    """The example of the design, and the least that is a recipe, are both accepted."""
    assert Recipe.model_validate({**FIELDS, "train": {"epochs": 1}}).train.batch_size == 32
    assert Recipe.model_validate({**FIELDS, "train": {"epochs": 0.5}, "optimizer": {"lr": 1}}).optimizer.lr == 1


def test_the_json_schema_refuses_unknown_fields() -> None:
    """Editors see every section, its texts, and that nothing else may stand there."""
    described = Recipe.model_json_schema()
    assert described["additionalProperties"] is False
    assert set(described["required"]) == {"task", "model"}  # data may be passed from Python
    assert "tokens" in described["$defs"]["Model"]["properties"]["max_length"]["description"]


def test_where_falls_back_to_the_path() -> None:
    """A field that nobody wrote is named by its path alone."""
    assert Recipe.model_validate(FIELDS).where("train.epochs") == "train.epochs"


@pytest.mark.parametrize(
    ("metrics", "best", "resolved"),
    [
        ([{"name": "f1", "average": "macro"}], "f1", "f1_macro"),
        ([{"name": "f1", "average": "macro"}], "f1_macro", "f1_macro"),
        ([{"name": "f1", "pos_label": 0}], "f1", "f1"),
        (["f1", {"name": "f1", "average": "macro"}], "f1", "f1"),
        ([{"name": "f1", "average": "macro"}, {"name": "f1", "average": "weighted"}], "f1", "f1"),
    ],
)
def test_best_means_the_one_average_that_there_is(metrics: list[Any], best: str, resolved: str) -> None:
    """`best: f1` of recipes with one averaged F1 keeps its meaning; where it could be either, it is left to be told."""
    assert schema_module.Evaluate(metrics=tuple(metrics), best=best).best == resolved

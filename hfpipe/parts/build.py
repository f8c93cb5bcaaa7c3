"""A recipe's names and numbers turned into objects: loss, optimizer, schedule, metrics."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import datasets
import torch

from hfpipe.errors import DataError, RecipeError, RefusedError
from hfpipe.parts import tasks
from hfpipe.parts.inputs.batches import Collate, collate_checked
from hfpipe.parts.metrics.load import built_metric, load_metric
from hfpipe.parts.metrics.scores import compute_all, takes_logits
from hfpipe.parts.model.models import load_architecture
from hfpipe.parts.optim import losses
from hfpipe.parts.optim.objective import Objective
from hfpipe.parts.optim.optimizers import build_optimizer
from hfpipe.parts.optim.schedules import PLATEAU, build_schedule
from hfpipe.parts.tasks.classes import counts_of
from hfpipe.recipe.catalog import (
    ENGINES,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    greater_is_better,
    is_metric_script,
    is_reference,
    near,
    resolve,
)
from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.trainer_options import option_problems


def check_parts(recipe: Recipe) -> None:
    """Import every part that the recipe names and bind its arguments, without loading data or weights.

    Raises:
        RecipeError: every part that can't be had or does not take its arguments, one a line.
    """
    problems = []

    def attempt(path: str, check: Callable[[], object]) -> None:
        try:
            check()
        except RecipeError as error:
            problems.append(str(error) if error.where else f"{recipe.where(path)}: {error}")

    engine = (None, None)  # job and emit
    attempt(
        "engine", lambda: _bind("engine", recipe.engine, resolve(ENGINES, recipe.engine, "engine"), engine, {}, recipe)
    )
    attempt("loss.name", lambda: _bind_loss(recipe, resolve(LOSSES, recipe.loss.name, "loss"), None))
    attempt("optimizer.name", lambda: make_optimizer(recipe, torch.nn.Linear(2, 2), None))
    attempt("schedule", lambda: _check_schedule(recipe))
    if recipe.model.architecture is not None:
        attempt("model.architecture", lambda: load_architecture(recipe))
    if recipe.model.collate is not None:
        attempt("model.collate", lambda: resolve({}, str(recipe.model.collate), "model.collate"))
    attempt("evaluate.metrics", lambda: load_metrics(recipe, foreign=False))
    for metric in recipe.evaluate.metrics:
        given = {"name": metric} if isinstance(metric, str) else metric
        if is_metric_script(given["name"]):
            require_allowed(recipe, given["name"], given)
    problems += option_problems(recipe)
    if problems:
        raise RecipeError("\n".join(problems))


_SOME = "SOMECLASS"  # stands for the classes that only the data name


def check_scores(recipe: Recipe) -> None:
    """Try the metrics with the classes that the recipe declares, and look for `evaluate.best` among their scores.

    Where only the data name the classes, just `best` is looked at, and a score of a class may be of any.

    Raises:
        RecipeError: a metric that does not measure these classes, or a `best` that no metric gives.
    """
    spec = recipe.task
    if recipe.dataset.splits.evaluation is None or any(is_metric_script(name) for name in _metric_names(recipe)):
        return
    declared: tuple[str, ...] = ()
    if spec.names is not None:
        declared = tuple(dict.fromkeys(spec.names.values() if isinstance(spec.names, Mapping) else spec.names))
    elif len(spec.label_columns) > 1:
        declared = tuple(spec.label_columns)
    task = tasks.head_task(spec, declared or ((f"B-{_SOME}", "O") if spec.traits.has_classes else ()))
    try:
        names = try_metrics(recipe, load_metrics(recipe, task), task)
    except RecipeError:
        if declared or not spec.traits.has_classes:
            raise
        return
    require_best(recipe, ["loss", *names], of_any_class=not declared)


def _metric_names(recipe: Recipe) -> list[str]:
    return [metric if isinstance(metric, str) else metric["name"] for metric in recipe.evaluate.metrics]


def require_best(recipe: Recipe, names: list[str], *, of_any_class: bool = False) -> None:
    """Refuse an `evaluate.best` that is none of the scores, or of which it is not known which way is better.

    Args:
        recipe: with `evaluate.best`.
        names: of the scores.
        of_any_class: the one class in these names stands for others.

    Raises:
        RecipeError: with the scores that there are.
    """
    best = recipe.evaluate.best
    if best is None:
        return
    patterns = [re.escape(name).replace(_SOME, ".+") if of_any_class else re.escape(name) for name in names]
    if not any(re.fullmatch(pattern, best) for pattern in patterns):
        shown = [name.replace(_SOME, "CLASS") for name in names] if of_any_class else names
        raise RecipeError(
            f"no metric is called {best!r}{near(best, shown)}",
            where=recipe.where("evaluate.best"),
            allowed=", ".join(shown),
        )
    if greater_is_better(best) is None and recipe.evaluate.greater_is_better is None:
        raise RecipeError(
            f"whether a greater {best!r} is better is not known",
            where=recipe.where("evaluate.best"),
            fix="Say evaluate.greater_is_better: true or false.",
        )


def own_collate(recipe: Recipe, given: Collate | None = None) -> Collate | None:
    """What makes a batch of encoded rows in place of padding them: what is given, or what the recipe names."""
    if given is None and recipe.model.collate is not None:
        given = resolve({}, recipe.model.collate, "model.collate")
    return None if given is None else functools.partial(collate_checked, given)


def make_objective(
    recipe: Recipe,
    task: tasks.Task,
    train_data: datasets.Dataset | None,
    loss: Callable[..., torch.Tensor] | None = None,
) -> Objective:
    """The loss with its arguments bound, the class weights counted on the encoded training rows, and the reduction.

    Raises:
        RecipeError: arguments that the loss does not take, or weights that do not fit the classes.
    """
    weights = None
    if recipe.loss.class_weights is not None:
        num_labels = task.num_labels or 0
        counts = counts_of(train_data["labels"][:] if train_data is not None else [], num_labels)
        try:
            weights = losses.class_weights(recipe.loss.class_weights, counts, task.names)
        except RecipeError as error:
            raise _placed(error, recipe, "loss.class_weights") from None
    bound = _bind_loss(recipe, loss or resolve(LOSSES, recipe.loss.name, "loss"), weights)
    return Objective(bound, _name_of(loss) if loss else recipe.loss.name, recipe.loss.reduction, weights)


def _bind_loss(
    recipe: Recipe, loss: Callable[..., torch.Tensor], weights: torch.Tensor | None
) -> Callable[..., torch.Tensor]:
    """The loss with its arguments, as a function of logits and targets."""
    loss = _require_loss(recipe, loss)
    arguments = dict(recipe.loss.arguments)
    if recipe.loss.label_smoothing:
        arguments["label_smoothing"] = recipe.loss.label_smoothing
    if recipe.loss.class_weights is not None:
        arguments["class_weights"] = weights
    _bind("loss", recipe.loss.name, loss, (None, None), arguments, recipe)
    return (
        functools.partial(_on_device, loss, weights, arguments)
        if weights is not None
        else functools.partial(loss, **arguments)
    )


def _require_loss(recipe: Recipe, loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A loss that can be called with logits and targets; what a module holds goes where its logits are.

    Raises:
        RecipeError: a class, or a module with weights that nothing would train.
    """
    where = recipe.where("loss.name")
    if isinstance(loss, type):
        raise RecipeError(
            f"the loss {loss.__name__} is a class",
            where=where,
            allowed="what is called with (logits, targets), and gives one number an item",
            fix=f"From Python pass an object of it: loss={loss.__name__}(...).",
        )
    if not isinstance(loss, torch.nn.Module):
        return loss
    if trained := [name for name, weights in loss.named_parameters() if weights.requires_grad]:
        raise RecipeError(
            f"the loss {type(loss).__name__} has weights of its own, {', '.join(trained[:4])}, which no optimizer trains",
            where=where,
            fix="Make them weights of the model, or fix them: loss.requires_grad_(False).",
        )
    return functools.partial(_module_on_device, loss)


def _module_on_device(
    loss: torch.nn.Module, logits: torch.Tensor, targets: torch.Tensor, **arguments: Any
) -> torch.Tensor:
    value: torch.Tensor = loss.to(logits.device)(logits, targets, **arguments)
    return value


def _on_device(
    loss: Callable[..., torch.Tensor],
    weights: torch.Tensor,
    arguments: dict[str, Any],
    logits: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    return loss(logits, targets, **{**arguments, "class_weights": weights.to(logits.device)})


def _bind(
    what: str,
    name: str,
    part: Callable[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    recipe: Recipe,
) -> None:
    try:
        signature = inspect.signature(part)
    except (ValueError, TypeError):
        return  # a builtin without a signature: called as it is
    try:
        signature.bind(*positional, **arguments)
    except TypeError as error:
        taken = list(signature.parameters)
        wrong = next((key for key in arguments if key not in taken), None)
        raise RecipeError(
            f"{what} {name!r}: {error}{near(wrong, taken) if wrong else ''}",
            where=recipe.where(f"{what}.{wrong}" if wrong else what),
            allowed=", ".join(taken),
        ) from None


def make_optimizer(
    recipe: Recipe, model: torch.nn.Module, factory: Callable[..., torch.optim.Optimizer] | None
) -> torch.optim.Optimizer:
    """The optimizer of a model, from the recipe or from a factory of the user's.

    Raises:
        RecipeError: arguments that it does not take, with their place.
    """
    part = recipe.optimizer
    factory = factory or resolve(OPTIMIZERS, part.name, "optimizer")
    try:
        return build_optimizer(model, factory, lr=part.lr, weight_decay=part.weight_decay, **part.arguments)
    except RecipeError as error:
        raise _placed(error, recipe, "optimizer") from None


def make_schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, schedule: Callable[..., Any] | None, num_steps: int
) -> Any:
    """The learning-rate schedule of an optimizer over `num_steps` updates.

    Raises:
        RecipeError: arguments that it does not take, or a schedule that follows evaluations where there are none.
    """
    part = recipe.schedule
    if schedule is not None:
        return schedule(optimizer, num_steps)
    if is_reference(part.name):
        own = resolve(SCHEDULES, part.name, "schedule")
        _bind("schedule", part.name, own, (None, None), part.arguments, recipe)
        return own(optimizer, num_steps, **part.arguments)
    arguments = part.arguments
    if part.name == PLATEAU:
        if recipe.evaluate.every == "never" or recipe.dataset.splits.evaluation is None:
            raise RecipeError(
                f"{part.name!r} follows the evaluation, and there is none",
                where=recipe.where("schedule.name"),
                fix="Set evaluate.every.",
            )
        arguments = {"mode": "max" if is_greater_better(recipe) else "min", **arguments}
    try:
        return build_schedule(optimizer, part.name, num_steps=num_steps, warmup=part.warmup, **arguments)
    except RecipeError as error:
        raise _placed(error, recipe, "schedule") from None


def _check_schedule(recipe: Recipe) -> None:
    """Bind the arguments of an own schedule, and make one of transformers: one that is long enough for any warm-up."""
    part = recipe.schedule
    if is_reference(part.name):
        _bind("schedule", part.name, resolve(SCHEDULES, part.name, "schedule"), (None, None), part.arguments, recipe)
    else:
        make_schedule(recipe, torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), recipe.optimizer.lr), None, 10**9)


def _placed(error: RecipeError, recipe: Recipe, path: str) -> RecipeError:
    """The error with the place in the recipe of the option that it names, or of `path` where that says more."""
    where = path if path.startswith(error.where) else error.where
    return RecipeError(error.what, where=recipe.where(where), allowed=error.allowed, fix=error.fix)


def _name_of(part: Any) -> str:
    return f"{getattr(part, '__module__', '?')}:{getattr(part, '__qualname__', type(part).__name__)}"


def is_greater_better(recipe: Recipe) -> bool:
    """The direction of `evaluate.best`, or of the loss when nothing is called best."""
    if recipe.evaluate.greater_is_better is not None:
        return recipe.evaluate.greater_is_better
    return bool(greater_is_better(recipe.evaluate.best or "loss"))


def load_metrics(
    recipe: Recipe, task: tasks.Task | None = None, *, foreign: bool = True, given: Any = None
) -> list[tuple[str, Any]]:
    """The metrics by the names in the recipe, or those that are given in their place.

    A metric that asks for something of the task (an attribute `names` or `scheme` that is None) gets it.

    Args:
        recipe: with the names.
        task: what the scores are of.
        foreign: whether metrics that run code from the Hub or a file are among them.
        given: a metric as an object, or a list of objects and of names.
    """
    wanted = recipe.evaluate.metrics if given is None else given if isinstance(given, list | tuple) else [given]
    loaded = []
    for metric in wanted:
        if not isinstance(metric, str | Mapping):
            name = _name_of(metric)
            built = built_metric(metric, name)
        else:
            arguments = {"name": metric} if isinstance(metric, str) else dict(metric)
            name = arguments.pop("name")
            if is_metric_script(name):
                if not foreign:
                    continue
                require_allowed(recipe, name, arguments)
            built = load_metric(name, **arguments)
        for wish in ("names", "scheme"):
            if getattr(built, wish, ()) is None:
                setattr(built, wish, None if task is None else getattr(task, wish))
        loaded.append((name, built))
    return loaded


def require_allowed(recipe: Recipe, name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a metric script that the recipe does not allow, or one from the Hub that can change.

    Raises:
        RefusedError: saying what would run.
    """
    where, script = recipe.where("evaluate.metrics"), name.removeprefix("evaluate:")
    if not recipe.allow_code:
        raise RefusedError(
            f"metric {name!r} is a script, and computing it runs its code",
            where=where,
            fix="If you trust it, say allow_code: true. hfpipe's own metrics are no scripts.",
        )
    revision = arguments.get("revision")
    if script != name and not re.fullmatch(r"[0-9a-f]{40}", str(revision)):
        raise RefusedError(
            f"metric {name!r} comes from the Hub at revision {revision!r}, which can become other code",
            where=where,
            allowed="the 40 digits of a commit",
            fix=f"Say {{name: {name}, revision: COMMIT}}.",
        )


def try_metrics(recipe: Recipe, metrics: list[tuple[str, Any]], task: tasks.Task) -> list[str]:
    """The names of the scores that the metrics give, found with dummy predictions of every class.

    Raises:
        RecipeError: a metric of another kind of task, with its name.
    """
    outputs = None
    for name, metric in metrics:
        if takes_logits(metric):
            outputs = tasks.dummy_outputs(task)
            if outputs is None:
                raise RecipeError(
                    f"metric {name!r} takes logits and label ids of rows, and {recipe.task.kind} scores parts of rows",
                    where=recipe.where("evaluate.metrics"),
                    allowed="a function (predictions, references)",
                )
    try:
        return list(compute_all(metrics, *task.dummy_predictions(), outputs=outputs, names_only=True))
    except DataError as error:
        raise RecipeError(
            f"{error.where} does not measure {recipe.task.kind}: {error.what}",
            where=recipe.where("evaluate.metrics"),
            fix="Without `metrics` the kind of task has its own.",
        ) from error

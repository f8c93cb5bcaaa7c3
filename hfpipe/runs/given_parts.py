"""Parts that are given as objects in place of the recipe's, and how a run finds them again.

What can be imported by a name goes into the recipe under that name, as if it had been written there. The rest is written
into `run.json`: what was given, and which of it the run's own files give back. Whatever reads the run asks for what is left.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import is_reference, near, resolve
from hfpipe.runs.store import Run

PARTS = ("dataset", "tokenizer", "collate", "model", "loss", "optimizer", "schedule", "metrics")
"""What may be given as an object, in place of the recipe's: the keyword arguments of `hfpipe.prepare`."""
TRAINED_WITH = (*PARTS, "engine")
"""All that a training may be given."""
MEASURED_WITH = ("dataset", "tokenizer", "collate", "model", "loss", "metrics")
"""Those of them that an evaluation needs."""
PREDICTED_WITH = ("tokenizer", "collate", "model")
"""Those of them that a prediction needs."""
HELD = ("loss", "metrics", "collate", "tokenizer")
"""Those that a run still has in the process that trained it; models, which training changes, and data are asked for."""

_FIELDS = {"loss": "loss.name", "optimizer": "optimizer.name", "collate": "model.collate", "engine": "engine"}
_FUNCTIONS = ("collate", "loss", "optimizer", "schedule", "engine")
_OF_DATA = ("dataset", "loss", "metrics")
"""What another recipe says anew."""
_MAIN = ("__main__", "__mp_main__")


@dataclass(frozen=True)
class Given:
    """Parts that came as objects.

    Attributes:
        overrides: of the recipe, for those that can be imported by a name.
        objects: the others, by keyword; of a model always the object, since its weights are in no class.
        keywords: of all of them.
    """

    overrides: list[str] = field(default_factory=list)
    objects: dict[str, Any] = field(default_factory=dict)
    keywords: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, str]:
        """What `run.json` says of the objects: keyword to the names of their classes or functions."""
        return {key: name_of(part) for key, part in self.objects.items()}


def with_held(
    target: object, parts: Mapping[str, Any], wanted: Collection[str], excused: Collection[str] = ()
) -> dict[str, Any]:
    """The parts with those of HELD that the run of this very process still has.

    Args:
        target: a run, or what names one.
        parts: keyword to object; None is none.
        wanted: the keywords of those that matter for what is done.
        excused: of those that something else says now.
    """
    held = target.held if isinstance(target, Run) else {}
    given = {key: part for key, part in parts.items() if part is not None}
    return {**{key: part for key, part in held.items() if key in wanted and key not in excused}, **given}


def take_parts(parts: Mapping[str, Any], function: Callable[..., Any], allowed: Collection[str] = PARTS) -> Given:
    """Tell the parts that a name finds again from those that are objects.

    Args:
        parts: keyword to object; None is none.
        function: which was called with them, for messages.
        allowed: the keywords that mean something here.

    Raises:
        RecipeError: keyword arguments that neither the function nor `allowed` has, or objects of another kind.
    """
    require_parts(parts, function, allowed)
    given = Given(keywords=tuple(key for key, part in parts.items() if part is not None))
    for key, part in ((key, part) for key, part in parts.items() if part is not None):
        if key == "metrics":
            _take_metrics(part, given)
            continue
        if key == "model":
            own = not str(type(part).__module__).startswith("transformers.")
            reference = reference_to(type(part)) if own and _is_made_alone(type(part)) else None
            given.overrides.append(f"model.architecture={json.dumps(reference)}")
            given.objects[key] = part
            continue
        reference = reference_to(part)
        if reference is None or key not in (*_FIELDS, "schedule"):
            given.objects[key] = part
        else:
            named = f"schedule={{name: {json.dumps(reference)}}}"  # the arguments beside it were another schedule's
            given.overrides.append(named if key == "schedule" else f"{_FIELDS[key]}={json.dumps(reference)}")
    return given


def _take_metrics(part: Any, given: Given) -> None:
    """Names and importable objects among metrics into the recipe; all of them as objects where one is neither."""
    several = list(part) if isinstance(part, list | tuple) else [part]
    names = [one if isinstance(one, str | Mapping) else reference_to(one) for one in several]
    found = [dict(name) if isinstance(name, Mapping) else name for name in names if name is not None]
    if found:
        given.overrides.append(f"evaluate.metrics={json.dumps(found)}")
    if len(found) < len(several):
        given.objects["metrics"] = several


def require_parts(parts: Mapping[str, Any], function: Callable[..., Any], allowed: Collection[str] = PARTS) -> None:
    """Refuse keyword arguments that neither a function nor `allowed` has, and parts that are of no use, before anything.

    Raises:
        RecipeError: with the near names.
    """
    known = [name for name in inspect.signature(function).parameters if name not in ("parts", *PARTS)]
    for name, part in parts.items():
        if name not in allowed:
            every = list(dict.fromkeys([*known, *allowed]))
            raise RecipeError(
                f"no argument {name!r}{near(name, every)}",
                where=f"{function.__name__}()",
                allowed=", ".join(every),
                fix="A field of the recipe is changed with overrides=['train.epochs=1'].",
            )
        _require_kind(name, part)


def _require_kind(name: str, part: Any) -> None:
    """Refuse what can't be such a part; what is in it is looked at where it is used."""
    if part is None:
        return
    got = f"{name}={part!r}"[:80] if isinstance(part, str | int | float) else f"{name} is a {type(part).__name__}"
    if name in _FUNCTIONS and not callable(part):
        fix = {"collate": "model.collate", "engine": "engine"}.get(name, f"{name}.name")
        advice = f"A name belongs into the recipe: {fix}=..."
        if name in ("optimizer", "schedule") and not isinstance(part, str):
            advice = f"Pass what makes one: its class, or functools.partial of it with its arguments: {name}=..."
        raise RecipeError(got, where=name, allowed="a function or a class", fix=advice)
    if name == "engine":
        _require_engine(part)
    if name == "model" and (isinstance(part, type) or not callable(getattr(part, "state_dict", None))):
        fix = f"Pass an object: {part.__name__}(...)." if isinstance(part, type) else "A name is model.checkpoint=..."
        raise RecipeError(got, where=name, allowed="a torch.nn.Module", fix=fix)
    if name == "tokenizer" and not callable(getattr(part, "save_pretrained", None)):
        raise RecipeError(got, where=name, allowed="a tokenizer of transformers")
    if name == "metrics":
        for one in part if isinstance(part, list | tuple) else [part]:
            if not (isinstance(one, str | Mapping) or callable(one) or callable(getattr(one, "compute", None))):
                raise RecipeError(
                    f"{one!r} among the metrics",
                    where=name,
                    allowed="a function (predictions, references), what has compute, a name, or a list of those",
                )


def _require_engine(engine: Callable[..., Any]) -> None:
    try:
        inspect.signature(engine).bind(None, None)
    except TypeError as error:
        raise RecipeError(
            f"{name_of(engine)}: {error}", where="engine", allowed="a function train(job, emit)"
        ) from None


def reference_to(part: Any) -> str | None:
    """`module:attribute` by which the very same object is imported, in this process and in another; None without one.

    An object is not found by the name of its class, nor is what stands in a script or a notebook, or in another function.
    """
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    reference = f"{module}:{name}"
    if not module or not name or module in _MAIN or not is_reference(reference):
        return None
    try:
        return reference if resolve({}, reference) is part else None
    except RecipeError:
        return None


def _is_made_alone(kind: type) -> bool:
    """Whether a class of models can be made of nothing, or of the configuration that its weights are saved with."""
    try:
        arguments = (None,) if hasattr(kind, "config_class") and hasattr(kind, "from_pretrained") else ()
        inspect.signature(kind).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def name_of(part: Any) -> str:
    """A part by the name of its class or function; several by those of each."""
    if isinstance(part, str):
        return part
    if isinstance(part, list | tuple):
        return ", ".join(map(name_of, part))
    if isinstance(part, Mapping) and isinstance(part.get("name"), str):
        return str(part["name"])
    if isinstance(part, functools.partial):
        arguments = [_shown(one) for one in part.args] + [f"{key}={_shown(one)}" for key, one in part.keywords.items()]
        return f"{name_of(part.func)}({', '.join(arguments)})"
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}:{named.__qualname__}"


def _shown(argument: Any) -> str:
    """An argument as it reads in every process: a plain value, else what it is."""
    plain = isinstance(argument, str | int | float | None)
    return repr(argument) if plain else name_of(argument)


def given_names(run: Run) -> dict[str, str]:
    """What was given from Python when a run was trained and stands in no recipe: keyword to name."""
    return dict(run.metadata.get("given") or {})


def restorable(run: Run) -> tuple[str, ...]:
    """Which of them the run's own files give back."""
    about = run.metadata
    if "restorable" in about:
        return tuple(about["restorable"])
    # Of a run of before: its tokenizer is in its folder, and a class of transformers is checked when it is loaded.
    is_stock = given_names(run).get("model", "").startswith("transformers.")
    return ("tokenizer", "model") if is_stock else ("tokenizer",)


def require_given(
    run: Run,
    parts: Iterable[str],
    wanted: Collection[str],
    *,
    excused: Collection[str] = (),
    restored: bool = True,
    call: str = "",
) -> None:
    """Refuse to use a run without the objects that it was trained with.

    Args:
        run: that was trained.
        parts: the keywords that are given now.
        wanted: those that matter for what is done.
        excused: those that something else says now.
        restored: whether the run's own files are taken for what they give back.
        call: what to call with the objects, such as `hfpipe.evaluate(run, ...)`.

    Raises:
        RecipeError: with the keywords to pass.
    """
    given, there = given_names(run), {*parts, *excused, *(restorable(run) if restored else ())}
    missing = [key for key in given if key in wanted and key not in there]
    if not missing:
        return
    what = ", ".join(f"{key} ({given[key]})" for key in missing)
    passed = ", ".join(f"{key}=..." for key in missing)
    files = " Or name data that can be read: dataset.path=..., or another recipe." if "dataset" in missing else ""
    engines = " Or take another engine by its name: engine=loop." if "engine" in missing else ""
    raise RecipeError(
        f"run {run.id!r} was given {what} from Python, and {'that' if len(missing) == 1 else 'those'} can't be found again",
        where=str(run.path / "run.json"),
        fix=f"Pass the same again from Python: {call.replace('...', passed) if call else passed}.{files}{engines}",
    )


def excused_by(recipe: object, overrides: Iterable[str]) -> tuple[str, ...]:
    """What another recipe, or overrides, say in place of the objects that a run was given."""
    by_path = {"dataset": ("dataset", "dataset.path", "dataset.data_files"), "loss": ("loss", "loss.name")}
    by_path |= {"metrics": ("evaluate.metrics", "evaluate"), "engine": ("engine",)}
    paths = {change.partition("=")[0].strip() for change in overrides}
    said = tuple(key for key, fields in by_path.items() if paths & {*fields})
    return said if recipe is None else (*_OF_DATA, *said)

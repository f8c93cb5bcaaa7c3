"""Metric scripts, from the Hub or from a file: `evaluate` runs them, and is imported only for them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from huggingface_hub import constants as hub_constants

from hfpipe.errors import MachineError, RecipeError
from hfpipe.parts.metrics.scores import Metric
from hfpipe.recipe.catalog import near


def load_from_hub(name: str, arguments: dict[str, Any]) -> Metric:
    """The metric of `evaluate:NAME`; see `load_metric`."""
    where, module = f"metric {name!r}", name.removeprefix("evaluate:")
    local = Path(module) / f"{Path(module).name}.py"
    if not module or module.endswith(".py") or module.startswith((".", "/", "~")):
        raise RecipeError(
            f"{module!r} is no name of a metric on the Hub", where=where, fix="Write a local script as its path alone."
        )
    if local.exists():  # upstream would run this file, which the recipe did not ask for
        raise RecipeError(
            f"the file {local} stands before the Hub's {module!r}",
            where=where,
            fix=f"Write ./{module} to run that file.",
        )
    return _loaded(
        module,
        where,
        arguments,
        ("config_name", "module_type", "revision"),
        f"Load it once where the Hub can be reached, with the same HF_HOME: evaluate.load({module!r}) in Python; or "
        "give the path of a local copy; or take one of hfpipe's own metrics, which need no Hub.",
    )


def load_from_file(name: str, arguments: dict[str, Any]) -> Metric:
    """The metric of a script that lies on this machine; see `load_metric`."""
    where, path = f"metric {name!r}", Path(name).expanduser()
    script = path / f"{path.resolve().name}.py" if path.is_dir() else path
    if not script.is_file() or script.suffix != ".py":
        raise RecipeError(
            f"there is no metric script {script}",
            where=where,
            allowed="a .py file, or a folder with a script of its own name",
        )
    fix = "HF_HOME must be writable: evaluate imports a copy of the script from there."
    return _loaded(str(script.resolve()), where, arguments, ("config_name",), fix)


def with_arguments(metric: Any, where: str, arguments: dict[str, Any]) -> Metric:
    """Fix the arguments of every later `compute`, which is where upstream's metrics take them."""
    if not arguments:
        return cast(Metric, metric)
    parameters = inspect.signature(metric._compute).parameters
    allowed = [key for key in parameters if key not in metric._feature_names()]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in arguments:
            if key not in allowed:
                raise RecipeError(
                    f"it takes no argument {key!r}{near(key, allowed)}",
                    where=where,
                    allowed=", ".join(allowed) or "none",
                )
    metric.compute = functools.partial(metric.compute, **arguments)
    return cast(Metric, metric)


def _loaded(path: str, where: str, arguments: dict[str, Any], of_load: tuple[str, ...], fix: str) -> Metric:
    """Run `evaluate.load`, and say in hfpipe's words what went wrong; arguments but those `of_load` are for `compute`."""
    import evaluate

    try:
        with _hub_offline() as offline:
            options = {key: value for key, value in arguments.items() if key in of_load}
            metric = evaluate.load(path, keep_in_memory=True, **options)
    except OSError as error:  # ConnectionError and FileNotFoundError too: upstream gives either for an unknown name
        reason = f"{error}; offline mode is on" if offline else f"{error}"
        raise MachineError(f"its script can't be had ({reason})", where=where, fix=fix) from error
    except ImportError as error:
        raise MachineError(
            f"its script can't be imported ({error})", where=where, fix="Install what it needs."
        ) from error
    except Exception as error:  # the script is someone's code: anything can come out of it
        raise RecipeError(f"its script fails while loading ({type(error).__name__}: {error})", where=where) from error
    return with_arguments(metric, where, {key: value for key, value in arguments.items() if key not in of_load})


@contextmanager
def _hub_offline() -> Iterator[bool]:
    """Make `evaluate` obey HF_HUB_OFFLINE, which it doesn't know: it reads its own variable, and only at import."""
    import evaluate

    before = evaluate.config.HF_EVALUATE_OFFLINE
    evaluate.config.HF_EVALUATE_OFFLINE = before or hub_constants.HF_HUB_OFFLINE
    try:
        yield evaluate.config.HF_EVALUATE_OFFLINE
    finally:
        evaluate.config.HF_EVALUATE_OFFLINE = before

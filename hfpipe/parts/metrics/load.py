"""The metric that a recipe names: a row of the catalog, the user's own class or object, or a script."""

from __future__ import annotations

import inspect
import sys
from typing import Any, cast

from hfpipe.errors import RecipeError
from hfpipe.parts.metrics import scripts
from hfpipe.parts.metrics.functions import SIGNATURES, described, function_metric, given_metric
from hfpipe.parts.metrics.scores import Metric
from hfpipe.recipe.catalog import METRICS, resolve


def built_metric(given: Any, name: str) -> Metric:
    """A metric that is given as an object: what has `compute`, a class of that, or a function.

    Raises:
        RecipeError: something else, or a function of another signature.
    """
    where = f"metric {name!r}"
    built: Metric = _built(given, name, {}) if isinstance(given, type) else given_metric(given, where)
    return built


def load_metric(name: str, **arguments: Any) -> Metric:
    """Build the metric that a recipe names.

    Args:
        name: a name of the catalog; `module:attribute` of a metric, of what makes one, or of a function of the signatures
            in `functions.py`; the path of a metric script (`./x`, `/x`, `~/x` or `x.py`, a
            file or a folder that holds a script of its own name); or `evaluate:NAME`, which asks the Hub, or the
            modules cache when `HF_HUB_OFFLINE` or `HF_EVALUATE_OFFLINE` is set. The last two run the script's code,
            and no other name ever leads to them.
        arguments: given to the class; for a script, and for a class that keeps the constructor of `evaluate.Metric`,
            to each `compute`, except for `config_name` and, with `evaluate:`, `module_type` and `revision`.

    Raises:
        RecipeError: unknown name or argument, no script there, or a script that fails while it loads.
        MachineError: the script is neither reachable nor in the cache, needs a package, or can't be written there.
    """
    if not isinstance(name, str):
        raise RecipeError(f"got {name!r}"[:100], where="metric", allowed="a name, such as 'f1'")
    if name in METRICS:
        return _built(resolve(METRICS, name, "metric"), name, arguments)
    if name.startswith("evaluate:"):
        return scripts.load_from_hub(name, arguments)
    if name.startswith(("./", "../", "/", "~")) or name.endswith(".py"):
        return scripts.load_from_file(name, arguments)
    return _built(resolve(METRICS, name, "metric"), name, arguments)


def _built(target: Any, name: str, arguments: dict[str, Any]) -> Metric:
    """Call the class or function behind a name; hand an object that is a metric already through."""
    where = f"metric {name!r}"
    evaluate: Any = sys.modules.get("evaluate")  # where nobody has imported it, no class is a subclass of one of its
    upstream_class = evaluate and isinstance(target, type) and issubclass(target, evaluate.EvaluationModule)
    if upstream_class and target.__init__ is evaluate.EvaluationModule.__init__:
        # That constructor drops what it doesn't know.
        config = {key: arguments[key] for key in arguments if key == "config_name"}
        rest = {key: arguments[key] for key in arguments if key not in config}
        return scripts.with_arguments(target(keep_in_memory=True, **config), where, rest)
    if not isinstance(target, type) and callable(getattr(target, "compute", None)):
        if arguments:
            raise RecipeError(f"it is built already and takes no {', '.join(arguments)}", where=where)
        return cast(Metric, target)
    if not callable(target):
        raise RecipeError(f"it is {target!r}", where=where, allowed="a metric, or what makes one")
    if not isinstance(target, type) and ":" in name and (function := function_metric(target, where, arguments)):
        return function
    try:
        inspect.signature(target).bind(**arguments)
    except TypeError as error:
        taken = f"; or a function {SIGNATURES}" if ":" in name else ""
        raise RecipeError(f"{error}", where=where, allowed=f"{described(target)}{taken}") from error
    metric = target(**arguments)
    if not callable(getattr(metric, "compute", None)):
        raise RecipeError(
            f"it makes {type(metric).__name__}, which has no compute", where=where, allowed="an evaluate.Metric"
        )
    return cast(Metric, metric)

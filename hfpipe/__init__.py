"""hfpipe: fine-tune Hugging Face checkpoints, and trust the number that comes out.

    import hfpipe

    recipe = hfpipe.load_recipe("recipes/mrpc.yaml", overrides=["train.epochs=1"])
    run = hfpipe.finetune(recipe)
    hfpipe.evaluate(run, split="validation").intervals["f1"]
    run.predict([("A text.", "Another text.")])

The names are imported on first use, so that `import hfpipe` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfpipe.errors import HfpipeError
    from hfpipe.evaluation.evaluate import Evaluation, evaluate
    from hfpipe.evaluation.prediction.predict import predict, predict_file
    from hfpipe.experiments.compare.compare import compare
    from hfpipe.experiments.seeds import finetune_seeds
    from hfpipe.parts.metrics.adapter import as_evaluate_metric
    from hfpipe.recipe import Recipe, load_recipe
    from hfpipe.runs import Run
    from hfpipe.runs.groups import Group
    from hfpipe.training.finetune import finetune
    from hfpipe.training.job import Job
    from hfpipe.training.prepare import prepare

_MODULES = {
    "Evaluation": "hfpipe.evaluation.evaluate",
    "Group": "hfpipe.runs.groups",
    "HfpipeError": "hfpipe.errors",
    "Job": "hfpipe.training.job",
    "Recipe": "hfpipe.recipe",
    "Run": "hfpipe.runs",
    "as_evaluate_metric": "hfpipe.parts.metrics.adapter",
    "compare": "hfpipe.experiments.compare.compare",
    "evaluate": "hfpipe.evaluation.evaluate",
    "finetune": "hfpipe.training.finetune",
    "finetune_seeds": "hfpipe.experiments.seeds",
    "load_recipe": "hfpipe.recipe",
    "predict": "hfpipe.evaluation.prediction.predict",
    "predict_file": "hfpipe.evaluation.prediction.predict",
    "prepare": "hfpipe.training.prepare",
}

__all__ = [
    "Evaluation",
    "Group",
    "HfpipeError",
    "Job",
    "Recipe",
    "Run",
    "as_evaluate_metric",
    "compare",
    "evaluate",
    "finetune",
    "finetune_seeds",
    "load_recipe",
    "predict",
    "predict_file",
    "prepare",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("hfpipe")
    if name not in _MODULES:
        raise AttributeError(f"module 'hfpipe' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]

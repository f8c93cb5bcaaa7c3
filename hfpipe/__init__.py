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
    from hfpipe.comparison.compare import compare
    from hfpipe.errors import HfpipeError
    from hfpipe.job import Job, prepare
    from hfpipe.pipeline import Evaluation, evaluate, finetune, predict, predict_file
    from hfpipe.recipe import Recipe, load_recipe
    from hfpipe.runs import Run
    from hfpipe.runs.groups import Group
    from hfpipe.seeds import finetune_seeds

_PLACES = {
    "Evaluation": "hfpipe.pipeline",
    "Group": "hfpipe.runs.groups",
    "HfpipeError": "hfpipe.errors",
    "Job": "hfpipe.job",
    "Recipe": "hfpipe.recipe",
    "Run": "hfpipe.runs",
    "compare": "hfpipe.comparison.compare",
    "evaluate": "hfpipe.pipeline",
    "finetune": "hfpipe.pipeline",
    "finetune_seeds": "hfpipe.seeds",
    "load_recipe": "hfpipe.recipe",
    "predict": "hfpipe.pipeline",
    "predict_file": "hfpipe.pipeline",
    "prepare": "hfpipe.job",
}

__all__ = [
    "Evaluation",
    "Group",
    "HfpipeError",
    "Job",
    "Recipe",
    "Run",
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
    if name not in _PLACES:
        raise AttributeError(f"module 'hfpipe' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]

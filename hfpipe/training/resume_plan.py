"""Whether a run may go on, and from where: decided from its files, before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe import Recipe, load_recipe, with_overrides
from hfpipe.runs import checkpoints
from hfpipe.runs.store import Run
from hfpipe.system import snapshot

_FREE = (
    *("engine", "dataset.num_proc", "train.workers"),
    *(f"checkpoints.{key}" for key in ("every", "every_steps", "every_minutes", "keep_last", "keep_state")),
)
"""What changes no step of a run, and so needs no permission."""
_PACKAGE = Path(__file__).parents[1]
_COMPUTING = ("parts", "training", "evaluation/inference.py")
"""The folders and files of hfpipe whose code decides what a step computes."""
_LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "datasets", "numpy")

Change = tuple[Any, Any]
"""Before and now."""


@dataclass(frozen=True)
class Plan:
    """How a run goes on.

    Attributes:
        recipe: what it goes on with.
        checkpoint: from where; None from the start.
        progress: `checkpoint.json`, empty at the start.
        skipped: checkpoints that were passed over, each with the reason.
        changes: what differs from the recipe of the checkpoint, by path.
        allowed: what may differ.
        reset_optimizer: whether the optimizer starts with a fresh state.
        finished: whether there is nothing left to do.
        resumes: whether this is a run that had started before.
        fitted: what was changed because memory ran out, in words.
    """

    recipe: Recipe
    checkpoint: checkpoints.Checkpoint | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    changes: dict[str, Change] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()
    reset_optimizer: bool = False
    finished: bool = False
    resumes: bool = False
    fitted: str = ""

    def may_differ(self, what: str) -> bool:
        """Whether a change of this was allowed, by its own name or by that of its section."""
        return any(what == name or what.startswith(f"{name}.") for name in self.allowed)


def make_plan(
    run: Run,
    recipe: Recipe | None = None,
    overrides: Sequence[str] = (),
    *,
    allow_change: Sequence[str] = (),
    reset_optimizer: bool = False,
    use_previous: bool = False,
) -> Plan:
    """Look at what a run left, and compare its recipe.

    Args:
        run: the run.
        recipe: in place of the run's own.
        overrides: changes to it.
        allow_change: paths of the recipe, or `dataset`, `tokenizer`, `model`, `code`, `given`, `processes`, that may
            differ.
        reset_optimizer: do without what optimizer, schedule and generators remember.
        use_previous: where the newest checkpoint is damaged, take the one before.

    Raises:
        RecipeError: a change that was not allowed by name.
        ModelError: a damaged checkpoint.
    """
    own = run.recipe
    wanted = with_overrides(own if recipe is None else recipe, overrides)
    finished = run.status == "finished"
    if finished and not _guarded(differences(own.model_dump(mode="json"), wanted.model_dump(mode="json"))):
        return Plan(wanted, finished=True, resumes=True)
    ignored = checkpoints.STATE_FILES if reset_optimizer else ()
    checkpoint, skipped = checkpoints.newest(run.path, use_previous=use_previous, ignored=ignored)
    progress = checkpoint.progress if checkpoint else {}
    # A field that came later has its default.
    trained = run.found_again(load_recipe(progress["recipe"])) if progress else own
    changes = differences(trained.model_dump(mode="json"), wanted.model_dump(mode="json"))
    before = run.metadata.get("allowed_changes", {})
    refused = {
        path: change
        for path, change in _guarded(changes).items()
        if not _covered(path, allow_change) and not (path in before and before[path] == change[1])
    }
    if refused:
        raise RecipeError(
            f"the recipe of run {run.id!r} was another:\n{changes_as_text(refused)}",
            where="--resume",
            fix="Pass "
            + " ".join(f"--allow-change {path}" for path in refused)
            + " if that is meant, or leave the recipe as it was.",
        )
    if finished and checkpoint is None:
        raise RecipeError(
            f"run {run.id!r} is finished, and has no checkpoint to go on from",
            where="--resume",
            fix=f"Start a new run from its weights: model.checkpoint={run.path / 'model'}.",
        )
    if checkpoint is not None and not reset_optimizer and not checkpoints.has_state(checkpoint.path):
        kept = "" if own.checkpoints.keep_state else " (checkpoints.keep_state is false)"
        raise RecipeError(
            f"what the optimizer of run {run.id!r} remembered was removed when it was finished{kept}",
            where="--resume",
            fix="--reset-optimizer goes on with the weights and a fresh optimizer; or start a new run from them: "
            f"model.checkpoint={run.path / 'model'}.",
        )
    # As it was allowed once, and as nothing in a recipe says it.
    remembered = ["processes"] if before.get("processes") == int(os.environ.get("WORLD_SIZE", "1")) else []
    return Plan(
        wanted,
        checkpoint,
        progress,
        tuple(skipped),
        changes,
        (*allow_change, *remembered),
        reset_optimizer=reset_optimizer,
        resumes=True,
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> dict[str, Change]:
    """Fields that differ between two resolved recipes, by dotted path; lists are compared as a whole."""
    found: dict[str, Change] = {}
    for key in dict.fromkeys((*before, *now)):
        here = f"{path}.{key}".lstrip(".")
        first, second = before.get(key), now.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            found |= differences(first, second, here)
        elif first != second:
            found[here] = (first, second)
    return found


def changes_as_text(changes: Mapping[str, Change]) -> str:
    """A diff, two lines a change."""
    return "\n".join(f"  - {path}: {before}\n  + {path}: {now}" for path, (before, now) in changes.items())


@cache
def code(package: Path = _PACKAGE) -> dict[str, str]:
    """What computes: a hash of hfpipe's own code that does, and the versions of the libraries that decide a result."""
    own = snapshot.digest_of_code(*(package / folder for folder in _COMPUTING))
    versions = snapshot.versions()
    return {"hfpipe": own} | {name: versions[name] for name in _LIBRARIES if name in versions}


def _guarded(changes: Mapping[str, Change]) -> dict[str, Change]:
    return {path: change for path, change in changes.items() if not _covered(path, _FREE)}


def _covered(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)

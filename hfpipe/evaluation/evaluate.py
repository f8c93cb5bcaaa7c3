"""evaluate: a run or a checkpoint measured on splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpipe.recipe import Recipe, to_yaml
from hfpipe.runs.store import Run
from hfpipe.runs.targets import as_recipe, quiet, reach_hub, require_data, with_checkpoint
from hfpipe.system import snapshot
from hfpipe.system.display import NOTE, Display, Silent
from hfpipe.system.machine import translated_errors

if TYPE_CHECKING:
    from hfpipe.evaluation.document import SplitEvaluation


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured of one split.

    Attributes:
        target: what was measured, as it was named.
        split: the split or slice.
        metrics: name to number, None where undefined.
        intervals: name to the [low, high] of a 95 % bootstrap interval, None where there is none.
        baseline: what a constant prediction scores: `what` in words, and `metrics`; None where there is none.
        notices: what a reader of these metrics should know.
        examples: rows, each scored exactly once.
        examples_per_second: rows over the time of the forward passes.
        document: all of it and more: classes, confusion, calibration, slices; see docs/evaluation.md.
        also: the further splits, where several were asked for.
    """

    target: str
    split: str
    metrics: dict[str, float | None]
    intervals: dict[str, list[float] | None]
    baseline: dict[str, Any] | None
    notices: list[str]
    examples: int
    examples_per_second: float
    document: dict[str, Any] = field(repr=False)
    also: tuple[Evaluation, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        own = {key: value for key, value in self.document.items() if key not in ("format", "names")}
        return {**own, **({"also": [one.as_dict() for one in self.also]} if self.also else {})}


def evaluate(
    target: Run | str | Path,
    *,
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    split: str | Sequence[str] | None = None,
    runs_dir: str | Path | None = None,
    display: Display | None = None,
) -> Evaluation:
    """Measure a run, a checkpoint folder or a checkpoint on the Hub.

    What is measured of a run is written to its `evaluations/`; nothing else in its folder is touched.

    Args:
        target: a run or its id or folder, a local checkpoint folder, or a Hub id.
        recipe: data and task; by default the run's own. A checkpoint needs one.
        overrides: `dotted.path=value` each.
        split: the split or slice, or several; `train` and `evaluation` mean those of the recipe. By default the
            evaluation split.
        runs_dir: where run ids are looked up.
        display: where progress goes; by default nowhere.

    Returns:
        What was measured of the first split, with the others in `also`.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    display = display or Silent()
    name = str(target.path if isinstance(target, Run) else target)
    if isinstance(target, Path):
        name = str(target.expanduser().absolute())  # a Path is a folder, never an id of the Hub
    if recipe is None:
        require_data(target, name, overrides, runs_dir)
    run, resolved = with_checkpoint(target, name, recipe, overrides, runs_dir)
    reach_hub(resolved, display)
    from hfpipe.evaluation.scoring import evaluate_checkpoint

    changes = list(overrides)
    if recipe is not None:
        changes.insert(0, f"recipe {snapshot.digest_of_text(to_yaml(as_recipe(recipe, ())))}")
    splits = [split] if isinstance(split, str) or split is None else list(split)
    with quiet(), translated_errors():
        measured = evaluate_checkpoint(
            resolved, splits, display.notice, target=run.id if run else name, overrides=changes
        )
    if run is not None:
        _write(run, measured, changes, display)
    found = [_evaluation(name, one.document) for one in measured]
    return replace(found[0], also=tuple(found[1:]))


def _evaluation(target: str, document: dict[str, Any]) -> Evaluation:
    shared = ("split", "metrics", "intervals", "baseline", "notices", "examples", "examples_per_second")
    return Evaluation(target=target, document={**document, "target": target}, **{key: document[key] for key in shared})


def _write(run: Run, measured: Sequence[SplitEvaluation], changes: Sequence[str], display: Display) -> None:
    """Write what was measured into the run; a folder that can't be written costs no metric."""
    from accelerate import PartialState

    from hfpipe.runs.evaluations import file_name, write_evaluation

    if not PartialState().is_main_process:
        return
    try:
        for one in measured:
            write_evaluation(run, file_name(one.document["split"], changes), one.document, one.examples)
    except OSError as error:
        display.notice(
            f"{NOTE}the metrics could not be written to {run.path / 'evaluations'}: {error.strerror or error}"
        )

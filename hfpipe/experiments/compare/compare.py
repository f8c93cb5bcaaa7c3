"""Train the variants of a recipe from one seed, and say where and by how much they differ."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hfpipe.errors import HfpipeError, NumericError, RecipeError
from hfpipe.experiments.compare.figure import losses_svg
from hfpipe.experiments.compare.grid import Variant, grid
from hfpipe.experiments.compare.traces import LINEAR, Difference, Trace, compare_traces, read_trace
from hfpipe.recipe import Recipe, load_recipe, with_overrides
from hfpipe.recipe.source import Overrides
from hfpipe.runs import Run, default_folder
from hfpipe.runs.arguments import checked
from hfpipe.runs.given_parts import take_parts
from hfpipe.system.display import Display, Once, as_display


@dataclass(frozen=True)
class Compared:
    """One variant beside the baseline; None where there is nothing to measure or predict.

    Attributes:
        name: the varied values, joined.
        run: its run.
        max_abs_loss_difference: over the steps that both took.
        max_abs_weight_difference: over all weights of `model/`.
        first_differing_step: the first step whose loss is another number; when all losses are equal and the weights
            are not, the last step.
        gradient_ratio: L2 norm of the gradient of step 1, before clipping, over the baseline's.
        predicted_gradient_ratio: what the reductions make of that ratio.
        effective_learning_rate: the rate that plain SGD on the mean loss would need for the same first step.
        same_as: the first variant that it equals, the baseline before others.
        verdict: in words.
        metrics: of the final weights on the evaluation split; None where undefined, empty where nothing was measured.
        comparisons: of the metrics with the baseline's on the same examples, one a split, as `runs diff` has them; empty
            for the baseline.
    """

    name: str
    run: Run
    max_abs_loss_difference: float | None
    max_abs_weight_difference: float | None
    first_differing_step: int | None
    gradient_ratio: float | None
    predicted_gradient_ratio: float | None
    effective_learning_rate: float | None
    same_as: str | None
    verdict: str
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    comparisons: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        path: the folder of the comparison; each variant's run lies in it, and `compare.json` and `losses.svg`.
        baseline: name of the first variant, which the others are compared with.
        variants: in the order of the grid, the baseline included.
    """

    path: Path
    baseline: str
    variants: list[Compared]

    def as_dict(self) -> dict[str, Any]:
        """As `compare.json` and `--json` have it."""
        rows = [
            {key: str(part.path) if isinstance(part, Run) else part for key, part in vars(row).items()}
            for row in self.variants
        ]
        return {
            "path": str(self.path),
            "baseline": self.baseline,
            "figure": str(self.path / "losses.svg"),
            "variants": rows,
        }


@checked
def compare(
    recipe: Recipe | str | Path | Mapping[str, Any],
    vary: Mapping[str, Sequence[Any]],
    *,
    overrides: Overrides = (),
    runs_dir: str | Path | None = None,
    display: Display | bool | None = None,
    **parts: Any,
) -> Comparison:
    """Train every combination of some fields of a recipe from its one seed, and compare metrics, losses and weights.

    Args:
        recipe: a recipe, or what `load_recipe` takes.
        vary: dotted path to its values, such as `{"engine": ["trainer", "loop"]}`; the first combination is
            the baseline.
        overrides: `dotted.path=value` each, for all variants.
        runs_dir: folder for the comparison; by default `$HFPIPE_RUNS_DIR` or `runs`.
        display: where progress goes: by default to a terminal or a notebook, and nowhere else; False for none.
        parts: objects in place of the recipe's parts, in all variants, see :func:`hfpipe.prepare`.

    Returns:
        The measured differences and what they mean. A variant that diverges is part of it.

    Raises:
        RecipeError: every mistake in any variant, before anything is trained.
        HfpipeError: a variant can't be trained for another reason than diverging.
    """
    given = take_parts(parts, compare)
    display = Once(as_display(display))
    idle = [override for override in overrides if override.partition("=")[0].strip() in vary]
    if idle:
        raise RecipeError(
            f"{', '.join(idle)}: varied too, so this does nothing", where="--vary", fix="Say one of the two."
        )
    changes = [*overrides, *given.overrides]
    base = with_overrides(recipe, changes) if isinstance(recipe, Recipe) else load_recipe(recipe, changes)
    variants = grid(base, vary)
    _check(variants, display)
    divides = {variant.name: _optimizer_divides(variant.recipe, given.objects.get("optimizer")) for variant in variants}
    group = _new_group(base, runs_dir)
    traces = []
    for number, variant in enumerate(variants, start=1):
        display.notice(f"variant {number} of {len(variants)}: {variant.name}")
        run, failure = _train(variant, group, display, given.objects)
        is_linear = variant.recipe.optimizer.name in LINEAR and "optimizer" not in given.objects
        traces.append(
            read_trace(
                variant.name, run, variant.recipe, divides=divides[variant.name], is_linear=is_linear, failure=failure
            )
        )
    comparison = with_metrics(build_comparison(group, traces))
    _write(comparison, base.name, traces)
    return comparison


def build_comparison(folder: Path, traces: Sequence[Trace]) -> Comparison:
    """Compare every trace with the first one, and with the others before it for a twin."""
    from hfpipe.experiments.compare import verdicts

    base = traces[0]
    rows: list[Compared] = []
    alone: list[Trace] = []  # those that equal none before them
    for trace in traces:
        difference = compare_traces(trace, base)
        twin = None if trace is base else _twin(trace, base, difference, alone)
        if twin is None:
            alone.append(trace)
        other = None if twin and twin[0] == base.name else twin
        text = verdicts.of_baseline(base) if trace is base else verdicts.verdict(trace, base, difference, other)
        rows.append(
            Compared(
                name=trace.name,
                run=Run(trace.path),
                max_abs_loss_difference=difference.max_loss,
                max_abs_weight_difference=difference.max_weight,
                first_differing_step=difference.first_step,
                gradient_ratio=verdicts.gradient_ratio(trace, base),
                predicted_gradient_ratio=verdicts.predicted_gradient_ratio(trace, base),
                effective_learning_rate=verdicts.effective_learning_rate(trace),
                same_as=twin[0] if twin else None,
                verdict=text,
            )
        )
    return Comparison(folder, base.name, rows)


def with_metrics(comparison: Comparison) -> Comparison:
    """The same with each variant's metrics, and their paired test against the baseline's on the same examples."""
    from hfpipe.experiments.diff.same_examples import compare_runs

    base = comparison.variants[0]
    rows = []
    for row in comparison.variants:
        names = (base.name, row.name)
        found = [] if row is base or not row.run.metrics else compare_runs(base.run, row.run, names)
        rows.append(replace(row, metrics=row.run.metrics, comparisons=found))
    return replace(comparison, variants=rows)


def _twin(trace: Trace, base: Trace, difference: Difference, alone: Sequence[Trace]) -> tuple[str, str] | None:
    """The first earlier variant that this one equals in losses and weights, and how."""
    for other in alone:
        found = difference if other is base else compare_traces(trace, other)
        if found.size is not None and found.weights_within:
            return other.name, found.size
    return None


def _check(variants: Sequence[Variant], display: Display) -> None:
    """Import and bind the parts of every variant, once the Hub was asked for, since that imports the libraries."""
    from hfpipe.runs.targets import reach_hub

    for variant in variants:
        reach_hub(variant.recipe, display)
    from hfpipe.parts.build import check_parts

    problems: list[str] = []
    for variant in variants:
        try:
            check_parts(variant.recipe)
        except RecipeError as error:
            problems += str(error).splitlines()
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(problems)))


def _optimizer_divides(recipe: Recipe, given: Any) -> bool:
    """Whether the optimizer divides by the items: asked of one that trains nothing."""
    import torch

    from hfpipe.parts.optim.optimizers import build_optimizer
    from hfpipe.recipe.catalog import OPTIMIZERS, resolve

    part = recipe.optimizer
    factory = given or resolve(OPTIMIZERS, part.name, "optimizer")
    built = build_optimizer(
        torch.nn.Linear(1, 1), factory, lr=part.lr, weight_decay=part.weight_decay, **part.arguments
    )
    return bool(getattr(built, "divides_by_items", False))


def _new_group(recipe: Recipe, runs_dir: str | Path | None) -> Path:
    """The folder of the comparison, made by the main process and known to all."""
    from hfpipe.system.processes import from_main, join

    path = ""
    if join().is_main_process:
        path = str(Run.create(recipe, Path(runs_dir) if runs_dir else default_folder()).path)
    return Path(*from_main(path))


def _train(variant: Variant, group: Path, display: Display, parts: dict[str, Any]) -> tuple[Run, str | None]:
    """Train one variant from a copy of a given model; one that diverges is an answer, too."""
    from hfpipe.training.finetune import finetune

    parts = {**parts, "model": copy.deepcopy(parts["model"])} if "model" in parts else parts
    try:
        return finetune(variant.recipe, runs_dir=group, name=variant.name, display=display, **parts), None
    except NumericError as error:
        run = Run(group / variant.name)
        if not run.path.is_dir():
            raise
        display.notice(f"{variant.name} diverged: {error.what}")
        return run, error.what
    except HfpipeError as error:
        if not any(group.glob("*/run.json")):
            shutil.rmtree(group, ignore_errors=True)  # nothing was trained
        error.where = f"variant {variant.name}" + (f": {error.where}" if error.where else "")
        raise


def _write(comparison: Comparison, title: str, traces: Sequence[Trace]) -> None:
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    folder = Run(comparison.path)
    folder.write_json("compare.json", comparison.as_dict())
    twins = {row.name: row.same_as for row in comparison.variants if row.same_as}
    folder.write_text("losses.svg", losses_svg(title, traces, twins))

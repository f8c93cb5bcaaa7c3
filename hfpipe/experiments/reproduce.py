"""Train a run again from what it recorded, and say whether the same weights and metrics came out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfpipe.errors import DataError, HfpipeError, ModelError, RecipeError
from hfpipe.experiments.compare.traces import compare_traces, read_trace
from hfpipe.recipe import Recipe, with_overrides
from hfpipe.runs import Run, default_folder, find_run
from hfpipe.runs.difference import difference
from hfpipe.runs.given_parts import TRAINED_WITH, given_names, require_given, restorable, take_parts
from hfpipe.runs.model_files import model_folder
from hfpipe.runs.targets import reach_hub
from hfpipe.system import library_logs
from hfpipe.system.display import Display, Silent
from hfpipe.system.machine import translated_errors
from hfpipe.training.finetune import finetune

_SAME_UPDATE = ("train.batch_size", "train.batching.tokens", "train.accumulate", "processes")
_INPUTS: dict[str, type[HfpipeError]] = {
    "dataset": DataError,
    "checkpoint": ModelError,
    "tokenizer": ModelError,
    "model": ModelError,
}
_ENVIRONMENT = ("versions", "machine", "commit", "device", "precision", "threads", "processes")
_RECORDED = ("loss", "grad_norm", "lr", "num_items")


@dataclass(frozen=True)
class Reproduction:
    """How a second training from the same recipe came out.

    Attributes:
        run: the folder of the run that was to be reproduced.
        again: the folder of the new run.
        weights_equal: whether the saved weights are the same, bit for bit.
        max_abs_weight_difference: over all weights; None when the first ones are gone or have another shape.
        metrics_equal: whether every metric on the evaluation split is the same number.
        metrics: name to [first, again], where they differ.
        first_differing_step: the first step of which a recorded value differs or that only one run has; when none does and
            the weights are not equal, the last step; None when nothing differs.
        differing: at that step, name to [first, again] of what differs.
        inputs: data, checkpoint or tokenizer that are not the same ones, each with its digests [first, again].
        environment: dotted path to [first, again] of versions, machine and commit that differ.
    """

    run: str
    again: str
    weights_equal: bool
    max_abs_weight_difference: float | None
    metrics_equal: bool
    metrics: dict[str, list[float | None]]
    first_differing_step: int | None
    differing: dict[str, list[Any]]
    inputs: dict[str, list[str]]
    environment: dict[str, list[Any]]

    @property
    def equal(self) -> bool:
        """Whether weights and metrics are the same."""
        return self.weights_equal and self.metrics_equal

    def as_dict(self) -> dict[str, Any]:
        """As `--json` has it."""
        return {
            **asdict(self),
            "parted": self.differing,
            "equal": self.equal,
        }  # `parted`: its key before, for one release

    def lines(self) -> list[str]:
        """The same in words."""
        lines = [self.again]
        if self.weights_equal:
            lines.append("weights: equal, bit for bit")
        else:
            gap = self.max_abs_weight_difference
            by = "" if gap is None else f" by at most {gap:.3g}"
            lines.append(f"weights: not equal{by}")
        lines.append("metrics: equal" if self.metrics_equal else "metrics: not equal")
        lines += [f"  {name}: {_pair(values)}" for name, values in self.metrics.items()]
        if self.first_differing_step is not None:
            lines.append(f"the records differ at step {self.first_differing_step}")
            lines += [f"  {name}: {_pair(values)}" for name, values in self.differing.items()]
        lines += [f"not the same {what}: digest {_pair(values)}" for what, values in self.inputs.items()]
        if self.environment:
            lines.append("different here:")
            lines += [f"  {path}: {_pair(values)}" for path, values in self.environment.items()]
        elif not self.equal:
            lines.append("versions, machine and commit are the same")
        return lines


def reproduce(
    target: Run | str | Path,
    *,
    runs_dir: str | Path | None = None,
    anyway: bool = False,
    display: Display | None = None,
    **parts: Any,
) -> Reproduction:
    """Train a finished run again from its recipe, with its engine, and compare.

    Args:
        target: a run, or its id or folder.
        runs_dir: where its id is looked up and the new run lands; by default `$HFPIPE_RUNS_DIR` or `runs`.
        anyway: train also when data, checkpoint or tokenizer are not the ones that the run had, or its recipe was
            changed while it was trained.
        display: where progress goes; by default nowhere.
        parts: the objects that the run was given from Python, as they were before it; see :func:`hfpipe.prepare`.

    Raises:
        RecipeError: the run was not finished, parts that it was given from Python are not given now, or its recipe was
            changed on the way.
        DataError: the data are not the same.
        ModelError: checkpoint or tokenizer are not the same.
        HfpipeError: the training itself fails.
    """
    display = display or Silent()
    folder = Path(runs_dir) if runs_dir else default_folder()
    run = target if isinstance(target, Run) else find_run(str(target), folder)
    given = take_parts(parts, reproduce, TRAINED_WITH)
    kept = ("tokenizer",) if "tokenizer" in restorable(run) else ()  # it is not trained, so the run has it as it was
    require_given(
        run, given.keywords, TRAINED_WITH, excused=kept, restored=False, call="hfpipe.finetune(run.recipe, ...)"
    )
    recipe = with_overrides(_pinned(run), given.overrides)
    # Of these `train.fit_memory` or another machine makes others; as long as there is one way to cut, the update is the same.
    is_one_cut = len(run.metadata.get("updates", [])) <= 1
    allowed = run.metadata.get("allowed_changes", {})
    changed = [path for path in allowed if not (path in _SAME_UPDATE and is_one_cut)]
    if changed and not anyway:
        raise RecipeError(
            f"run {run.id!r} went on with another recipe on its way ({', '.join(changed)}), so that no one recipe gives it",
            where=str(run.path / "run.json"),
            fix="To train with the last one and compare: --anyway.",
        )
    reach_hub(recipe, display)
    if kept and "tokenizer" in given_names(run) and "tokenizer" not in parts:
        given.objects["tokenizer"] = _tokenizer_of(run)
    inputs = _other_inputs(run, recipe, given.objects, display)
    if inputs and not anyway:
        what = ", ".join(f"{name} (digest {first[:12]} then, {now[:12]} now)" for name, (first, now) in inputs.items())
        raise _INPUTS[next(iter(inputs))](
            f"not what run {run.id!r} was trained with: {what}",
            where=str(run.path / "run.json"),
            fix="Put it back, or train on what is there and compare: --anyway.",
        )
    return compare_runs(run, finetune(recipe, runs_dir=folder, display=display, **given.objects), inputs)


def compare_runs(run: Run, again: Run, inputs: dict[str, list[str]]) -> Reproduction:
    """What differs between a run and the one that should be the same.

    Args:
        run: the first one.
        again: the second one.
        inputs: what is known to differ of data, checkpoint and tokenizer.
    """
    first, second = run.metadata.get("model") or {}, again.metadata.get("model") or {}
    weights = {name for name in (*first, *second) if name.endswith(".safetensors")}
    same_files = bool(weights) and all(first.get(name) == second.get(name) for name in weights)
    traces = [read_trace(one.id, one, one.recipe, divides=False, is_linear=False) for one in (run, again)]
    gap = 0.0 if same_files else compare_traces(*traces).max_weight
    step, differing = _first_difference(*(trace.steps for trace in traces))
    if step is None and gap != 0.0:
        step = traces[1].weights_step
    names = dict.fromkeys((*run.metrics, *again.metrics))
    unequal = {
        name: [run.metrics.get(name), again.metrics.get(name)]
        for name in names
        if (name in run.metrics) != (name in again.metrics) or run.metrics.get(name) != again.metrics.get(name)
    }
    return Reproduction(
        run=str(run.path),
        again=str(again.path),
        weights_equal=gap == 0.0,
        max_abs_weight_difference=gap,
        metrics_equal=not unequal,
        metrics=unequal,
        first_differing_step=step,
        differing=differing,
        inputs=inputs,
        environment={
            path: [before, after]
            for path, before, after in difference(run, again)
            if path.partition(".")[0] in _ENVIRONMENT
        },
    )


def _pinned(run: Run) -> Recipe:
    """The recipe of a run, with the commits on the Hub that it really used."""
    if run.status != "finished":
        raise RecipeError(
            f"run {run.id!r} is {run.status}: there is nothing to compare with", fix="Name a finished run."
        )
    recipe, identity = run.recipe, run.metadata.get("identity") or {}
    pins = []
    for section, part in (("dataset", recipe.dataset), ("model", recipe.model)):
        commit = (identity.get("checkpoint" if section == "model" else section) or {}).get("commit")
        if commit and part.revision is None:
            pins.append(f"{section}.revision='{commit}'")
    return with_overrides(recipe, pins) if pins else recipe


def _tokenizer_of(run: Run) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder(run), trust_remote_code=False)


def _other_inputs(run: Run, recipe: Recipe, parts: Mapping[str, Any], display: Display) -> dict[str, list[str]]:
    """Data, checkpoint, tokenizer and given model that are not the ones of the run, as their digests then and now."""
    from hfpipe.parts.inputs.rows import read_rows
    from hfpipe.parts.model.own_class import weights_digest

    of_rows = {key: parts.get(key) for key in ("dataset", "tokenizer", "model")}
    with library_logs.library_logs_to(Path(os.devnull)), translated_errors():
        rows = read_rows(recipe, notice=display.notice, **of_rows)
    now = {
        "dataset": rows.source.digest,
        "checkpoint": rows.checkpoint.weights_digest,
        "tokenizer": rows.tokenizer_digest,
        **({"model": weights_digest(parts["model"])} if "model" in parts else {}),
    }
    then = {what: found.get("digest") for what, found in (run.metadata.get("identity") or {}).items()}
    return {what: [str(then.get(what)), digest] for what, digest in now.items() if then.get(what) != digest}


def _first_difference(
    first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> tuple[int | None, dict[str, list[Any]]]:
    """The first step whose recorded values differ, or that only one has, and those values."""
    ours, theirs = ({record["step"]: record for record in steps} for steps in (first, second))
    for step in sorted(ours.keys() | theirs.keys()):
        if step not in ours or step not in theirs:
            return step, {"recorded": [step in ours, step in theirs]}
        unequal = {
            name: [ours[step].get(name), theirs[step].get(name)]
            for name in _RECORDED
            if ours[step].get(name) != theirs[step].get(name)
        }
        if unequal:
            return step, unequal
    return None, {}


def _pair(values: list[Any]) -> str:
    first, second = ("undefined" if one is None else str(one) for one in values)
    return f"{first} then, {second} now"

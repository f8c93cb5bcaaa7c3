"""One training: a job prepared, put where the run was, trained by its engine, and handed on to be finished."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hfpipe.errors import (
    MachineError,
    NumericError,
    RecipeError,
)
from hfpipe.recipe import to_yaml
from hfpipe.recipe.catalog import ENGINES, resolve
from hfpipe.runs.checkpoints import STATE_FILES, clear_staging, list_checkpoints, remove, require_space
from hfpipe.runs.records import cut_back
from hfpipe.runs.store import Run, now
from hfpipe.system.display import Display
from hfpipe.system.machine import translated_errors
from hfpipe.system.stops import StopRequests
from hfpipe.training.attempt import Attempt, memory_ran_out
from hfpipe.training.finish import finish, reload_best
from hfpipe.training.fit_memory import try_memory
from hfpipe.training.given_parts import given_parts
from hfpipe.training.recorder import Recorder
from hfpipe.training.resume_plan import Plan


def train_once(
    run: Run,
    plan: Plan,
    engine: Any,
    display: Display,
    parts: dict[str, Any],
    stops: StopRequests,
    attempt: Attempt,
    *,
    main: bool,
) -> None:
    """Prepare a job, train it from where the plan says, and finish the run.

    Args:
        run: the run folder.
        plan: the recipe, and the checkpoint to go on from.
        engine: a function in place of the recipe's engine, or its name.
        display: where progress goes.
        parts: objects in place of the recipe's parts.
        stops: what was asked of this process.
        attempt: is told when training begins.
        main: whether this process writes.
    """
    from accelerate import PartialState

    from hfpipe.parts.build import is_greater_better
    from hfpipe.system.processes import from_main
    from hfpipe.training import resume
    from hfpipe.training.determinism import cost, deterministic
    from hfpipe.training.job import evaluate_step, predict_split
    from hfpipe.training.prepare import prepare
    from hfpipe.training.scale_check import check_scale, is_due

    recipe, step = plan.recipe, plan.checkpoint.step if plan.checkpoint else 0
    stops.raise_if_requested()
    job = prepare(recipe, say=display.say, batch_plans=resume.batch_plans_of(plan), **parts)
    train = engine if callable(engine) else resolve(ENGINES, recipe.engine, "engine")
    given = given_parts(parts if isinstance(engine, str | None) else {**parts, "engine": engine})
    notices = resume.restore_job(job, plan, given)
    several = PartialState().num_processes > 1
    if several and recipe.train.fit_memory and step < job.num_steps:
        try_memory(job)
    scale = check_scale(job) if is_due(job) and not step else None
    weights, needed = resume.bytes_of(job)
    waited = {"unimproved": 0} if "evaluate.best" in plan.changes else {}  # for another figure than is waited for now

    recorder = Recorder(
        run,
        recipe,
        num_steps=job.num_steps,
        steps_per_epoch=job.steps_per_epoch,
        step_offset=job.step_offset,
        evaluates=job.evaluation_data is not None,
        greater_is_better=is_greater_better(recipe),
        save=resume.saver(job),
        show=display.record,
        writes=main,
        about=resume.about(job, given),
        required=("config.json", "model.safetensors", *STATE_FILES),
        needed=needed,
        stops=stops,
        agree=resume.agree if several else None,
        progress={**plan.progress, **waited},
    )

    def emit(record: dict[str, Any]) -> None:
        recorder(record)
        job.stops_early = recorder.stops_early
        if record["type"] == "evaluation":
            job.forget({record["step"], (recorder.best or record)["step"]})

    if main:
        spec = recipe.checkpoints
        saves = (
            spec.every != "never" or spec.every_steps or spec.every_minutes or (spec.keep_best and recipe.evaluate.best)
        )
        require_space(run.path, weights + (needed if saves else 0), "the run")
    attempt.trains = True
    if main:
        _note_beginning(run, plan, job, given)
        for told in (plan.fitted, *(f"passed over {one}" for one in plan.skipped)):
            if told:
                emit({"type": "notice", "text": told, "resumed": step})
        if plan.resumes:
            emit({"type": "notice", "text": f"resumed from step {step:,}", "resumed": step})
        for notice in notices:
            emit({"type": "notice", "text": notice, "resumed": step})
    stops.at_once = False
    display.say(f"{job.device}, {job.precision.name}: {job.precision.why}")
    if not step:
        for notice in job.notices:
            emit({"type": "notice", "text": notice})
    if scale is not None:
        emit(scale.record())
        if not str(getattr(train, "__module__", "")).startswith("hfpipe.training.engines."):
            own = "the engine is your own: that check saw the loss and its reduction, not what it does with them"
            emit({"type": "notice", "text": own})
        if not scale.ok:
            raise scale.error()
    if recipe.train.deterministic:
        emit({"type": "notice", "text": cost(job.device)})
    display.start(job.num_steps)
    recorder.started = time.perf_counter()  # what a tracker takes to start is no training
    try:
        if step < job.num_steps and not recorder.stops_early:
            with _memory_told(job), deterministic(recipe.train.deterministic, recipe.where("train.deterministic")):
                train(job, emit)
    finally:
        display.close()
    if recorder.last_step is not None and recorder.saved_step == recorder.last_step["step"]:
        stops.raise_if_requested()  # the rest is quickly done again
    if recorder.stops_early:
        emit({"type": "notice", "text": recorder.told_early})
    seconds = recorder.training_seconds
    last, final = from_main(recorder.last_step, recorder.final_evaluation)
    if last is None:
        raise RecipeError("the engine emitted no step record", where=recipe.where("engine"))
    if final is None and job.evaluation_data is not None:
        job.model.to(job.device)
        final = evaluate_step(job, last["step"])  # all processes together
        emit(final)
    best, at = from_main(str(recorder.best_folder or ""), final and final["step"])
    if best:
        reload_best(job.model, Path(best))
    job.model.to(job.device)
    predicted: dict[str, Any] = {
        split: predict_split(job, job.others[split][0]) for split in job.others
    }  # all together
    if final is not None:
        evaluation = str(recipe.dataset.splits.evaluation)
        (known,) = from_main(at in job.predictions)  # the main process needs them, the others need not have them
        evaluated = job.predictions.get(at) if known else predict_split(job, job.evaluation_data)
        predicted = {evaluation: evaluated, **predicted}
    if main:
        from hfpipe.parts.model.models import save_tokenizer

        def save(folder: Path) -> None:
            job.model.save_pretrained(folder)
            save_tokenizer(job.tokenizer, folder)

        finish(run, job, recorder, final, predicted, seconds, save)
    if recipe.evaluate.best and recorder.evaluates and recorder.best is None:
        raise NumericError(
            f"{recipe.evaluate.best} was never a number in any evaluation, so nothing says which weights are the best",
            where=recipe.where("evaluate.best"),
            fix=f"The last weights are in {run.path / 'model'}; look at the figure, or choose another.",
        )


def _note_beginning(run: Run, plan: Plan, job: Any, given: dict[str, str]) -> None:
    """Make the run's files say from where it trains, and with what."""
    import torch
    from accelerate import PartialState

    step = plan.checkpoint.step if plan.checkpoint else 0
    fields: dict[str, Any] = {}
    if plan.resumes:
        clear_staging(run.path)
        for later in list_checkpoints(run.path):
            if later.step > step:
                remove(later.path)  # damaged, and its step comes again
        taken = cut_back(run.path, int(plan.progress.get("records_bytes", 0)))
        if taken:
            with open(run.path / "log.txt", "a", encoding="utf-8") as log:
                log.write(f"--- records after step {step}, which are made again:\n{taken}---\n")
        about, processes = run.metadata, (plan.progress.get("processes"), PartialState().num_processes)
        other = {"processes": processes} if plan.checkpoint and processes[0] != processes[1] else {}
        entry = {"step": step, "at": now(), "skipped": list(plan.skipped), "changes": {**plan.changes, **other}}
        allowed = {**plan.changes, **(other if plan.may_differ("processes") else {})}
        fields = {
            "resumed": [*about.get("resumed", []), entry],
            "allowed_changes": {
                **about.get("allowed_changes", {}),
                **{path: change[1] for path, change in allowed.items()},
            },
            "engine": plan.recipe.engine,
            "pid": os.getpid(),
            "ended": None,
            "error": None,
            "stopped_early": None,
        }
        if plan.changes:
            run.write_text("recipe.yaml", to_yaml(plan.recipe))
    run.update_metadata(
        status="running",
        device=str(job.device),
        threads=torch.get_num_threads(),
        processes=PartialState().num_processes,
        updates=[one.as_json() for one in job.batch_plans],
        precision=asdict(job.precision),
        identity=job.identity,
        fresh=job.fresh,
        given=given,
        **fields,
    )
    run.write_json("audit.json", job.audit.as_json())


@contextmanager
def _memory_told(job: Any) -> Iterator[None]:
    """Say of which micro-batch memory ran out."""
    try:
        with translated_errors():
            yield
    except MachineError as error:
        if not memory_ran_out(error):
            raise
        if job.status.evaluating:
            raise MachineError(
                f"not enough memory to evaluate in batches of {job.recipe.evaluate.batch_size} inputs of mean length",
                fix="Lower evaluate.batch_size, which changes no figure, or shorten model.max_length.",
            ) from error
        rows, *rest = job.status.shape or (job.recipe.train.batch_size,)
        length = f" of up to {rest[-1]} tokens" if rest else ""
        by_tokens = job.recipe.train.batching.tokens is not None
        fix = error.fix.replace("train.batch_size", "train.batching.tokens") if by_tokens else error.fix
        raise MachineError(
            f"out of memory in step {job.status.step}, in a micro-batch of {rows} inputs{length}", fix=fix
        ) from error

"""The functions behind the commands: finetune, evaluate and predict."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpipe.display import Display, Silent
from hfpipe.errors import (
    DataError,
    HfpipeError,
    InterruptedRun,
    MachineError,
    ModelError,
    NumericError,
    RecipeError,
    StoppedByUser,
)
from hfpipe.machine import faults_told
from hfpipe.recipe import Recipe, load_recipe, to_yaml, with_overrides
from hfpipe.recipe.catalog import ENGINES, resolve
from hfpipe.runs import snapshot
from hfpipe.runs.checkpoints import STATE_FILES, clear_staging, damage, list_checkpoints, remove, require_space
from hfpipe.runs.discretion import discreet
from hfpipe.runs.lock import locked
from hfpipe.runs.model_files import model_folder, require_own_files
from hfpipe.runs.recorder import Recorder
from hfpipe.runs.records import cut_back
from hfpipe.runs.resumption import Plan
from hfpipe.runs.resumption import plan as make_plan
from hfpipe.runs.store import FORMAT, Run, default_folder, find_run, now
from hfpipe.stops import StopNow, Stops, stopped
from hfpipe.tracking import require_installed, tracked

if TYPE_CHECKING:
    from hfpipe.labelling import Labeller
    from hfpipe.prediction import Labelled


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured of one split.

    Attributes:
        target: what was measured, as it was named.
        split: the split or slice.
        metrics: name to number, None where undefined.
        intervals: name to the [low, high] of a 95 % bootstrap interval, None where there is none.
        baseline: what a constant answer scores: `what` in words, and `metrics`; None where there is no such answer.
        remarks: what a reader of these figures should know.
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
    remarks: list[str]
    examples: int
    examples_per_second: float
    document: dict[str, Any] = field(repr=False)
    also: tuple[Evaluation, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        own = {key: value for key, value in self.document.items() if key not in ("format", "names")}
        return {**own, **({"also": [one.as_dict() for one in self.also]} if self.also else {})}


def finetune(
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
    engine: str | Callable[..., None] | None = None,
    runs_dir: str | Path | None = None,
    name: str | None = None,
    display: Display | None = None,
    resume: Run | str | Path | None = None,
    allow_change: Sequence[str] = (),
    reset_optimizer: bool = False,
    use_previous: bool = False,
    max_minutes: float | None = None,
    **parts: Any,
) -> Run:
    """Fine-tune a checkpoint as a recipe says, and remember it in a run folder; or go on with a run that was stopped.

    Args:
        recipe: a recipe, or what `load_recipe` takes; not needed with `resume`.
        overrides: `dotted.path=value` each.
        engine: `trainer`, `loop`, `module:attribute` or a function `train(job, emit)`, in place of the recipe's.
        runs_dir: folder for runs; by default `$HFPIPE_RUNS_DIR` or `runs`.
        name: id of the run; by default the recipe's name and the time.
        display: where progress goes; by default nowhere.
        resume: a run, its id or its folder: go on from its newest whole checkpoint.
        allow_change: with `resume`, what may differ from before: paths of the recipe (`optimizer.lr`), `dataset`,
            `tokenizer`, `model`, `code`, `given`.
        reset_optimizer: with `resume`, do without what the optimizer remembered.
        use_previous: with `resume`, take the checkpoint before the newest where that is damaged.
        max_minutes: stop before so many minutes are over, resumable.
        parts: objects in place of the recipe's parts, see :func:`hfpipe.prepare`.

    Returns:
        The finished run.

    Raises:
        HfpipeError: with the exit code that the command line would give; `InterruptedRun` and `StoppedByUser` after a
            signal or the time limit.
    """
    display = display or Silent()
    attempt = _Attempt()
    with Stops(max_minutes) as stops:
        try:
            if resume is None:
                if recipe is None:
                    raise RecipeError(
                        "no recipe", where="RECIPE", fix="Name one, or a run to go on with: --resume RUN."
                    )
                idle = {"allow-change": allow_change, "reset-optimizer": reset_optimizer, "use-previous": use_previous}
                for option in (option for option, given in idle.items() if given):
                    raise RecipeError("does nothing without --resume", where=f"--{option}")
                resolved = _as_recipe(recipe, overrides)
                if isinstance(engine, str):
                    resolved = with_overrides(resolved, [f"engine={engine}"])
                return _begin(resolved, engine, runs_dir, name, display, parts, stops, attempt)
            if name is not None:
                raise RecipeError("a run that goes on keeps its id", where="--name")
            run = resume if isinstance(resume, Run) else find_run(str(resume), Path(runs_dir or default_folder()))
            changes = [*overrides, *([f"engine={engine}"] if isinstance(engine, str) else [])]
            found = None if recipe is None else _as_recipe(recipe, ())
            options = {"allow_change": allow_change, "reset_optimizer": reset_optimizer, "use_previous": use_previous}
            return _go_on(run, found, changes, options, engine, display, parts, stops, attempt)
        except StopNow as stop:
            if attempt.run is not None and not (attempt.trains or attempt.resumed):
                shutil.rmtree(attempt.run.path, ignore_errors=True)
            raise attempt.stopped(stop.asked) from None


@dataclass
class _Attempt:
    """How far this process came, for the message when it is stopped."""

    run: Run | None = None
    resumed: bool = False
    trains: bool = False

    def stopped(self, asked: int) -> HfpipeError:
        """The error of a stop in the middle of something."""
        if not self.trains:
            what = "the run is as it was" if self.resumed else "nothing was trained, and there is nothing to resume"
            return stopped(asked, f"while preparing, {what}", "Start the same command again.")
        assert self.run is not None
        return stopped(
            asked,
            "at once",
            f"`hfpipe finetune --resume {self.run.path}` goes on from its newest whole checkpoint.",
        )


def _begin(
    recipe: Recipe,
    engine: Any,
    runs_dir: str | Path | None,
    name: str | None,
    display: Display,
    parts: dict[str, Any],
    stops: Stops,
    attempt: _Attempt,
) -> Run:
    """A new run."""
    require_installed(recipe)
    reach_hub(recipe, display)
    from accelerate.utils import broadcast_object_list

    from hfpipe.parts.processes import join

    state = join()
    path: list[str] = [""]
    if state.is_main_process:
        path = [str(Run.create(recipe, Path(runs_dir) if runs_dir else default_folder(), name).path)]
    if state.num_processes > 1:
        broadcast_object_list(path)
    run = attempt.run = Run(Path(path[0]))
    with locked(run.path) if state.is_main_process else nullcontext():
        return _fit(run, Plan(recipe), engine, display, parts, stops, attempt)


def _go_on(
    run: Run,
    recipe: Recipe | None,
    changes: Sequence[str],
    options: dict[str, Any],
    engine: Any,
    display: Display,
    parts: dict[str, Any],
    stops: Stops,
    attempt: _Attempt,
) -> Run:
    """A run that was stopped, or one that is to be trained further."""
    attempt.resumed = True
    if run.status == "finished" and make_plan(run, recipe, changes, **options).finished:
        display.say(f"{run.path} is already complete: nothing was changed")
        return run
    with locked(run.path) if int(os.environ.get("RANK", "0")) == 0 else nullcontext():
        plan = _of_main(lambda: make_plan(run, recipe, changes, **options))
        require_installed(plan.recipe)
        reach_hub(plan.recipe, display)
        for told in plan.skipped:
            display.say(f"passed over {told}")
        at = f"step {plan.checkpoint.step:,}" if plan.checkpoint else "the beginning: no checkpoint was saved"
        display.say(f"going on from {at}")
        return _fit(run, plan, engine, display, parts, stops, attempt)


def _of_main(plan: Callable[[], Plan]) -> Plan:
    """The plan of the main process, on every process: each would look at the files at another moment."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return plan()
    from accelerate.utils import broadcast_object_list

    from hfpipe.parts.processes import join

    made: list[Any] = [plan() if join().is_main_process else None]
    broadcast_object_list(made)
    found: Plan = made[0]
    return found


def _fit(
    run: Run, plan: Plan, engine: Any, display: Display, parts: dict[str, Any], stops: Stops, attempt: _Attempt
) -> Run:
    """Train, in smaller micro-batches where memory runs out and the recipe allows it."""
    from hfpipe.parts.processes import join

    state = join()
    attempt.run = run
    shown = display if state.is_main_process else Silent()
    try:
        with (
            _remembered(run, plan.recipe, attempt, main=state.is_main_process),
            tracked(run, plan.recipe, shown, main=state.is_main_process) as told_of,
        ):
            while True:
                try:
                    _train(run, plan, engine, told_of, parts, stops, attempt, main=state.is_main_process)
                    break
                except MachineError as error:
                    if not (_memory_ran_out(error) and plan.recipe.train.fit_memory and state.num_processes == 1):
                        raise
                    told = error.what
                plan = _smaller(run, plan, told)
            state.wait_for_everyone()
    except (InterruptedRun, StoppedByUser):
        state.wait_for_everyone()  # what the main process writes of it is written before any of them leaves
        raise
    if state.is_main_process:
        from hfpipe.report import write_report

        with faults_told():
            write_report(run)
    return run


def _memory_ran_out(error: MachineError) -> bool:
    return error.what.startswith("out of memory")


def _smaller(run: Run, plan: Plan, told: str) -> Plan:
    """The plan with smaller micro-batches and the same update, from the newest checkpoint or from where it began.

    Raises:
        MachineError: there is nothing smaller.
    """
    import gc

    import torch

    from hfpipe.resuming import smaller

    spec = plan.recipe.train
    if spec.batch_size == 1:
        raise MachineError(
            told, fix="A micro-batch of one is too much: shorten model.max_length, or take a smaller model."
        )
    size = smaller(spec.batch_size)
    accumulate = spec.accumulate * spec.batch_size // size
    changes = [f"train.batch_size={size}", f"train.accumulate={accumulate}"]
    text = f"{told}; micro-batches of {size} instead of {spec.batch_size}, {accumulate} to an update: the same update"
    run.append({"type": "notice", "text": text})  # stays in the log when the records are cut back
    recipe = with_overrides(plan.recipe, changes)
    fitted = [*run.about.get("fitted", []), {"batch_size": size, "accumulate": accumulate, "why": told}]
    before = run.about.get("allowed_changes", {})
    run.note(
        fitted=fitted,
        allowed_changes={**before, "train.batch_size": size, "train.accumulate": accumulate},
    )
    run.write_text("recipe.yaml", to_yaml(recipe))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    again = make_plan(run, allow_change=plan.allowed, reset_optimizer=plan.reset_optimizer)
    return replace(again, fitted=text)


def _train(
    run: Run,
    plan: Plan,
    engine: Any,
    display: Display,
    parts: dict[str, Any],
    stops: Stops,
    attempt: _Attempt,
    *,
    main: bool,
) -> None:
    from accelerate import PartialState

    from hfpipe import resuming
    from hfpipe.job import is_greater_better, measure, predict_split, prepare
    from hfpipe.parts.determinism import cost, deterministic
    from hfpipe.scale_check import check_scale, is_due

    recipe, step = plan.recipe, plan.checkpoint.step if plan.checkpoint else 0
    stops.now()
    job = prepare(recipe, say=display.say, **parts)
    train = engine if callable(engine) else resolve(ENGINES, recipe.engine, "engine")
    given = _given(parts if isinstance(engine, str | None) else {**parts, "engine": engine})
    notices = resuming.put_back(job, plan, given)
    scale = check_scale(job) if is_due(job) and not step else None
    weights, needed = resuming.bytes_of(job)
    several = PartialState().num_processes > 1

    recorder = Recorder(
        run,
        recipe,
        num_steps=job.num_steps,
        steps_per_epoch=job.steps_per_epoch,
        evaluates=job.evaluation_data is not None,
        greater_is_better=is_greater_better(recipe),
        save=resuming.saver(job),
        show=display.record,
        writes=main,
        about=resuming.about(job, given),
        required=("config.json", "model.safetensors", *STATE_FILES),
        needed=needed,
        stops=stops,
        agree=resuming.agree if several else None,
        progress=plan.progress,
    )

    def emit(record: dict[str, Any]) -> None:
        recorder(record)
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
        if not str(getattr(train, "__module__", "")).startswith("hfpipe.engines."):
            own = "the engine is your own: that check saw the loss and its reduction, not what it does with them"
            emit({"type": "notice", "text": own})
        if not scale.ok:
            raise scale.error()
    if recipe.train.deterministic:
        emit({"type": "notice", "text": cost(job.device)})
    display.start(job.num_steps)
    recorder.started = time.perf_counter()  # what a tracker takes to start is no training
    try:
        if step < job.num_steps:
            with _memory_told(job), deterministic(recipe.train.deterministic, recipe.where("train.deterministic")):
                train(job, emit)
    finally:
        display.close()
    if recorder.saved_step == job.num_steps:
        stops.now()  # the rest is quickly done again
    seconds = recorder.training_seconds
    last, final = _from_main(recorder.last_step, recorder.final_evaluation)
    if last is None:
        raise RecipeError("the engine emitted no step record", where=recipe.where("engine"))
    if final is None and job.evaluation_data is not None:
        job.model.to(job.device)
        final = measure(job, last["step"])  # all processes together
        emit(final)
    best, at = _from_main(str(recorder.best_folder or ""), final and final["step"])
    if best:
        job.model = _reload(job.model, Path(best))
    job.model.to(job.device)
    predicted: dict[str, Any] = {
        split: predict_split(job, job.others[split][0]) for split in job.others
    }  # all together
    if final is not None:
        evaluation = str(recipe.dataset.splits.evaluation)
        (known,) = _from_main(at in job.predictions)  # the main process needs them, the others need not have them
        evaluated = job.predictions.get(at) if known else predict_split(job, job.evaluation_data)
        predicted = {evaluation: evaluated, **predicted}
    if main:
        from hfpipe.parts.models import save_tokenizer

        def save(folder: Path) -> None:
            job.model.save_pretrained(folder)
            save_tokenizer(job.tokenizer, folder)

        _finish(run, job, recorder, final, predicted, seconds, save)
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
        about = run.about
        entry = {"step": step, "at": now(), "skipped": list(plan.skipped), "changes": plan.changes}
        fields = {
            "resumed": [*about.get("resumed", []), entry],
            "allowed_changes": {
                **about.get("allowed_changes", {}),
                **{path: change[1] for path, change in plan.changes.items()},
            },
            "engine": plan.recipe.engine,
            "pid": os.getpid(),
            "ended": None,
            "error": None,
        }
        if plan.changes:
            run.write_text("recipe.yaml", to_yaml(plan.recipe))
    run.note(
        status="running",
        device=str(job.device),
        threads=torch.get_num_threads(),
        processes=PartialState().num_processes,
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
        with faults_told():
            yield
    except MachineError as error:
        if not _memory_ran_out(error):
            raise
        if job.trace.measures:
            raise MachineError(
                f"not enough memory to evaluate in batches of {job.recipe.evaluate.batch_size} inputs",
                fix="Lower evaluate.batch_size, which changes no figure, or shorten model.max_length.",
            ) from error
        rows, *rest = job.trace.shape or (job.recipe.train.batch_size,)
        length = f" of up to {rest[-1]} tokens" if rest else ""
        raise MachineError(
            f"out of memory in step {job.trace.step}, in a micro-batch of {rows} inputs{length}", fix=error.fix
        ) from error


def _given(parts: Mapping[str, Any]) -> dict[str, str]:
    """The parts that came as objects and stand in no recipe, by the names of their classes or functions."""
    named = {key: part if hasattr(part, "__qualname__") else type(part) for key, part in parts.items()}
    return {key: f"{part.__module__}:{part.__qualname__}" for key, part in named.items()}


def _from_main(*values: Any) -> list[Any]:
    """What the main process knows, on every process."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    known = list(values)
    if PartialState().num_processes > 1:
        broadcast_object_list(known)
    return known


def _finish(
    run: Run,
    job: Any,
    recorder: Recorder,
    final: dict[str, Any] | None,
    predicted: dict[str, Any],
    seconds: float,
    save: Callable[[Path], None],
) -> None:
    """Put the final weights and figures into the run.

    Args:
        run: where things go.
        job: with the final weights.
        recorder: of the training.
        final: the record of the evaluation of these weights.
        predicted: what they say of every split that is measured or calibrated on.
        seconds: the time of the training alone.
        save: writes model and tokenizer into a folder.
    """
    from hfpipe.model_card import write_card
    from hfpipe.runs.transformers_files import write_transformers_files

    recipe, last = job.recipe, recorder.last_step
    assert last is not None
    _require_finite(job.model)
    _calibrate(job, predicted, recorder)
    measured = _measured(run, job, predicted)
    with run.staged("model") as model_folder:
        save(model_folder)
    examples = job.examples_by(last["step"])
    split = recipe.dataset.splits.evaluation
    metrics = measured[split].metrics if split in measured else {}
    undefined = [key for key, value in metrics.items() if value is None]
    if undefined:
        verb = "is" if len(undefined) == 1 else "are"
        told = f"{', '.join(undefined)} {verb} undefined on this split, and so {verb} not reported as a number"
        recorder({"type": "notice", "text": told})
    for name, one in measured.items():
        for remark in one.document["remarks"]:
            recorder({"type": "notice", "text": f"{name}: {remark}"})
    summary = {
        "steps": last["step"],
        "epochs": last["epoch"],
        "trained_examples": examples,
        "seconds": seconds,
        "examples_per_second": examples / seconds,
        "evaluated_step": final["step"] if final else None,
    }
    rows = {
        "train": len(job.train_data),
        "evaluation": len(job.evaluation_rows) if job.evaluation_rows is not None else 0,
    }
    also = {name: one.metrics for name, one in measured.items() if name != split}
    intervals = measured[split].document["intervals"] if split in measured else {}
    run.write_json(
        "metrics.json",
        {"split": split, "metrics": metrics, "intervals": intervals, "examples": rows["evaluation"], **summary}
        | ({"also": also} if also else {}),
    )
    recorder({"type": "end", "status": "finished", "step": last["step"], "seconds": seconds})
    write_transformers_files(run, rows, {**summary, "metrics": metrics})
    missing = len(recorder.lines.waiting)
    if missing:
        recorder.show(
            {"type": "notice", "text": f"records.jsonl is incomplete: the disk refused its last {missing:,} lines"}
        )
    if job.trace.not_finite or job.trace.scaled_away:
        run.note(left_out={"not_finite": job.trace.not_finite, "scaled_away": job.trace.scaled_away})
    run.note(rows=rows, records_missing=missing)
    write_card(run)
    run.note(model=snapshot.digests(run.path / "model"))


def _calibrate(job: Any, predicted: dict[str, Any], recorder: Recorder) -> None:
    """Fit what the recipe asks for on its calibration split, for the task of the job and in the config of its model."""
    split = job.recipe.dataset.splits.calibration
    if split is None:
        return
    from hfpipe.measurement import fit
    from hfpipe.parts.tasks import calibrated

    found = fit(job.recipe, job.task, predicted[split], job.others[split][0], job.identity["dataset"]["configured"])
    job.task = calibrated(job.task, found)
    found.write(job.model.config)
    recorder({"type": "notice", "text": f"fitted on {len(job.others[split][1]):,} rows of {split}: {found.told()}"})


def _measured(run: Run, job: Any, predicted: dict[str, Any]) -> dict[str, Any]:
    """What is said of each split that is measured, in the order of the recipe; written into the run."""
    from hfpipe.measurement import describe
    from hfpipe.runs.evaluations import file_name, write_evaluation

    splits, found = job.recipe.dataset.splits, {}
    rows = {splits.evaluation: (job.evaluation_data, job.evaluation_rows), **job.others}
    for split in dict.fromkeys(one for one in (splits.evaluation, *splits.also) if one in predicted):
        found[split] = describe(
            job.recipe,
            job.task,
            job.metrics,
            predicted[split],
            *rows[split],
            target=run.id,
            split=split,
            dataset=job.identity["dataset"]["configured"],
        )
        write_evaluation(run, file_name(split), found[split].document, found[split].examples)
    return found


def _require_finite(model: Any) -> None:
    """Refuse to save weights that diverged in the last step, whose loss was still a number."""
    for key, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise NumericError(
                f"the weights {key!r} are not finite after the last step", fix="Try a smaller optimizer.lr."
            )


def _reload(model: Any, folder: Path) -> Any:
    if folder.is_dir() and (what := damage(folder)) is not None:
        raise ModelError(f"the best checkpoint is damaged: {what}", where=str(folder), fix="Train again.")
    try:
        return type(model).from_pretrained(folder)
    except OSError as error:
        raise ModelError(
            f"the best checkpoint is gone from {folder}",
            fix="The last weights are not passed off as the best; train again.",
        ) from error


# Other data than the recipe's own, of which nothing is set aside and nothing fitted.
_OTHER_SPLITS = (
    "dataset.splits={train: train, evaluation: null}",
    "evaluate.calibrate=null",
    "evaluate.threshold=null",
    "evaluate.slices=[]",
)


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

    What is measured of a run is kept in its `evaluations/`; nothing else in its folder is touched.

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
        _require_data(target, name, overrides, runs_dir)
    run, resolved = _with_checkpoint(target, name, recipe, overrides, runs_dir)
    reach_hub(resolved, display)
    from hfpipe.scoring import score

    changes = list(overrides)
    if recipe is not None:
        changes.insert(0, f"recipe {snapshot.digest_of_text(to_yaml(_as_recipe(recipe, ())))}")
    splits = [split] if isinstance(split, str) or split is None else list(split)
    with _quiet(), faults_told():
        measured = score(resolved, splits, display.say, target=run.id if run else name, overrides=changes)
    if run is not None:
        _keep(run, measured, changes, display)
    found = [_evaluation(name, one.document) for one in measured]
    return replace(found[0], also=tuple(found[1:]))


def _evaluation(target: str, document: dict[str, Any]) -> Evaluation:
    shared = ("split", "metrics", "intervals", "baseline", "remarks", "examples", "examples_per_second")
    return Evaluation(target=target, document={**document, "target": target}, **{key: document[key] for key in shared})


def _keep(run: Run, measured: Sequence[Any], changes: Sequence[str], display: Display) -> None:
    """Write what was measured into the run; a folder that can't be written costs no figure."""
    from accelerate import PartialState

    from hfpipe.runs.evaluations import file_name, write_evaluation

    if not PartialState().is_main_process:
        return
    try:
        for one in measured:
            write_evaluation(run, file_name(one.document["split"], changes), one.document, one.examples)
    except OSError as error:
        display.say(f"the figures could not be kept in {run.path / 'evaluations'}: {error.strerror or error}")


def predict(
    target: Run | str | Path,
    source: Any,
    *,
    input_format: str | None = None,
    window: int = 1024,
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    runs_dir: str | Path | None = None,
    display: Display | None = None,
) -> list[dict[str, Any]]:
    """Label rows with a run or a checkpoint; they need the text columns of the recipe, and no label.

    With a :class:`Run` as target the loaded model is kept as long as that object is, so that a loop loads it once.

    Args:
        target: as for :func:`evaluate`.
        source: a csv, tsv, json, jsonl, parquet or text file by its path, or `-` for standard input; or rows in memory:
            a list of texts, of pairs of texts, or of mappings from column to value.
        input_format: where the ending of `source` does not say it.
        window: rows that are labelled together at most.
        recipe: names the text columns; by default the run's own. A checkpoint needs one.
        overrides: `dotted.path=value` each.
        runs_dir: where run ids are looked up.
        display: where progress goes; by default nowhere.

    Returns:
        For each row, in order, `label`, `score` and `probabilities`, for a regression `value`, and so on by kind of task.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    if isinstance(source, str | Path):
        windows = predict_windows(
            target,
            source,
            input_format=input_format,
            window=window,
            recipe=recipe,
            overrides=overrides,
            runs_dir=runs_dir,
            display=display,
        )
        return [row for one in windows for row in one]
    _require_window(window)
    with _quiet(), faults_told(after_stop=""):
        from hfpipe.prediction import label_rows

        labeller = _labeller(
            target, recipe, overrides, lambda: _for_rows(target, "jsonl", recipe, overrides, runs_dir), display
        )
        return label_rows(labeller, source, window)


def predict_file(
    target: Run | str | Path,
    source: str | Path,
    output: str | Path,
    *,
    output_format: str | None = None,
    overwrite: bool = False,
    input_format: str | None = None,
    window: int = 1024,
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    runs_dir: str | Path | None = None,
    display: Display | None = None,
) -> Labelled:
    """Label a file into a file, in constant memory; the same call goes on where an earlier one was stopped.

    Args:
        target: as for :func:`evaluate`.
        source: as for :func:`predict`, a path or `-`.
        output: a jsonl, csv or parquet file, which is there only when all of it is. Until then OUTPUT.partial has the rows.
        output_format: where the ending of `output` does not say it.
        overwrite: replace an output that is there, and discard what another command left in OUTPUT.partial.
        input_format: where the ending of `source` does not say it.
        window: rows that are in memory and labelled together at most.
        recipe: names the text columns; by default the run's own. A checkpoint needs one.
        overrides: `dotted.path=value` each.
        runs_dir: where run ids are looked up.
        display: where progress goes; by default nowhere.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    from hfpipe import labelled_file

    display, into = display or Silent(), Path(output)
    kind = labelled_file.format_of(into, output_format)
    labelled_file.require_free(into, overwrite=overwrite)  # before the work, not after it
    resolved, form = _of_input(target, source, input_format, recipe, overrides, runs_dir, window)
    with _quiet(), faults_told(after_stop=""):
        from hfpipe.prediction import label_into

        return label_into(
            _labeller(target, recipe, overrides, lambda: resolved, display),
            resolved,
            str(source),
            form,
            into,
            kind,
            overwrite=overwrite,
            window=window,
            say=display.say,
        )


def predict_windows(
    target: Run | str | Path,
    source: str | Path,
    *,
    input_format: str | None = None,
    window: int = 1024,
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    runs_dir: str | Path | None = None,
    display: Display | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Label a file or standard input as it is read; arguments as for :func:`predict`.

    Yields:
        The labels of some rows at a time, in the order of the input, as soon as the model has said them.
    """
    resolved, form = _of_input(target, source, input_format, recipe, overrides, runs_dir, window)
    with _quiet(), faults_told(after_stop=""):
        from hfpipe.prediction import windows_of

        labeller = _labeller(target, recipe, overrides, lambda: resolved, display)
        for one in windows_of(resolved, str(source), form, window):
            yield labeller.label(one)


def predict_glue(
    target: Run | str | Path,
    folder: str | Path = "glue",
    *,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    runs_dir: str | Path | None = None,
    display: Display | None = None,
) -> dict[str, int]:
    """Label the test sets of a run on a set of GLUE, and write what the GLUE server takes.

    Args:
        target: a run or its id or folder.
        folder: where the files go, under the names that the server knows.
        overwrite: replace files that are there.
        overrides: `dotted.path=value` each.
        runs_dir: where run ids are looked up.
        display: where progress and warnings go; by default nowhere.

    Returns:
        The rows of each file, by its name.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    display = display or Silent()
    name = str(target.path if isinstance(target, Run) else target)
    _, resolved = _with_checkpoint(target, name, None, overrides, runs_dir)
    reach_hub(resolved, display)
    from hfpipe.submission import submit

    with _quiet(), faults_told(after_stop=""):
        return submit(resolved, Path(folder), overwrite=overwrite, say=display.say)


def _of_input(
    target: Run | str | Path,
    source: str | Path,
    input_format: str | None,
    recipe: Recipe | str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str],
    runs_dir: str | Path | None,
    window: int,
) -> tuple[Recipe, str]:
    """The recipe that reads an input, and its format; what is wrong with the first rows is told before anything loads."""
    _require_window(window)
    from hfpipe.parts.formats import windows

    form = windows.format_of(str(source), input_format)
    if str(source) != windows.STANDARD_INPUT and not Path(source).expanduser().exists():
        raise DataError(f"no file {str(source)!r} (from {Path.cwd()})", where="INPUT")
    resolved = _for_rows(target, form, recipe, overrides, runs_dir)
    if not windows.is_piped(str(source)):
        from hfpipe.prediction import windows_of

        with _quiet(), faults_told(after_stop=""):
            next(windows_of(resolved, str(source), form, window), None)
    return resolved, form


def _for_rows(
    target: Run | str | Path,
    form: str,
    recipe: Recipe | str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str],
    runs_dir: str | Path | None,
) -> Recipe:
    """The recipe of the target with rows of this format in place of its data."""
    name = str(target.path if isinstance(target, Run) else target)
    _, base = _with_checkpoint(target, name, recipe, (), runs_dir)
    data = [f"dataset.path={form}", "dataset.data_files=null", "dataset.name=null", "dataset.revision=null"]
    data += _OTHER_SPLITS
    if base.dataset.streaming:
        data += ["dataset.streaming=false", "dataset.shuffle_buffer=10000"]
    if base.dataset.path != form:  # how its files are written says nothing of this one
        data += ["dataset.encoding=utf-8", "dataset.separator=null", "dataset.quote='\"'"]
    return with_overrides(with_overrides(base, data, "INPUT"), overrides)


def _require_window(window: int) -> None:
    if window < 1:
        raise RecipeError(f"{window}", where="--window", allowed="1 or more rows")


def _labeller(
    target: Run | str | Path,
    recipe: object,
    overrides: Sequence[str],
    resolve_recipe: Callable[[], Recipe],
    display: Display | None,
) -> Labeller:
    """The loaded model of the target, which a run keeps."""
    from hfpipe.labelling import load_labeller
    from hfpipe.parts import hub
    from hfpipe.prediction import kept_labeller

    say = (display or Silent()).say

    def load() -> Labeller:
        resolved = resolve_recipe()
        checkpoint = resolved.model.checkpoint
        if not hub.is_local(checkpoint) and not checkpoint.startswith("embedded:"):
            hub.settle_offline(say)
        return load_labeller(resolved, say)

    return kept_labeller(target, tuple(overrides), load) if isinstance(target, Run) and recipe is None else load()


def look_at_data(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    examples: int = 3,
    display: Display | None = None,
) -> tuple[str, Any, dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Audit the data of a recipe without loading any weights.

    Args:
        recipe: a recipe, or what `load_recipe` takes.
        overrides: `dotted.path=value` each.
        examples: rows of the training split to render.
        display: where progress goes; by default nowhere.

    Returns:
        The name of the data, the :class:`hfpipe.audit.Audit`, what a longer max_length would cut and cost by split, and
        the rendered rows.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    resolved, rows = _read(recipe, overrides, display or Silent())
    from hfpipe import audit

    with _quiet(), faults_told():
        found = audit.audit(resolved, rows)
        longer = {split: audit.longer(rows, split) for split in rows.raw}
        shown = audit.examples(rows, resolved.dataset.splits.train, examples)
    found.notices[:0] = rows.notices
    return rows.source.name, found, longer, shown


def preprocess(
    recipe: Recipe | str | Path | Mapping[str, Any], *, overrides: Sequence[str] = (), display: Display | None = None
) -> dict[str, dict[str, Any]]:
    """Check and tokenize the data of a recipe, and leave the tokens in the cache.

    Args:
        recipe: a recipe, or what `load_recipe` takes.
        overrides: `dotted.path=value` each.
        display: where progress goes; by default nowhere.

    Returns:
        For each split its encoded `rows` and the `seconds` that tokenizing took, None where the cache had them.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    _, rows = _read(recipe, overrides, display or Silent())
    return {split: {"rows": len(one.data), "seconds": one.seconds} for split, one in rows.encoded.items()}


def _read(
    recipe: Recipe | str | Path | Mapping[str, Any], overrides: Sequence[str], display: Display
) -> tuple[Recipe, Any]:
    """The recipe, and the :class:`hfpipe.rows.Rows` of its data."""
    resolved = _as_recipe(recipe, overrides)
    reach_hub(resolved, display)
    from hfpipe.rows import read_rows

    with _quiet(), faults_told():
        return resolved, read_rows(resolved, say=display.say)


def peek(
    dataset: str,
    config: str | None = None,
    *,
    split: str | None = None,
    rows: int = 5,
    display: Display | None = None,
) -> Any:
    """Show features, sizes and a few rows of a data set without downloading it.

    Args:
        dataset: Hub id, local folder, or a file.
        config: configuration, where there are several.
        split: by default the first.
        rows: how many.
        display: where progress goes; by default nowhere.

    Returns:
        A :class:`hfpipe.peek.Peek`.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    from hfpipe.parts import hub

    if not hub.is_local(dataset) and not dataset.startswith("embedded:"):
        hub.settle_offline((display or Silent()).say)
    from hfpipe.peek import peek as look

    with _quiet(), faults_told():
        return look(dataset, config, split, rows)


def reach_hub(recipe: Recipe, display: Display) -> None:
    """Find out whether the Hub answers, if the recipe needs it, before any library that would ask it is imported.

    Without an answer the libraries keep to the local cache, where they would else retry for minutes at every file.

    Args:
        recipe: its checkpoint, data set and metrics say whether anything comes from the Hub.
        display: is told when the Hub doesn't answer.
    """
    from hfpipe.parts import hub

    needed = [recipe.model.checkpoint]
    if recipe.dataset.data_files is None:  # which go with a format, not with an id
        needed.append(recipe.dataset.path)
    names = [metric if isinstance(metric, str) else str(metric.get("name")) for metric in recipe.evaluate.metrics]
    asks = any(not hub.is_local(path) and not path.startswith("embedded:") for path in needed)
    if asks or any(name.startswith("evaluate:") for name in names):
        hub.settle_offline(display.say)


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' chatter of a command that leaves no run behind, kept off the terminal."""
    from hfpipe import chatter

    with tempfile.TemporaryDirectory(prefix="hfpipe-") as folder, chatter.into(Path(folder) / "log.txt"):
        yield


def _with_checkpoint(
    target: Run | str | Path,
    name: str,
    recipe: Recipe | str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str],
    runs_dir: str | Path | None,
) -> tuple[Run | None, Recipe]:
    """The run, if the target is one, and its recipe or the given one with the weights of the target as its checkpoint."""
    run = target if isinstance(target, Run) else _run_named(name, runs_dir, must=recipe is None)
    if run is not None:
        base = run.recipe if recipe is None else _as_recipe(recipe, ())
        folder = model_folder(run)
        require_own_files(run, folder)
        checkpoint = str(folder)
    else:
        assert recipe is not None
        base, checkpoint = _as_recipe(recipe, ()), name
    fixed = [f"model.checkpoint={_quoted(checkpoint)}", "model.revision=null", "model.fresh=[]"]
    if base.dataset.splits.hold_out is not None and any(
        change.startswith(("dataset=", "dataset.path=", "dataset.data_files=")) for change in overrides
    ):
        fixed += _OTHER_SPLITS  # of other data no row was held out
    said_by = f"run {run.id!r}" if run is not None else "RUN|CHECKPOINT"
    return run, with_overrides(with_overrides(base, fixed, said_by), overrides)


def _require_data(target: Run | str | Path, name: str, overrides: Sequence[str], runs_dir: str | Path | None) -> None:
    """Refuse to measure a run on data that stand in no recipe."""
    run = target if isinstance(target, Run) else _run_named(name, runs_dir, must=True)
    given = (run.about.get("given") or {}).get("dataset") if run else None
    named = any(change.startswith(("dataset=", "dataset.path=", "dataset.data_files=")) for change in overrides)
    if run and given and not named:
        raise RecipeError(
            f"this run's data were given from Python ({given}), and its recipe does not have them",
            where=str(run.path / "recipe.yaml"),
            fix="Name data that can be read: dataset.path=... (and dataset.data_files=...), or --recipe RECIPE.",
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # as YAML reads it too


def _run_named(name: str, runs_dir: str | Path | None, *, must: bool) -> Run | None:
    try:
        found = find_run(name, Path(runs_dir) if runs_dir else default_folder())
        is_exact = found.id == name or (Path(name).expanduser() / "run.json").is_file()
        # With a recipe the name may be a checkpoint's, which is no abbreviation of a run id.
        return found if must or is_exact else None
    except RecipeError as error:
        if not must:
            return None
        if Path(name).expanduser().is_dir():
            raise RecipeError(
                f"{name!r} is a folder but no run", fix="For a checkpoint, say which data: --recipe RECIPE."
            ) from None
        fix = "For a checkpoint, say which data: --recipe RECIPE."
        raise RecipeError(error.what, where=error.where, allowed=error.allowed, fix=fix) from None


def _as_recipe(recipe: Recipe | str | Path | Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    if isinstance(recipe, Recipe):
        return with_overrides(recipe, overrides) if overrides else recipe
    return load_recipe(recipe, overrides)


@contextmanager
def _remembered(run: Run, recipe: Recipe, attempt: _Attempt, *, main: bool) -> Iterator[None]:
    """Keep `run.json` true whatever happens, and the libraries' chatter in `log.txt`."""
    from hfpipe import chatter

    if not main:
        with chatter.into(Path(os.devnull)), faults_told():
            yield
        return
    if not attempt.resumed:
        run.note(
            format=FORMAT,
            id=run.id,
            name=recipe.name,
            status="preparing",
            engine=recipe.engine,
            seed=recipe.seed,
            started=now(),
            pid=os.getpid(),
            host=platform.node(),
            best=recipe.evaluate.best,
            command=sys.argv,
            versions=snapshot.versions(),
            machine=snapshot.machine(),
            commit=snapshot.commit(),
        )
    try:
        with chatter.into(run.path / "log.txt"), faults_told():
            yield
    except HfpipeError as error:
        if attempt.trains:
            resumable = isinstance(error, InterruptedRun | StoppedByUser)
            run.note(status="interrupted" if resumable else "failed", error=str(error), ended=now())
        elif not attempt.resumed:
            shutil.rmtree(run.path)  # nothing was trained, and the message says all there is
        raise
    except StopNow as stop:
        if attempt.trains:
            run.note(status="interrupted", error=str(attempt.stopped(stop.asked)), ended=now())
        elif not attempt.resumed:
            shutil.rmtree(run.path)
        raise
    except BaseException:
        with open(run.path / "log.txt", "a", encoding="utf-8") as log:
            log.write(discreet(traceback.format_exc()))
        if attempt.trains or not attempt.resumed:
            run.note(status="failed", error=traceback.format_exc(limit=0).strip(), ended=now())
        raise
    run.note(status="finished", ended=now(), error=None)

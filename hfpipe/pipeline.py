"""The functions behind the commands: finetune, evaluate and predict."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from glob import glob
from pathlib import Path
from typing import Any

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
from hfpipe.runs.lock import locked
from hfpipe.runs.recorder import Recorder
from hfpipe.runs.records import cut_back
from hfpipe.runs.resumption import Plan
from hfpipe.runs.resumption import plan as make_plan
from hfpipe.runs.store import Run, default_folder, find_run, now
from hfpipe.stops import StopNow, Stops, stopped


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
        target: what was measured, as it was named.
        split: the split or slice.
        metrics: name to number, None where undefined.
        intervals: name to the [low, high] of a 95 % bootstrap interval, None where there is none.
        examples: rows, each scored exactly once.
        examples_per_second: rows over the time of the forward passes.
    """

    target: str
    split: str
    metrics: dict[str, float | None]
    intervals: dict[str, list[float] | None]
    examples: int
    examples_per_second: float


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
        with _remembered(run, plan.recipe, attempt, main=state.is_main_process):
            while True:
                try:
                    _train(run, plan, engine, shown, parts, stops, attempt, main=state.is_main_process)
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
    from hfpipe.job import is_greater_better, measure, prepare
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
    emit = recorder
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
    display.start(job.num_steps)
    try:
        if step < job.num_steps:
            with _memory_told(job):
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
    (best,) = _from_main(str(recorder.best_folder or ""))
    if best:
        job.model = _reload(job.model, Path(best))
    also = {}
    for split in job.also:
        job.model.to(job.device)
        also[split] = measure(job, last["step"], split)["metrics"]
    if main:

        def save(folder: Path) -> None:
            job.model.save_pretrained(folder)
            job.tokenizer.save_pretrained(folder)

        _finish(run, job, recorder, final, also, seconds, save)
    if recipe.evaluate.best and recorder.evaluates and recorder.best is None:
        raise NumericError(
            f"{recipe.evaluate.best} was never a number in any evaluation, so nothing says which weights are the best",
            where=recipe.where("evaluate.best"),
            fix=f"The last weights are in {run.path / 'model'}; look at the figure, or choose another.",
        )


def _note_beginning(run: Run, plan: Plan, job: Any, given: dict[str, str]) -> None:
    """Make the run's files say from where it trains, and with what."""
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
        precision=asdict(job.precision),
        identity=job.identity,
        fresh=job.fresh,
        given=given,
        **fields,
    )


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
    also: dict[str, dict[str, float | None]],
    seconds: float,
    save: Callable[[Path], None],
) -> None:
    """Put the final weights and figures into the run; `seconds` is the time of the training alone."""
    from hfpipe.runs.transformers_files import write_transformers_files

    recipe, last = job.recipe, recorder.last_step
    assert last is not None
    _require_finite(job.model)
    with run.staged("model") as model_folder:
        save(model_folder)
    examples = job.examples_by(last["step"])
    metrics = final["metrics"] if final else {}
    undefined = [key for key, value in metrics.items() if value is None]
    if undefined:
        verb = "is" if len(undefined) == 1 else "are"
        told = f"{', '.join(undefined)} {verb} undefined on this split, and so {verb} not reported as a number"
        recorder({"type": "notice", "text": told})
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
    run.write_json(
        "metrics.json",
        {"split": recipe.dataset.splits.evaluation, "metrics": metrics, "examples": rows["evaluation"], **summary}
        | ({"also": also} if also else {}),
    )
    recorder({"type": "end", "status": "finished", "step": last["step"], "seconds": seconds})
    write_transformers_files(run, rows, summary)
    missing = len(recorder.lines.waiting)
    if missing:
        recorder.show(
            {"type": "notice", "text": f"records.jsonl is incomplete: the disk refused its last {missing:,} lines"}
        )
    if job.trace.not_finite or job.trace.scaled_away:
        run.note(left_out={"not_finite": job.trace.not_finite, "scaled_away": job.trace.scaled_away})
    run.note(rows=rows, records_missing=missing, model=snapshot.digests(run.path / "model"))


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


def evaluate(
    target: Run | str | Path,
    *,
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    split: str | None = None,
    runs_dir: str | Path | None = None,
    display: Display | None = None,
) -> Evaluation:
    """Measure a run, a checkpoint folder or a checkpoint on the Hub.

    Args:
        target: a run or its id or folder, a local checkpoint folder, or a Hub id.
        recipe: data and task; by default the run's own. A checkpoint needs one.
        overrides: `dotted.path=value` each.
        split: the split or slice; `train` and `evaluation` mean those of the recipe. By default the evaluation split.
        runs_dir: where run ids are looked up.
        display: where progress goes; by default nowhere.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    display = display or Silent()
    name = str(target.path if isinstance(target, Run) else target)
    if isinstance(target, Path):
        name = str(target.expanduser().absolute())  # a Path is a folder, never an id of the Hub
    resolved = _with_checkpoint(target, name, recipe, overrides, runs_dir)
    reach_hub(resolved, display)
    from hfpipe.scoring import score

    with _quiet(), faults_told():
        return Evaluation(target=name, **score(resolved, split, display.say))


def predict(
    target: Run | str | Path,
    source: str | Path,
    *,
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    runs_dir: str | Path | None = None,
    display: Display | None = None,
) -> list[dict[str, Any]]:
    """Label the rows of a file with a run or a checkpoint; the file needs the text columns of the recipe, and no label.

    Args:
        target: as for :func:`evaluate`.
        source: a csv, json, jsonl or parquet file.
        recipe: names the text columns; by default the run's own. A checkpoint needs one.
        overrides: `dotted.path=value` each.
        runs_dir: where run ids are looked up.
        display: where progress goes; by default nowhere.

    Returns:
        For each row, in order, `label`, `score` and `probabilities`; for a regression `value`.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    display = display or Silent()
    kind = Path(source).suffix.removeprefix(".")
    if kind not in ("csv", "json", "jsonl", "parquet"):
        raise RecipeError(f"{str(source)!r}", where="INPUT", allowed="a .csv, .json, .jsonl or .parquet file")
    if not glob(str(Path(source).expanduser()), recursive=True):
        raise DataError(f"no file {str(source)!r} (from {Path.cwd()})", where="INPUT")
    data = [f"dataset.path={kind}", f"dataset.data_files={_quoted(str(source))}"]
    data += ["dataset.name=null", "dataset.revision=null", "dataset.splits={train: train, evaluation: null}"]
    name = str(target.path if isinstance(target, Run) else target)
    base = _with_checkpoint(target, name, recipe, (), runs_dir)
    if base.dataset.streaming:
        data += ["dataset.streaming=false", "dataset.shuffle_buffer=10000"]
    if base.dataset.path != kind:  # how its files are written says nothing of this one
        data += ["dataset.encoding=utf-8", "dataset.separator=null", "dataset.quote='\"'"]
    resolved = with_overrides(base, [*data, *overrides])
    reach_hub(resolved, display)
    from hfpipe.scoring import label

    with _quiet(), faults_told():
        return label(resolved, display.say)


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
) -> Recipe:
    """The recipe of a run, or the given one, with the weights of the target as its checkpoint."""
    run = target if isinstance(target, Run) else _run_named(name, runs_dir, must=recipe is None)
    if run is not None:
        base = run.recipe if recipe is None else _as_recipe(recipe, ())
        checkpoint = str((run.path / "model").resolve())
        if not Path(checkpoint).is_dir():
            raise ModelError(
                f"run {run.id!r} is {run.status} and has no model", where=str(run.path), fix="Train it to its end."
            )
        _require_own_files(run, Path(checkpoint))
    else:
        assert recipe is not None
        base, checkpoint = _as_recipe(recipe, ()), name
    fixed = [f"model.checkpoint={_quoted(checkpoint)}", "model.revision=null", "model.fresh=[]"]
    if base.dataset.splits.hold_out is not None and any(
        change.startswith(("dataset=", "dataset.path=", "dataset.data_files=")) for change in overrides
    ):
        fixed.append("dataset.splits={train: train, evaluation: null}")  # of other data no row was held out
    return with_overrides(base, [*fixed, *overrides])


def _require_own_files(run: Run, folder: Path) -> None:
    """Refuse a model folder whose weights or tokenizer are not those that the run wrote."""
    found = snapshot.digests(folder)
    for name, digest in run.about.get("model", {}).items():
        if name.startswith(("model", "tokenizer", "vocab")) and found.get(name) != digest:
            raise ModelError(
                f"{name} {'has changed' if name in found else 'is gone'}: it is not the one that run {run.id!r} wrote",
                where=str(folder / name),
                fix="Put the file back, or train again; to measure a changed model, copy its folder and name the copy.",
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
            id=run.id,
            name=recipe.name,
            status="preparing",
            engine=recipe.engine,
            seed=recipe.seed,
            started=now(),
            pid=os.getpid(),
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
            log.write(traceback.format_exc())
        if attempt.trains or not attempt.resumed:
            run.note(status="failed", error=traceback.format_exc(limit=0).strip(), ended=now())
        raise
    run.note(status="finished", ended=now(), error=None)

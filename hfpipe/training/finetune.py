"""finetune: a run begins or goes on, is remembered whatever happens, and tries again where memory runs out."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from hfpipe.errors import (
    HfpipeError,
    InterruptedRun,
    MachineError,
    RecipeError,
    StoppedByUser,
)
from hfpipe.recipe import Recipe, to_yaml
from hfpipe.recipe.source import Overrides
from hfpipe.runs.arguments import checked
from hfpipe.runs.cleaning import forget_state
from hfpipe.runs.given_parts import (
    HELD,
    TRAINED_WITH,
    Given,
    excused_by,
    given_names,
    require_given,
    restorable,
    take_parts,
)
from hfpipe.runs.store import FORMAT, Run, default_folder, find_run, now, require_writable
from hfpipe.runs.targets import as_recipe, reach_hub
from hfpipe.system import snapshot
from hfpipe.system.display import NOTE, Display, Silent, as_display
from hfpipe.system.lock import locked
from hfpipe.system.machine import translated_errors
from hfpipe.system.redaction import redact
from hfpipe.system.stops import AbortNow, StopRequests
from hfpipe.training.fit_memory import MemoryTried, memory_ran_out, smaller_plan
from hfpipe.training.resume_plan import Plan, make_plan
from hfpipe.training.session import Engine, Session, train_once
from hfpipe.training.tracking import require_installed, tracked


@checked
def finetune(
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    *,
    overrides: Overrides = (),
    engine: str | Engine | None = None,
    runs_dir: str | Path | None = None,
    name: str | None = None,
    display: Display | bool | None = None,
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
        overrides: `dotted.path=value` each, or a mapping from paths to values.
        engine: `trainer`, `loop`, `module:attribute` or a function `train(job, emit)`, in place of the recipe's.
        runs_dir: folder for runs; by default `$HFPIPE_RUNS_DIR` or `runs`.
        name: id of the run; by default the recipe's name and the time.
        display: where progress goes: by default to a terminal or a notebook, and nowhere else; False for none.
        resume: a run, its id or its folder: go on from its newest whole checkpoint.
        allow_change: with `resume`, what may differ from before: paths of the recipe (`optimizer.lr`), `dataset`,
            `tokenizer`, `model`, `code`, `given`, `processes`.
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
    given = take_parts(
        {**parts, **({} if isinstance(engine, str | None) else {"engine": engine})}, finetune, TRAINED_WITH
    )
    changes = [*overrides, *([f"engine={engine}"] if isinstance(engine, str) else []), *given.overrides]
    with StopRequests(max_minutes) as stops:
        session = Session(as_display(display), given, stops)
        options = {"allow_change": allow_change, "reset_optimizer": reset_optimizer, "use_previous": use_previous}
        try:
            if resume is None:
                for option in (option for option, value in options.items() if value):
                    raise RecipeError("does nothing without --resume", where=f"--{option.replace('_', '-')}")
                return _holding(_start(session, _new_recipe(recipe, changes), runs_dir, name), given)
            if name is not None:
                raise RecipeError("a run that goes on keeps its id", where="--name")
            session.resumed = True
            if isinstance(resume, Run) and (resume.path / "run.json").is_file():
                session.run = resume
            else:
                named = str(resume.path if isinstance(resume, Run) else resume)
                session.run = find_run(named, Path(runs_dir or default_folder()))
            run = _resume(session, None if recipe is None else as_recipe(recipe, ()), changes, options)
            return _holding(run, given)
        except AbortNow as stop:
            if hasattr(session, "run") and not (session.trains or session.resumed):
                shutil.rmtree(session.run.path, ignore_errors=True)
            raise session.stopped(stop.asked) from None


def _holding(run: Run, given: Given) -> Run:
    """The run with the objects that an evaluation in this process takes again."""
    run.held |= {key: part for key, part in given.objects.items() if key in HELD}
    return run


def _new_recipe(recipe: Recipe | str | Path | Mapping[str, Any] | None, changes: Sequence[str]) -> Recipe:
    """The recipe of a new run.

    Raises:
        RecipeError: none was named, or it has mistakes.
    """
    if recipe is None:
        raise RecipeError("no recipe", where="RECIPE", fix="Name one, or a run to go on with: --resume RUN.")
    return as_recipe(recipe, changes)


def _start(session: Session, recipe: Recipe, runs_dir: str | Path | None, name: str | None) -> Run:
    """A new run."""
    require_installed(recipe)
    reach_hub(recipe, session.display)
    from hfpipe.system.processes import from_main, join

    main = join().is_main_process
    path = str(Run.create(recipe, Path(runs_dir) if runs_dir else default_folder(), name).path) if main else ""
    session.run, session.plan = Run(Path(*from_main(path))), Plan(recipe)
    with locked(session.run.path) if main else nullcontext():
        return _fit(session)


def _resume(session: Session, recipe: Recipe | None, changes: Sequence[str], options: Mapping[str, Any]) -> Run:
    """A run that was stopped, or one that is to be trained further."""
    run, display = session.run, session.display
    if run.status == "finished" and make_plan(run, recipe, changes, **options).finished:
        display.notice(f"{NOTE}{run.path} is already complete: nothing was changed")
        return run
    main = int(os.environ.get("RANK", "0")) == 0
    with locked(run.path) if main else nullcontext():
        if main:
            require_writable(run)
        plan = session.plan = _of_main(lambda: make_plan(run, recipe, changes, **options))
        if not plan.may_differ("given"):
            require_given(
                run,
                session.given.keywords,
                TRAINED_WITH,
                excused=excused_by(recipe, changes),
                restored=plan.checkpoint is not None,
                call=f"hfpipe.finetune(resume={str(run.path)!r}, ...)",
            )
        require_installed(plan.recipe)
        reach_hub(plan.recipe, display)
        for text in plan.skipped:
            display.notice(f"passed over {text}")
        at = f"step {plan.checkpoint.step:,}" if plan.checkpoint else "the beginning: no checkpoint was saved"
        display.notice(f"going on from {at}")
        if plan.checkpoint:
            session.restored = tuple(key for key in restorable(run) if key in given_names(run))
        return _fit(session)


def _of_main(plan: Callable[[], Plan]) -> Plan:
    """The plan of the main process, on every process: each would look at the files at another moment."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return plan()
    from hfpipe.system.processes import from_main, join

    found: Plan
    (found,) = from_main(plan() if join().is_main_process else None)
    return found


def _fit(session: Session) -> Run:
    """Train, in smaller micro-batches where memory runs out and the recipe allows it."""
    from hfpipe.system.processes import join

    state, run = join(), session.run
    session.main = state.is_main_process
    shown = session.display if session.main else Silent()
    try:
        with _remembered(session), tracked(run, session.recipe, shown, main=session.main) as session.display:
            while (memory_error := _train_or_memory_error(session)) is not None:
                session.plan = smaller_plan(run, session.plan, memory_error)
            state.wait_for_everyone()
    except (InterruptedRun, StoppedByUser):
        state.wait_for_everyone()  # what the main process writes of it is written before any of them leaves
        raise
    if session.main:
        from hfpipe.reports import write_report

        with translated_errors():
            forget_state(run)
            write_report(run)
    return run


def _train_or_memory_error(session: Session) -> str | None:
    """Train once; the message where memory ran out and the recipe says to go on in smaller micro-batches."""
    from accelerate import PartialState

    try:
        train_once(session)
    except MachineError as error:
        known_to_all = PartialState().num_processes == 1 or isinstance(error, MemoryTried)
        if not (memory_ran_out(error) and session.recipe.train.fit_memory and known_to_all):
            raise
        session.release()  # smaller micro-batches need the memory of this try
        return error.what
    return None


@contextmanager
def _remembered(session: Session) -> Iterator[None]:
    """Keep `run.json` true whatever happens, and the libraries' chatter in `log.txt`."""
    from hfpipe.system import library_logs

    run = session.run
    if not session.main:
        with library_logs.library_logs_to(Path(os.devnull)), translated_errors():
            yield
        return
    if not session.resumed:
        recipe = session.recipe
        run.update_metadata(
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
            written=to_yaml(recipe, defaults=False),
            versions=snapshot.versions(),
            machine=snapshot.machine(),
            commit=snapshot.commit(),
        )
    try:
        with library_logs.library_logs_to(run.path / "log.txt"), translated_errors():
            yield
    except HfpipeError as error:
        if session.trains:
            resumable = isinstance(error, InterruptedRun | StoppedByUser)
            _note_end(run, "interrupted" if resumable else "failed", str(error))
        elif not session.resumed:
            shutil.rmtree(run.path)  # nothing was trained, and the message says all there is
        raise
    except AbortNow as stop:
        if session.trains:
            _note_end(run, "interrupted", str(session.stopped(stop.asked)))
        elif not session.resumed:
            shutil.rmtree(run.path)
        raise
    except BaseException:
        with suppress(OSError), open(run.path / "log.txt", "a", encoding="utf-8") as log:
            log.write(redact(traceback.format_exc()))
        if session.trains or not session.resumed:
            _note_end(run, "failed", traceback.format_exc(limit=0).strip())
        raise
    run.update_metadata(status="finished", ended=now(), error=None)


def _note_end(run: Run, status: str, error: str) -> None:
    """Write down how a run ended, where the disk takes it: the error itself says more than that it can't be noted."""
    with suppress(OSError):
        run.update_metadata(status=status, error=error, ended=now())

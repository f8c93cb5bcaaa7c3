"""One training: a job is prepared, put where the run was, trained by its engine, and the run finished."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpipe.errors import HfpipeError, InterruptedRun, MachineError, NumericError, RecipeError, StoppedByUser
from hfpipe.recipe import Recipe, to_yaml
from hfpipe.recipe.catalog import ENGINES, resolve
from hfpipe.runs.checkpoints import STATE_FILES, clear_staging, list_checkpoints, name_of, remove, require_space
from hfpipe.runs.given_parts import Given
from hfpipe.runs.listing import idle_before
from hfpipe.runs.places import relative_places
from hfpipe.runs.records import cut_back
from hfpipe.runs.store import Run, now
from hfpipe.system.display import NOTE, Display
from hfpipe.system.machine import translated_errors
from hfpipe.system.stops import StopRequests, stopped
from hfpipe.system.text import one_line
from hfpipe.training.finish import finish, reload_best, save_model
from hfpipe.training.fit_memory import memory_ran_out, try_memory
from hfpipe.training.recorder import Recorder
from hfpipe.training.resume_plan import Plan

if TYPE_CHECKING:
    from hfpipe.evaluation.inference import Predictions
    from hfpipe.training.job import Job
    from hfpipe.training.scale_check import ScaleCheck

Engine = Callable[..., None]


@dataclass
class Session:
    """What a process was asked to train, and how far it came with it.

    Attributes:
        display: where progress goes.
        given: objects in place of the recipe's parts.
        stops: what was asked of this process.
        resumed: whether the run was there before.
        main: whether this process writes.
        trains: whether training has begun.
        run: the run folder, when there is one.
        plan: the recipe, and the checkpoint to go on from.
        job: what is trained; with `recorder` and the others below from `open` on.
        restored: which parts that were given when the run began come from its checkpoint.
        initial: the weights of a given model, where the training may begin anew.
        notices: about the resume.
        scale: the check of the loss scale, where one is due.
        final: the record of the evaluation of the weights that the run ends with.
        seconds: of training alone.
        randoms: the random states of all processes before the last evaluation.
    """

    display: Display
    given: Given
    stops: StopRequests
    resumed: bool = False
    main: bool = True
    trains: bool = False
    run: Run = field(init=False)
    plan: Plan = field(init=False)
    job: Job = field(init=False)
    recorder: Recorder = field(init=False)
    restored: tuple[str, ...] = ()
    initial: dict[str, Any] | None = None
    notices: list[str] = field(default_factory=list)
    scale: ScaleCheck | None = None
    final: dict[str, Any] | None = None
    seconds: float = 0.0
    randoms: list[Any] = field(default_factory=list)

    @property
    def recipe(self) -> Recipe:
        """What is trained, with the changes of this resumption."""
        return self.plan.recipe

    @property
    def step(self) -> int:
        """The step that training goes on after; 0 at the beginning."""
        return self.plan.checkpoint.step if self.plan.checkpoint else 0

    def stopped(self, asked: int) -> HfpipeError:
        """The error of a stop in the middle of something."""
        if not self.trains:
            what = "the run is as it was" if self.resumed else "nothing was trained, and there is nothing to resume"
            return stopped(asked, f"while preparing, {what}", "Start the same command again.")
        again = f"`hfpipe finetune --resume {self.run.path}` goes on from its newest whole checkpoint."
        return stopped(asked, "at once", again)

    def open(self) -> None:
        """Prepare the job, put it where the plan says, and check that there is room for what it will write."""
        from accelerate import PartialState

        from hfpipe.training import resume
        from hfpipe.training.prepare import prepare
        from hfpipe.training.scale_check import check_scale, is_due

        self.stops.raise_if_requested()
        resume.restore_parts(self.given, self.plan, self.restored)
        self._begin_anew()
        parts = {key: part for key, part in self.given.objects.items() if key != "engine"}
        plans = resume.batch_plans_of(self.plan)
        self.job = prepare(self.recipe, notice=self.display.notice, batch_plans=plans, **parts)
        self.notices = resume.restore_job(self.job, self.plan, self.given.names)
        if (
            PartialState().num_processes > 1
            and self.recipe.train.fit_memory
            and self.step < self.job.timeline.num_steps
        ):
            try_memory(self.job)
        self.scale = check_scale(self.job) if is_due(self.job) and not self.step else None
        weights, checkpoint = resume.bytes_of(self.job)
        self.recorder = self._recorder(checkpoint)
        if self.main:
            spec = self.recipe.checkpoints
            rhythms = (spec.every != "never", spec.every_steps, spec.every_minutes)
            saves = any(rhythms) or (spec.keep_best and self.recipe.evaluate.best)
            require_space(self.run.path, weights + (checkpoint if saves else 0), "the run")

    def _begin_anew(self) -> None:
        """Remember the weights of a given model before they are trained, and put them back where that begins again."""
        model = self.given.objects.get("model")
        if model is None or not self.recipe.train.fit_memory:
            return
        if self.initial is None:
            self.initial = {key: values.detach().cpu().clone() for key, values in model.state_dict().items()}
        else:
            model.load_state_dict(self.initial)

    def _recorder(self, needed: int) -> Recorder:
        from accelerate import PartialState

        from hfpipe.parts.build import is_greater_better
        from hfpipe.training import resume

        # With another metric as the best one, evaluations without an improvement are counted anew.
        counted_anew = {"unimproved": 0} if "evaluate.best" in self.plan.changes else {}
        return Recorder(
            self.run,
            self.recipe,
            timeline=self.job.timeline,
            greater_is_better=is_greater_better(self.recipe),
            save=resume.saver(self.job),
            show=self.display.record,
            writes=self.main,
            about=resume.about(self.job, self.given.names),
            required=("config.json", "model.safetensors", *STATE_FILES),
            needed=needed,
            stops=self.stops,
            agree=resume.agree if PartialState().num_processes > 1 else None,
            progress={**self.plan.progress, **counted_anew},
        )

    def emit(self, record: dict[str, Any]) -> None:
        """Write a record down, and do what follows from it."""
        self.recorder(record)
        self.job.state.stops_early = self.recorder.stops_early
        if record["type"] == "step" and self.job.timeline.evaluation_due(record["step"]):
            self._remember_random()
        if record["type"] == "evaluation":
            self.job.state.forget({record["step"], (self.recorder.best or record)["step"]})

    def release(self) -> None:
        """Let go of the job and of what refers to it, so that another one has its memory."""
        for name in ("job", "recorder"):
            self.__dict__.pop(name, None)
        self.scale = self.final = None

    def announce(self) -> None:
        """Write down from where the run trains and with what, with the notices of both.

        Raises:
            NumericError: the gradient depends on how an update is divided into micro-batches.
        """
        self.trains = True
        if self.main:
            self._write_beginning()
            if self.plan.fitted:
                self._notice(self.plan.fitted, resumed=True)
            resumed = [f"resumed from step {self.step:,}"] if self.plan.resumes else []
            for text in (*(f"passed over {one}" for one in self.plan.skipped), *resumed, *self.notices):
                self._notice(text, resumed=True)
        self.stops.at_once = False
        self.display.notice(f"{self.job.device}, {self.job.precision.name}: {self.job.precision.why}")
        self._tell_busy_cores()
        for text in () if self.step else self.job.notices:
            self._notice(text)
        if self.scale is not None:
            self.emit(self.scale.record())
            if not str(getattr(self._engine_function, "__module__", "")).startswith("hfpipe.training.engines."):
                self._notice(
                    "the engine is your own: that check saw the loss and its reduction, not what it does with them"
                )
            if not self.scale.ok:
                raise self.scale.error()

    def _tell_busy_cores(self) -> None:
        """Say it where threads will wait for cores; it is about this machine now, and no part of the run."""
        import torch

        from hfpipe.system.threads import busy_notice

        if self.job.device.type == "cpu" and (told := busy_notice(torch.get_num_threads())):
            self.display.notice(f"{NOTE}{told}")

    def _notice(self, text: str, *, resumed: bool = False) -> None:
        self.emit({"type": "notice", "text": text, **({"resumed": self.step} if resumed else {})})

    @property
    def _engine_function(self) -> Engine:
        given: Engine | None = self.given.objects.get("engine")
        return given or resolve(ENGINES, self.recipe.engine, "engine")

    def train(self) -> None:
        """Let the engine make the steps that are left.

        Raises:
            HfpipeError: a stop, a fault of the machine, a loss that is not finite, or an engine that made no step.
        """
        from hfpipe.training.determinism import cost, deterministic

        job, recorder, recipe = self.job, self.recorder, self.recipe
        if recipe.train.deterministic:
            self._notice(cost(job.device))
        self.display.start(job.timeline.num_steps)
        recorder.started = time.perf_counter()  # what a tracker takes to start is no training
        try:
            with (
                self._kept_if_evaluation_fails(),
                _memory_errors(job),
                deterministic(recipe.train.deterministic, recipe.where("train.deterministic")),
            ):
                self._measure_first()
                if self.step < job.timeline.num_steps and not recorder.stops_early:
                    self._engine_function(job, self.emit)
        finally:
            self.display.close()
        if recorder.last_step is not None and recorder.saved_step == recorder.last_step["step"]:
            self.stops.raise_if_requested()  # the rest is quickly done again
        if recorder.stops_early:
            self._notice(recorder.why_stopped_early)
        self.seconds = recorder.training_seconds

    def _measure_first(self) -> None:
        """Make the evaluation that the checkpoint was saved without, because it failed."""
        from hfpipe.training.job import evaluate_step, step_on_metric

        job = self.job
        if not self.plan.progress.get("unmeasured") or not job.timeline.evaluation_due(self.step):
            return
        job.model.to(job.device)
        record = evaluate_step(job, self.step)
        point = job.state.resume_point
        assert point is not None

        def restore() -> None:
            point.restore()
            step_on_metric(job, record)  # with what the schedule knew before this evaluation

        job.state.resume_point = replace(point, restore=restore)
        self.emit(record)

    def _remember_random(self) -> None:
        """Keep the random states of all processes: where an evaluation fails, one of them saves without the others."""
        from hfpipe.training import resume

        self.randoms = resume.random_states()

    @contextmanager
    def _kept_if_evaluation_fails(self) -> Iterator[None]:
        """Save the weights and the state of the last step where an evaluation of them fails, and say where they are."""
        try:
            yield
        except (InterruptedRun, StoppedByUser):
            raise
        except Exception as error:
            if self.job.state.status.evaluating and self.main:
                self._say(error, self._keep())
            raise

    def _keep(self) -> str:
        """Save the last step where it is not saved; what there is to go on from, in words."""
        from hfpipe.training import resume

        step = self.recorder.last_step["step"] if self.recorder.last_step else 0
        try:
            self.recorder.save_unmeasured(resume.saver(self.job, self.randoms or None))
        except (HfpipeError, OSError) as error:
            return f"Step {step:,} could not be saved: {one_line(error)}"
        place = self.run.path / name_of(step)
        return (
            f"Step {step:,} is saved with its weights in {place}; `hfpipe finetune --resume {self.run.path}` goes on from "
            "there, and evaluates first."
        )

    def _say(self, error: Exception, text: str) -> None:
        """Add a sentence to an error that goes on; what is none of hfpipe's is shown beside it."""
        if isinstance(error, HfpipeError):
            error.fix = f"{error.fix.rstrip('.')}. {text}" if error.fix else text
        else:
            self.display.notice(f"{NOTE}{text}")

    def select_best(self) -> None:
        """Evaluate the last weights if that was not done, and put those of the best checkpoint into the model.

        Raises:
            RecipeError: the engine emitted no step.
            ModelError: the best checkpoint is gone or damaged.
        """
        from hfpipe.system.processes import from_main
        from hfpipe.training.job import evaluate_step

        job, recorder = self.job, self.recorder
        last, self.final = from_main(recorder.last_step, recorder.final_evaluation)
        if last is None:
            raise RecipeError("the engine emitted no step record", where=self.recipe.where("engine"))
        if self.final is None and job.evaluation_data is not None:
            job.model.to(job.device)
            self._remember_random()
            with self._kept_if_evaluation_fails(), _memory_errors(job):
                self.final = evaluate_step(job, last["step"])  # all processes together
            self.emit(self.final)
        (best,) = from_main(str(recorder.best_folder or ""))
        if best:
            reload_best(job.model, Path(best))
        job.model.to(job.device)

    def finish(self) -> None:
        """Measure every split with the final weights, and write what the run ends with.

        Raises:
            NumericError: the metric that says which weights are best was never a number.
        """
        if self.main:
            save_model(self.run, self.job)
        try:
            predictions = self._predict_splits()
            if self.main:
                finish(self.run, self.job, self.recorder, self.final, predictions, self.seconds)
        except (InterruptedRun, StoppedByUser):
            raise
        except Exception as error:
            if self.main:
                again = f"`hfpipe finetune --resume {self.run.path}` measures them again."
                if self.recorder.best_folder is None:
                    again = self._keep()
                self._say(error, f"The final weights are in {self.run.path / 'model'}. {again}")
            raise
        best = self.recipe.evaluate.best
        if best and self.job.evaluation_data is not None and self.recorder.best is None:
            raise NumericError(
                f"{best} was never a number in any evaluation, so nothing says which weights are the best",
                where=self.recipe.where("evaluate.best"),
                fix=f"The last weights are in {self.run.path / 'model'}; look at the metric, or choose another.",
            )

    def _predict_splits(self) -> dict[str, Predictions]:
        """The outputs of the final weights for every split that is measured or calibrated on; all processes together."""
        from hfpipe.system.processes import from_main
        from hfpipe.training.job import predict_split

        job = self.job
        others = {split: predict_split(job, encoded) for split, (encoded, _) in job.others.items()}
        (step,) = from_main(self.final and self.final["step"])
        if self.final is None or job.evaluation_data is None:
            return others
        known = job.state.predictions
        (is_known,) = from_main(step in known)  # the main process needs them, the others need not have them
        evaluated = known.get(step) if is_known else predict_split(job, job.evaluation_data)
        return others if evaluated is None else {str(self.recipe.dataset.splits.evaluation): evaluated, **others}

    def _write_beginning(self) -> None:
        """Make the run's files say from where it trains, and with what."""
        import torch
        from accelerate import PartialState

        job, run = self.job, self.run
        resumption = self._write_resumption() if self.plan.resumes else {}
        run.update_metadata(
            status="running",
            device=str(job.device),
            threads=torch.get_num_threads(),
            processes=PartialState().num_processes,
            updates=[one.as_json() for one in job.batch_plans],
            precision=asdict(job.precision),
            identity=job.identity,
            places=relative_places(job.recipe, run.path),
            fresh=job.fresh,
            given=self.given.names,
            restorable=list(job.restorable),
            **resumption,
        )
        run.write_json("audit.json", job.audit.as_json())

    def _write_resumption(self) -> dict[str, Any]:
        """Take back what the run's files have of steps that come again; the fields of `run.json` that say so."""
        from accelerate import PartialState

        run, plan = self.run, self.plan
        clear_staging(run.path)
        for later in list_checkpoints(run.path):
            if later.step > self.step:
                remove(later.path)  # damaged, and its step comes again
        taken = cut_back(run.path, int(plan.progress.get("records_bytes", 0)))
        if taken:
            with open(run.path / "log.txt", "a", encoding="utf-8") as log:
                log.write(f"--- records after step {self.step}, which are made again:\n{taken}---\n")
        metadata, processes = run.metadata, (plan.progress.get("processes"), PartialState().num_processes)
        other = {"processes": processes} if plan.checkpoint and processes[0] != processes[1] else {}
        changes = {**plan.changes, **other}
        entry = {"step": self.step, "at": now(), "skipped": list(plan.skipped), "changes": changes}
        allowed = {**plan.changes, **(other if plan.may_differ("processes") else {})}
        if plan.changes:
            run.write_text("recipe.yaml", to_yaml(plan.recipe))
        return {
            "resumed": [*metadata.get("resumed", []), entry],
            "allowed_changes": {
                **metadata.get("allowed_changes", {}),
                **{path: change[1] for path, change in allowed.items()},
            },
            "engine": plan.recipe.engine,
            "idle_seconds": idle_before(metadata, plan.progress.get("saved")),
            "pid": os.getpid(),
            "ended": None,
            "error": None,
            "stopped_early": None,
        }


def train_once(session: Session) -> None:
    """Train from where the plan of the session says, and finish the run."""
    session.open()
    session.announce()
    session.train()
    session.select_best()
    session.finish()


@contextmanager
def _memory_errors(job: Job) -> Iterator[None]:
    """Say of which micro-batch memory ran out."""
    try:
        with translated_errors():
            yield
    except MachineError as error:
        if not memory_ran_out(error):
            raise
        status, train = job.state.status, job.recipe.train
        if status.evaluating:
            raise MachineError(
                f"not enough memory to evaluate in batches of {job.recipe.evaluate.batch_size} inputs of mean length",
                fix="Lower evaluate.batch_size, which changes no metric, or shorten model.max_length.",
            ) from error
        rows, *rest = status.shape or (train.batch_size,)
        length = f" of up to {rest[-1]} tokens" if rest else ""
        by_tokens = train.batching.tokens is not None
        fix = error.fix.replace("train.batch_size", "train.batching.tokens") if by_tokens else error.fix
        raise MachineError(
            f"out of memory in step {status.step}, in a micro-batch of {rows} inputs{length}", fix=fix
        ) from error

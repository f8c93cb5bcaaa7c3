"""The functions behind the commands: finetune, evaluate and predict."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpipe.display import Display, Silent
from hfpipe.errors import DataError, HfpipeError, ModelError, NumericError, RecipeError, StoppedByUser
from hfpipe.machine import faults_told
from hfpipe.recipe import Recipe, load_recipe, with_overrides
from hfpipe.recipe.catalog import ENGINES, resolve
from hfpipe.runs import snapshot
from hfpipe.runs.recorder import Recorder
from hfpipe.runs.store import Run, default_folder, find_run, now

if TYPE_CHECKING:
    from hfpipe.labelling import Labeller
    from hfpipe.prediction import Labelled


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
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    engine: str | Callable[..., None] | None = None,
    runs_dir: str | Path | None = None,
    name: str | None = None,
    display: Display | None = None,
    **parts: Any,
) -> Run:
    """Fine-tune a checkpoint as a recipe says, and remember it in a run folder.

    Args:
        recipe: a recipe, or what `load_recipe` takes.
        overrides: `dotted.path=value` each.
        engine: `trainer`, `loop`, `module:attribute` or a function `train(job, emit)`, in place of the recipe's.
        runs_dir: folder for runs; by default `$HFPIPE_RUNS_DIR` or `runs`.
        name: id of the run; by default the recipe's name and the time.
        display: where progress goes; by default nowhere.
        parts: objects in place of the recipe's parts, see :func:`hfpipe.prepare`.

    Returns:
        The finished run.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    display = display or Silent()
    recipe = _as_recipe(recipe, overrides)
    if isinstance(engine, str):
        recipe = with_overrides(recipe, [f"engine={engine}"])
    reach_hub(recipe, display)
    from accelerate.utils import broadcast_object_list

    from hfpipe.parts.processes import join

    state = join()
    path: list[str] = [""]
    if state.is_main_process:
        path = [str(Run.create(recipe, Path(runs_dir) if runs_dir else default_folder(), name).path)]
    if state.num_processes > 1:
        broadcast_object_list(path)
    run = Run(Path(path[0]))
    with _remembered(run, recipe, main=state.is_main_process):
        _train(run, recipe, engine, display if state.is_main_process else Silent(), parts, main=state.is_main_process)
        state.wait_for_everyone()
    if state.is_main_process:
        from hfpipe.report import write_report

        with faults_told():
            write_report(run)
    return run


def _train(run: Run, recipe: Recipe, engine: Any, display: Display, parts: dict[str, Any], *, main: bool) -> None:
    from hfpipe.job import is_greater_better, measure, prepare
    from hfpipe.scale_check import check_scale, is_due

    job = prepare(recipe, say=display.say, **parts)
    train = engine if callable(engine) else resolve(ENGINES, recipe.engine, "engine")
    scale = check_scale(job) if is_due(job) else None

    def save(folder: Path) -> None:
        job.model.save_pretrained(folder)
        job.tokenizer.save_pretrained(folder)

    recorder = Recorder(
        run,
        recipe,
        num_steps=job.num_steps,
        steps_per_epoch=job.steps_per_epoch,
        evaluates=job.evaluation_data is not None,
        greater_is_better=is_greater_better(recipe),
        save=save,
        show=display.record,
    )
    emit = recorder if main else _nowhere
    if main:
        run.note(
            status="running",
            device=str(job.device),
            precision=asdict(job.precision),
            identity=job.identity,
            fresh=job.fresh,
            given=_given(parts if isinstance(engine, str | None) else {**parts, "engine": engine}),
        )
    display.say(f"{job.device}, {job.precision.name}: {job.precision.why}")
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
        train(job, emit)
    finally:
        display.close()
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
        _finish(run, job, recorder, final, also, seconds, save)


def _given(parts: Mapping[str, Any]) -> dict[str, str]:
    """The parts that came as objects and stand in no recipe, by the names of their classes or functions."""
    named = {key: part if hasattr(part, "__qualname__") else type(part) for key, part in parts.items()}
    return {key: f"{part.__module__}:{part.__qualname__}" for key, part in named.items()}


def _nowhere(record: dict[str, Any]) -> None:
    """Records of the other processes are the same, so one process keeps them."""


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
    if recipe.evaluate.best and final and metrics.get(recipe.evaluate.best) is None:
        recorder({"type": "notice", "text": f"{recipe.evaluate.best} was never a number, so the last weights are kept"})
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
    run.note(rows=rows, model=snapshot.digests(run.path / "model"))


def _require_finite(model: Any) -> None:
    """Refuse to save weights that diverged in the last step, whose loss was still a number."""
    for key, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise NumericError(
                f"the weights {key!r} are not finite after the last step", fix="Try a smaller optimizer.lr."
            )


def _reload(model: Any, folder: Path) -> Any:
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
    resolved = _with_checkpoint(target, name, None, overrides, runs_dir)
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
    base = _with_checkpoint(target, name, recipe, (), runs_dir)
    data = [f"dataset.path={form}", "dataset.data_files=null", "dataset.name=null", "dataset.revision=null"]
    data += ["dataset.splits={train: train, evaluation: null}"]
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
    said_by = f"run {run.id!r}" if run is not None else "RUN|CHECKPOINT"
    return with_overrides(with_overrides(base, fixed, said_by), overrides)


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
def _remembered(run: Run, recipe: Recipe, *, main: bool) -> Iterator[None]:
    """Keep `run.json` true whatever happens, and the libraries' chatter in `log.txt`."""
    from hfpipe import chatter

    if not main:
        with chatter.into(Path(os.devnull)), faults_told():
            yield
        return
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
        if run.status == "preparing":
            shutil.rmtree(run.path)  # nothing was trained, and the message says all there is
        else:
            run.note(status="stopped" if isinstance(error, StoppedByUser) else "failed", error=str(error), ended=now())
        raise
    except BaseException:
        with open(run.path / "log.txt", "a", encoding="utf-8") as log:
            log.write(traceback.format_exc())
        run.note(status="failed", error=traceback.format_exc(limit=0).strip(), ended=now())
        raise
    run.note(status="finished", ended=now())

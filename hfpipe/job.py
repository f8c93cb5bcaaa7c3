"""prepare(recipe) -> Job: the only place where the parts meet."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import EvalPrediction

from hfpipe.audit import Audit, audit
from hfpipe.errors import DataError, RecipeError, RefusedError
from hfpipe.evaluation import Predictions, compute_metrics, mean_loss_of, predict
from hfpipe.measurement import dataset_identity, slices_of
from hfpipe.parts import calibration, kernels, losses, models, tasks
from hfpipe.parts.batches import Collate, TrainLoader, train_loader
from hfpipe.parts.buckets import padding_multiple, padding_share
from hfpipe.parts.compiling import compile_in_place
from hfpipe.parts.cuts import Cut, begun_of, cut_of
from hfpipe.parts.metrics import compute_all, greater_is_better, load_metric
from hfpipe.parts.objective import Objective
from hfpipe.parts.optimizers import build_optimizer
from hfpipe.parts.precision import Precision, choose
from hfpipe.parts.processes import join
from hfpipe.parts.reduction import effective_rate
from hfpipe.parts.schedules import ON_METRIC, build_schedule
from hfpipe.parts.state import Resumption
from hfpipe.parts.streams import RawStream, StreamLoader
from hfpipe.parts.tasks.classes import counts_of
from hfpipe.parts.trainer_options import option_problems
from hfpipe.recipe.catalog import ENGINES, LOSSES, OPTIMIZERS, SCHEDULES, is_metric_script, is_reference, near, resolve
from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.source import to_yaml
from hfpipe.rows import Say, read_rows


@dataclass
class Trace:
    """Where an engine is.

    Attributes:
        step: the step that is being made, from 1.
        measures: whether it is evaluating.
        shape: of the widest that the model was given last, `[inputs, tokens]`, or `[inputs, choices, tokens]`.
        not_finite: steps that were left out because something in them was not finite.
        scaled_away: steps that the fp16 scaler left out while it looked for a scale.
    """

    step: int = 0
    measures: bool = False
    shape: tuple[int, ...] = ()
    not_finite: int = 0
    scaled_away: int = 0


@dataclass
class Job:
    """A recipe with its parts built, ready to train, in memory."""

    recipe: Recipe
    task: tasks.Task
    tokenizer: PreTrainedTokenizerBase
    collate: Collate
    model: PreTrainedModel
    train_data: datasets.Dataset
    evaluation_data: datasets.Dataset | None
    evaluation_rows: datasets.Dataset | None
    others: dict[str, tuple[datasets.Dataset, datasets.Dataset]]
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Any
    metrics: list[tuple[str, Any]]
    precision: Precision
    device: torch.device
    loader: TrainLoader | StreamLoader
    steps_per_epoch: int
    num_steps: int
    fresh: list[str]
    identity: dict[str, Any]
    audit: Audit
    padded_to: int | None = None
    """Batches are as long as the next multiple of this, None as their longest row."""
    cuts: tuple[Cut, ...] = ()
    """How rows became updates so far, and do now."""
    shift: int = 0
    """What is added to a step for its place in the order; not 0 where updates have changed their size."""
    notices: list[str] = field(default_factory=list)
    predictions: dict[int, Predictions] = field(default_factory=dict)
    resumption: Resumption | None = None
    """From where training goes on; None at the beginning. An engine of your own starts from `job.start` too."""
    stops_early: bool = False
    """Set while the record of an evaluation is emitted, when `evaluate.patience` is over: the engine returns."""
    scaler: Any = None
    """Of fp16 gradients, set by the engine."""
    trace: Trace = field(default_factory=Trace)
    """What the engine is doing, for a message when it fails."""

    @property
    def start(self) -> int:
        """Steps that were taken before, by the process that this one goes on from."""
        return self.resumption.step if self.resumption else 0

    def place(self, step: int) -> tuple[int, int]:
        """Where it goes on after so many steps: the epoch, from 0, and how many of its updates come before."""
        return divmod(step + self.shift, self.steps_per_epoch)

    def epochs_by(self, step: int) -> float:
        """How many epochs are trained by this step."""
        return (step + self.shift) / self.steps_per_epoch

    def rows_of(self, step: int) -> list[int]:
        """The encoded training rows of a step, from 0, in the order of its micro-batches; none of a stream."""
        if isinstance(self.loader, StreamLoader):
            return []
        epoch, within = self.place(step - 1)
        rows: list[int] = self.loader.order.updates(epoch)[within].tolist()
        return [row for row in rows if row >= 0]

    @property
    def compute_metrics(self) -> Callable[[Any], dict[str, float | None]] | None:
        """Metric names to numbers, from an EvalPrediction; None without an evaluation split."""
        if self.evaluation_data is None or self.evaluation_rows is None:
            return None
        return compute_metrics(self.task, self.metrics, self.evaluation_data, self.evaluation_rows)

    def forget(self, keep: set[int]) -> None:
        """Drop what was predicted at other steps than these."""
        self.predictions = {step: kept for step, kept in self.predictions.items() if step in keep}

    def examples_by(self, step: int) -> int:
        """How many examples all processes have trained on by this step; a window of a long text is one."""
        if isinstance(self.loader, StreamLoader):
            spec = self.recipe.train
            return int(step * spec.batch_size * spec.accumulate * PartialState().num_processes)
        epoch, within = self.place(step)
        left = self.loader.order.updates(epoch)[within:] if within else []
        return (epoch + bool(within)) * len(self.train_data) - sum(int((rows >= 0).sum()) for rows in left)

    def padding_share(self) -> float | None:
        """The share of padding among the tokens of an epoch's micro-batches, 0 to 1; of a stream it is not known."""
        if isinstance(self.loader, StreamLoader):
            return None
        begun = self.loader.order.begun
        whole = 0 if begun is None else begun.epoch + 1  # the first epoch that has these updates from its beginning
        return padding_share(self.loader.micro_batches(whole), tasks.lengths(self.train_data), self.padded_to)

    def step_record(self, step: int, figures: Mapping[str, Any], grad_norm: float, lr: float) -> dict[str, Any]:
        """The record of one step: `figures` from `Update.figures`, the norm of `.grad` before clipping, the rate used."""
        epoch = self.epochs_by(step)
        return {"type": "step", "step": step, "epoch": epoch, **figures, "grad_norm": grad_norm, "lr": lr}


def measure(job: Job, step: int) -> dict[str, Any]:
    """Score the evaluation split with the weights as they are: the record of an evaluation.

    What was predicted is kept in `job.predictions` under the step, until `forget` is told that it is not needed.

    Raises:
        NumericError: the model's outputs are not finite.
    """
    assert job.evaluation_data is not None
    assert job.evaluation_rows is not None
    predictions = job.predictions[step] = predict_split(job, job.evaluation_data)
    metrics: dict[str, float | None] = {"loss": mean_loss_of(predictions)}
    score = compute_metrics(job.task, job.metrics, job.evaluation_data, job.evaluation_rows)
    metrics |= score(EvalPrediction(predictions.logits, None))
    epoch = job.epochs_by(step)
    return {"type": "evaluation", "step": step, "epoch": epoch, "metrics": metrics, "seconds": predictions.seconds}


def predict_split(job: Job, encoded: datasets.Dataset) -> Predictions:
    """What the model says of every encoded row, with the weights as they are."""
    return predict(
        job.model,
        job.task,
        encoded,
        job.collate,
        batch_size=job.recipe.evaluate.batch_size,
        precision=job.precision,
        objective=job.objective,
    )


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed the dropout of an epoch, the same for both engines and different on each process."""
    set_seed((seed + epoch + 1_000_003 * PartialState().process_index) % 2**32)


def check_parts(recipe: Recipe) -> None:
    """Import every part that the recipe names and bind its arguments, without loading data or weights.

    Raises:
        RecipeError: every part that can't be had or does not take its arguments, one a line.
    """
    problems = []

    def attempt(path: str, check: Callable[[], object]) -> None:
        try:
            check()
        except RecipeError as error:
            problems.append(str(error) if error.where else f"{recipe.where(path)}: {error}")

    attempt("engine", lambda: resolve(ENGINES, recipe.engine, "engine"))
    attempt("loss.name", lambda: _bind_loss(recipe, resolve(LOSSES, recipe.loss.name, "loss"), None))
    attempt("optimizer.name", lambda: _build_optimizer(recipe, torch.nn.Linear(2, 2), None))
    attempt(
        "schedule",
        lambda: _build_schedule(
            # How long the run is, only the data say: long enough for any warm-up.
            recipe,
            torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), recipe.optimizer.lr),
            None,
            10**9,
        ),
    )
    attempt("evaluate.metrics", lambda: load_metrics(recipe, foreign=False))
    for metric in recipe.evaluate.metrics:
        given = {"name": metric} if isinstance(metric, str) else metric
        if is_metric_script(given["name"]):
            require_allowed(recipe, given["name"], given)
    problems += option_problems(recipe)
    if problems:
        raise RecipeError("\n".join(problems))


def prepare(
    recipe: Recipe,
    *,
    say: Say = lambda text: None,
    cuts: Sequence[Cut] = (),
    dataset: Mapping[str, datasets.Dataset] | datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    collate: Collate | None = None,
    model: PreTrainedModel | None = None,
    loss: Callable[..., torch.Tensor] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    schedule: Callable[..., Any] | None = None,
    metrics: Callable[..., dict[str, float]] | None = None,
) -> Job:
    """Build everything that the recipe names and check it, before any accelerator memory is taken.

    Args:
        recipe: what to fine-tune and how.
        say: is told each stage in words.
        cuts: how rows became updates so far and do from now on, where a run goes on; by default as the recipe says.
        dataset: raw splits by name, or a training split alone, in place of `recipe.dataset.path`.
        tokenizer: in place of the checkpoint's.
        collate: makes a batch from encoded rows, in place of DataCollatorWithPadding.
        model: in place of the checkpoint.
        loss: `(logits, targets, **arguments) -> [items]`.
        optimizer: `(parameter_groups, lr=..., **arguments) -> Optimizer`.
        schedule: `(optimizer, num_steps) -> scheduler`.
        metrics: `(predictions, references) -> {name: number}`.

    Raises:
        HfpipeError: whatever is wrong, with its place in the recipe.
    """
    check_parts(recipe)
    state = join()
    precision = choose(recipe.train.precision, state.device, recipe.where("train.precision"))
    rows = read_rows(recipe, say=say, dataset=dataset, tokenizer=tokenizer)
    looked_at = audit(recipe, rows)
    task, tokenizer, checkpoint = rows.task, rows.tokenizer, rows.checkpoint
    notices = [*rows.notices, *looked_at.notices]
    names = [metric if isinstance(metric, str) else metric["name"] for metric in recipe.evaluate.metrics]
    notices += [f"code that is not hfpipe's runs here: metric {name}" for name in names if is_metric_script(name)]

    say(f"loading {recipe.model.checkpoint}")
    set_seed(recipe.seed)
    fresh: list[str] = []
    if model is None:
        model, fresh = models.load_model(checkpoint, task, recipe.model.fresh, recipe.where("model.fresh"))
    else:
        models.check_outputs(model, task)
    if recipe.optimizer.lr == 0:
        notices.append("optimizer.lr is 0: no step changes the weights")
    if fresh:
        notices.append(f"freshly initialised from seed {recipe.seed}: {', '.join(fresh)}")
    calibration.forget(model.config)
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if told := kernels.install(model, recipe.train.kernels, state.device):
        notices.append(told)
    if recipe.train.compile:
        compile_in_place(model, state.device, recipe.where("train.compile"))

    splits = recipe.dataset.splits
    encoded = {split: one.data for split, one in rows.encoded.items()}
    train_data = encoded[splits.train]
    loader: TrainLoader | StreamLoader
    shift, cuts = 0, tuple(cuts) or (cut_of(recipe, state.num_processes),)
    padded_to = None
    if collate is None:
        padded_to = padding_multiple(state.device.type, rows.max_length, models.longest_input(checkpoint, tokenizer))
        collate = task.collator(tokenizer, padded_to)
    if isinstance(rows.source, RawStream):
        loader = StreamLoader(
            rows.source.stream(splits.train, recipe.where("dataset.splits.train")),
            recipe,
            task,
            tokenizer,
            rows.max_length,
            collate,
            rank=state.process_index,
            processes=state.num_processes,
            pin_memory=state.device.type == "cuda",
        )
    else:
        begun, shift = begun_of(train_data, cuts)
        loader = train_loader(
            train_data,
            collate,
            batch_size=recipe.train.batch_size,
            seed=recipe.seed,
            accumulate=recipe.train.accumulate,
            batching=recipe.train.batching,
            workers=recipe.train.workers,
            rank=state.process_index,
            processes=state.num_processes,
            begun=begun,
            pin_memory=state.device.type == "cuda",
        )
    steps_per_epoch = math.ceil(len(loader) / recipe.train.accumulate)
    num_steps = recipe.train.max_steps or math.ceil(recipe.train.epochs * steps_per_epoch) - shift
    if not isinstance(loader, StreamLoader) and recipe.train.batching.by == "examples":
        _tell_whole_epochs(recipe, len(loader), len(train_data), state.num_processes, notices)
    objective = make_objective(recipe, task, train_data, loss)
    built = _build_optimizer(recipe, model, optimizer)
    _tell_double_division(
        recipe,
        built,
        min(recipe.train.batch_size * recipe.train.accumulate * state.num_processes, len(train_data)),
        notices,
    )
    job = Job(
        recipe=recipe,
        task=task,
        tokenizer=tokenizer,
        collate=collate,
        model=model,
        train_data=train_data,
        evaluation_data=encoded[splits.evaluation] if splits.evaluation else None,
        evaluation_rows=rows.raw[splits.evaluation] if splits.evaluation else None,
        others={
            split: (encoded[split], rows.raw[split])
            for split in (*splits.also, *([splits.calibration] if splits.calibration else []))
        },
        objective=objective,
        optimizer=built,
        schedule=_build_schedule(recipe, built, schedule, num_steps),
        metrics=[("metrics", _Given(metrics))] if metrics else load_metrics(recipe, task),
        precision=precision,
        device=state.device,
        loader=loader,
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        fresh=fresh,
        identity={
            "dataset": {
                "path": recipe.dataset.path,
                "commit": rows.source.commit,
                "digest": rows.source.digest,
                "configured": dataset_identity(rows.source.digest, recipe),
            },
            "checkpoint": {
                "path": recipe.model.checkpoint,
                "commit": checkpoint.commit,
                "digest": checkpoint.weights_digest,
            },
            "tokenizer": {"digest": rows.tokenizer_digest},
            "recipe": {"digest": _digest(to_yaml(recipe))},
        },
        audit=looked_at,
        padded_to=padded_to,
        cuts=cuts,
        shift=shift,
        notices=notices,
    )
    _check_best(recipe, job)
    if recipe.evaluate.slices and job.evaluation_data is not None and job.evaluation_rows is not None:
        slices_of(
            recipe, str(splits.evaluation), job.evaluation_data, job.evaluation_rows
        )  # a mistake costs no training
    set_seed(recipe.seed)  # the fresh head took numbers from the stream that dropout uses
    return job


class _Given:
    """A metric function of the user's, with the call of an evaluate.Metric."""

    def __init__(self, function: Callable[..., dict[str, float]]) -> None:
        self.function = function

    def compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
        return self.function(predictions, references)


def _name_of(part: Any) -> str:
    return f"{getattr(part, '__module__', '?')}:{getattr(part, '__qualname__', type(part).__name__)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tell_whole_epochs(recipe: Recipe, batches: int, rows: int, processes: int, notices: list[str]) -> None:
    spec = recipe.train
    if spec.batch_size * processes > rows:
        notices.append(f"train.batch_size is {spec.batch_size}, and there are only {rows:,} training inputs")
    elif spec.accumulate > batches:
        notices.append(
            f"train.accumulate is {spec.accumulate}, and an epoch has {batches:,} batches: the effective batch is all "
            f"{rows:,} training inputs, not {spec.batch_size * spec.accumulate * processes:,}"
        )


def _tell_double_division(recipe: Recipe, optimizer: torch.optim.Optimizer, num_items: int, notices: list[str]) -> None:
    if recipe.loss.reduction == "mean" and getattr(optimizer, "divides_by_items", False):
        lr = recipe.optimizer.lr
        rate = effective_rate(lr, "mean", num_items, optimizer_divides=True)
        notices.append(
            f"divided twice: loss.reduction is mean, and {recipe.optimizer.name} divides by the items again, so that with "
            f"{num_items:,} items in an update optimizer.lr={lr:g} acts like {rate:.4g}; say loss.reduction=sum, or take an "
            "optimizer that does not divide"
        )


def make_objective(
    recipe: Recipe,
    task: tasks.Task,
    train_data: datasets.Dataset | None,
    loss: Callable[..., torch.Tensor] | None = None,
) -> Objective:
    """The loss with its arguments bound, the class weights counted on the encoded training rows, and the reduction.

    Raises:
        RecipeError: arguments that the loss does not take, or weights that do not fit the classes.
    """
    weights = None
    if recipe.loss.class_weights is not None:
        num_labels = task.num_labels or 0
        counts = counts_of(train_data["labels"][:] if train_data is not None else [], num_labels)
        try:
            weights = losses.class_weights(recipe.loss.class_weights, counts)
        except RecipeError as error:
            raise _placed(error, recipe, "loss.class_weights") from None
    bound = _bind_loss(recipe, loss or resolve(LOSSES, recipe.loss.name, "loss"), weights)
    return Objective(bound, _name_of(loss) if loss else recipe.loss.name, recipe.loss.reduction, weights)


def is_greater_better(recipe: Recipe) -> bool:
    """The direction of `evaluate.best`, or of the loss when nothing is called best."""
    if recipe.evaluate.greater_is_better is not None:
        return recipe.evaluate.greater_is_better
    return bool(greater_is_better(recipe.evaluate.best or "loss"))


def _placed(error: RecipeError, recipe: Recipe, path: str) -> RecipeError:
    """The error with the place in the recipe of the option that it names, or of `path` where that says more."""
    where = path if path.startswith(error.where) else error.where
    return RecipeError(error.what, where=recipe.where(where), allowed=error.allowed, fix=error.fix)


def _bind_loss(
    recipe: Recipe, loss: Callable[..., torch.Tensor], weights: torch.Tensor | None
) -> Callable[..., torch.Tensor]:
    """The loss with its arguments, as a function of logits and targets."""
    arguments = dict(recipe.loss.arguments)
    if recipe.loss.label_smoothing:
        arguments["label_smoothing"] = recipe.loss.label_smoothing
    if recipe.loss.class_weights is not None:
        arguments["class_weights"] = weights
    _bind("loss", recipe.loss.name, loss, (None, None), arguments, recipe)
    return (
        functools.partial(_on_device, loss, weights, arguments)
        if weights is not None
        else functools.partial(loss, **arguments)
    )


def _on_device(
    loss: Callable[..., torch.Tensor],
    weights: torch.Tensor,
    arguments: dict[str, Any],
    logits: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    return loss(logits, targets, **{**arguments, "class_weights": weights.to(logits.device)})


def _bind(
    what: str,
    name: str,
    part: Callable[..., Any],
    positional: tuple[Any, ...],
    arguments: dict[str, Any],
    recipe: Recipe,
) -> None:
    try:
        signature = inspect.signature(part)
    except (ValueError, TypeError):
        return  # a builtin without a signature: called as it is
    try:
        signature.bind(*positional, **arguments)
    except TypeError as error:
        taken = list(signature.parameters)
        wrong = next((key for key in arguments if key not in taken), None)
        raise RecipeError(
            f"{what} {name!r}: {error}{near(wrong, taken) if wrong else ''}",
            where=recipe.where(f"{what}.{wrong}" if wrong else what),
            allowed=", ".join(taken),
        ) from None


def _build_optimizer(
    recipe: Recipe, model: torch.nn.Module, factory: Callable[..., torch.optim.Optimizer] | None
) -> torch.optim.Optimizer:
    part = recipe.optimizer
    factory = factory or resolve(OPTIMIZERS, part.name, "optimizer")
    try:
        return build_optimizer(model, factory, lr=part.lr, weight_decay=part.weight_decay, **part.arguments)
    except RecipeError as error:
        raise _placed(error, recipe, "optimizer") from None


def _build_schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, schedule: Callable[..., Any] | None, num_steps: int
) -> Any:
    part = recipe.schedule
    if schedule is not None:
        return schedule(optimizer, num_steps)
    if is_reference(part.name):
        own = resolve(SCHEDULES, part.name, "schedule")
        _bind("schedule", part.name, own, (None, None), part.arguments, recipe)
        return own(optimizer, num_steps, **part.arguments)
    arguments = part.arguments
    if part.name in ON_METRIC:
        if recipe.evaluate.every == "never" or recipe.dataset.splits.evaluation is None:
            raise RecipeError(
                f"{part.name!r} follows the evaluation, and there is none",
                where=recipe.where("schedule.name"),
                fix="Set evaluate.every.",
            )
        arguments = {"mode": "max" if is_greater_better(recipe) else "min", **arguments}
    try:
        return build_schedule(optimizer, part.name, num_steps=num_steps, warmup=part.warmup, **arguments)
    except RecipeError as error:
        raise _placed(error, recipe, "schedule") from None


def load_metrics(recipe: Recipe, task: tasks.Task | None = None, *, foreign: bool = True) -> list[tuple[str, Any]]:
    """The metrics by the names in the recipe; with `foreign` false, none that runs code from the Hub or a file.

    A metric that asks for something of the task (an attribute `names` or `scheme` that is None) gets it.
    """
    loaded = []
    for metric in recipe.evaluate.metrics:
        given = {"name": metric} if isinstance(metric, str) else dict(metric)
        name = given.pop("name")
        if foreign and is_metric_script(name):
            require_allowed(recipe, name, given)
        if foreign or not is_metric_script(name):
            built = load_metric(name, **given)
            for wanted in ("names", "scheme"):
                if getattr(built, wanted, ()) is None:
                    setattr(built, wanted, getattr(task, wanted, None))
            loaded.append((name, built))
    return loaded


def require_allowed(recipe: Recipe, name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a metric script that the recipe does not allow, or one from the Hub that can change.

    Raises:
        RefusedError: saying what would run.
    """
    where, script = recipe.where("evaluate.metrics"), name.removeprefix("evaluate:")
    if not recipe.allow_code:
        raise RefusedError(
            f"metric {name!r} is a script, and computing it runs its code",
            where=where,
            fix="If you trust it, say allow_code: true. hfpipe's own metrics are no scripts.",
        )
    revision = arguments.get("revision")
    if script != name and not re.fullmatch(r"[0-9a-f]{40}", str(revision)):
        raise RefusedError(
            f"metric {name!r} comes from the Hub at revision {revision!r}, which can become other code",
            where=where,
            allowed="the 40 digits of a commit",
            fix=f"Say {{name: {name}, revision: COMMIT}}.",
        )


def try_metrics(recipe: Recipe, metrics: list[tuple[str, Any]], task: tasks.Task) -> list[str]:
    """The figures that the metrics give, from two made-up predictions.

    Raises:
        RecipeError: a metric of another kind of task, with its name.
    """
    try:
        return list(compute_all(metrics, *task.made_up(), names_only=True))
    except DataError as error:
        raise RecipeError(
            f"{error.where} does not measure {recipe.task.kind}: {error.what}",
            where=recipe.where("evaluate.metrics"),
            fix="Without `metrics` the kind of task has its own.",
        ) from error


def _check_best(recipe: Recipe, job: Job) -> None:
    """Find a mistaken metric or `best` before the first step, on two made-up predictions.

    Raises:
        RecipeError: a metric that can't be computed here, or a `best` that no metric gives.
    """
    if job.evaluation_data is None:
        return
    names = ["loss", *try_metrics(recipe, job.metrics, job.task)]
    best = recipe.evaluate.best
    if best is not None and best not in names:
        raise RecipeError(
            f"no metric is called {best!r}{near(best, names)}",
            where=recipe.where("evaluate.best"),
            allowed=", ".join(names),
        )
    if best is not None and greater_is_better(best) is None and recipe.evaluate.greater_is_better is None:
        raise RecipeError(
            f"whether a greater {best!r} is better is not known",
            where=recipe.where("evaluate.best"),
            fix="Say evaluate.greater_is_better: true or false.",
        )

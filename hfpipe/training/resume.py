"""A checkpoint made from a job, and a job put back to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import AutoTokenizer

from hfpipe.errors import DataError, HfpipeError, ModelError, RecipeError
from hfpipe.parts.inputs.batch_plan import BatchPlan, plan_for, read_plan
from hfpipe.parts.inputs.batches import TrainLoader
from hfpipe.parts.model.models import load_again, save_tokenizer
from hfpipe.parts.model.own_class import load_weights, require_finite, save_model
from hfpipe.recipe.schema import Batching, Recipe
from hfpipe.runs.given_parts import Given
from hfpipe.system.text import plural
from hfpipe.training import checkpoint_state
from hfpipe.training.determinism import seed_epoch
from hfpipe.training.job import Job
from hfpipe.training.resume_plan import Plan, changes_as_text, code

_ANEW = "Begin a new run from the weights: model.checkpoint=RUN/checkpoints/step-..."
_STATELESS = ("updater_sgd", "adafactor")  # they remember nothing, or next to nothing


def about(job: Job, given: Mapping[str, str]) -> dict[str, Any]:
    """What identifies a job, for `checkpoint.json`.

    Raises:
        RecipeError: a schedule or an optimizer whose state has no exact form without a pickle.
    """
    for where, remembered in (
        ("schedule", lambda: checkpoint_state.schedule_state(job.schedule)),
        ("optimizer", lambda: _groups(job)),
    ):
        try:
            remembered()
        except TypeError as error:
            raise RecipeError(
                f"what this {where} remembers can't be saved: {error}",
                where=job.recipe.where(where),
                fix="Keep numbers, texts, lists and tensors in its state.",
            ) from None
    return {
        "format": 1,
        "recipe": job.recipe.model_dump(mode="json"),
        "identity": {key: job.identity[key] for key in ("dataset", "checkpoint", "tokenizer")},
        "code": code(),
        "given": dict(given),
        "precision": job.precision.name,
        "device": job.device.type,
        "processes": PartialState().num_processes,
        "updates": [batch_plan.as_json() for batch_plan in job.batch_plans],
        "threads": torch.get_num_threads(),
    }


def random_states() -> list[checkpoint_state.RandomState]:
    """The random states of all processes, in their order; called by all of them together."""
    mine = [checkpoint_state.random_state()]
    gathered: list[checkpoint_state.RandomState] = gather_object(mine) if PartialState().num_processes > 1 else mine
    return gathered


def saver(job: Job, known: list[checkpoint_state.RandomState] | None = None) -> Callable[[Path | None], None]:
    """The function that writes a job into a folder; every process calls it, and one is given a folder.

    Args:
        job: what is written.
        known: the random states of all processes, where one of them writes without the others.
    """

    def save(folder: Path | None) -> None:
        randoms = random_states() if known is None else known
        if folder is None:
            return
        require_finite(job.model, f"after step {job.state.status.step:,}", "Try a smaller optimizer.lr.")
        save_model(job.model, job.config, folder)
        save_tokenizer(job.tokenizer, folder)
        checkpoint_state.write_state(folder, job.optimizer, job.schedule, job.state.scaler, randoms)

    return save


def bytes_of(job: Job) -> tuple[int, int]:
    """What the weights take on disk, and what a checkpoint will take at most, as far as is known before the first."""
    weights = sum(part.numel() * part.element_size() for part in job.model.state_dict().values())
    trained = sum(part.numel() * part.element_size() for part in job.model.parameters() if part.requires_grad)
    spec = job.recipe.optimizer
    stateless = spec.name in _STATELESS or (spec.name == "sgd" and not spec.arguments.get("momentum"))
    return weights, weights + (0 if stateless else 2 * trained)


def agree(asked: int, due: bool) -> tuple[int, bool]:
    """The stop that any process was asked for, and whether the main one wants to save: one small sum over all."""
    status = PartialState()
    flags = torch.zeros(3, dtype=torch.int32, device=status.device)
    flags[0], flags[1], flags[2] = max(asked, 0), asked < 0, due and status.is_main_process
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    signal, clock, save = flags.tolist()
    return signal or -clock, bool(save)


def batch_plans_of(plan: Plan) -> tuple[BatchPlan, ...]:
    """How rows became updates up to the checkpoint, and how they do from there on; what differs was allowed by name.

    Raises:
        ModelError: another number of processes makes updates of other rows, and that was not allowed; or the rows come
            from a stream, of which it is not known which ones are left.
    """
    recipe, progress, processes = plan.recipe, plan.progress, PartialState().num_processes
    if plan.checkpoint is None:
        return (plan_for(recipe, processes),)
    batch_plans = _plans_in(progress)
    before, now = batch_plans[-1], plan_for(recipe, processes, plan.checkpoint.step)
    if recipe.dataset.streaming:
        now = replace(now, seed=before.seed)  # a stream that is shuffled anew is refused below
    if now.same_updates(before):
        return batch_plans
    if processes != progress["processes"] and not plan.may_differ("processes"):
        raise _other_processes(before, now, progress["processes"], recipe)
    if recipe.dataset.streaming:
        raise ModelError(
            f"an update of a stream had {before.size}, and would have {now.size}: which rows are left is not known",
            where="--resume",
            allowed=f"updates of {before.size}",
            fix=_ANEW,
        )
    return (*batch_plans, now)


def _plans_in(progress: Mapping[str, Any]) -> tuple[BatchPlan, ...]:
    """How rows became updates up to a checkpoint; what was written before that could change has no list of it."""
    plans = progress.get("updates", progress.get("cuts"))  # `cuts`: its name before
    if plans is not None:
        return tuple(read_plan(one) for one in plans)
    recipe, spec = progress["recipe"], progress["recipe"]["train"]
    batches, batching = spec["accumulate"] * progress["processes"], Batching(**spec.get("batching", {}))
    return (BatchPlan(0, recipe["seed"], progress["rows_per_step"], batches, batching),)


def _other_processes(before: BatchPlan, now: BatchPlan, processes: int, recipe: Recipe) -> ModelError:
    """The error of other updates because of another number of processes, with what would keep them."""
    size, over = divmod(before.rows, now.batches)
    can_stay = size and not over and recipe.train.batching.tokens is None
    stay = (
        f"Keep them with train.batch_size={size} --allow-change train.batch_size" if can_stay else "Start as many again"
    )
    return ModelError(
        f"an update had {before.size} on {plural(processes, 'process', 'processes')}, and would have {now.size} on "
        f"{now.batches // recipe.train.accumulate}",
        where="--resume",
        fix=f"{stay}, or pass --allow-change processes to go on with updates of {now.size}.",
    )


def restore_parts(given: Given, plan: Plan, names: Sequence[str]) -> None:
    """Take from a checkpoint the parts that were given when the run began, that it gives back, and that are not given now.

    Raises:
        ModelError: what is there can't be loaded.
    """
    if plan.checkpoint is None:
        return
    folder = plan.checkpoint.path
    if "tokenizer" in names and "tokenizer" not in given.objects:
        given.objects["tokenizer"] = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if "model" in names and "model" not in given.objects:
        given.objects["model"] = load_again(plan.recipe, folder)


def restore_job(job: Job, plan: Plan, given: Mapping[str, str]) -> list[str]:
    """Put a prepared job back to the checkpoint of a plan, after comparing data, tokenizer, checkpoint and code.

    Returns:
        What a user should know of it.

    Raises:
        HfpipeError: something else than what was trained with, or weights that are not whole or not finite.
    """
    if plan.checkpoint is None:
        return []
    progress, folder, step = plan.progress, plan.checkpoint.path, plan.checkpoint.step
    notices = _compare(job, plan, given)
    _require_place(job, progress, step)
    load_weights(job.model, folder)
    recipe = job.recipe
    changed = {path.split(".")[0] for path in plan.changes} | (
        {"train"} if progress["num_steps"] != job.timeline.num_steps else set()
    )
    other_kind = "optimizer.name" in plan.changes
    fresh = plan.reset_optimizer or other_kind
    carried = fresh or bool(changed & {"optimizer", "schedule"}) or progress["num_steps"] != job.timeline.num_steps
    if not fresh:
        _require_optimizer(job.optimizer, folder)
    if carried:
        old = float(progress["recipe"]["optimizer"]["lr"])
        kept = None if plan.reset_optimizer or "schedule.name" in plan.changes else folder
        would = progress["last_step"]["lr"] if progress.get("last_step") else None
        scale = recipe.optimizer.lr / old if old else 1.0

    def restore() -> None:
        if not fresh:
            checkpoint_state.load_optimizer(folder, job.optimizer, job.state.scaler, settings=not carried)
        if not carried:
            checkpoint_state.load_schedule(folder, job.schedule)

    def restore_random() -> None:
        (epoch, _), rank = job.timeline.position(step), PartialState().process_index
        randoms = [] if plan.reset_optimizer else checkpoint_state.read_json(folder / "random.json")
        if rank < len(randoms):
            checkpoint_state.restore_random(randoms[rank])
        else:  # nothing is known of this process: a stream of its own
            seed_epoch(recipe.seed, epoch, step)

    job.state.resume_point = checkpoint_state.ResumePoint(step, restore, restore_random)
    if carried:
        checkpoint_state.advance_schedule(kept, job.schedule, step, scale)
        rate = job.schedule.get_last_lr()[0]
        notices.append(
            f"the learning rate of step {step + 1:,} is {rate:.4g}"
            + (f", that of step {step:,} was {would:.4g}" if would is not None else "")
            + f": the schedule {recipe.schedule.name} runs over {job.timeline.num_steps:,} steps"
            + (
                f", where it ran over {progress['num_steps']:,}"
                if progress["num_steps"] != job.timeline.num_steps
                else ""
            )
        )
    if fresh:
        notices.append("the optimizer begins afresh: " + ("it is another one" if other_kind else "--reset-optimizer"))
    return notices


def _require_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Refuse an optimizer that can't go on with what another one remembered; the recipe's own is compared by its name."""
    before, now = checkpoint_state.optimizer_kind(folder).rpartition(".")[2], type(optimizer).__name__
    if before != now:
        raise ModelError(
            f"the optimizer was {before}, and is {now} now",
            where="--resume",
            fix=f"Pass {before} again, or reset the optimizer to begin with a fresh {now}: --reset-optimizer.",
        )


def _groups(job: Job) -> None:
    for group in job.optimizer.param_groups:
        checkpoint_state.encode({key: value for key, value in group.items() if key != "params"})


def _compare(job: Job, plan: Plan, given: Mapping[str, str]) -> list[str]:
    """Refuse what is not what was trained with, unless it was allowed; say what was allowed."""
    progress, notices = plan.progress, []
    before, now = progress["identity"], about(job, given)

    def differ(name: str, kind: type[HfpipeError], what: str, first: Any, second: Any) -> None:
        if first == second:
            return
        change = {what: (first, second)}
        if not plan.may_differ(name):
            raise kind(
                f"{what} differs from what the run was trained with:\n{changes_as_text(change)}",
                where="--resume",
                fix=f"Put it back as it was, or pass --allow-change {name} if that is meant.",
            )
        notices.append(f"{what} changed from {first} to {second}, as allowed")

    def digest(of: Mapping[str, Any]) -> Any:
        return of["digest"]

    differ("dataset", DataError, "the data", digest(before["dataset"]), digest(now["identity"]["dataset"]))
    differ("tokenizer", ModelError, "the tokenizer", digest(before["tokenizer"]), digest(now["identity"]["tokenizer"]))
    differ("model", ModelError, "the checkpoint", digest(before["checkpoint"]), digest(now["identity"]["checkpoint"]))
    for name, version in progress["code"].items():
        differ("code", RecipeError, f"the code of {name}", version, now["code"].get(name))
    objects = [{key: name for key, name in of["given"].items() if key != "engine"} for of in (progress, now)]
    differ("given", RecipeError, "what was passed as an object", *objects)
    differ("train.precision", RecipeError, "the precision", progress["precision"], now["precision"])
    has_new_plan = len(job.batch_plans) > len(_plans_in(progress))
    for what in ("device", "threads", "processes"):
        if progress[what] != now[what]:
            same = "" if what == "processes" and has_new_plan else "; the same updates, not the same last bits"
            notices.append(f"{what}: {progress[what]} before, {now[what]} now{same}")
    # Any engine goes on with what another one left; one that is given stands in no recipe.
    engines = tuple(of["given"].get("engine", of["recipe"]["engine"]) for of in (progress, now))
    changed = {path: change for path, change in plan.changes.items() if path != "engine"}
    for path, (first, second) in (changed | ({"engine": engines} if engines[0] != engines[1] else {})).items():
        notices.append(f"{path} changed from {first} to {second}, as allowed")
    if has_new_plan:
        notices.append(_new_updates_notice(job))
    elif "seed" in plan.changes:
        notices.append(
            "with another seed the rest of this epoch follows another order: some rows come twice or not at all"
        )
    return notices


def _new_updates_notice(job: Job) -> str:
    """What changed in the updates, and what becomes of the epoch that had started."""
    assert isinstance(job.loader, TrainLoader)
    (*_, before, now), partial = job.batch_plans, job.loader.order.partial_epoch
    assert partial is not None
    size = f"have {now.size} each, where they had {before.size}" if now.size != before.size else "are put together anew"
    left = len(partial.left)
    whole = left == len(job.train_data)
    return f"from step {now.after + 1:,} on updates {size}" + (
        "" if whole else f"; of the epoch that had started {left:,} rows are left, and are trained on that way"
    )


def _require_place(job: Job, progress: Mapping[str, Any], step: int) -> None:
    """Refuse what has no place in the order of the rows.

    Raises:
        ModelError: an epoch had other steps.
        RecipeError: the run would end before the checkpoint.
    """
    before, steps = _plans_in(progress), job.timeline.steps_per_epoch
    if len(job.batch_plans) > len(before):
        steps = len(before[-1].order(job.train_data, job.task.lengths).updates(0))
    if steps != progress["steps_per_epoch"] and job.timeline.num_steps > step:
        raise ModelError(
            f"step {step:,} has no place in another order: an epoch had {progress['steps_per_epoch']:,} updates of "
            f"{before[-1].size}, and now it would have {steps:,}",
            where="--resume",
            fix=_ANEW,
        )
    if job.timeline.num_steps < step:
        raise RecipeError(
            f"{step:,} steps are trained already, and the recipe asks for {job.timeline.num_steps:,}",
            where=job.recipe.where("train.epochs"),
            fix="Ask for more.",
        )

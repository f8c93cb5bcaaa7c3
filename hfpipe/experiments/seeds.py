"""One recipe from several seeds: a group of runs, and what they say together."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfpipe.errors import HfpipeError, InterruptedRun, RecipeError, StoppedByUser
from hfpipe.recipe import Recipe, load_recipe, with_overrides
from hfpipe.recipe.source import Overrides
from hfpipe.runs import Run, default_folder
from hfpipe.runs.arguments import checked
from hfpipe.runs.checkpoints import list_checkpoints
from hfpipe.runs.difference import differences, more_than_the_seed
from hfpipe.runs.evaluations import file_name, read_evaluation
from hfpipe.runs.given_parts import TRAINED_WITH, Given, take_parts
from hfpipe.runs.groups import FORMAT, Group, check_seeds, find_group, is_group, require_no_other_process
from hfpipe.runs.store import now
from hfpipe.system.display import Display, Once, as_display
from hfpipe.system.machine import translated_errors
from hfpipe.system.snapshot import versions


@checked
def finetune_seeds(
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    *,
    seeds: int | Sequence[int] | None = None,
    overrides: Overrides = (),
    engine: str | Callable[..., None] | None = None,
    runs_dir: str | Path | None = None,
    name: str | None = None,
    resume: Group | str | Path | None = None,
    display: Display | bool | None = None,
    **parts: Any,
) -> Group:
    """Fine-tune a checkpoint from several seeds, one run each, and sum up their metrics.

    A group that is there already, by its name or by `resume`, goes on: its finished seeds stay, the others are trained.
    It may grow by further seeds; its recipe may not change.

    Args:
        recipe: a recipe, or what `load_recipe` takes; by default that of the group to resume.
        seeds: how many, from the recipe's own upwards, or which; by default those of the group to resume.
        overrides: `dotted.path=value` each, or a mapping from paths to values.
        engine: as for :func:`hfpipe.finetune`.
        runs_dir: folder for the group; by default `$HFPIPE_RUNS_DIR` or `runs`.
        name: id of the group; by default the recipe's name and the time.
        resume: a group, or its id or folder.
        display: where progress goes: by default to a terminal or a notebook, and nowhere else; False for none.
        parts: objects in place of the recipe's parts, see :func:`hfpipe.prepare`. A model is copied for each seed.

    Returns:
        The finished group.

    Raises:
        RecipeError: seeds that are none, or a group that is of another recipe.
        HfpipeError: of the first seed that fails; the group can be resumed.
    """
    from hfpipe.runs.targets import reach_hub

    given = take_parts(
        {**parts, **({} if isinstance(engine, str | None) else {"engine": engine})}, finetune_seeds, TRAINED_WITH
    )
    display = Once(as_display(display))
    folder = Path(runs_dir) if runs_dir else default_folder()
    known = _known(resume, name, folder)
    changes = [*overrides, *([f"engine={engine}"] if isinstance(engine, str) else [])]
    resolved, wanted = _asked(recipe, seeds, changes, given, known)
    if known is not None:
        _require_same(known, resolved, wanted, given.names)
    reach_hub(resolved, display)
    from hfpipe.parts.build import check_parts
    from hfpipe.system.processes import from_main, join

    check_parts(resolved)  # before a folder is made for it
    state = join()
    state.wait_for_everyone()  # before one of them changes what the others still read
    path, due = "", wanted
    if state.is_main_process:
        group = known or Group.create(resolved, folder, name)
        _begin(group, resolved, wanted, given.names)
        path, due = str(group.path), [seed for seed in wanted if not _is_done(group, seed)]
    path, due = from_main(path, due)
    group = Group(Path(path))
    if len(due) < len(wanted):
        display.notice(f"finished already: seed {_listed([seed for seed in wanted if seed not in due])}")
    for seed in due:
        display.notice(f"seed {seed}, {wanted.index(seed) + 1} of {len(wanted)}")
        with _remembered(group, seed, main=state.is_main_process):
            _train(group, with_overrides(resolved, [f"seed={seed}"]), display, given.objects)
    if state.is_main_process:
        _conclude(group)
    return group


def parse_seeds(text: str) -> int | list[int]:
    """Read `5`, how many, or `1,2,3`, which; a comma at the end makes one number a list.

    Raises:
        RecipeError: neither.
    """
    try:
        if "," not in text:
            return int(text)
        return [int(one) for one in text.removesuffix(",").split(",")]
    except ValueError:
        raise RecipeError(f"{text!r}", where="--seeds", allowed="how many, as 5, or which, as 1,2,3") from None


def _known(resume: Group | str | Path | None, name: str | None, folder: Path) -> Group | None:
    """The group that is to go on, if any."""
    if isinstance(resume, Group):
        return resume
    if resume is not None:
        return find_group(str(resume), folder)
    return Group(folder / name) if name and is_group(folder / name) else None


def _asked(
    recipe: Recipe | str | Path | Mapping[str, Any] | None,
    seeds: int | Sequence[int] | None,
    overrides: Sequence[str],
    given: Given,
    known: Group | None,
) -> tuple[Recipe, list[int]]:
    """The recipe with the first seed in it, and all seeds."""
    if not isinstance(seeds, int | None) and any(change.partition("=")[0].strip() == "seed" for change in overrides):
        raise RecipeError("seed=... does nothing beside a list of seeds", where="--seeds", fix="Say one of the two.")
    if recipe is None:
        if known is None:
            raise RecipeError("no recipe", fix="Name one, or the group to go on with: --resume GROUP.")
        base = known.recipe
    else:
        base = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if changes := [*overrides, *given.overrides]:
        base = with_overrides(base, changes)
    if seeds is None and known is None:
        raise RecipeError("how many seeds?", where="--seeds", allowed="how many, as 5, or which, as 1,2,3")
    if seeds is None:
        assert known is not None
        wanted = known.seeds
    elif isinstance(seeds, int):
        wanted = [base.seed + number for number in range(seeds)]
    else:
        wanted = [int(seed) for seed in seeds]
    check_seeds(wanted)
    return with_overrides(base, [f"seed={wanted[0]}"]), wanted


def _require_same(group: Group, recipe: Recipe, seeds: list[int], given: dict[str, str]) -> None:
    """Refuse to go on with another recipe, fewer seeds, other objects, or while somebody else does."""
    about = group.metadata
    require_no_other_process(group.id, about)
    there, asked = group.recipe.model_dump(mode="json"), recipe.model_dump(mode="json")
    changed = list(differences("", {**there, "seed": None}, {**asked, "seed": None}))
    changed += list(differences("given", about.get("given", {}), given))
    if changed:
        changes = "; ".join(f"{path} was {before!r} and is {after!r}" for path, before, after in changed)
        raise RecipeError(
            f"the group {group.id!r} is of another recipe: {changes}",
            where=str(group.path / "recipe.yaml"),
            fix=f"Choose another --name for the new recipe, or go on with the old one: --resume {group.path}.",
        )
    missing = [seed for seed in group.seeds if seed not in seeds]
    if missing:
        raise RecipeError(
            f"the group {group.id!r} has the seeds {_listed(group.seeds)}; {_listed(missing)} would be left out",
            where="--seeds",
            allowed="the same seeds, or more",
        )


def _begin(group: Group, recipe: Recipe, seeds: list[int], given: dict[str, str]) -> None:
    about = group.metadata
    group.update_metadata(
        format=FORMAT,
        id=group.id,
        name=recipe.name,
        recipe_digest=hashlib.sha256((group.path / "recipe.yaml").read_bytes()).hexdigest(),
        engine=recipe.engine,
        seeds=[*group.seeds, *(seed for seed in seeds if seed not in group.seeds)],
        status="running",
        started=about.get("started") or now(),
        ended=None,
        error=None,
        failed_seed=None,
        pid=os.getpid(),
        command=sys.argv,
        given=given,
        versions=versions(),
        summary={},
    )


def _is_done(group: Group, seed: int) -> bool:
    """Whether a seed is done; what is left of one that is not, and can't go on, is removed."""
    run = group.run(seed)
    if run.status == "finished":
        return True
    if not _goes_on(run):
        group.delete(seed)
    return False


def _goes_on(run: Run) -> bool:
    """Whether a seed was stopped with a checkpoint to go on from."""
    return run.status in ("interrupted", "died") and bool(list_checkpoints(run.path))


def _train(group: Group, recipe: Recipe, display: Display, parts: Mapping[str, Any]) -> Run:
    """Train one seed exactly as alone; a given model is copied, since training changes it."""
    from hfpipe.training.finetune import finetune

    own = {**parts, "model": copy.deepcopy(parts["model"])} if "model" in parts else dict(parts)
    run = group.run(recipe.seed)
    if _goes_on(run):
        return finetune(resume=run, display=display, **own)
    return finetune(recipe, runs_dir=group.path, name=f"seed-{recipe.seed}", display=display, **own)


@contextmanager
def _remembered(group: Group, seed: int, *, main: bool) -> Iterator[None]:
    """Keep `group.json` true when a seed fails, and say which it was."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, StoppedByUser | KeyboardInterrupt)
        status = "stopped" if stopped else "interrupted" if isinstance(error, InterruptedRun) else "failed"
        is_trained = any(group.path.glob("seed-*/run.json"))
        if main and is_trained:
            message = str(error) or type(error).__name__
            group.update_metadata(status=status, error=message, failed_seed=seed, ended=now())
        elif main:
            shutil.rmtree(group.path)  # nothing was trained, and the message says all there is
        if isinstance(error, HfpipeError):
            error.where = f"seed {seed}" + (f": {error.where}" if error.where else "")
            if is_trained:
                again = f"`hfpipe finetune --resume {group.path}` goes on with the group."
                error.fix = f"{error.fix} {again}".strip()
        raise


def _conclude(group: Group) -> None:
    """Write the summary of a group whose seeds are all trained."""
    from hfpipe.reports import write_group_report

    group.update_metadata(status="finished", ended=now(), summary=summarised(group))
    with translated_errors():
        write_group_report(group.path, group.id, list(group.runs.values()), group.summary)


def summarised(group: Group) -> dict[str, Any]:
    """What the finished runs of a group say together.

    Returns:
        `split`, `metrics` (name to what `seed_spread.spread` says), the same by split under `also`, and under `leak` for the
        examples that the training split does not have, where it has some;
        `runs` (`seed`, `run`, `metrics`, `steps` and `examples_per_second` each), and `notices` (for one release also as
        `remarks`).
    """
    from hfpipe.evaluation.statistics.seed_spread import spread

    written = {seed: run.read_json("metrics.json") for seed, run in group.runs.items()}
    first = next(iter(written.values()))
    split = first["split"]

    def spreads(split: str | None, metrics: Mapping[int, Mapping[str, float | None]]) -> dict[str, Any]:
        bases = {seed: _baseline(group.run(seed), split) for seed in metrics}
        names = dict.fromkeys(name for one in metrics.values() for name in one if not name.endswith("_support"))
        return {
            name: spread(
                name,
                {seed: one.get(name) for seed, one in metrics.items()},
                {seed: base.get(name) for seed, base in bases.items()},
            )
            for name in names
        }

    also = {
        one: spreads(one, {seed: rest["also"][one] for seed, rest in written.items()}) for one in first.get("also", {})
    }
    rows = [
        {"seed": seed, "run": f"seed-{seed}", **{key: one[key] for key in ("metrics", "steps", "examples_per_second")}}
        for seed, one in written.items()
    ]
    summary = {"split": split, "metrics": spreads(split, {seed: one["metrics"] for seed, one in written.items()})}
    notices = _notices(group)
    leaks = {seed: one["leak"] for seed, one in written.items() if one.get("leak")}
    if leaks:
        values = {seed: (leaks.get(seed) or one)["metrics"] for seed, one in written.items()}
        summary["leak"] = _leak_of_all(leaks, spreads(split, values))
        notices.insert(0, f"{summary['leak']['text']}: see `leak` for the metrics on the others")
    return {**summary, **({"also": also} if also else {}), "runs": rows, "notices": notices, "remarks": notices}


def _leak_of_all(leaks: Mapping[int, Mapping[str, Any]], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a leak of the training split means for the seeds: `train`, `rows` (the most of a seed), `metrics` and `text`."""
    worst = max(leaks.values(), key=lambda one: one["rows"])
    of = worst["rows"] + worst["examples"]
    up_to = "up to " if len({one["rows"] for one in leaks.values()}) > 1 else ""
    text = f"{up_to}{worst['rows']:,} of {of:,} examples have the text of a row of {worst['train']}"
    return {"train": worst["train"], "rows": worst["rows"], "text": text, "metrics": metrics}


def _baseline(run: Run, split: str | None) -> dict[str, float | None]:
    """What the evaluation of a split says of a model that has learned nothing; empty where there is none."""
    document = read_evaluation(run, file_name(split)) if split else None
    return dict(((document or {}).get("baseline") or {}).get("metrics") or {})


def _notices(group: Group) -> list[str]:
    runs = group.runs
    notices = []
    if len(runs) < 2:
        notices.append("one seed alone: there is no deviation, and no interval")
    holds_out = group.recipe.dataset.splits.hold_out is not None
    if holds_out and len(runs) > 1:
        notices.append("each seed holds out rows of its own, so that the deviation is that of the rows, too")
    found = more_than_the_seed(runs)
    own = ("identity.dataset.digest", "identity.dataset.configured") if holds_out else ()
    return notices + [
        f"the runs differ in more than their seed: {path}: {values}" for path, values in found if path not in own
    ]


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))

"""A group on disk: one recipe trained from several seeds, `runs/<group>/` with a run `seed-<n>/` for each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import near
from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.source import load_recipe
from hfpipe.runs.store import (
    Run,
    ambiguous,
    delete_run,
    find_run,
    list_runs,
    require_not_running,
    require_process_gone,
    starting_with,
)
from hfpipe.system import atomic
from hfpipe.system.text import listed

FORMAT = 1
_FILE = "group.json"


class Group:
    """The folder of a group and what is in it.

    Attributes:
        path: the folder.
        id: its name.
    """

    def __init__(self, path: str | Path) -> None:
        self._files = Run(path)
        self.path = self._files.path
        self.id = self.path.name

    @classmethod
    def create(cls, recipe: Recipe, folder: Path, name: str | None = None) -> Group:
        """Make the folder of a new group; without a name it is called after the recipe and the time.

        Raises:
            RecipeError: a name that is no id, or is taken.
            MachineError: the folder can't be written.
        """
        return cls(Run.create(recipe, folder, name).path)

    def update_metadata(self, **fields: Any) -> None:
        """Change fields of `group.json`."""
        self._files.write_json(_FILE, {**self.metadata, **fields})

    @property
    def metadata(self) -> dict[str, Any]:
        """What `group.json` says: format, id, name, recipe_digest, seeds, status, versions, and the summary at the end.

        Raises:
            RecipeError: it is damaged, or was written in a format that this hfpipe does not know.
        """
        found = dict(self._files.read_json(_FILE) or {"format": FORMAT, "id": self.id})
        if found.get("format") != FORMAT:
            raise RecipeError(
                f"the group is written in format {found.get('format')!r}",
                where=str(self.path / _FILE),
                allowed=f"format {FORMAT}",
                fix="Read it with the hfpipe that wrote it.",
            )
        return found

    @property
    def status(self) -> str:
        """running, finished, failed, interrupted or stopped; damaged when `group.json` can't be read."""
        try:
            return str(self.metadata.get("status", "unknown"))
        except RecipeError:
            return "damaged"

    @property
    def recipe(self) -> Recipe:
        """The fully resolved recipe; each run has its own seed instead of the one in it."""
        return load_recipe(self.path / "recipe.yaml", folder=Path.cwd())

    @property
    def seeds(self) -> list[int]:
        """All seeds, trained or not, in order."""
        return [int(seed) for seed in self.metadata.get("seeds", [])]

    def run(self, seed: int) -> Run:
        """The run of a seed, which need not be there yet."""
        return Run(self.path / f"seed-{seed}")

    @property
    def runs(self) -> dict[int, Run]:
        """The finished runs by seed."""
        return {seed: self.run(seed) for seed in self.seeds if self.run(seed).status == "finished"}

    @property
    def summary(self) -> dict[str, Any]:
        """The summary of the finished seeds, see docs/seeds.md; empty until all are trained."""
        return dict(self.metadata.get("summary", {}))

    def delete(self, seed: int) -> None:
        """Remove what there is of the run of a seed.

        Raises:
            RecipeError: it is still running.
        """
        run = self.run(seed)
        require_no_other_process(run.id, run.metadata if run.path.is_dir() else {})
        if run.path.exists():
            atomic.remove_folder(run.path)

    def __repr__(self) -> str:
        """Group('runs/mrpc-...', 'finished')."""
        return f"Group({str(self.path)!r}, {self.status!r})"


def require_no_other_process(name: str, about: dict[str, Any]) -> None:
    """Refuse to touch what another process is writing.

    Raises:
        RecipeError: with the process.
    """
    if about.get("pid") != os.getpid():
        require_process_gone(repr(name), about)


def is_group(path: Path) -> bool:
    """Whether a folder is a group."""
    return (path / _FILE).is_file()


def list_groups(folder: Path) -> list[Group]:
    """The groups in a folder, newest first."""
    found = [Group(path.parent) for path in folder.glob(f"*/{_FILE}")]
    return sorted(found, key=lambda group: (_started(group), group.id), reverse=True)


def _started(group: Group) -> str:
    with contextlib.suppress(RecipeError):
        return str(group.metadata.get("started", ""))
    return ""


def find_group(name: str, folder: Path) -> Group:
    """A group by its path, its id, or the start of its id.

    Raises:
        RecipeError: none, or several, with what is near.
    """
    path = Path(name).expanduser()
    if is_group(path):
        return Group(path.resolve())
    ids = [group.id for group in list_groups(folder)]
    matches = starting_with(name, ids)
    if len(matches) == 1:
        return Group((folder / matches[0]).resolve())
    if matches:
        raise ambiguous(name, matches, "groups", folder)
    raise RecipeError(
        f"no group {name!r} in {folder}{near(name, ids)}",
        allowed=f"the folder of a group, or one of {listed(ids, 8)}" if ids else "a group; there are none here yet",
    )


def find_run_or_group(name: str, folder: Path) -> Run | Group:
    """A run or a group by its path, its id, or the start of its id.

    Raises:
        RecipeError: none, or several, with what is near.
    """
    if is_group(Path(name).expanduser()):
        return find_group(name, folder)
    groups = [group.id for group in list_groups(folder)]
    runs = [run.id for run in list_runs(folder) if run.path.parent == folder]
    if name in groups:
        return find_group(name, folder)
    if name in runs or (Path(name).expanduser() / "run.json").is_file():
        return find_run(name, folder)
    matching, also = starting_with(name, groups), starting_with(name, runs)
    if matching and len(matching) + len(also) > 1:
        raise ambiguous(name, [*matching, *also], "runs and groups", folder)
    return find_group(name, folder) if matching else find_run(name, folder)


def require_group_not_running(group: Group) -> None:
    """Refuse a group of which something is at work.

    Raises:
        RecipeError: with the process.
    """
    require_no_other_process(group.id, group.metadata)
    for file in group.path.glob("*/run.json"):
        require_not_running(Run(file.parent))


def delete_group(group: Group) -> None:
    """Remove a group with all its runs; raises as `require_group_not_running`."""
    require_group_not_running(group)
    atomic.remove_folder(group.path)


def find_all(names: Sequence[str], folder: Path) -> list[Run | Group]:
    """Runs and groups by their names, each once; raises as `find_run_or_group`."""
    found = [find_run_or_group(name, folder) for name in names]
    return list({one.path: one for one in found}.values())


def require_none_running(found: Sequence[Run | Group]) -> None:
    """Refuse runs and groups of which one is at work.

    Raises:
        RecipeError: with the process.
    """
    for one in found:
        require_group_not_running(one) if isinstance(one, Group) else require_not_running(one)


def delete(one: Run | Group) -> None:
    """Remove a run or a group and everything in its folder; raises as `require_none_running`."""
    delete_group(one) if isinstance(one, Group) else delete_run(one)


def require_summary(group: Group) -> None:
    """Refuse a group whose seeds are not all trained.

    Raises:
        RecipeError: with the command that goes on with it.
    """
    if not group.summary:
        raise RecipeError(
            f"the group {group.id!r} is {group.status}: its summary is written when all seeds are trained",
            where=str(group.path),
            fix=f"`hfpipe finetune --resume {group.path}` goes on with it.",
        )


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that are none.

    Raises:
        RecipeError: no seed, one that is out of range, or one twice.
    """
    wrong = [seed for seed in seeds if not 0 <= seed < 2**32]
    twice = sorted({seed for seed in seeds if list(seeds).count(seed) > 1})
    if not seeds or wrong or twice:
        found = f"{wrong[0]} is not a seed" if wrong else f"{twice[0]} is given twice" if twice else "no seed"
        raise RecipeError(found, where="--seeds", allowed="how many, or different whole numbers from 0 to 4294967295")

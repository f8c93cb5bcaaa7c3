"""A run on disk: the folder `runs/<id>/`, written atomically and read back without anything heavy."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hfpipe.errors import MachineError, RecipeError
from hfpipe.recipe.catalog import near
from hfpipe.recipe.schema import NAME_PATTERN, Recipe
from hfpipe.recipe.source import load_recipe, to_yaml

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}  # Windows


def default_folder() -> Path:
    """Where runs land unless told otherwise: `$HFPIPE_RUNS_DIR`, or `runs` in the working directory."""
    return Path(os.environ.get("HFPIPE_RUNS_DIR", "runs"))


class Run:
    """The folder of one run and what is in it.

    Attributes:
        path: the folder.
        id: its name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @classmethod
    def create(cls, recipe: Recipe, folder: Path, name: str | None = None) -> Run:
        """Make the folder of a new run; without a name it is called after the recipe and the time.

        Raises:
            RecipeError: a name that is no run id, or is taken.
            MachineError: the folder can't be written.
        """
        if name is not None:
            check_id(name)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        candidates = (
            [name]
            if name
            else [f"{recipe.name[:40]}-{stamp}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 100)))]
        )
        for candidate in candidates:
            path = folder / candidate
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            except FileExistsError:
                if not folder.is_dir():
                    raise MachineError(f"{folder} is not a folder", where="--runs-dir") from None
                continue
            except OSError as error:
                raise MachineError(
                    f"{path} can't be made: {error.strerror}",
                    where="--runs-dir",
                    fix="Name a folder you may write with --runs-dir.",
                ) from error
            run = cls(path)
            run.write_text("recipe.yaml", to_yaml(recipe))
            return run
        raise RecipeError(
            f"the run id {candidates[0]!r} is taken in {folder}",
            where="--name",
            fix="Choose another, or delete that run.",
        )

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file so that a reader sees the old or the new one, never half of it. NaN becomes null."""
        self.write_text(name, json.dumps(finite(content), indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file the same way."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with open(staged, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, target)
        finally:
            staged.unlink(missing_ok=True)

    def append(self, record: dict[str, Any]) -> None:
        """Add one line to `records.jsonl`."""
        with open(self.path / "records.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(record), ensure_ascii=False) + "\n")

    def note(self, **fields: Any) -> None:
        """Change fields of `run.json`."""
        self.write_json("run.json", {**self.about, **fields})

    def read_json(self, name: str) -> Any:
        """A JSON file of the run, or None when it is not there.

        Raises:
            RecipeError: it is there and is not JSON.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"not JSON: {error}", where=str(self.path / name), fix="The run was damaged; train it again."
            ) from None

    @property
    def about(self) -> dict[str, Any]:
        """What `run.json` says: id, status, versions, commit, device, seed, hashes."""
        return dict(self.read_json("run.json") or {"id": self.id})

    @property
    def status(self) -> str:
        """preparing, running, finished, failed or interrupted; damaged when `run.json` can't be read."""
        try:
            return str(self.about.get("status", "unknown"))
        except RecipeError:
            return "damaged"

    @property
    def recipe(self) -> Recipe:
        """The fully resolved recipe."""
        return load_recipe(self.path / "recipe.yaml")

    @property
    def metrics(self) -> dict[str, float | None]:
        """Name to number on the evaluation split; None where a metric is undefined there."""
        return dict((self.read_json("metrics.json") or {}).get("metrics", {}))

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every whole line of `records.jsonl`; a last line cut short by a crash is left out."""
        try:
            lines = (self.path / "records.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def model(self) -> Any:
        """The fine-tuned model, in evaluation mode, as transformers loads it from `model/`."""
        import transformers

        config = transformers.AutoConfig.from_pretrained(self.path / "model")
        return getattr(transformers, config.architectures[0]).from_pretrained(self.path / "model")

    @contextlib.contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """A folder to fill that takes its place, under the run, when the block ends without an error."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            if target.exists():
                os.replace(target, old)
            os.replace(staging, target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def __repr__(self) -> str:
        """Run('runs/mrpc-...', 'finished')."""
        return f"Run({str(self.path)!r}, {self.status!r})"


def finite(value: Any) -> Any:
    """The value with NaN and infinities as None, since JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def check_id(name: str) -> None:
    """Refuse what is no run id, so that no name reaches outside the runs folder.

    Raises:
        RecipeError: with what an id may be.
    """
    if not re.fullmatch(NAME_PATTERN, name) or name.split(".")[0] in _RESERVED:
        raise RecipeError(
            f"{name[:80]!r} is no run id", where="--name", allowed="1 to 64 of a-z 0-9 . _ -, not starting with a sign"
        )


def list_runs(folder: Path) -> list[Run]:
    """The runs in a folder, newest first; one whose `run.json` is damaged comes last and hides no other."""
    found = [Run(path.parent) for path in folder.glob("*/run.json")]
    return sorted(found, key=lambda run: (_started(run), run.id), reverse=True)


def _started(run: Run) -> str:
    with contextlib.suppress(RecipeError):
        return str(run.about.get("started", ""))
    return ""


def find_run(name: str, folder: Path) -> Run:
    """A run by its path, its id, or the start of its id.

    Raises:
        RecipeError: none, or several, with what is near.
    """
    path = Path(name).expanduser()
    if (path / "run.json").is_file():
        return Run(path.resolve())
    ids = [run.id for run in list_runs(folder)]
    matches = [name] if name in ids else [run_id for run_id in ids if name and run_id.startswith(name)]
    if len(matches) == 1:
        return Run((folder / matches[0]).resolve())
    if matches:
        raise RecipeError(f"{name!r} begins {len(matches)} run ids", where=str(folder), allowed=", ".join(matches[:8]))
    raise RecipeError(
        f"no run {name!r} in {folder}{near(name, ids)}",
        allowed=f"a run folder, or one of {', '.join(ids[:8])}" if ids else "a run folder; there are no runs here yet",
    )


def delete_run(run: Run) -> None:
    """Remove a run and everything in its folder.

    Raises:
        RecipeError: it is still running.
    """
    if run.status in ("preparing", "running") and _is_alive(run.about.get("pid")):
        raise RecipeError(f"run {run.id!r} is running (process {run.about['pid']})", fix="Stop it first.")
    shutil.rmtree(run.path)


def _is_alive(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.fromtimestamp(time.time(), tz=UTC).isoformat(timespec="seconds")

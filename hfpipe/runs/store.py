"""A run on disk: the folder `runs/<id>/`, written atomically and read back without anything heavy."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hfpipe.errors import MachineError, RecipeError
from hfpipe.recipe.catalog import near, resolve
from hfpipe.recipe.schema import NAME_PATTERN, Recipe
from hfpipe.recipe.source import load_recipe, to_yaml
from hfpipe.runs.places import found_again
from hfpipe.system import atomic
from hfpipe.system.redaction import redact
from hfpipe.system.text import json_line, json_page, listed

# By name, as a recipe names an engine: what is remembered lies below what is done with it, and imports none of it.
_PREDICT = "hfpipe.evaluation.prediction.predict:predict"
_LOAD = "hfpipe.evaluation.prediction.predictor:load_run_model"
FORMAT = 1
"""What `run.json` and the files beside it look like; a greater number in a run means that this hfpipe is too old."""

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}  # Windows


def default_folder() -> Path:
    """Where runs land by default: `$HFPIPE_RUNS_DIR`, or `runs` in the working directory."""
    return Path(os.environ.get("HFPIPE_RUNS_DIR", "runs"))


class Run:
    """The folder of one run and what is in it.

    Attributes:
        path: the folder.
        id: its name; of a run in a group `GROUP/NAME`.
        held: the objects that it was trained with, as long as the object lives that training returned: of loss,
            metrics, collator and tokenizer, those that no name finds again.
    """

    def __init__(self, path: str | Path, run_id: str | None = None) -> None:
        if not isinstance(path, str | os.PathLike):
            raise RecipeError(f"got {path!r}"[:100], where="Run()", allowed="the folder of a run, as text or Path")
        self.path = Path(path).expanduser()
        self.id = run_id or self.path.name
        self.held: dict[str, Any] = {}

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
        self.write_text(name, json_page(content) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file the same way, without secrets and without the name of a home folder."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(target, redact(text))

    def append(self, record: dict[str, Any]) -> None:
        """Add one line to `records.jsonl`."""
        with open(self.path / "records.jsonl", "a", encoding="utf-8") as file:
            file.write(redact(json_line(record)) + "\n")

    def update_metadata(self, **fields: Any) -> None:
        """Change fields of `run.json`."""
        self.write_json("run.json", {**self.metadata, **fields})

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
    def metadata(self) -> dict[str, Any]:
        """What `run.json` says: id, status, versions, commit, device, seed, hashes.

        Raises:
            RecipeError: it can't be read, or a newer hfpipe wrote it in a form that this one does not know.
        """
        about = self._stored_metadata()
        if _is_newer(about):
            raise RecipeError(
                f"run {self.id!r} was written by hfpipe {_version(about)} in format {about['format']}; this is hfpipe "
                f"{_own_version()}, which reads formats up to {FORMAT}",
                where=str(self.path / "run.json"),
                fix=f"Read it with hfpipe {_version(about)} or newer.",
            )
        return about

    def _stored_metadata(self) -> dict[str, Any]:
        about = self.read_json("run.json") or {"id": self.id}
        if not isinstance(about, dict):
            raise RecipeError(
                f"a {type(about).__name__}, not an object",
                where=str(self.path / "run.json"),
                fix="The run was damaged; train it again.",
            )
        return about

    @property
    def status(self) -> str:
        """preparing, running, finished, failed or interrupted.

        Also `died` when the process is gone without having written an end, `damaged` when `run.json` can't be read, and `newer`
        when it has a format that this hfpipe does not know.
        """
        try:
            about = self._stored_metadata()
        except RecipeError:
            return "damaged"
        if _is_newer(about):
            return "newer"
        status = str(about.get("status", "unknown"))
        return "died" if status in _AT_WORK and _is_gone(about) else status

    @property
    def recipe(self) -> Recipe:
        """The fully resolved recipe.

        Raises:
            RecipeError: it has mistakes, such as fields of another hfpipe, which is then named.
        """
        self._require_folder()
        try:
            # What earlier versions wrote has relative paths, which started from the working directory.
            recipe = load_recipe(self.path / "recipe.yaml", folder=Path.cwd())
        except RecipeError as error:
            wrote, own = _version(self.metadata), _own_version()
            if wrote in (own, _UNKNOWN):
                raise
            raise RecipeError(
                f"run {self.id!r} was written by hfpipe {wrote}, and its recipe has what this hfpipe {own} does not read:\n"
                f"{error}",
                fix=f"Read it with hfpipe {wrote}, or mend a copy of that recipe.",
            ) from None
        return self.found_again(recipe)

    def found_again(self, recipe: Recipe) -> Recipe:
        """A recipe of this run with its local files where they are now, if they were moved together with the run."""
        places = self._stored_metadata().get("places") or {}
        return found_again(recipe, places, self.path) if isinstance(places, dict) else recipe

    @property
    def metrics(self) -> dict[str, float | None]:
        """Name to number on the evaluation split; None where a metric is undefined there.

        Raises:
            RecipeError: there is no such folder.
        """
        self._require_folder()
        return dict((self.read_json("metrics.json") or {}).get("metrics", {}))

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every whole line of `records.jsonl`; what a crash cut short is left out, see `broken_lines`.

        Raises:
            RecipeError: there is no such folder.
        """
        self._require_folder()
        return self._read_records()[0]

    @property
    def broken_lines(self) -> list[int]:
        """The lines of `records.jsonl`, from 1, that are no whole record."""
        return self._read_records()[1]

    def _require_folder(self) -> None:
        if not self.path.is_dir():
            raise RecipeError(
                f"no run at {str(self.path)!r}",
                where="Run()",
                fix=f"Name its folder, such as {default_folder()}/{self.id}.",
            )

    def _read_records(self) -> tuple[list[dict[str, Any]], list[int]]:
        try:
            lines = (self.path / "records.jsonl").read_bytes().split(b"\n")  # a text may hold other line ends
        except FileNotFoundError:
            return [], []
        found, broken = [], []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:  # not JSON, or a character cut in two
                record = None
            if isinstance(record, dict):
                found.append(record)
            else:
                broken.append(number)
        return found, broken

    def model(self, model: Any = None) -> Any:
        """The fine-tuned model, in evaluation mode, from `model/`.

        Args:
            model: an object of the class that was trained, which gets the weights; needed where that class can't be found.

        Raises:
            RecipeError: it was given from Python, and nothing says of which class it is.
            ModelError: weights that are not there or do not fit.
        """
        return resolve({}, _LOAD, "function")(self, model)

    def predict(self, rows: Any, **options: Any) -> list[dict[str, Any]]:
        """Predictions of the fine-tuned model for rows: texts, pairs of texts, mappings from column to value, or a file.

        The model is loaded once, and stays loaded as long as this object lives. Arguments and result as for `hfpipe.predict`.
        """
        labelled: list[dict[str, Any]] = resolve({}, _PREDICT, "function")(self, rows, **options)
        return labelled

    def staged(self, name: str) -> AbstractContextManager[Path]:
        """A folder to fill that takes its place, under the run, when the block ends without an error."""
        return atomic.replaced_folder(self.path / name)

    def __repr__(self) -> str:
        """Run('runs/mrpc-...', 'finished')."""
        return f"Run({str(self.path)!r}, {self.status!r})"


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
    """The runs in a folder and in the groups there, newest first by the start that they record.

    One whose `run.json` is damaged comes last and hides no other.
    """
    files = [*folder.glob("*/run.json"), *folder.glob("*/*/run.json")]
    places = [file.parent for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    found = [Run(place, place.relative_to(folder).as_posix()) for place in places]
    return sorted(found, key=lambda run: (_started(run), run.id), reverse=True)


def _started(run: Run) -> str:
    with contextlib.suppress(RecipeError):
        return str(run._stored_metadata().get("started", ""))
    return ""


def find_run(name: str, folder: Path) -> Run:
    """A run by its path, its id, or the start of its id.

    Raises:
        RecipeError: none, or several, with what is near.
    """
    path = Path(name).expanduser()
    if os.path.isfile(path / "run.json"):  # unlike Path.is_file it takes any text for a name
        return Run(path.resolve())
    require_no_group(name, folder)
    ids = [run.id for run in list_runs(folder)]
    matches = starting_with(name, ids)
    if len(matches) == 1:
        return Run((folder / matches[0]).resolve(), matches[0])
    if matches:
        raise ambiguous(name, matches, "run ids", folder)
    raise RecipeError(
        f"no run {name!r} in {folder}{near(name, ids) or _near_start(name, ids)}",
        allowed=f"a run folder, or one of {listed(ids, 8)}" if ids else "a run folder; there are no runs here yet",
    )


def starting_with(name: str, ids: Sequence[str]) -> list[str]:
    """The id of that name alone, or all that start with it."""
    return [name] if name in ids else [one for one in ids if name and one.startswith(name)]


def ambiguous(name: str, matches: Sequence[str], what: str, folder: Path) -> RecipeError:
    """The error about a name that several ids start with."""
    found = f"{name!r} is ambiguous: {len(matches)} {what} start with it"
    return RecipeError(found, where=str(folder), allowed=listed(matches, 8), fix="Write more of the one you mean.")


def require_no_group(name: str, folder: Path) -> None:
    """Refuse a group of seeds where one run is wanted.

    Raises:
        RecipeError: with the runs of the group, and the metric of each that says which is best.
    """
    for path in (Path(name).expanduser(), folder / name):
        if name and os.path.isfile(path / "group.json"):
            raise RecipeError(
                f"{name!r} is a group of seeds, and one run is wanted",
                where=str(path.parent),
                allowed=", ".join(_with_metric(run, f"{name}/{run.id}") for run in reversed(list_runs(path)))
                or "no run of it is there yet",
            )


def _with_metric(run: Run, name: str) -> str:
    """What to call a run, and the metric that its recipe calls the best, as far as that can be read."""
    with contextlib.suppress(RecipeError, OSError):
        best = str(run.metadata.get("best"))
        if (value := run.metrics.get(best)) is not None:
            return f"{name} ({best} {value:.4f})"
    return name


def _near_start(name: str, ids: list[str]) -> str:
    """The same as `near` for a mistyped start: `mrcp` is nearer to `mrpc-20260101-120000` than its length says."""
    starts: dict[str, str] = {}
    for run_id in ids:
        starts.setdefault(run_id[: len(name)], run_id)
    close = difflib.get_close_matches(name, list(starts), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(starts[start]) for start in close)}?" if close else ""


def delete_run(run: Run) -> None:
    """Remove a run and everything in its folder.

    Raises:
        RecipeError: it is still running.
    """
    require_not_running(run)
    atomic.remove_folder(run.path)


def require_writable(run: Run) -> None:
    """Refuse to go on with a run in a folder that can't be written.

    Raises:
        MachineError: with the folder.
    """
    try:
        tempfile.TemporaryFile(dir=run.path).close()
    except OSError as error:
        fix = "A run may be moved: copy its folder to where you may write, and go on there."
        raise MachineError(f"can't be written: {error.strerror}", where=str(run.path), fix=fix) from error


def require_not_running(run: Run) -> None:
    """Refuse a run that is at work.

    Raises:
        RecipeError: with its process, and its machine when that is another one.
    """
    try:
        about = run._stored_metadata()
    except RecipeError:
        return  # damaged: no process writes it as it should
    require_process_gone(f"run {run.id!r}", about)


def require_process_gone(what: str, about: dict[str, Any]) -> None:
    """Refuse to touch what a process is writing, as far as its status, process and machine tell.

    Raises:
        RecipeError: with its process, and its machine when that is another one.
    """
    pid = about.get("pid")
    if about.get("status") not in _AT_WORK or _is_gone(about):
        return
    if not _is_here(about):
        raise RecipeError(
            f"{what} says that it is running on {about['host']} (process {pid})",
            fix="Stop it there first; if that machine is gone, remove the folder by hand.",
        )
    if isinstance(pid, int):
        raise RecipeError(f"{what} is running (process {pid})", fix="Stop it first.")


_AT_WORK = ("preparing", "running")
_UNKNOWN = "of unknown version"


def _is_gone(about: dict[str, Any]) -> bool:
    """Whether the process of a run is known and not there any more."""
    pid = about.get("pid")
    return isinstance(pid, int) and _is_here(about) and not _is_alive(pid)


def _is_here(about: dict[str, Any]) -> bool:
    """Whether a run was started on this machine, as far as it says."""
    return bool(about.get("host", platform.node()) == platform.node())


def _is_newer(about: dict[str, Any]) -> bool:
    written = about.get("format", 1)
    return not isinstance(written, int) or written > FORMAT


def _version(about: dict[str, Any]) -> str:
    """The hfpipe that wrote a run."""
    return str((about.get("versions") or {}).get("hfpipe", _UNKNOWN))


def _own_version() -> str:
    from importlib.metadata import version

    return version("hfpipe")


def _is_alive(pid: int) -> bool:
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

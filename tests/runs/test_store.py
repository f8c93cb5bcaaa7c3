"""The run folder: ids that stay inside it, atomic writes, honest reading, and what the machine does to it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hfpipe.errors import MachineError, RecipeError
from hfpipe.recipe import Recipe, load_recipe
from hfpipe.runs import Run, default_folder, delete_run, find_run, list_runs
from hfpipe.runs.store import check_id
from hfpipe.system.machine import as_machine_error
from hfpipe.system.text import finite


@pytest.fixture
def recipe() -> Recipe:
    """Any recipe."""
    return load_recipe({"dataset": {"path": "./d"}, "task": {"text": "s"}, "model": {"checkpoint": "./m"}, "name": "r"})


@pytest.fixture
def run(tmp_path: Path, recipe: Recipe) -> Run:
    """A fresh run."""
    made = Run.create(recipe, tmp_path / "runs", "one")
    made.update_metadata(id="one", status="finished", started="2026-01-01T00:00:00+00:00")
    return made


BAD_IDS = [
    "../../x",
    "/etc/x",
    "a/b",
    "a\\b",
    "a\0b",
    "x" * 300,
    "con",
    "nul.txt",
    "",
    ".",
    "..",
    "A",
    "-x",
    "a b",
    "a\n",
    "é",
]


@pytest.mark.parametrize("name", BAD_IDS)
def test_no_name_reaches_outside_the_runs_folder(name: str, tmp_path: Path, recipe: Recipe) -> None:
    """What is no plain run id is refused with exit code 2, before anything is made."""
    with pytest.raises(RecipeError, match="is no run id"):
        check_id(name)
    with pytest.raises(RecipeError, match="is no run id") as caught:
        Run.create(recipe, tmp_path / "runs", name)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["a", "mrpc-20260101-120000", "x" * 64, "1.2_3-4", "console"])
def test_plain_names_are_run_ids(name: str) -> None:
    """Letters, digits, dots, dashes and underscores are fine."""
    check_id(name)


def test_a_taken_id_is_refused(run: Run, recipe: Recipe) -> None:
    """A second run never writes into the folder of the first."""
    with pytest.raises(RecipeError, match="the run id 'one' is taken"):
        Run.create(recipe, run.path.parent, "one")


def test_runs_of_one_second_get_different_folders(tmp_path: Path, recipe: Recipe) -> None:
    """Without a name, runs that start at the same time don't meet."""
    made = [Run.create(recipe, tmp_path) for _ in range(4)]
    assert len({each.id for each in made}) == 4
    for each in made:
        check_id(each.id)
        assert each.id.startswith("r-")
        assert each.recipe == recipe


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Permissions hold inside this test, also for root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A folder that nobody may write."""
    folder = tmp_path / "locked"
    folder.mkdir()
    for parent in [folder, *folder.parents][:4]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/tmp"):
            parent.chmod(0o755 if parent != folder else 0o555)
    return folder


def test_a_read_only_runs_folder_is_a_fault_of_the_machine(locked: Path, unprivileged: None, recipe: Recipe) -> None:
    """A runs folder that can't be written gives exit code 5 and names the folder and --runs-dir."""
    for folder in (locked, locked / "runs"):
        with pytest.raises(MachineError, match="Permission denied") as caught:
            Run.create(recipe, folder)
        assert caught.value.exit_code == 5
        assert str(folder) in str(caught.value)
        assert "--runs-dir" in str(caught.value)


def test_a_file_is_no_runs_folder(tmp_path: Path, recipe: Recipe) -> None:
    """A file in the place of the runs folder, or above it, gives exit code 5."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(MachineError):
            Run.create(recipe, folder)


def test_a_write_that_fails_leaves_the_old_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the new content is safe on disk, a reader finds the old one, and no half-written file is left."""
    run.write_json("a.json", {"old": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.write_json("a.json", {"new": 1})
    assert run.read_json("a.json") == {"old": 1}
    assert not list(run.path.glob(".*"))


def test_a_reader_never_sees_half_a_file(run: Run) -> None:
    """New content takes the place of the old by a rename: whoever has the old file open reads it to its end."""
    run.write_text("a.txt", "old\n" * 10_000)
    with open(run.path / "a.txt", encoding="utf-8") as reader:
        assert reader.readline() == "old\n"
        run.write_text("a.txt", "new\n")
        assert reader.read() == "old\n" * 9_999
    assert (run.path / "a.txt").read_text(encoding="utf-8") == "new\n"


def test_a_full_disk_is_told(tmp_path: Path, recipe: Recipe) -> None:
    """On a disk that is really full a run ends with exit code 5, and what was written before is whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    try:
        run = Run.create(recipe, disk, "one")
        run.update_metadata(status="running")

        def fill() -> None:
            for step in range(10_000):
                run.append({"type": "step", "step": step, "text": "x" * 100})
                run.write_json(f"{step}.json", {"x": "y" * 1_000})

        with pytest.raises(OSError, match="No space left") as caught:
            fill()
        assert caught.value.errno == errno.ENOSPC
        assert run.status == "running"
        assert [record["step"] for record in run.records][:3] == [0, 1, 2]
        assert not list(run.path.glob(".*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "not allowed"),
        (errno.EIO, ""),
    ],
)
def test_faults_of_the_machine_have_exit_code_5(number: int, told: str, tmp_path: Path) -> None:
    """Each errno becomes one paragraph with the path and what to do."""
    error = as_machine_error(OSError(number, os.strerror(number), str(tmp_path / "x")))
    assert error.exit_code == 5
    assert told in str(error)
    assert str(tmp_path / "x") in str(error)
    assert error.fix


def test_a_folder_takes_its_place_whole_or_not_at_all(run: Run) -> None:
    """A checkpoint whose saving fails leaves the older one as it was, and nothing beside it."""
    with run.staged("model") as folder:
        (folder / "weights").write_text("old")

    def save_half() -> None:
        with run.staged("model") as folder:
            (folder / "weights").write_text("half")
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        save_half()
    assert (run.path / "model" / "weights").read_text() == "old"
    with run.staged("model") as folder:
        (folder / "other").write_text("new")
    assert [path.name for path in (run.path / "model").iterdir()] == ["other"]
    assert not list(run.path.glob(".*"))


def test_json_has_no_nan(run: Run) -> None:
    """A number that is none is null in every file, at any depth."""
    run.write_json("a.json", {"x": float("nan"), "y": [float("inf"), 1.0, {"z": -float("inf")}], "t": (1, "NaN")})
    text = (run.path / "a.json").read_text()
    assert json.loads(text) == {"x": None, "y": [None, 1.0, {"z": None}], "t": [1, "NaN"]}
    run.append({"type": "step", "loss": float("nan")})
    assert run.records == [{"type": "step", "loss": None}]
    assert finite(0.0) == 0.0


def test_a_line_cut_short_is_left_out(run: Run) -> None:
    """After a crash every whole record is still read."""
    run.append({"step": 1})
    with open(run.path / "records.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert run.records == [{"step": 1}]


def test_an_empty_run_reads_as_one(tmp_path: Path) -> None:
    """A folder without files has no records, no metrics, and an unknown status."""
    bare = Run(tmp_path)
    assert (bare.records, bare.metrics, bare.status) == ([], {}, "unknown")


def test_runs_are_found_by_path_id_and_start(run: Run, recipe: Recipe) -> None:
    """A run is named by its folder, its id, or a start of it that is unique."""
    folder = run.path.parent
    other = Run.create(recipe, folder, "other")
    other.update_metadata(id="other", started="2026-02-01T00:00:00+00:00")
    assert [each.id for each in list_runs(folder)] == ["other", "one"]
    for name in (str(run.path), "one", "on"):
        assert find_run(name, folder).path == run.path.resolve()
    for name, told in [
        ("o", "is ambiguous: 2 run ids start with it"),
        ("onne", "did you mean 'one'"),
        ("", "no run ''"),
        ("..", "no run"),
    ]:
        with pytest.raises(RecipeError, match=told):
            find_run(name, folder)
    with pytest.raises(RecipeError, match="there are no runs here yet"):
        find_run("one", folder / "none")


def test_a_damaged_run_hides_no_other(run: Run, recipe: Recipe) -> None:
    """One unreadable run.json is told as such, and the other runs are listed and found."""
    damaged = Run.create(recipe, run.path.parent, "damaged")
    (damaged.path / "run.json").write_text("{")
    assert [each.id for each in list_runs(run.path.parent)] == ["one", "damaged"]
    assert find_run("one", run.path.parent).status == "finished"
    assert damaged.status == "damaged"
    with pytest.raises(RecipeError, match=r"damaged/run\.json: not JSON"):
        _ = damaged.metadata
    delete_run(damaged)
    assert not damaged.path.exists()


@pytest.mark.parametrize("status", ["preparing", "running"])
def test_a_living_run_is_not_deleted(run: Run, status: str) -> None:
    """A run whose process lives stays; one whose process is gone can go."""
    run.update_metadata(status=status, pid=os.getpid())
    with pytest.raises(RecipeError, match="is running"):
        delete_run(run)
    done = subprocess.Popen(["true"])
    done.wait()
    run.update_metadata(pid=done.pid)
    delete_run(run)
    assert not run.path.exists()


def test_the_runs_folder_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HFPIPE_RUNS_DIR wins over `runs` in the working directory."""
    monkeypatch.delenv("HFPIPE_RUNS_DIR", raising=False)
    assert default_folder() == Path("runs")
    monkeypatch.setenv("HFPIPE_RUNS_DIR", "/elsewhere")
    assert default_folder() == Path("/elsewhere")


def test_the_difference_of_two_runs_names_every_field(run: Run, recipe: Recipe) -> None:
    """Recipe, seed, identity and figures are compared field by field; equal runs differ in nothing."""
    from hfpipe.recipe import with_overrides
    from hfpipe.runs.difference import difference

    other: Any = Run.create(with_overrides(recipe, ["train.epochs=7", "model.config={a: 1}"]), run.path.parent, "two")
    run.update_metadata(seed=1, identity={"dataset": {"digest": "x"}})
    other.update_metadata(seed=2, identity={"dataset": {"digest": "y"}})
    other.write_json("metrics.json", {"metrics": {"f1": 0.5}})
    found = {path: (first, second) for path, first, second in difference(run, other)}
    assert found["recipe.train.epochs"] == (3, 7)
    assert found["recipe.model.config.a"][1] == 1
    assert found["seed"] == (1, 2)
    assert found["identity.dataset.digest"] == ("x", "y")
    assert found["metrics.f1"][1] == 0.5
    assert len(found) == 5
    assert difference(run, run) == []

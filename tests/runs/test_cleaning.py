"""What `runs clean` lists and removes: states and checkpoints that nobody needs, never what a run can go on from."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpipe.errors import MachineError, RecipeError
from hfpipe.recipe import load_recipe
from hfpipe.runs import Run, checkpoints, cleaning
from hfpipe.system import manifest
from hfpipe.system.lock import locked

STATE = 4 * 1000  # bytes of the four files
RECIPE = {"dataset": {"path": "./d"}, "task": {"text": "s"}, "model": {"checkpoint": "./m"}, "name": "r"}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Run]:
    """Makes a run with a checkpoint for each of these steps, of which one may be the best, and no training."""

    def made(name: str, *steps: int, best: int | None = None, status: str = "finished", **about: Any) -> Run:
        kept = about.pop("keep_state", False)
        run = Run.create(load_recipe({**RECIPE, "checkpoints": {"keep_state": kept}}), tmp_path / "runs", name)
        run.update_metadata(id=name, status=status, **about)
        (run.path / "model").mkdir()
        (run.path / "model" / "model.safetensors").write_bytes(b"w" * 5000)
        for step in steps:

            def write(folder: Path) -> None:
                for file in checkpoints.STATE_FILES:
                    (folder / file).write_bytes(b"s" * 1000)
                (folder / "model.safetensors").write_bytes(b"w" * 5000)
                Run(folder).write_json("checkpoint.json", {"best": best and {"step": best}})

            checkpoints.commit(run.path / checkpoints.name_of(step), write)
        return run

    return made


def steps(run: Run) -> list[int]:
    """The checkpoints that are there; every one of them is whole."""
    there = checkpoints.list_checkpoints(run.path)
    assert all(manifest.find_corruption(one.path) is None for one in there)
    return [one.step for one in there]


def clean(*runs: Run, keep: str = "all") -> list[str]:
    """What goes from these runs, in words."""
    planned, _ = cleaning.removals(runs, keep)
    before = {one.path: sum(path.stat().st_size for path in one.path.rglob("*") if path.is_file()) for one in planned}
    cleaning.remove(planned)
    for one in planned:
        if not one.state_alone:
            assert not one.path.exists()
            assert one.bytes == before[one.path]
    return [one.what for one in planned]


def test_the_states_of_finished_runs_go(make: Callable[..., Run]) -> None:
    """The weights of every checkpoint stay whole, model/ is as it was, and a second time there is nothing to do."""
    run = make("one", 3, 6, best=3)
    planned, skipped = cleaning.removals([run])
    assert [(one.what, one.bytes) for one in planned] == [
        ("optimizer state of step-00000003", STATE), ("optimizer state of step-00000006", STATE)
    ]  # fmt: skip
    assert not skipped
    assert len(clean(run)) == 2
    assert steps(run) == [3, 6]
    assert not any(checkpoints.has_state(one.path) for one in checkpoints.list_checkpoints(run.path))
    assert (run.path / "model" / "model.safetensors").stat().st_size == 5000
    assert clean(run) == []


@pytest.mark.parametrize(
    ("keep", "finished", "stopped"), [("last", [9], [3, 9]), ("best", [3], [3, 9]), ("none", [], [3, 9])]
)
def test_which_checkpoints_stay(make: Callable[..., Run], keep: str, finished: list[int], stopped: list[int]) -> None:
    """Of a finished run what was asked for; one that can still go on keeps its newest one, with its state, and its best."""
    done, open_ = make("done", 3, 6, 9, best=3), make("open", 3, 6, 9, best=3, status="interrupted")
    clean(done, open_, keep=keep)
    assert steps(done) == finished
    assert steps(open_) == stopped
    assert all(checkpoints.has_state(one.path) for one in checkpoints.list_checkpoints(open_.path))


def test_without_a_best_one_the_last_stays(make: Callable[..., Run]) -> None:
    """Nothing says which weights are the best, or they are gone: then the newest are kept."""
    for name, best in (("none", None), ("gone", 2)):
        run = make(name, 3, 6, best=best)
        clean(run, keep="best")
        assert steps(run) == [6]


def test_what_is_kept_on_purpose_stays(make: Callable[..., Run]) -> None:
    """With checkpoints.keep_state a finished run keeps its states, and those of the checkpoint that is to be kept."""
    run = make("one", 3, 6, keep_state=True)
    assert clean(run) == []
    assert clean(run, keep="last") == ["checkpoint step-00000003"]
    assert checkpoints.has_state(run.path / checkpoints.name_of(6))
    cleaning.forget_state(run)
    assert checkpoints.has_state(run.path / checkpoints.name_of(6))


def test_runs_at_work_are_left_alone(make: Callable[..., Run], tmp_path: Path) -> None:
    """A process that trains, one that holds the folder, and a run that can't be read: nothing of them goes."""
    running = make("running", 3, 6, status="running", pid=os.getpid(), host=platform.node())
    newer, damaged = make("newer", 3, format=99), make("damaged", 3)
    (damaged.path / "run.json").write_text("{", encoding="utf-8")
    planned, skipped = cleaning.removals([running, newer, damaged], "none")
    assert planned == []
    assert [text.split(":")[0] for text in skipped] == ["running", "newer", "damaged"]
    assert "is running (process" in skipped[0]
    held = make("held", 3)
    planned, _ = cleaning.removals([held])
    with locked(held.path), pytest.raises(MachineError, match="another process trains in this run"):
        cleaning.remove(planned)
    assert checkpoints.has_state(held.path / checkpoints.name_of(3))


def test_interrupted_saves_go_from_any_run(make: Callable[..., Run]) -> None:
    """What a killed save left behind is freed, also where the run can still go on."""
    run = make("one", 3, status="failed")
    leftover = run.path / "checkpoints" / ".step-00000006.x1.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"w" * 700)
    assert checkpoints.leftovers(run.path) == [leftover]
    assert clean(run) == ["an interrupted save"]
    assert steps(run) == [3]


@pytest.mark.parametrize("dies_at", range(1, 8))
def test_a_checkpoint_is_whole_wherever_dropping_is_cut_off(
    make: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """Killed at any file operation, the checkpoint is one with its state or one without, and never half of either."""
    run = make("one", 3)
    path, seen = run.path / checkpoints.name_of(3), []
    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink", "fsync"):
            original = getattr(os, name)

            def counted(*arguments: Any, _original: Any = original, **keywords: Any) -> Any:
                seen.append(1)
                if len(seen) >= dies_at:
                    raise KeyboardInterrupt
                return _original(*arguments, **keywords)

            patch.setattr(os, name, counted)
        with contextlib.suppress(KeyboardInterrupt):
            checkpoints.drop_state(path)
    assert manifest.find_corruption(path) is None
    checkpoints.drop_state(path)
    assert not checkpoints.has_state(path)


def test_the_command_lists_asks_and_removes(
    make: Callable[..., Run], tmp_path: Path, hfpipe_command: Callable[..., Any]
) -> None:
    """Sizes first; a dry run and a refusal remove nothing; groups and single runs can be named."""
    run = make("one", 3, 6)
    make("two", 3)
    folder = str(tmp_path / "runs")
    dry = hfpipe_command("runs", "clean", "--dry-run", "--runs-dir", folder)
    assert dry.code == 0
    assert "     4 kB  one  optimizer state of step-00000003" in dry.out
    assert "    12 kB  in all" in dry.out
    refused = hfpipe_command("runs", "clean", "--runs-dir", folder)
    assert refused.code == 2
    assert "pass --yes" in refused.err
    assert "step-00000006" in refused.out
    assert checkpoints.has_state(run.path / checkpoints.name_of(3))
    done = hfpipe_command("runs", "clean", "one", "--keep", "last", "--yes", "--json", "--runs-dir", folder)
    assert done.code == 0
    assert (done.json["removed"], [one["run"] for one in done.json["removals"]]) == (True, ["one", "one"])
    assert done.json["bytes"] == sum(one["bytes"] for one in done.json["removals"])
    assert steps(run) == [6]
    assert checkpoints.has_state(tmp_path / "runs" / "two" / checkpoints.name_of(3))
    assert hfpipe_command("runs", "clean", "one", "--runs-dir", folder).out == "nothing to remove\n"
    wrong = hfpipe_command("runs", "clean", "--keep", "bets", "--runs-dir", folder)
    assert wrong.code == 2
    assert "did you mean 'best'" in wrong.err


def test_another_word_is_refused(make: Callable[..., Run]) -> None:
    """`--keep` takes four words."""
    with pytest.raises(RecipeError, match="allowed: all, last, best, none"):
        cleaning.removals([make("one", 3)], "some")

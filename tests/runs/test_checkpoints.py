"""Checkpoints on disk: whole or not there, found by step, and every changed bit noticed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpipe.errors import MachineError, ModelError
from hfpipe.runs import checkpoints
from hfpipe.system import manifest

FILES = {
    "model.safetensors": bytes(range(256)) * 9,
    "optimizer.json": b'{"a": 1}',
    "checkpoint.json": b"{}",
    "empty": b"",
}


def write(folder: Path) -> None:
    """Fill a checkpoint."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


def save(run: Path, *steps: int) -> None:
    """Commit a checkpoint for each of the steps."""
    for step in steps:
        checkpoints.commit(run / checkpoints.name_of(step), write, required=FILES)


def save_and_rotate(run: Path) -> None:
    """Commit step 3 and remove all before it."""
    save(run, 3)
    checkpoints.rotate(run, 1, None)


def steps(run: Path) -> list[int]:
    """The steps that are there."""
    return [one.step for one in checkpoints.list_checkpoints(run)]


class Killed(BaseException):
    """Stands for a SIGKILL: no `except Exception` sees it."""


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Lets the process die at its n-th file operation, and every one after it; returns the operations it counted."""

    def at(count: int) -> list[str]:
        seen: list[str] = []
        for name in ("open", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "close"):
            original = getattr(os, name)

            def counted(*arguments: Any, _name: str = name, _original: Any = original, **keywords: Any) -> Any:
                seen.append(_name)
                if len(seen) >= count:
                    raise Killed
                return _original(*arguments, **keywords)

            monkeypatch.setattr(os, name, counted)
        return seen

    return at


def operations(dying: Callable[[int], list[str]], run: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many file operations the save of a third checkpoint with rotation makes."""
    seen = dying(10**9)
    save_and_rotate(run)
    monkeypatch.undo()
    return len(seen)


def test_a_kill_at_any_file_operation_leaves_a_whole_checkpoint(
    tmp_path: Path, dying: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the operation, the newest whole one is the one before or the new one, and what was skipped is named."""
    save(tmp_path / "counted", 1, 2)
    total = operations(dying, tmp_path / "counted", monkeypatch)
    assert total >= 20
    found = set()
    for count in range(1, total + 1):
        run = tmp_path / str(count)
        save(run, 1, 2)
        dying(count)
        with pytest.raises(Killed):
            save_and_rotate(run)
        monkeypatch.undo()
        newest, skipped = checkpoints.newest(run)
        assert newest is not None
        assert newest.step in (2, 3)
        if any(path.name.startswith(".step-00000003") for path in (run / "checkpoints").iterdir()):
            assert any("step-00000003" in told for told in skipped)
        found.add(newest.step)
        checkpoints.clear_staging(run)
        save(run, 3)
        assert checkpoints.newest(run)[0].step == 3
        assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    assert found == {2, 3}


def test_a_thousand_flipped_bits_are_all_found(tmp_path: Path) -> None:
    """One bit anywhere in any file, the manifest included, and the checkpoint is damaged."""
    save(tmp_path, 1)
    folder = tmp_path / checkpoints.name_of(1)
    files = [path for path in folder.iterdir() if path.stat().st_size]
    chance = random.Random(0)
    for _ in range(1000):
        path = chance.choice(files)
        content = path.read_bytes()
        place, bit = chance.randrange(len(content)), chance.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        assert path.name in (manifest.find_corruption(folder) or ""), (path.name, place, bit)
        path.write_bytes(content)
    assert manifest.find_corruption(folder) is None


def test_every_bit_of_the_manifest_counts(tmp_path: Path) -> None:
    """No bit of the manifest can flip without being seen, not even in its spaces."""
    save(tmp_path, 1)
    path = tmp_path / checkpoints.name_of(1) / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            assert manifest.find_corruption(path.parent) == "manifest.json has changed"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """A file that is gone is named, and the checkpoint is not used."""
    save(tmp_path, 1, 2)
    (tmp_path / checkpoints.name_of(2) / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing.*--use-previous"):
        checkpoints.newest(tmp_path)
    newest, skipped = checkpoints.newest(tmp_path, use_previous=True)
    assert newest.step == 1
    assert name in skipped[0]


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    """A shorter file is told with both sizes."""
    save(tmp_path, 1)
    path = tmp_path / checkpoints.name_of(1) / "model.safetensors"
    os.truncate(path, 100)
    assert manifest.find_corruption(path.parent) == "model.safetensors has 100 bytes, and 2,304 were written"


def test_when_none_is_whole_it_says_so(tmp_path: Path) -> None:
    """With --use-previous and no earlier one, every damaged one is told."""
    save(tmp_path, 1, 2)
    for step in (1, 2):
        (tmp_path / checkpoints.name_of(step) / "empty").unlink()
    with pytest.raises(ModelError, match=r"no checkpoint is whole: step-00000002: empty is missing; step-00000001"):
        checkpoints.newest(tmp_path, use_previous=True)


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    """A run that was stopped before its first save has nothing to go on from, and that is no error."""
    assert checkpoints.newest(tmp_path) == (None, [])


def test_what_was_not_written_is_noticed(tmp_path: Path) -> None:
    """A writer that fails without an error does not make a checkpoint."""
    save(tmp_path, 1)
    with pytest.raises(MachineError, match=r"random\.json was written without an error, and is not there"):
        checkpoints.commit(tmp_path / checkpoints.name_of(2), write, required=("random.json",))
    assert steps(tmp_path) == [1]


def test_what_changed_on_its_way_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that read back differently after the rename are an error of the machine, told at once."""
    original = os.rename

    def corrupt(source: Any, target: Any) -> None:
        original(source, target)
        if str(target).endswith("step-00000001"):
            (Path(target) / "model.safetensors").write_bytes(b"\0" * 2304)

    monkeypatch.setattr(os, "rename", corrupt)
    with pytest.raises(MachineError, match="has changed since it was written right after it was written"):
        save(tmp_path, 1)


@pytest.mark.parametrize("operation", ["rename", "fsync", "mkdir"])
def test_a_refusing_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """A failed rename, sync or mkdir is an error, the attempt is removed, and the checkpoint before stays whole."""
    save(tmp_path, 1)

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, operation, refuse)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert checkpoints.newest(tmp_path)[0].step == 1


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """The needed and the free bytes are told, and nothing is begun."""
    with pytest.raises(MachineError, match=r"step-00000001 needs 1,000,000,000,000,000,000 bytes, and [\d,]+ are free"):
        checkpoints.commit(tmp_path / checkpoints.name_of(1), write, needed=10**18)
    assert steps(tmp_path) == []


def test_rotation_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    """All but the last two and the best one go."""
    save(tmp_path, 1, 2, 3, 4, 5)
    checkpoints.rotate(tmp_path, 2, 2)
    assert steps(tmp_path) == [2, 4, 5]


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    """A step that is trained again takes the place of the old one."""
    save(tmp_path, 1)
    (tmp_path / checkpoints.name_of(1) / "empty").write_bytes(b"x")
    save(tmp_path, 1)
    assert manifest.find_corruption(tmp_path / checkpoints.name_of(1)) is None
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_fault_74_the_order_is_that_of_the_steps(tmp_path: Path) -> None:
    """A clock that jumps back, or equal times for all files, change nothing."""
    save(tmp_path, 9, 10, 100_000_000)
    for at, step in ((3_000, 9), (2_000, 10), (1_000, 100_000_000)):
        os.utime(tmp_path / checkpoints.name_of(step), (at, at))
    assert steps(tmp_path) == [9, 10, 100_000_000]
    assert checkpoints.newest(tmp_path)[0].step == 100_000_000
    shutil.rmtree(tmp_path / checkpoints.name_of(100_000_000))
    assert checkpoints.newest(tmp_path)[0].step == 10

"""Files and folders that are there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hfpipe.system import atomic


def fail_in_the_middle(target: Path) -> None:
    """Write half of a file, and fail."""
    with atomic.replaced_file(target) as file:
        file.write(b"half")
        raise RuntimeError("cut short")


def test_a_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    """A write that fails leaves the file before it, and nothing beside it; one that ends well replaces it."""
    target = tmp_path / "a.json"
    atomic.write(target, "old")
    with pytest.raises(RuntimeError, match="cut short"):
        fail_in_the_middle(target)
    assert target.read_text() == "old"
    atomic.write(target, "nëw")
    assert target.read_bytes() == "nëw".encode()
    assert list(tmp_path.iterdir()) == [target]


def test_what_was_written_is_on_the_disk_before_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and the folder itself are synced before the rename, and the folder above after it."""
    done: list[str] = []
    for name in ("fsync", "rename"):
        original = getattr(os, name)

        def seen(*arguments: object, _name: str = name, _original: object = original) -> None:
            is_number = isinstance(arguments[0], int)
            done.append(f"{_name} {Path(os.readlink(f'/proc/self/fd/{arguments[0]}')).suffix}" if is_number else _name)
            _original(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(os, name, seen)
    with atomic.replaced_folder(tmp_path / "folder") as folder:
        (folder / "a.x").write_text("a")
        (folder / "b.y").write_text("b")
    # The first rename looks for an older folder; the staged one ends in .tmp, the folder above in nothing.
    assert done == ["fsync .x", "fsync .y", "fsync .tmp", "rename", "rename", "fsync "]


def test_a_faster_process_keeps_its_folder(tmp_path: Path) -> None:
    """What another process made meanwhile stays where it is said to be as good, and goes where it is not."""
    target = tmp_path / "folder"
    for keep, expected in ((True, "theirs"), (False, "mine")):
        with atomic.replaced_folder(target, keep_if=lambda folder, keep=keep: keep and folder.is_dir()) as folder:
            (folder / "a").write_text("mine")
            target.mkdir(exist_ok=True)
            (target / "a").write_text("theirs")
        assert (target / "a").read_text() == expected
        assert list(tmp_path.iterdir()) == [target]


def test_a_removed_folder_is_never_seen_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that breaks off has taken the name away already, and what is left is found as a leftover."""
    (tmp_path / "step-1").mkdir()

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            atomic.remove_folder(tmp_path / "step-1")
    assert not (tmp_path / "step-1").exists()
    assert len(atomic.leftovers(tmp_path, "step-*")) == 1


def test_files_are_as_readable_as_their_folder(tmp_path: Path) -> None:
    """A file that a library wrote for its owner alone gets what the umask allows; what may be run, still may."""
    before = os.umask(0o027)
    try:
        with atomic.replaced_folder(tmp_path / "folder") as folder:
            (folder / "plain.json").write_text("{}")
            for name, mode in (("inner/model.safetensors", 0o600), ("run.sh", 0o700)):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text("x")
                (folder / name).chmod(mode)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "folder").rglob("*") if path.is_file()}
    assert modes == {"plain.json": 0o640, "model.safetensors": 0o640, "run.sh": 0o740}

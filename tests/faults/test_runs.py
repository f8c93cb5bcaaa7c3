"""Faults 1 to 28 of saves, resumptions and stops, each test named after its number; 74 is in runs/test_checkpoints.py."""

from __future__ import annotations

import builtins
import errno
import json
import math
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stopped import Killed, digest
from stopped import records as recorded

import hfpipe
from hfpipe.errors import (
    DataError,
    HfpipeError,
    InterruptedRun,
    MachineError,
    ModelError,
    NumericError,
    RecipeError,
    StoppedByUser,
)
from hfpipe.parts.optim.losses import cross_entropy
from hfpipe.runs import checkpoints, records
from hfpipe.system import manifest
from hfpipe.system.display import Silent
from hfpipe.system.lock import locked

ENGINES = ("trainer", "loop")
OFTEN = ["checkpoints.every_steps=2", "checkpoints.every=never", "evaluate.every=never"]  # 12 steps, 6 an epoch


class At(Silent):
    """Does something when a step is recorded, and keeps what is said."""

    def __init__(self, step: int, what: Callable[[], None]) -> None:
        self.step, self.what = step, what
        self.said: list[str] = []

    def notice(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)

    def record(self, record: Mapping[str, Any]) -> None:
        """Do it at that step."""
        if record["type"] == "step" and record["step"] == self.step:
            self.what()


def die() -> None:
    """End the process, as far as anyone can see."""
    raise Killed


pytestmark = pytest.mark.usefixtures("no_report")


Start = Callable[..., hfpipe.Run]


@pytest.fixture
def start(recipe_fields: dict[str, Any], tmp_path: Path) -> Start:
    """Trains the tiny recipe, saving every other step, with these overrides."""

    def finetune(*overrides: str, name: str = "one", dies_at: int | None = None, **options: Any) -> hfpipe.Run:
        options = {"runs_dir": tmp_path / "runs", "engine": "loop", **options}
        changes = [*OFTEN, *overrides]
        if dies_at is None:
            return hfpipe.finetune(recipe_fields, overrides=changes, name=name, **options)
        with pytest.raises(Killed):
            hfpipe.finetune(recipe_fields, overrides=changes, name=name, display=At(dies_at, die), **options)
        return hfpipe.Run(options["runs_dir"] / name)

    return finetune


def told(kind: type[HfpipeError], code: int, call: Callable[[], object]) -> str:
    """The message of an error of this kind and exit code, which the call must raise."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
    return str(caught.value)


def ending(run: hfpipe.Run) -> tuple[str, list[dict[str, Any]]]:
    """What a run ended with: a hash of its weights, and its records without timings and resumptions."""
    assert run.status == "finished"
    return digest(run), recorded(run)


def steps_of(run: hfpipe.Run) -> list[int]:
    """The steps of its checkpoints."""
    return [one.step for one in checkpoints.list_checkpoints(run.path)]


def resealed(folder: Path) -> None:
    """Give a checkpoint whose files were changed on purpose a manifest that fits."""
    manifest.write(folder)


def in_a_child(work: Callable[[], object], meanwhile: Callable[[int], None] = lambda pid: None) -> int:
    """Run something in a forked process; its exit code as a shell would give it, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except HfpipeError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    meanwhile(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(count: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process killed at the n-th file operation of the save of a step; those of the rotation count on."""
    original_commit, seen = checkpoints.commit, [0]

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            seen[0] += 1
            if seen[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return call

    def commit(target: Path, *arguments: Any, **keywords: Any) -> int:
        if target.name.endswith(f"{step:08d}"):
            for name in ("open", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
                monkeypatch.setattr(os, name, counted(getattr(os, name)))
            monkeypatch.setattr(builtins, "open", counted(open))
        return original_commit(target, *arguments, **keywords)

    monkeypatch.setattr(checkpoints, "commit", commit)


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_01_a_kill_inside_a_save(
    start: Start, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at file operations all over a save: the next start goes on by itself, and ends bit for bit the same.

    scripts/try_kills.py does it at every operation; tests/runs/test_checkpoints.py looks at what each one leaves.
    """
    whole = ending(start(engine=engine, name="whole"))
    for count in (6, 17, 40):

        def work(count: int = count) -> None:
            killed_at(count, 4, monkeypatch)
            start(engine=engine, name=f"killed-{count}")

        assert in_a_child(work) == -signal.SIGKILL
        run = hfpipe.Run(tmp_path / "runs" / f"killed-{count}")
        assert run.status == "died"
        display = At(0, die)
        resumed = hfpipe.finetune(resume=run, display=display)
        assert ending(resumed) == whole
        at = resumed.metadata["resumed"][0]["step"]
        assert at in (2, 4)
        assert f"going on from step {at}" in display.said
        if at == 2:
            assert any("passed over step-00000004: its save was interrupted" in said for said in display.said)


def test_fault_02_a_kill_while_old_checkpoints_go(
    start: Start, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL between the rename and the end of the rotation leaves the new checkpoint, and the run goes on from it."""
    original, seen = checkpoints.rotate, []

    def work() -> None:
        def rotate(*arguments: Any) -> None:
            seen.append(1)
            if len(seen) == 3:
                monkeypatch.setattr(shutil, "rmtree", lambda *rest, **options: os.kill(os.getpid(), signal.SIGKILL))
            original(*arguments)

        monkeypatch.setattr(checkpoints, "rotate", rotate)
        start(name="killed")

    assert in_a_child(work) == -signal.SIGKILL
    run = hfpipe.Run(tmp_path / "runs" / "killed")
    assert steps_of(run)[-1] == 6
    assert ending(hfpipe.finetune(resume=run)) == whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2.5 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", disk], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no small disk can be made here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def make_read_only(disk: Path) -> None:
    """Mount a disk again, so that nobody writes on it, root neither."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_03_a_full_disk(start: Start, small_disk: Path, engine: str) -> None:
    """A save that does not fit is exit 5 with path, needed and free bytes; nothing of it stays, and the run goes on later."""
    whole = ending(start(engine=engine, name="whole"))
    filler = small_disk / "filler"

    def fill() -> None:
        free = shutil.disk_usage(small_disk).free
        filler.write_bytes(b"x" * (free - 150_000))

    def train() -> None:
        start(engine=engine, name="full", runs_dir=small_disk, display=At(5, fill))

    message = told(MachineError, 5, train)
    assert "step-00000006" in message
    assert "bytes" in message
    assert "free" in message
    run = hfpipe.Run(small_disk / "full")
    assert run.status == "failed"
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]
    filler.unlink()
    assert ending(hfpipe.finetune(resume=run)) == whole


def test_fault_03_a_disk_that_fills_up_under_a_save(
    start: Start, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk itself refuses in the middle of a save, after the check of the space: the same."""
    monkeypatch.setattr(checkpoints, "require_space", lambda *arguments: None)

    def fill() -> None:
        (small_disk / "filler").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 150_000))

    message = told(MachineError, 5, lambda: start(name="full", runs_dir=small_disk, display=At(5, fill)))
    assert "disk" in message or "space" in message
    assert sorted(path.name for path in (small_disk / "full" / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000004",
    ]


def test_fault_03_a_disk_without_a_byte_left(start: Start, small_disk: Path) -> None:
    """Where not even the end of the run can be written down, it is exit 5 for the reason that the save had; the run goes on."""
    whole = ending(start(name="whole"))
    filler = small_disk / "filler"

    def fill() -> None:
        with open(filler, "wb", buffering=0) as file:
            while shutil.disk_usage(small_disk).free:
                file.write(b"x" * 4096)

    message = told(MachineError, 5, lambda: start(name="full", runs_dir=small_disk, display=At(5, fill)))
    assert "step-00000006" in message
    assert ", and 0 are free" in message
    run = hfpipe.Run(small_disk / "full")
    assert run.metadata["status"] == "running"  # its end could not be written
    filler.unlink()
    assert ending(hfpipe.finetune(resume=run)) == whole


def test_fault_04_records_that_can_not_be_written(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk refuses a line training goes on with one warning; the lines come later, or the run says they lack."""
    whole = ending(start("checkpoints.every_steps=null", "evaluate.best=null", name="whole"))
    original, refused = records.Lines._write, [3, 4, 5]

    def write(self: records.Lines) -> None:
        last = json.loads(self.waiting[-1]) if self.waiting else {}
        if last.get("step") in refused:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self)

    monkeypatch.setattr(records.Lines, "_write", write)
    warned: list[str] = []

    class Seen(Silent):
        def record(self, record: Mapping[str, Any]) -> None:
            warned.extend(
                [record["text"]] if record["type"] == "notice" and "can't be written" in record["text"] else []
            )

    run = start("checkpoints.every_steps=null", "evaluate.best=null", name="later", display=Seen())
    assert ending(run) == whole
    assert len(warned) == 1
    assert run.metadata["records_missing"] == 0
    refused[:] = [*range(9, 13), None]
    run = start("checkpoints.every_steps=null", "evaluate.best=null", name="never")
    assert run.status == "finished"
    assert run.metadata["records_missing"] >= 4
    assert (run.path / "records.jsonl").read_text().endswith("\n")


def test_fault_05_a_folder_that_can_not_be_written(start: Start, tmp_path: Path) -> None:
    """A file in the place of the runs folder is exit 5 before anything is read."""
    (tmp_path / "file").write_text("")
    assert "is not a folder" in told(MachineError, 5, lambda: start(runs_dir=tmp_path / "file"))


@pytest.mark.parametrize("folder", ["", "runs"])
def test_fault_05_a_read_only_disk(start: Start, small_disk: Path, folder: str) -> None:
    """On a disk that is mounted read-only a new run is exit 5 before anything is read, for root too."""
    make_read_only(small_disk)
    display = At(0, die)
    message = told(MachineError, 5, lambda: start(runs_dir=small_disk / folder, display=display))
    assert "Read-only file system" in message
    assert "--runs-dir" in message
    assert not display.said


def test_fault_05_a_run_on_a_read_only_disk(stopped: hfpipe.Run, whole: Any, small_disk: Path, tmp_path: Path) -> None:
    """A run that lies on such a disk can't go on, exit 5 before anything is read; copied to another disk, it does."""
    run = hfpipe.Run(Path(shutil.copytree(stopped.path, small_disk / "one")))
    before = {path: path.read_bytes() for path in sorted(run.path.rglob("*")) if path.is_file()}
    make_read_only(small_disk)
    display = At(0, die)
    message = told(MachineError, 5, lambda: hfpipe.finetune(resume=run, display=display))
    assert message.startswith(f"{run.path}: can't be written: Read-only file system")
    assert not display.said
    assert {path: path.read_bytes() for path in sorted(run.path.rglob("*")) if path.is_file()} == before
    assert ending(hfpipe.finetune(resume=shutil.copytree(run.path, tmp_path / "copied"))) == whole


def test_fault_06_a_file_that_was_never_written(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that swallows its error and leaves a file out is found out before the checkpoint counts."""
    monkeypatch.setattr("hfpipe.training.checkpoint_state.save_file", lambda *arguments: None)
    message = told(MachineError, 5, start)
    assert "optimizer.safetensors was written without an error, and is not there" in message


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, two_epochs: Callable[..., dict[str, Any]]) -> tuple[Path, Any]:
    """A run that died after step 5, with checkpoints of steps 2 and 4, and the ending of the run that did not."""
    fields = two_epochs()
    options: dict[str, Any] = {"overrides": OFTEN, "engine": "loop", "runs_dir": tmp_path_factory.mktemp("template")}
    with pytest.raises(Killed):
        hfpipe.finetune(fields, name="one", display=At(5, die), **options)
    run = options["runs_dir"] / "one"
    assert [one.step for one in checkpoints.list_checkpoints(run)] == [2, 4]
    return run, ending(hfpipe.finetune(fields, name="whole", **options))


@pytest.fixture
def stopped(template: tuple[Path, Any], tmp_path: Path) -> hfpipe.Run:
    """A copy of that run."""
    return hfpipe.Run(Path(shutil.copytree(template[0], tmp_path / "runs" / "one")))


@pytest.fixture
def whole(template: tuple[Path, Any]) -> Any:
    """What it would have ended with."""
    return template[1]


@pytest.mark.parametrize("name", checkpoints.STATE_FILES)
def test_fault_07_a_missing_state(stopped: hfpipe.Run, name: str) -> None:
    """Without what optimizer, schedule or generators remember it is exit 4, unless that is asked for."""
    (stopped.path / checkpoints.name_of(4) / name).unlink()
    message = told(ModelError, 4, lambda: hfpipe.finetune(resume=stopped))
    assert f"{name} is missing" in message
    assert "--reset-optimizer" in message
    run = hfpipe.finetune(resume=stopped, reset_optimizer=True)
    assert run.metadata["resumed"][-1]["step"] == 4
    assert any("the optimizer begins afresh" in record.get("text", "") for record in run.records)
    rates = [record["lr"] for record in run.records if record["type"] == "step"]
    assert rates == pytest.approx([1e-3 * (12 - step) / 12 for step in range(12)])


def test_fault_08_a_flipped_bit(stopped: hfpipe.Run, whole: Any) -> None:
    """One bit in any file of the newest checkpoint is exit 4 with its name; the one before is taken when asked for."""
    folder = stopped.path / checkpoints.name_of(4)
    chance = random.Random(8)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        place = chance.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :])
        message = told(ModelError, 4, lambda: hfpipe.finetune(resume=stopped))
        assert path.name in message
        assert "--use-previous" in message
        path.write_bytes(content)
    os.truncate(folder / "model.safetensors", 1000)
    run = hfpipe.finetune(resume=stopped, use_previous=True)
    assert run.metadata["resumed"][0]["step"] == 2
    assert "model.safetensors" in run.metadata["resumed"][0]["skipped"][0]
    assert ending(run) == whole


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "random.json", "config.json"])
def test_fault_09_a_truncated_file(stopped: hfpipe.Run, name: str) -> None:
    """A file that was cut is named in one line."""
    os.truncate(stopped.path / checkpoints.name_of(4) / name, 20)
    message = told(ModelError, 4, lambda: hfpipe.finetune(resume=stopped))
    assert f"{name} has 20 bytes" in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_fault_10_weights_that_are_no_numbers(stopped: hfpipe.Run, value: float) -> None:
    """A NaN in the weights of a checkpoint that is otherwise whole is exit 6."""
    folder = stopped.path / checkpoints.name_of(4)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    resealed(folder)
    message = told(NumericError, 6, lambda: hfpipe.finetune(resume=stopped))
    assert "'classifier.weight' are not finite in step-00000004" in message


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_fault_11_weights_that_do_not_fit(stopped: hfpipe.Run, change: str) -> None:
    """A weight that is missing, too many or of another shape is exit 4, never a warning."""
    folder = stopped.path / checkpoints.name_of(4)
    weights = load_file(folder / "model.safetensors")
    bias = weights.pop("classifier.bias")
    if change != "missing":
        weights |= (
            {"classifier.bias": bias, "more": bias.clone()} if change == "unexpected" else {"classifier.bias": bias[:1]}
        )
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    resealed(folder)
    message = told(ModelError, 4, lambda: hfpipe.finetune(resume=stopped))
    assert ("more" if change == "unexpected" else "classifier.bias") in message


CHANGES = [
    *("optimizer.lr=0.002", "optimizer.weight_decay=0.1", "optimizer.name=sgd", "seed=7", "train.batch_size=4"),
    *(
        "train.accumulate=2",
        "train.epochs=3",
        "train.max_grad_norm=0.1",
        "schedule.name=constant",
        "loss.reduction=sum",
    ),
]


@pytest.mark.parametrize("change", CHANGES)
def test_fault_12_a_change_is_refused(stopped: hfpipe.Run, change: str) -> None:
    """Whatever changes the training is shown as a diff and refused with exit 2, with the words that would allow it."""
    before = (stopped.path / "run.json").read_bytes()
    key, _, value = change.partition("=")
    message = told(RecipeError, 2, lambda: hfpipe.finetune(resume=stopped, overrides=[change]))
    assert f"- {key}: " in message
    assert f"+ {key}: {value}" in message
    assert f"\nPass --allow-change {key} if" in message
    assert (stopped.path / "run.json").read_bytes() == before


def test_fault_12_an_edited_recipe_is_a_change(stopped: hfpipe.Run) -> None:
    """An edit of the run's own recipe.yaml is no way around."""
    recipe = (stopped.path / "recipe.yaml").read_text()
    stopped.write_text("recipe.yaml", recipe.replace("lr: 0.001", "lr: 0.01"))
    assert "+ optimizer.lr: 0.01" in told(RecipeError, 2, lambda: hfpipe.finetune(resume=stopped))


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_12_an_allowed_change_takes_effect(stopped: hfpipe.Run, engine: str) -> None:
    """Twice the learning rate is twice the learning rate, in the optimizer and its schedule, and is remembered."""
    changed = [
        "optimizer.lr=0.002",
        "optimizer.weight_decay=0.1",
        "checkpoints.keep_state=true",
    ]  # it is looked at below
    options: dict[str, Any] = {"overrides": changed, "engine": engine}
    run = hfpipe.finetune(resume=stopped, allow_change=["optimizer"], **options)
    steps = [record for record in run.records if record["type"] == "step"]
    expected = [(1e-3 if step < 4 else 2e-3) * (12 - step) / 12 for step in range(12)]
    assert [record["lr"] for record in steps] == pytest.approx(expected)
    assert run.recipe.optimizer.lr == 0.002
    groups = json.loads((run.path / checkpoints.name_of(12) / "optimizer.json").read_text())["groups"]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert run.metadata["resumed"][0]["changes"]["optimizer.lr"] == [0.001, 0.002]


def test_fault_12_a_change_that_was_allowed_once_stays_allowed(stopped: hfpipe.Run) -> None:
    """Killed after an allowed change and before the next save, the run still goes on unattended, with the change."""
    change = {"overrides": ["optimizer.lr=0.002"], "allow_change": ["optimizer.lr"]}
    with pytest.raises(Killed):
        hfpipe.finetune(resume=stopped, display=At(5, die), **change)
    run = hfpipe.finetune(resume=stopped)
    assert [record["lr"] for record in run.records if record["type"] == "step"][4] == pytest.approx(2e-3 * 8 / 12)


def test_fault_12_another_optimizer(stopped: hfpipe.Run) -> None:
    """An optimizer that was changed with permission begins afresh, and says so."""
    run = hfpipe.finetune(resume=stopped, overrides=["optimizer.name=sgd"], allow_change=["optimizer.name"])
    assert any("the optimizer begins afresh: it is another one" in record.get("text", "") for record in run.records)


def test_fault_13_other_data(
    stopped: hfpipe.Run, pairs_folder: Path, tmp_path: Path, pairs: dict[str, Any], data_folder: Any
) -> None:
    """The same path with a row less is exit 3 with both digests, and the run stays as it was."""
    folder = tmp_path / "pairs"
    data_folder(folder, {**pairs, "train": pairs["train"][:-1]})
    recipe = stopped.path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(pairs_folder), str(folder)))
    saved = stopped.path / checkpoints.name_of(4) / "checkpoint.json"
    saved.write_text(saved.read_text().replace(str(pairs_folder), str(folder)))
    resealed(saved.parent)
    before = (stopped.path / "run.json").read_bytes()
    message = told(DataError, 3, lambda: hfpipe.finetune(resume=stopped))
    assert "the data differs from what the run was trained with" in message
    assert "--allow-change dataset" in message
    assert (stopped.path / "run.json").read_bytes() == before
    assert hfpipe.finetune(resume=stopped, allow_change=["dataset"]).status == "finished"


def test_fault_13_data_of_another_length(
    stopped: hfpipe.Run, pairs_folder: Path, tmp_path: Path, pairs: dict[str, Any], data_folder: Any
) -> None:
    """Data that make another number of updates are exit 4 even where other data are allowed: the step has no place there."""
    folder = tmp_path / "pairs"
    data_folder(folder, {**pairs, "train": pairs["train"][:-5]})
    options = {"overrides": [f"dataset.path={folder}"], "allow_change": ["dataset"]}
    message = told(ModelError, 4, lambda: hfpipe.finetune(resume=stopped, **options))
    assert "step 4 has no place in another order: an epoch had 6 updates of 8 rows, and now it would have 5" in message
    options["overrides"].append("train.batch_size=16")
    options["allow_change"].append("train.batch_size")
    assert told(ModelError, 4, lambda: hfpipe.finetune(resume=stopped, **options)) == message


def test_fault_13_other_code(stopped: hfpipe.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of a library that computes is exit 2, unless it is allowed."""
    monkeypatch.setattr("hfpipe.training.resume.code", lambda: {"hfpipe": "x", "torch": "0.1"})
    message = told(RecipeError, 2, lambda: hfpipe.finetune(resume=stopped))
    assert "the code of hfpipe" in message
    assert hfpipe.finetune(resume=stopped, allow_change=["code"]).status == "finished"


def test_fault_14_another_cut_of_the_same_update(stopped: hfpipe.Run) -> None:
    """Half the micro-batch and twice the accumulation is the same order, and goes on; test_other_updates.py has others."""
    allowed = ["train.batch_size", "train.accumulate"]
    halved = ["train.batch_size=4", "train.accumulate=2"]
    run = hfpipe.finetune(resume=stopped, overrides=halved, allow_change=allowed)
    items = [record["num_items"] for record in run.records if record["type"] == "step"]
    assert items == [8, 8, 8, 8, 8, 4] * 2
    assert len(run.metadata["updates"]) == 1


def test_fault_14_other_workers(stopped: hfpipe.Run, whole: Any) -> None:
    """Another number of workers changes no order: it needs no permission, is recorded, and changes no bit."""
    run = hfpipe.finetune(resume=stopped, overrides=["train.workers=1"])
    assert run.metadata["resumed"][0]["changes"] == {"train.workers": [0, 1]}
    assert ending(run) == whole


def test_fault_15_a_finished_run(start: Start, hfpipe_command: Callable[..., Any]) -> None:
    """A finished run says so with exit 0, and no file of it changes."""
    run = start()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(run.path.rglob("*"))}
    display = At(0, die)
    assert hfpipe.finetune(resume=run, display=display).metrics == run.metrics
    assert "already complete" in display.said[0]
    outcome = hfpipe_command("finetune", "--resume", run.path, "--json")
    assert (outcome.code, outcome.json["status"]) == (0, "finished")
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(run.path.rglob("*"))} == before


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_15_a_finished_run_with_more_epochs(start: Start, engine: str) -> None:
    """More epochs are a change to allow; the rate that follows from it is told, and taken."""
    run = start("checkpoints.keep_state=true", engine=engine)
    longer = ["train.epochs=3"]
    assert "+ train.epochs: 3" in told(RecipeError, 2, lambda: hfpipe.finetune(resume=run, overrides=longer))
    run = hfpipe.finetune(resume=run, overrides=longer, allow_change=["train.epochs"])
    rates = [record["lr"] for record in run.records if record["type"] == "step"]
    assert rates == pytest.approx([1e-3 * (12 - s) / 12 if s < 12 else 1e-3 * (18 - s) / 18 for s in range(18)])
    (notice,) = [one["text"] for one in run.records if "the learning rate of step 13" in one.get("text", "")]
    assert "runs over 18 steps, where it ran over 12" in notice
    assert run.metrics["accuracy"] is not None


def test_fault_15_a_finished_run_without_its_state(start: Start) -> None:
    """It is trained further with a fresh optimizer where that is asked for; else it is said what was not kept."""
    run = start()
    folder = run.path / checkpoints.name_of(12)
    assert not {path.name for path in folder.iterdir()} & set(checkpoints.STATE_FILES)
    assert manifest.find_corruption(folder) is None
    longer: dict[str, Any] = {"overrides": ["train.epochs=3"], "allow_change": ["train.epochs"]}
    message = told(RecipeError, 2, lambda: hfpipe.finetune(resume=run, **longer))
    assert "remembered was removed when it was finished (checkpoints.keep_state is false)" in message
    assert "--reset-optimizer goes on with the weights and a fresh optimizer" in message
    assert run.status == "finished"
    run = hfpipe.finetune(resume=run, reset_optimizer=True, **longer)
    assert [record["step"] for record in run.records if record["type"] == "step"] == list(range(1, 19))


def test_fault_15_fewer_epochs_are_none(stopped: hfpipe.Run) -> None:
    """A run can't end before the step that it has reached."""
    options = {"overrides": ["train.max_steps=3"], "allow_change": ["train.max_steps"]}
    message = told(RecipeError, 2, lambda: hfpipe.finetune(resume=stopped, **options))
    assert "4 steps are trained already, and the recipe asks for 3" in message


def test_fault_16_a_run_id_is_taken(start: Start) -> None:
    """A second run of the same name is refused, and the first keeps its checkpoints."""
    run = start("train.epochs=1")
    before = steps_of(run)
    assert "is taken" in told(RecipeError, 2, start)
    assert steps_of(run) == before


def test_fault_17_two_processes_in_one_run(stopped: hfpipe.Run) -> None:
    """While one process holds the run the second is exit 5; when the first dies, the run is free."""
    read, write = os.pipe()

    def hold() -> None:
        with locked(stopped.path):
            os.write(write, b"x")
            time.sleep(60)

    def meanwhile(pid: int) -> None:
        os.read(read, 1)
        assert "another process trains in this run" in told(MachineError, 5, lambda: hfpipe.finetune(resume=stopped))
        os.kill(pid, signal.SIGKILL)

    assert in_a_child(hold, meanwhile) == -signal.SIGKILL
    assert hfpipe.finetune(resume=stopped).status == "finished"


def test_fault_18_a_moved_run_keeps_its_best(start: Start, tmp_path: Path) -> None:
    """A run that was moved goes on, and ends with the best weights of before the move."""
    overrides = ["evaluate.every=2", "optimizer.lr=0.05", "checkpoints.keep_last=1", "evaluate.best=loss"]
    whole = start(*overrides, name="whole")
    best = whole.read_json("metrics.json")["evaluated_step"]
    assert best < 10, "the best must lie before the death"
    run = start(*overrides, dies_at=11)
    moved = run.path.rename(tmp_path / "elsewhere")
    assert ending(hfpipe.finetune(resume=moved)) == ending(whole)


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_19_the_best_checkpoint_is_gone(start: Start, tmp_path: Path, engine: str) -> None:
    """Without its best checkpoint a run is exit 4 at its end, before and after a resumption; the last is no best."""
    overrides = ["evaluate.every=2", "optimizer.lr=0.05", "checkpoints.keep_last=1", "evaluate.best=loss"]
    runs = tmp_path / "runs"

    def lose() -> None:
        shutil.rmtree(next(iter(sorted((runs / "one" / "checkpoints").glob("step-*")))))

    message = told(ModelError, 4, lambda: start(*overrides, engine=engine, display=At(12, lose)))
    assert "the best checkpoint is gone" in message
    assert hfpipe.Run(runs / "one").status == "failed"
    assert not (runs / "one" / "model").exists()
    assert "the best checkpoint is gone" in told(ModelError, 4, lambda: hfpipe.finetune(resume=runs / "one"))


SIGNALS = [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_fault_23_a_signal_stops_at_the_next_step(
    start: Start, tmp_path: Path, number: int, code: int, engine: str
) -> None:
    """The step is finished and saved, the status is interrupted, and the resumed run is the whole one."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("this signal is ignored here, and stays so")
    kind = StoppedByUser if code == 130 else InterruptedRun
    send = At(5, lambda: os.kill(os.getpid(), number))
    message = told(kind, code, lambda: start("checkpoints.every_steps=null", engine=engine, display=send))
    run = hfpipe.Run(tmp_path / "runs" / "one")
    assert "step 5 of 12 is saved" in message
    assert f"hfpipe finetune --resume {run.path}" in message
    assert (run.status, steps_of(run)) == ("interrupted", [5])
    if number == signal.SIGTERM:
        resumed = hfpipe.finetune(resume=run)
        assert ending(resumed) == ending(start("checkpoints.every_steps=null", engine=engine, name="whole"))


def test_fault_23_signals_at_random_instants(start: Start, tmp_path: Path) -> None:
    """SIGTERM anywhere in a run, and the resumed run is the whole one; scripts/try_stops.py tries a hundred instants."""
    overrides = ["evaluate.every=3"]
    whole = start(*overrides, name="whole")
    seconds = (whole.path / "run.json").stat().st_mtime - (whole.path / "recipe.yaml").stat().st_mtime
    chance = random.Random(23)
    outcomes = set()
    for attempt in range(5):
        pause = chance.uniform(0.0, 1.2) * seconds

        def send(pid: int, pause: float = pause) -> None:
            time.sleep(pause)
            os.kill(pid, signal.SIGTERM)

        name = f"stopped-{attempt}"
        code = in_a_child(lambda name=name: start(*overrides, engine="trainer", name=name), send)
        run = hfpipe.Run(tmp_path / "runs" / name)
        outcomes.add(code)
        assert code in (0, 75, -signal.SIGTERM)
        if (run.path / "run.json").exists():
            assert run.status in ("finished", "interrupted")
            assert ending(hfpipe.finetune(resume=run)) == ending(whole)
    assert outcomes


def test_fault_23_a_signal_while_preparing(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step it stops at once, leaves no run behind, and says that there is nothing to resume."""

    def tokenize(*arguments: Any, **keywords: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr("hfpipe.parts.inputs.rows.tokenize", tokenize)
    message = told(InterruptedRun, 75, start)
    assert "while preparing, nothing was trained, and there is nothing to resume" in message
    assert not (tmp_path / "runs" / "one").exists()


def test_fault_23_a_signal_while_preparing_a_resumption(stopped: hfpipe.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that was to go on stays as it was."""
    before = (stopped.path / "run.json").read_bytes()
    monkeypatch.setattr(
        "hfpipe.parts.inputs.rows.tokenize", lambda *arguments, **keywords: os.kill(os.getpid(), signal.SIGTERM)
    )
    assert "the run is as it was" in told(InterruptedRun, 75, lambda: hfpipe.finetune(resume=stopped))
    assert (stopped.path / "run.json").read_bytes() == before
    assert steps_of(stopped) == [2, 4]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_fault_24_a_second_signal_stops_at_once(
    start: Start, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Asked twice it stops in the middle of a save; the checkpoint before stays, and nothing half stands there."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("this signal is ignored here, and stays so")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    original = manifest.write

    def twice(folder: Path) -> None:
        if "00000004" in folder.name:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        original(folder)

    monkeypatch.setattr(manifest, "write", twice)
    kind = StoppedByUser if code == 130 else InterruptedRun
    assert "at once" in told(kind, code, start)
    run = hfpipe.Run(tmp_path / "runs" / "one")
    assert run.status == "interrupted"
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    monkeypatch.setattr("hfpipe.reports.write_report", lambda run: None)
    assert ending(hfpipe.finetune(resume=run)) == whole


def test_signals_are_given_back(start: Start) -> None:
    """After a run the process answers signals as it did before."""
    before = [signal.getsignal(number) for number, _ in SIGNALS]
    start("train.max_steps=1")
    assert [signal.getsignal(number) for number, _ in SIGNALS] == before


def test_a_time_limit_stops_before_it_is_over(start: Start, tmp_path: Path) -> None:
    """--max-minutes ends like a signal, with exit 75 and a checkpoint, within the time."""
    began = time.monotonic()
    limit = 3.0
    slow = At(1, lambda: None)
    slow.record = lambda record: time.sleep(0.3) if record["type"] == "step" else None  # type: ignore[method-assign]
    message = told(InterruptedRun, 75, lambda: start("train.epochs=50", max_minutes=limit / 60, display=slow))
    assert "stopped by the time limit: step" in message
    assert time.monotonic() - began < limit + 0.5
    run = hfpipe.Run(tmp_path / "runs" / "one")
    assert run.status == "interrupted"
    assert steps_of(run)


def test_checkpoints_by_the_minute(start: Start) -> None:
    """With a rhythm of no time at all every step is saved; with a long one none is."""
    none = ["checkpoints.every_steps=null", "evaluate.best=null", "checkpoints.keep_last=99", "train.epochs=1"]
    assert steps_of(start(*none, "checkpoints.every_minutes=1e-9", name="often")) == [1, 2, 3, 4, 5, 6]
    assert steps_of(start(*none, "checkpoints.every_minutes=60", name="seldom")) == []


class Narrow:
    """A cross entropy for which memory is out above so many inputs, from a step on."""

    def __init__(self, most: int, after: int = 0) -> None:
        self.most, self.left = most, after

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The losses."""
        self.left -= torch.is_grad_enabled()
        if len(targets) > self.most and self.left < 0 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return cross_entropy(logits, targets)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[Narrow], None]:
    """Makes memory run out in training, not in the check before it."""

    def use(loss: Narrow) -> None:
        monkeypatch.setattr("hfpipe.training.scale_check.is_due", lambda job: False)
        monkeypatch.setattr("hfpipe.parts.optim.losses.cross_entropy", loss)

    return use


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_27_out_of_memory_is_told(start: Start, engine: str, narrow: Callable[[Narrow], None]) -> None:
    """The message names the step, the micro-batch and its length, and what to change; exit 5."""
    narrow(Narrow(4, after=3))
    message = told(MachineError, 5, lambda: start(engine=engine))
    assert "out of memory in step 4, in a micro-batch of 8 inputs of up to" in message
    assert "tokens" in message
    assert "Halve train.batch_size and double train.accumulate" in message
    by_tokens = "train.batching={by: tokens, tokens: 160}"
    message = told(MachineError, 5, lambda: start(by_tokens, engine=engine, name="by-tokens"))
    assert "Halve train.batching.tokens and double train.accumulate" in message


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("after", [0, 5])
def test_fault_27_memory_is_made_to_fit(
    start: Start, engine: str, after: int, narrow: Callable[[Narrow], None]
) -> None:
    """With fit_memory the micro-batch is halved until it fits, from untouched weights, and the run says so."""
    narrow(Narrow(2, after=after))
    run = start("train.fit_memory=true", engine=engine)
    assert (run.recipe.train.batch_size, run.recipe.train.accumulate) == (2, 4)
    assert [one["batch_size"] for one in run.metadata["fitted"]] == [4, 2]
    (notice, *_) = [one["text"] for one in run.records if "the same update" in one.get("text", "")]
    assert "out of memory in step" in notice
    steps = [record for record in run.records if record["type"] == "step"]
    assert [record["num_items"] for record in steps] == [8, 8, 8, 8, 8, 4] * 2
    if after == 0:  # from the initial weights: the run that had the smaller micro-batches all along
        smaller = start("train.batch_size=2", "train.accumulate=4", engine=engine, name="smaller")
        plain = [[one for one in each if one["type"] != "notice"] for each in (ending(run)[1], ending(smaller)[1])]
        assert plain[0] == plain[1]
        assert ending(run)[0] == ending(smaller)[0]
    else:  # from the checkpoint of step 4
        assert run.metadata["resumed"][0]["step"] == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_27_memory_is_made_to_fit_by_tokens(start: Start, engine: str, narrow: Callable[[Narrow], None]) -> None:
    """Where tokens are counted, those of a micro-batch are halved; the updates keep their rows."""
    by_tokens = "train.batching={by: tokens, tokens: 128, bucket: true}"
    whole = start(by_tokens, engine=engine, name="whole")
    narrow(Narrow(6))
    run = start(by_tokens, "train.fit_memory=true", engine=engine)
    assert run.recipe.train.batching.tokens < 128
    assert run.recipe.train.batching.tokens * run.recipe.train.accumulate == 128
    assert run.metadata["fitted"][-1]["tokens"] == run.recipe.train.batching.tokens
    items = [[record["num_items"] for record in one.records if record["type"] == "step"] for one in (whole, run)]
    assert items[0] == items[1]
    assert len(run.metadata["updates"]) == 1


def test_fault_27_nothing_smaller(start: Start, narrow: Callable[[Narrow], None]) -> None:
    """When a single input does not fit, that is the message."""
    narrow(Narrow(0))
    message = told(MachineError, 5, lambda: start("train.fit_memory=true", "train.batch_size=2"))
    assert "A micro-batch of one is too much" in message


class Bad:
    """A cross entropy that is not a number, or has no gradient that is one, at some calls."""

    def __init__(self, calls: list[int], gradient: bool = False) -> None:
        self.calls, self.gradient, self.made = calls, gradient, 0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The losses."""
        self.made += torch.is_grad_enabled()
        losses = cross_entropy(logits, targets)
        if self.made not in self.calls or not torch.is_grad_enabled():
            return losses
        if self.gradient:  # sqrt has an infinite slope at 0
            return losses + (logits.sum(dim=1) * 0).abs().sqrt()
        return losses * math.nan


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def test_fault_28_what_is_not_finite_stops(start: Start, tmp_path: Path, engine: str, gradient: bool) -> None:
    """A loss or a gradient that is no number is exit 6 with the step and its rows, before it reaches the weights."""
    message = told(NumericError, 6, lambda: start("evaluate.best=null", engine=engine, loss=Bad([5], gradient)))
    what = "the gradient is nan" if gradient else "is nan"
    assert f"{what} at step 5 (rows " in message
    rows = [int(row) for row in message.partition("(rows ")[2].partition(" of ")[0].split(", ")]
    from hfpipe.parts.inputs.buckets import shuffled

    assert rows == shuffled(44, 42, 0)[32:40].tolist()
    run = hfpipe.Run(tmp_path / "runs" / "one")
    assert run.status == "failed"
    assert len([record for record in run.records if record["type"] == "step"]) == 4
    assert steps_of(run) == [2, 4]


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def test_fault_28_some_are_left_out(start: Start, gradient: bool) -> None:
    """As many as are tolerated change no weight, are recorded with what was wrong, and are counted; in both engines alike."""
    endings = []
    for engine in ENGINES:
        overrides = ["train.tolerate_nonfinite=2", "optimizer={name: sgd, lr: 0.1, momentum: 0.9}"]
        run = start(*overrides, engine=engine, loss=Bad([5, 7], gradient), name=engine)
        left = {record["step"]: record["skipped"] for record in run.records if "skipped" in record}
        assert list(left) == [5, 7]
        assert all("nan" in what for what in left.values())
        assert run.metadata["skipped_steps"] == {"not_finite": 2, "by_scaler": 0}
        assert run.metadata["left_out"] == {"not_finite": 2, "scaled_away": 0}  # its name before
        endings.append(ending(run))
    assert endings[0][0] == endings[1][0]
    assert [one for one in endings[0][1] if one["type"] == "step"] == [
        one for one in endings[1][1] if one["type"] == "step"
    ]
    message = told(
        NumericError, 6, lambda: start("train.tolerate_nonfinite=1", loss=Bad([5, 7], gradient), name="more")
    )
    assert "at step 7" in message

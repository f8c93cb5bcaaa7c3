"""A run that was stopped goes on with another number of processes, each started by torchrun.

This file is also what torchrun starts: `test_other_processes.py FOLDER TASK...` does what the functions of those names say with
FOLDER/fields.json.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from stopped import Killed

ROOT = Path(__file__).parents[2]
ENGINES = ("trainer", "loop")
# 25 rows in updates of 8 make 4 an epoch, the last one of a single row, of which the second of two processes has none.
# The runs are stopped after step 6, in the middle of the second epoch, with 9 rows left of it.
STOP = 6
COMMON = ["checkpoints.every=never", "checkpoints.keep_best=false", "optimizer={name: sgd, lr: 0.05, momentum: 0.9}"]
ROWS = 8  # of an update, over all processes


def begin(folder: Path) -> None:
    """Train a whole run with each engine, and stop others by a signal."""
    import hfpipe
    from hfpipe.errors import InterruptedRun
    from hfpipe.system.display import Silent

    class Stopping(Silent):
        def record(self, record: Mapping[str, Any]) -> None:
            if record["type"] == "step" and record["step"] == STOP:
                os.kill(os.getpid(), signal.SIGTERM)

    processes = int(os.environ["WORLD_SIZE"])
    fields = json.loads((folder / "fields.json").read_text(encoding="utf-8"))
    recipe = hfpipe.load_recipe(fields, [*COMMON, f"train.batch_size={ROWS // processes}"])
    for engine in ENGINES:
        hfpipe.finetune(recipe, engine=engine, runs_dir=folder, name=f"{processes}-{engine}-whole")
        try:
            name = f"{processes}-{engine}-stopped"
            hfpipe.finetune(recipe, engine=engine, runs_dir=folder, name=name, display=Stopping())
        except InterruptedRun:
            continue
        raise AssertionError("it was not stopped")


def go_on(folder: Path) -> None:
    """Go on with the runs of the other number of processes: with the same updates, and with others."""
    import hfpipe
    from hfpipe.errors import ModelError
    from hfpipe.system.processes import join

    processes = int(os.environ["WORLD_SIZE"])
    before = 3 - processes
    for engine in ENGINES:
        stopped, other = folder / f"{before}-{engine}-stopped", folder / f"{before}-{engine}-other-updates"
        if os.environ["RANK"] == "0":
            shutil.copytree(stopped, other)
        join().wait_for_everyone()
        try:
            hfpipe.finetune(resume=other)
        except ModelError as error:
            (folder / f"{before}-{engine}-{os.environ['RANK']}.txt").write_text(str(error), encoding="utf-8")
        if engine == "trainer":
            _die_and_go_on(other)
        else:
            hfpipe.finetune(resume=other, allow_change=["processes"], engine="trainer")
        same = [f"train.batch_size={ROWS // processes}"]
        unlike = ENGINES[ENGINES.index(engine) - 1]
        hfpipe.finetune(resume=stopped, overrides=same, allow_change=["train.batch_size"], engine=unlike)


def _die_and_go_on(run: Path) -> None:
    """Die in the first step after the change was allowed, before anything is saved, and go on without saying it again.

    The function that died is found by no name, so that the engine is named.
    """
    import hfpipe

    def dying(job: Any, emit: Any) -> None:
        raise Killed

    try:
        hfpipe.finetune(resume=run, allow_change=["processes", "given"], engine=dying)
    except Killed:
        hfpipe.finetune(resume=run, engine="trainer")


TASKS = {"begin": begin, "go_on": go_on}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, pairs_folder: Path, tiny_checkpoint: Path) -> Path:
    """The folder with the runs, of one process and of two, and gone on with by two and by one."""
    folder = tmp_path_factory.mktemp("processes")
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    fields = {
        "dataset": {"path": str(pairs_folder), "splits": {"train": "train[:25]", "evaluation": "validation[:7]"}},
        "task": {"text": ["sentence1", "sentence2"]},
        "model": {"checkpoint": str(tiny_checkpoint), "config": no_dropout},
        "train": {"precision": "fp32", "epochs": 3},
    }
    (folder / "fields.json").write_text(json.dumps(fields), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")])),
        "CUDA_VISIBLE_DEVICES": "",
    }
    for processes, *tasks in ((2, "begin"), (1, "begin", "go_on"), (2, "go_on")):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        done = subprocess.run(
            [*command, __file__, str(folder), *tasks], env=environment, capture_output=True, text=True, timeout=150
        )
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_fault_14_another_number_of_processes(launched: Path, tiny_checkpoint: Path, before: int, engine: str) -> None:
    """With twice or half the batch size, updates are the same: weights within 1e-6 of the run that was not stopped.

    Each goes on with the engine that it was not begun with, and records what was changed.
    """
    from safetensors.torch import load_file

    from hfpipe.runs import Run

    after = 3 - before
    whole, run = Run(launched / f"{before}-{engine}-whole"), Run(launched / f"{before}-{engine}-stopped")
    assert (whole.status, run.status) == ("finished", "finished")
    assert (whole.metadata["processes"], run.metadata["processes"]) == (before, after)
    (resumed,) = run.metadata["resumed"]
    assert resumed["step"] == STOP
    engines, sizes = [engine, run.recipe.engine], [ROWS // before, ROWS // after]
    assert resumed["changes"] == {"engine": engines, "train.batch_size": sizes, "processes": [before, after]}
    assert engines[0] != engines[1]
    told = f"processes: {before} before, {after} now; the same updates, not the same last bits"
    assert told in [record.get("text") for record in run.records]

    steps = [[record for record in one.records if record["type"] == "step"] for one in (whole, run)]
    assert [record["num_items"] for record in steps[0]] == [8, 8, 8, 1] * 3
    for first, second in zip(*steps, strict=True):
        for key in ("step", "epoch", "num_items", "lr"):
            assert first[key] == second[key]
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-6)
    assert run.metrics == pytest.approx(whole.metrics, abs=1e-6)
    weights = [load_file(one.path / "model" / "model.safetensors") for one in (whole, run)]
    start = load_file(tiny_checkpoint / "model.safetensors")
    assert max(float((start[key] - weights[0][f"bert.{key}"]).abs().max()) for key in start) > 1e-3, "nothing trained"
    assert max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0]) < 1e-6


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_fault_14_processes_that_make_other_updates(launched: Path, before: int, engine: str) -> None:
    """Without more it is exit code 4 on every process, naming what keeps the update and what allows the other one.

    Allowed, the rows left of the epoch are trained on in updates of the new size, and it stays allowed after a death.
    """
    from hfpipe.runs import Run

    after = 3 - before
    rows = ROWS * after // before
    for rank in range(after):
        told = (launched / f"{before}-{engine}-{rank}.txt").read_text(encoding="utf-8")
        assert f"an update had 8 rows on {before} process" in told
        assert f"and would have {rows} rows on {after}." in told
        assert f"Keep them with train.batch_size={ROWS // after} --allow-change train.batch_size" in told
        assert f"or pass --allow-change processes to go on with updates of {rows} rows" in told
    rest = {4: [4, 4, 1], 16: [9]}[rows]
    whole = {4: [4] * 6 + [1], 16: [16, 9]}[rows]
    run = Run(launched / f"{before}-{engine}-other-updates")
    items = [record["num_items"] for record in run.records if record["type"] == "step"]
    assert items == [8, 8, 8, 1, 8, 8, *rest, *whole]
    assert len(run.metadata["resumed"]) == (2 if engine == "trainer" else 1)
    assert [one["changes"]["processes"] for one in run.metadata["resumed"]] == [[before, after]] * len(
        run.metadata["resumed"]
    )
    assert [(one["after"], one["rows"]) for one in run.metadata["updates"]] == [(0, 8), (6, rows)]


if __name__ == "__main__":
    import torch

    import hfpipe.reports

    torch.set_num_threads(1)
    hfpipe.reports.write_report = lambda run: None  # the figures take longer than these runs, and say nothing of them
    faulthandler.dump_traceback_later(140, exit=True)  # a process that waits for the other says where
    for task in sys.argv[2:]:
        TASKS[task](Path(sys.argv[1]))

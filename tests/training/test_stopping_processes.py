"""Two processes under torchrun: a signal to one of them stops both, with one checkpoint, and both go on from it.

This file is also what torchrun starts: `training/test_stopping_processes.py FOLDER` trains on FOLDER/fields.json.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ENGINES = ("trainer", "loop")
OVERRIDES = [
    *("train.batch_size=4", "evaluate.every=3"),
    *("checkpoints.every=never", "checkpoints.keep_best=false", "checkpoints.keep_state=true"),
]


def work(folder: Path) -> None:
    """As one of two processes: train a whole run, stop another by a signal to the second process, and resume it."""
    import torch

    import hfpipe
    from hfpipe.errors import InterruptedRun

    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(90, exit=True)  # a process that waits for the other says where
    recipe = hfpipe.load_recipe(json.loads((folder / "fields.json").read_text(encoding="utf-8")), OVERRIDES)
    for engine in ENGINES:
        hfpipe.finetune(recipe, engine=engine, runs_dir=folder, name=f"{engine}-whole")
        if os.environ["RANK"] == "1":
            threading.Thread(target=stop_at_step_2, args=(folder / f"{engine}-stopped" / "records.jsonl",)).start()
        try:
            hfpipe.finetune(recipe, engine=engine, runs_dir=folder, name=f"{engine}-stopped")
        except InterruptedRun as stop:
            (folder / f"{engine}-{os.environ['RANK']}.txt").write_text(str(stop))
        hfpipe.finetune(resume=folder / f"{engine}-stopped", engine=ENGINES[ENGINES.index(engine) - 1])


def stop_at_step_2(records: Path) -> None:
    """Send this process SIGTERM when the second step was recorded."""
    while not (records.is_file() and '"step": 2,' in records.read_text()):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, tiny_fields: Callable[..., dict[str, Any]]) -> Path:
    """The folder with the runs of two processes."""
    folder = tmp_path_factory.mktemp("stopping")
    fields = tiny_fields(train={"precision": "fp32", "epochs": 3})
    (folder / "fields.json").write_text(json.dumps(fields), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")])),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, __file__, str(folder)], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_25_one_of_two_processes_gets_a_signal(launched: Path, engine: str) -> None:
    """Both stop at the same step with one checkpoint, and the run that goes on ends as the one that never stopped."""
    from hfpipe.runs import Run, checkpoints

    told = [(launched / f"{engine}-{rank}.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1]
    assert told[0].startswith("stopped by SIGTERM: step ")
    whole, resumed = Run(launched / f"{engine}-whole"), Run(launched / f"{engine}-stopped")
    assert (whole.status, resumed.status) == ("finished", "finished")
    (saved,) = checkpoints.list_checkpoints(resumed.path)
    assert 2 <= saved.step == resumed.metadata["resumed"][0]["step"] < 18
    assert len(json.loads((saved.path / "random.json").read_text())) == 2
    weights = [(run.path / "model" / "model.safetensors").read_bytes() for run in (whole, resumed)]
    assert weights[0] == weights[1]
    kept = [[r for r in run.records if r["type"] == "step"] for run in (whole, resumed)]
    assert kept[0] == kept[1]


if __name__ == "__main__":
    work(Path(sys.argv[1]))

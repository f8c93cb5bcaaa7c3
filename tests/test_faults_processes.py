"""One of two processes dies: the other does not wait for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
LIMIT = 30.0  # seconds; it takes two, and gloo's own limit of half an hour is for a process that is alive and silent


def start(rank: int, port: int, recipe: Path, runs: Path, engine: str) -> subprocess.Popen[str]:
    """Start one of two processes as a launcher does, but one that looks after none of them."""
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "hfpipe.cli", "finetune", recipe, "--runs-dir", runs, "--name", "one"]
    return subprocess.Popen(
        [*map(str, command), "--engine", engine],
        env={**os.environ, **ranks, **meeting, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("engine", "dies"), [("loop", 1), ("trainer", 0)])
def test_fault_26_one_of_two_processes_dies(
    recipe_fields: dict[str, Any], tmp_path: Path, engine: str, dies: int
) -> None:
    """SIGKILL to either process: the other ends with exit 5, and says that it was left alone and what to do.

    torchrun itself ends with 1 whatever its processes end with.
    """
    fields = {**recipe_fields, "train": {**recipe_fields["train"], "epochs": 2000}}
    fields["evaluate"] = {"every": "never", "metrics": ["accuracy"]}
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps({**fields, "checkpoints": {"every": "never"}}), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(rank, port, recipe, tmp_path / "runs", engine) for rank in (0, 1)]
    victim, left = processes[dies], processes[1 - dies]
    try:
        records, deadline = tmp_path / "runs" / "one" / "records.jsonl", time.monotonic() + 120
        while not (records.is_file() and '"step": 2,' in records.read_text()):
            assert left.poll() is None, left.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
        _, told = left.communicate(timeout=LIMIT)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert left.returncode == 5, told
    assert "another process of this training is gone (" in told
    assert "--resume RUN" in told
    assert "Traceback" not in told

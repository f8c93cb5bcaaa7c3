"""One of two processes dies, or hangs: the other does not wait for it, or not for long."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hfpipe.errors import MachineError
from hfpipe.system.machine import translated_errors

ROOT = Path(__file__).parents[2]
LIMIT = 30.0  # seconds; it takes two


def start(rank: int, port: int, recipe: Path, runs: Path, engine: str, **environment: str) -> subprocess.Popen[str]:
    """Start one of two processes as a launcher does, but one that looks after none of them."""
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "hfpipe.cli.app", "finetune", recipe, "--runs-dir", runs, "--name", "one"]
    return subprocess.Popen(
        [*map(str, command), "--engine", engine],
        env={**os.environ, **ranks, **meeting, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def two(recipe_fields: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., list[subprocess.Popen[str]]]]:
    """Starts two processes of a long training and comes back when both have made two steps; none of them is left."""
    started: list[subprocess.Popen[str]] = []

    def train(engine: str, **environment: str) -> list[subprocess.Popen[str]]:
        fields = {**recipe_fields, "train": {**recipe_fields["train"], "epochs": 2000}}
        fields["evaluate"] = {"every": "never", "metrics": ["accuracy"]}
        recipe = tmp_path / "tiny.yaml"
        recipe.write_text(json.dumps({**fields, "checkpoints": {"every": "never"}}), encoding="utf-8")
        port = free_port()
        started.extend(start(rank, port, recipe, tmp_path / "runs", engine, **environment) for rank in (0, 1))
        records, deadline = tmp_path / "runs" / "one" / "records.jsonl", time.monotonic() + 120
        while not (records.is_file() and '"step": 2,' in records.read_text()):
            assert started[0].poll() is None, started[0].communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return started

    yield train
    for process in started:
        process.kill()
        process.communicate()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(("engine", "dies"), [("loop", 1), ("trainer", 0)])
def test_fault_26_one_of_two_processes_dies(
    two: Callable[..., list[subprocess.Popen[str]]], engine: str, dies: int
) -> None:
    """SIGKILL to either process: the other ends with exit 5, and says that it was left alone and what to do.

    torchrun itself ends with 1 whatever its processes end with.
    """
    processes = two(engine)
    victim, left = processes[dies], processes[1 - dies]
    victim.send_signal(signal.SIGKILL)
    _, told = left.communicate(timeout=LIMIT)
    assert left.returncode == 5, told
    assert "another process of this training is gone (" in told
    assert "--resume RUN" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("engine", "hangs"), [("loop", 0), ("trainer", 1)])
def test_fault_26_one_of_two_processes_hangs(
    two: Callable[..., list[subprocess.Popen[str]]], engine: str, hangs: int
) -> None:
    """A process that is stopped is waited for as long as `HFPIPE_WAIT_MINUTES` says: the other ends with exit 5."""
    processes = two(engine, HFPIPE_WAIT_MINUTES="0.2")
    stopped, left = processes[hangs], processes[1 - hangs]
    stopped.send_signal(signal.SIGSTOP)
    since = time.monotonic()
    _, told = left.communicate(timeout=12 + LIMIT)
    assert time.monotonic() - since > 10
    assert left.returncode == 5, told
    assert "another process of this training does not answer (" in told
    assert "HFPIPE_WAIT_MINUTES" in told
    assert "Traceback" not in told


def test_fault_26_one_of_two_processes_never_comes(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """Started alone of two, a process waits no longer, ends with exit 5 and leaves no run."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(recipe_fields), encoding="utf-8")
    alone = start(0, free_port(), recipe, tmp_path / "runs", "loop", HFPIPE_WAIT_MINUTES="0.03")
    try:
        _, told = alone.communicate(timeout=60)
    finally:
        alone.kill()
    assert alone.returncode == 5, told
    assert "another process of this training does not answer (" in told
    assert "Traceback" not in told
    assert not (tmp_path / "runs").exists()


def test_a_wait_that_is_no_time(
    hfpipe_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is no number of minutes is refused before anything waits."""
    monkeypatch.chdir(tmp_path)
    for said in ("", "soon", "0", "-1", "inf", "nan", "1e300"):
        monkeypatch.setenv("HFPIPE_WAIT_MINUTES", said)
        done = hfpipe_command("finetune", "quickstart", "train.max_steps=1")
        assert done.code == 2
        assert f"HFPIPE_WAIT_MINUTES: {said!r}; allowed: a number of minutes above 0" in done.err


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ("[/x/gloo/transport/tcp/pair.cc:1] Connection closed by peer", "is gone (Connection closed by peer)"),
        ("[/x/gloo/transport/tcp/unbound_buffer.cc:7] Timed out waiting 9ms for recv", "does not answer"),
        ("Application timeout caused pair closure", "does not answer (Application timeout caused pair closure)"),
    ],
)
def test_fault_26_whatever_gloo_says(told: str, what: str) -> None:
    """Each sentence that gloo has for a process that is gone or hangs is a fault of the machine, and no fault of hfpipe."""
    with pytest.raises(MachineError) as caught, translated_errors():
        raise RuntimeError(told)
    assert what in caught.value.what

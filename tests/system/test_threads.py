"""More threads than free cores are noticed, and their number is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfpipe.system import threads


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Four idle cores without a limit."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(4)))
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads.os, "getloadavg", lambda: (0.2, 0.0, 0.0))
    monkeypatch.setattr(threads, "_LIMIT", tmp_path / "cpu.max")
    return monkeypatch


def test_free_cores_need_no_notice(machine: pytest.MonkeyPatch) -> None:
    """As many threads as cores, one thread, and a number that somebody chose."""
    assert threads.busy_notice(4) is None
    machine.setattr(threads.os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    assert threads.busy_notice(1) is None
    machine.setenv("OMP_NUM_THREADS", "4")
    assert threads.busy_notice(4) is None


def test_busy_cores_are_noticed(machine: pytest.MonkeyPatch) -> None:
    """With the load, and the number of threads that would fit."""
    machine.setattr(threads.os, "getloadavg", lambda: (1.9, 0.0, 0.0))
    told = threads.busy_notice(4) or ""
    assert "4 threads, and about 2.1 of 4 cores are free (load 1.9)" in told
    assert "OMP_NUM_THREADS=2;" in told
    machine.setattr(threads.os, "getloadavg", lambda: (8.0, 0.0, 0.0))
    assert "about 0.0 of 4 cores are free" in (threads.busy_notice(4) or "")
    assert "OMP_NUM_THREADS=1;" in (threads.busy_notice(4) or "")


@pytest.mark.parametrize(("limit", "cores"), [("200000 100000", 2), ("50000 100000", 0.5), ("max 100000", 4), ("x", 4)])
def test_the_share_of_a_container_counts(machine: pytest.MonkeyPatch, limit: str, cores: float) -> None:
    """The machine's own cores are not those of the container."""
    threads._LIMIT.write_text(limit)
    assert threads.allowed_cores() == cores
    assert (threads.busy_notice(4) is None) == (cores == 4)

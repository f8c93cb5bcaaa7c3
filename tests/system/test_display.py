"""What a person is shown while a run trains."""

from __future__ import annotations

import io

import pytest

from hfpipe.system.display import Plain


def test_the_rate_is_of_the_steps_that_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on after step 100 and makes 2 steps in a second makes 2 a second, and not 102."""
    clock = [50.0]
    monkeypatch.setattr("hfpipe.system.display.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    display = Plain(stream, seconds=0)
    display.start(120)
    for step in (101, 102):
        clock[0] += 0.5
        display.record({"type": "step", "step": step, "loss": 1.0, "lr": 0.1})
    assert stream.getvalue().splitlines()[1:] == [
        "step 101/120  loss 1.0000  lr 1.00e-01  2.00 steps/s  10s left",
        "step 102/120  loss 1.0000  lr 1.00e-01  2.00 steps/s  9s left",
    ]

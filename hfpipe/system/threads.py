"""The threads of this process, and the cores that are free for them: too many threads wait for each other at every step."""

from __future__ import annotations

import math
import os
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of a container: "200000 100000" for two cores, or "max 100000"


def allowed_cores() -> float:
    """How many cores this process may use: those it is bound to, and no more than its container's share."""
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    try:
        quota, period = _LIMIT.read_text(encoding="ascii").split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or no limit
        return cores


def busy_notice(threads: int) -> str | None:
    """What to know where there are more threads than free cores, or None.

    The number of threads is not changed: it decides the last bits of every sum, and a run records it.

    Args:
        threads: that a computation is shared out to.
    """
    if threads < 2 or os.environ.get("OMP_NUM_THREADS"):
        return None
    allowed = allowed_cores()
    load = os.getloadavg()[0]
    free = max(0.0, min(allowed, (os.cpu_count() or 1) - load))
    if threads <= math.ceil(allowed) and free > threads - 1:
        return None
    what = f"about {free:.1f} of {allowed:g} cores are free (load {load:.1f})"
    if threads > math.ceil(allowed):
        what = f"this process may use {allowed:g} cores"
    fewer = max(1, int(min(free, allowed)))
    return (
        f"{threads} threads, and {what}: threads that wait for each other can make training many times slower. Where it is, "
        f"stop it, and start with OMP_NUM_THREADS={fewer}; another number of threads gives other last bits, so keep to it"
    )

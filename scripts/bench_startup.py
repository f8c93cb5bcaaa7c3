"""How long `hfpipe --help` takes beside `python -c "import typer"`: medians of interleaved pairs, and their ratio.

    .venv/bin/python scripts/bench_startup.py [--pairs 21]

The two alternate, so that a busy machine slows both; the ratio is what is comparable between machines. Bound: 3.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def machine() -> str:
    """The processor, the cores this process may use, the system and the Python."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or [platform.processor()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{models[0]}, {cores} cores, {platform.system()}, Python {platform.python_version()}"


def main() -> None:
    """Run the pairs and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=21, help="how often each of the two runs, 11 at least (21)")
    pairs = parser.parse_args().pairs
    if pairs < 11:
        parser.error(f"--pairs {pairs}: a median of fewer than 11 says little; allowed: 11 and more")

    hfpipe = Path(sysconfig.get_path("scripts")) / "hfpipe"
    if not hfpipe.exists():
        sys.exit(f"{hfpipe} is not there: run this with the Python of the environment, .venv/bin/python")
    commands = {"hfpipe --help": [str(hfpipe), "--help"], "import typer": [sys.executable, "-c", "import typer"]}
    for command in commands.values():
        seconds(command)  # the first run compiles and fills the file cache
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(pairs):
        for name, command in commands.items():
            times[name].append(seconds(command))

    print(f"machine: {machine()}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:<14} {median * 1000:7.1f} ms (median of {pairs}; {min(times[name]) * 1000:.1f} at best)")
    print(f"ratio          {medians['hfpipe --help'] / medians['import typer']:7.2f}")


if __name__ == "__main__":
    main()

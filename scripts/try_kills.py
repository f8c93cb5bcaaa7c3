"""Kill a run with SIGKILL at every file operation of a save, resume it, and compare with the run that was never killed.

python scripts/try_kills.py [--engine trainer|loop|both] [--every N] [--folder DIR]

Prints a table: after which operation, from which step it went on, whether the weights and records are the same.
A process is forked for each kill, so that the libraries are imported once. About 2 s a kill.
"""

from __future__ import annotations

import argparse
import builtins
import hashlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg")

import hfpipe
from hfpipe import reports as report
from hfpipe.runs import checkpoints

STEP = 8  # the save that is killed
OVERRIDES = (
    *("train.max_steps=12", "train.batch_size=4", "train.precision=fp32", "checkpoints.every=never"),
    *(
        "checkpoints.every_steps=4",
        "checkpoints.keep_last=1",
        "evaluate.every=never",
        "dataset.splits.train=train[:40]",
    ),
)
NAMES = ("open", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "close", "truncate")


def train(folder: Path, name: str, engine: str) -> hfpipe.Run:
    return hfpipe.finetune("quickstart", overrides=OVERRIDES, engine=engine, runs_dir=folder, name=name)


def ending(run: hfpipe.Run) -> tuple[str, list[dict[str, Any]]]:
    weights = hashlib.sha256((run.path / "model" / "model.safetensors").read_bytes()).hexdigest()
    records = [{key: value for key, value in one.items() if key != "seconds"} for one in run.records]
    return weights, [one for one in records if "resumed" not in one]


def watch(act: Callable[[int, str], None]) -> None:
    """Call `act` before every file operation of the save of STEP and of the rotation after it."""
    original, seen = checkpoints.commit, [0]

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            seen[0] += 1
            what = " ".join(Path(str(one)).name for one in arguments[:2] if isinstance(one, str | Path))
            act(seen[0], f"{name} {what}".strip())
            return function(*arguments, **keywords)

        return call

    def commit(target: Path, *arguments: Any, **keywords: Any) -> int:
        if target.name.endswith(f"{STEP:08d}"):
            for name in NAMES:
                setattr(os, name, counted(name, getattr(os, name)))
            builtins.open = counted("open", open)
        elif target.name.endswith(f"{STEP + 4:08d}"):
            os._exit(0)
        return original(target, *arguments, **keywords)

    checkpoints.commit = commit


def child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", choices=["trainer", "loop", "both"], default="both")
    parser.add_argument("--every", type=int, default=1, help="try every N-th operation only")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hfpipe-kills-"))
    report.write_report = lambda run: None
    failed, tried = 0, 0
    for engine in ("trainer", "loop") if options.engine == "both" else (options.engine,):
        whole = ending(train(folder, f"{engine}-whole", engine))
        operations = folder / f"{engine}-operations.txt"

        def count(engine: str = engine, operations: Path = operations) -> None:
            log = os.open(operations, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            watch(lambda number, what: os.write(log, f"{what}\n".encode()) and None)
            train(folder, f"{engine}-counted", engine)

        assert child(count) == 0
        names = operations.read_text().splitlines()
        print(f"\n{engine}: {len(names)} file operations in the save of step {STEP} and its rotation")
        print(f"{'killed before':<58} {'went on from':>12}  same")
        for number in range(1, len(names) + 1, options.every):
            name = f"{engine}-{number}"

            def kill(at: int, what: str, number: int = number) -> None:
                if at == number:
                    os.kill(os.getpid(), signal.SIGKILL)

            def work(kill: Any = kill, name: str = name, engine: str = engine) -> None:
                watch(kill)
                train(folder, name, engine)

            code = child(work)
            resumed = hfpipe.finetune(resume=folder / name)
            at = resumed.metadata["resumed"][0]["step"]
            same = code == -signal.SIGKILL and at in (STEP - 4, STEP) and ending(resumed) == whole
            tried, failed = tried + 1, failed + (not same)
            print(f"{f'{number}. {names[number - 1]}'[:58]:<58} {at:>12}  {'yes' if same else 'NO'}", flush=True)
    print(f"\n{tried} kills, {tried - failed} resumed to the same weights and records")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

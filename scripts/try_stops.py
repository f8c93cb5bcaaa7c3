"""Send a run SIGTERM at random instants, resume it, and compare with the run that was never stopped.

python scripts/try_stops.py [--instants N] [--seed N] [--signal TERM|USR1|HUP|INT] [--folder DIR]

A process is forked for each instant; half of them train with each engine. Prints what each was doing when the signal
came, its exit code and how long it took to stop, and whether the resumed run has the same weights and records.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg")

from try_kills import ending

import hfpipe
from hfpipe import reports as report
from hfpipe.errors import HfpipeError

OVERRIDES = (
    *("train.max_steps=12", "train.batch_size=4", "train.precision=fp32", "checkpoints.every_steps=3"),
    *("evaluate.every=4", "dataset.splits={train: 'train[:40]', evaluation: 'validation[:60]'}"),
)
PLACES = {  # the innermost of these functions that is running says what the process is doing
    "tokenize": "tokenizing", "_checkpoint": "saving", "measure": "evaluating", "_run_backward": "backward",
    "_engine_run_backward": "backward", "clip_grad_norm_": "backward", "step": "optimizer", "forward": "forward",
    "finish": "finishing", "prepare": "preparing", "read_rows": "preparing", "train": "between",
}  # fmt: skip


def train(folder: Path, name: str, engine: str) -> hfpipe.Run:
    return hfpipe.finetune("quickstart", overrides=OVERRIDES, engine=engine, runs_dir=folder, name=name)


def place(frame: Any) -> str:
    while frame is not None:
        if frame.f_code.co_name in PLACES and (
            "hfpipe" in frame.f_code.co_filename or "torch" in frame.f_code.co_filename
        ):
            return PLACES[frame.f_code.co_name]
        frame = frame.f_back
    return "elsewhere"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--instants", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=["TERM", "USR1", "HUP", "INT"], default="TERM")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hfpipe-stops-"))
    number = getattr(signal, f"SIG{options.signal}")
    expected = 130 if number == signal.SIGINT else 75
    report.write_report = lambda run: None
    signal.signal(number, signal.SIG_DFL)
    whole, seconds = {}, {}
    for engine in ("trainer", "loop"):
        train(folder, f"{engine}-warm", engine)
        began = time.monotonic()
        whole[engine] = ending(train(folder, f"{engine}-whole", engine))
        seconds[engine] = time.monotonic() - began
    chance, doing, wrong = random.Random(options.seed), Counter[str](), 0
    print(f"{'':>4} {'engine':<8} {'after':>7} {'while':<11} {'code':>5} {'stopped in':>10} {'went on from':>12}  same")
    for instant in range(options.instants):
        engine, name = ("trainer", "loop")[instant % 2], f"stopped-{instant}"
        pause = chance.uniform(0, 1.02) * seconds[engine]
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            from hfpipe.system.stops import StopRequests

            original, code = StopRequests._note, 1

            def note(self: StopRequests, number: int, frame: Any, original: Any = original, write: int = write) -> None:
                os.write(write, place(frame).encode())
                original(self, number, frame)

            StopRequests._note = note
            try:
                train(folder, name, engine)
                code = 0
            except HfpipeError as error:
                code = error.exit_code
            finally:
                os._exit(code)
        os.close(write)
        time.sleep(pause)
        os.kill(pid, number)
        sent = time.monotonic()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        took = time.monotonic() - sent
        where = os.read(read, 100).decode() or ("finished" if code == 0 else "before")
        os.close(read)
        doing[where] += 1
        run = hfpipe.Run(folder / name)
        if not (run.path / "run.json").exists():
            same, at = code in (expected, -number) and not run.path.exists(), "nothing there"
        else:
            resumed = hfpipe.finetune(resume=run)
            same = code in (0, expected) and ending(resumed) == whole[engine]
            at = str(resumed.metadata.get("resumed", [{}])[0].get("step", "finished"))
        wrong += not same
        print(
            f"{instant:>4} {engine:<8} {pause:>6.2f}s {where:<11} {code:>5} {took:>9.2f}s {at:>12}  {'yes' if same else 'NO'}",
            flush=True,
        )
    told = ", ".join(f"{count} {what}" for what, count in doing.most_common())
    print(f"\n{options.instants} instants ({told}): {options.instants - wrong} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

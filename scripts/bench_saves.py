"""What a checkpoint of hfpipe costs against a bare transformers.Trainer saving the same state.

    python scripts/bench_saves.py [--rounds N] [--minutes N] [--recipe RECIPE ...] [--json FILE]

Both save model, tokenizer, optimizer, schedule and random state of the same recipe after two steps, and remove the third
newest checkpoint; hfpipe also has the disk hold every file, hashes them, and reads them back. They take turns in one
process. Trainer leaves its files to the system's cache: the second row adds the time until the disk has them, and is
taken before hfpipe's turn, which would else wait for them too. Printed are the medians over the rounds, the ratio to
Trainer in the same round, the bytes of a checkpoint, and the share of its time that a run spends on a save a minute.

With --minutes the last recipe is also trained for so long with `checkpoints.every_minutes=1`, evaluating nothing, and the
share is what that run spent saving. Without --recipe: the embedded quickstart, and mrpc-minilm where its data and
checkpoint are in the Hugging Face cache.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from bench_engines import bare_trainer, finish

from hfpipe.errors import HfpipeError, InterruptedRun
from hfpipe.parts.build import is_greater_better
from hfpipe.recipe import load_recipe
from hfpipe.runs.checkpoints import STATE_FILES, list_checkpoints
from hfpipe.runs.store import Run
from hfpipe.system import library_logs
from hfpipe.system.stops import StopRequests
from hfpipe.training import resume
from hfpipe.training.engines import loop
from hfpipe.training.prepare import prepare
from hfpipe.training.recorder import Recorder

KEEP = 2
ROWS = ("bare Trainer", "bare Trainer and sync", "hfpipe")


def trained_by_hfpipe(
    recipe_name: str, folder: Path, overrides: list[str], stops: StopRequests | None = None
) -> Recorder:
    """Train with the loop engine, and give what saves it."""
    recipe = load_recipe(recipe_name, ["evaluate.every=never", "checkpoints.every=never", *overrides])
    job = prepare(recipe)
    _, needed = resume.bytes_of(job)
    recorder = Recorder(
        Run.create(recipe, folder),
        recipe,
        timeline=job.timeline,
        greater_is_better=is_greater_better(recipe),
        save=resume.saver(job),
        show=lambda record: None,
        about=resume.about(job, {}),
        required=("config.json", "model.safetensors", *STATE_FILES),
        needed=needed,
        stops=stops,
    )
    with contextlib.suppress(InterruptedRun):  # its time was over, as asked
        loop.train(job, recorder)
    return recorder


def trained_by_trainer(recipe_name: str, folder: Path) -> transformers.Trainer:
    """Train two steps as a user of Trainer would, who keeps as many checkpoints."""
    job = prepare(load_recipe(recipe_name, ["train.max_steps=2", "evaluate.every=never"]))
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=job.recipe.train.batch_size,
        save_strategy="no",
        save_total_limit=KEEP,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=job.device.type == "cuda",
    )
    stock = bare_trainer(job, arguments)
    stock.train()
    return stock


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sync(folder: Path) -> None:
    """Have the disk hold the files of a folder."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def save_in_turn(recipe_name: str, folder: Path, rounds: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of every save by row, and the bytes of the last one."""
    overrides = ["train.max_steps=2", "checkpoints.every_steps=1", f"checkpoints.keep_last={KEEP}"]
    recorder = trained_by_hfpipe(recipe_name, folder / "hfpipe", overrides)  # its two steps are saved: that warms up
    stock = trained_by_trainer(recipe_name, folder / "trainer")
    seconds: dict[str, list[float]] = {row: [] for row in ROWS}
    for round_ in range(-1, rounds):  # the first one is Trainer's warm-up
        step = stock.state.global_step = 4 + round_
        saved = timed(lambda: stock._save_checkpoint(stock.model, None))
        place = folder / "trainer" / f"checkpoint-{step}"
        synced = saved + timed(lambda place=place: sync(place))
        before = recorder.seconds_aside
        recorder({**(recorder.last_step or {}), "step": step})
        if round_ >= 0:
            for row, taken in zip(ROWS, (saved, synced, recorder.seconds_aside - before), strict=True):
                seconds[row].append(taken)
    own, theirs = list_checkpoints(recorder.run.path), sorted((folder / "trainer").glob("checkpoint-*"))
    assert len(own) == len(theirs) == KEEP
    sizes = [sum(path.stat().st_size for path in one.iterdir()) for one in (place, place, own[-1].path)]
    return seconds, dict(zip(ROWS, sizes, strict=True))


def train_for(recipe_name: str, folder: Path, minutes: float) -> dict[str, Any]:
    """What a run of so many minutes spends on a save a minute, the one that ends it among them."""
    overrides = ["train.epochs=1000", "checkpoints.every_minutes=1", f"checkpoints.keep_last={KEEP}"]
    with StopRequests(minutes) as stops:
        recorder = trained_by_hfpipe(recipe_name, folder, overrides, stops)
    seconds = recorder.training_seconds + recorder.seconds_aside
    return {
        "steps": recorder.saved_step,
        "seconds": seconds,
        "seconds_saving": recorder.seconds_aside,
        "share": recorder.seconds_aside / seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--recipe", action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, library_logs.library_logs_to(Path(scratch) / "log.txt"):
        for number, recipe in enumerate(options.recipe or ["quickstart", "mrpc-minilm"]):
            folder = Path(scratch) / str(number)
            try:
                seconds, sizes = save_in_turn(recipe, folder, options.rounds)
            except HfpipeError as error:
                print(f"{recipe}: left out: {error}")
                continue
            print(f"\n{recipe}: {options.rounds} rounds, {torch.get_num_threads()} threads")
            print(f"{'':<22} {'ms a save':>10} {'(min to max)':>18} {'ratio':>6} {'MB':>7} {'of a minute':>12}")
            results[recipe] = {}
            for row in ROWS:
                taken = seconds[row]
                ratio = statistics.median(a / b for a, b in zip(taken, seconds["bare Trainer"], strict=True))
                middle = statistics.median(taken)
                span = f"({1e3 * min(taken):.0f} to {1e3 * max(taken):.0f})"
                print(
                    f"{row:<22} {1e3 * middle:>10.1f} {span:>18} {ratio:>6.2f} {sizes[row] / 1e6:>7.1f} {middle / 60:>12.2%}"
                )
                results[recipe][row] = {"seconds": middle, "ratio": ratio, "bytes": sizes[row], "all": taken}
        if options.minutes and results:
            recipe = list(results)[-1]
            run = results[recipe]["run"] = train_for(recipe, Path(scratch) / "run", options.minutes)
            print(
                f"\n{recipe}, a run of {run['seconds']:.0f} s with a save a minute: {run['steps']} steps, "
                f"{run['seconds_saving']:.2f} s saving, {run['share']:.2%}"
            )
    finish(results, options.json)


if __name__ == "__main__":
    main()

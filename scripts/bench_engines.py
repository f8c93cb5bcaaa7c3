"""Training speed of hfpipe's two engines against a bare transformers.Trainer with the same settings.

    python scripts/bench_engines.py [--rounds N] [--steps N] [--recipe RECIPE ...] [--json FILE]

Every round trains the same steps with each of the three, in turn, in one process; what is compared is the time of the
call that trains, without loading, evaluating and saving. Printed are the medians over the rounds of examples per second
and of the ratio to the bare Trainer of the same round. Without --recipe: the embedded quickstart, and mrpc-minilm where
its data and checkpoint are in the Hugging Face cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers.trainer_callback import PrinterCallback

from hfpipe.errors import HfpipeError
from hfpipe.recipe import load_recipe
from hfpipe.system import library_logs
from hfpipe.system.snapshot import machine, versions
from hfpipe.training.engines import loop, trainer
from hfpipe.training.job import Job
from hfpipe.training.prepare import prepare


def bare(job: Job, folder: str) -> None:
    """What a user of Trainer would write for the same recipe."""
    recipe = job.recipe
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        seed=recipe.seed,
        max_steps=job.timeline.num_steps,
        per_device_train_batch_size=recipe.train.batch_size,
        gradient_accumulation_steps=recipe.train.accumulate,
        learning_rate=recipe.optimizer.lr,
        weight_decay=recipe.optimizer.weight_decay,
        warmup_steps=recipe.schedule.warmup,
        max_grad_norm=recipe.train.max_grad_norm,
        bf16=job.precision.name == "bf16",
        fp16=job.precision.name == "fp16",
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=job.device.type == "cuda",
    )
    bare_trainer(job, arguments).train()


def bare_trainer(job: Job, arguments: transformers.TrainingArguments, **others: Any) -> transformers.Trainer:
    """transformers' Trainer on the rows of a job, with nothing of hfpipe's in it; `others` take the place of its parts."""
    parts = {"train_dataset": job.train_data, "data_collator": job.collate, **others}
    stock = transformers.Trainer(model=job.model, args=arguments, processing_class=job.tokenizer, **parts)
    stock.remove_callback(PrinterCallback)
    return stock


def timed(recipe_name: str, steps: int, how: str) -> float:
    """Examples per second of one training."""
    overrides = [f"train.max_steps={steps}", "evaluate.every=never", "train.precision=fp32"]
    job = prepare(load_recipe(recipe_name, overrides))
    records: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        if how == "bare Trainer":
            bare(job, folder)
        elif how == "hfpipe trainer":
            trainer.train(job, records.append)
        else:
            loop.train(job, records.append)
        if job.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return steps * job.recipe.train.batch_size * job.recipe.train.accumulate / seconds


def finish(results: Any, path: Path | None) -> None:
    """Print what was measured on, and write the results down if they are wanted."""
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    print(f"\n{machine()['processor']}, {machine()['cores']} cores; {found}")
    if path:
        path.write_text(json.dumps({"machine": machine(), "versions": versions(), "results": results}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--recipe", action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    hows = ("bare Trainer", "hfpipe trainer", "hfpipe loop")
    results = {}
    with tempfile.TemporaryDirectory() as folder, library_logs.library_logs_to(Path(folder) / "log.txt"):
        for recipe in options.recipe or ["quickstart", "mrpc-minilm"]:
            try:
                timed(recipe, 2, "hfpipe loop")  # warm the caches
            except HfpipeError as error:
                print(f"{recipe}: left out: {error}")
                continue
            rates: dict[str, list[float]] = {how: [] for how in hows}
            for round_ in range(options.rounds):
                for how in hows[round_ % 3 :] + hows[: round_ % 3]:  # no one is always first
                    rates[how].append(timed(recipe, options.steps, how))
            print(
                f"\n{recipe}: {options.rounds} rounds of {options.steps} steps, fp32, {torch.get_num_threads()} threads"
            )
            print(f"{'':<16} {'examples/s':>10} {'against bare':>13}  (min to max)")
            results[recipe] = {}
            for how in hows:
                ratios = [ours / stock for ours, stock in zip(rates[how], rates["bare Trainer"], strict=True)]
                rate, ratio = statistics.median(rates[how]), statistics.median(ratios)
                print(f"{how:<16} {rate:>10.1f} {ratio:>13.3f}  ({min(ratios):.3f} to {max(ratios):.3f})")
                results[recipe][how] = {"examples_per_second": rate, "ratio": ratio, "ratios": ratios}
    finish(results, options.json)


if __name__ == "__main__":
    main()

"""Training and evaluating MRPC with hfpipe, with transformers' run_glue defaults, and with the best-configured Trainer.

    python scripts/bench_speed.py [--rounds N] [--rows N] [--threads N] [--json FILE]

Every round trains one epoch over the same rows and evaluates the validation split in each of four ways, in turn, in one
process; what is compared is the time of the call that trains, and of the call that evaluates. Printed are the medians of
examples per second and of the ratios within a round, and the share of the bf16 matmul peak measured in that round, counting
6 (training) or 2 (evaluating) operations for each weight of the encoder and each token that is no padding.

It needs MRPC and all-MiniLM-L6-v2 in the Hugging Face cache.
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
from bench_engines import bare_trainer

from hfpipe import chatter
from hfpipe.engines import loop, trainer
from hfpipe.evaluation import predict
from hfpipe.job import Job, prepare
from hfpipe.parts.tasks import lengths
from hfpipe.recipe import load_recipe
from hfpipe.runs.snapshot import machine, versions

BATCH = 32
WAYS = ("run_glue defaults", "best stock Trainer", "hfpipe trainer", "hfpipe loop")


def job_of(rows: int, *overrides: str) -> Job:
    """MRPC with MiniLM, one epoch over the first rows."""
    changes = [
        "train.epochs=1",
        f"train.batch_size={BATCH}",
        f"dataset.splits.train=train[:{rows}]",
        "evaluate.every=never",
    ]
    return prepare(load_recipe("mrpc-minilm", [*changes, *overrides]))


def stock(job: Job, folder: str, *, best: bool) -> transformers.Trainer:
    """A bare Trainer on the rows of a job, with run_glue's settings or with the best that TrainingArguments offer."""
    columns = [name for name in ("labels", *job.tokenizer.model_input_names) if name in job.train_data.column_names]
    train, test = job.train_data.select_columns(columns), job.evaluation_data.select_columns(columns)
    if not best:  # run_glue.py: pad_to_max_length, max_seq_length 128
        pad = {"padding": "max_length", "max_length": 128}
        train = train.map(lambda rows: job.tokenizer.pad(rows, **pad), batched=True, load_from_cache_file=False)
        test = test.map(lambda rows: job.tokenizer.pad(rows, **pad), batched=True, load_from_cache_file=False)
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64 if best else 8,
        learning_rate=job.recipe.optimizer.lr,
        use_cpu=job.device.type == "cpu",
        bf16=best,
        train_sampling_strategy="group_by_length" if best else "random",
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
    )
    collate = job.collate if best else transformers.default_data_collator
    return bare_trainer(job, arguments, train_dataset=train, eval_dataset=test, data_collator=collate)


def seconds_of(way: str, rows: int) -> tuple[float, float, Job]:
    """Seconds of training and of evaluating, and the job."""
    job = job_of(rows, *(["train.batching.bucket=true"] if way.startswith("hfpipe") else []))
    with tempfile.TemporaryDirectory() as folder:
        if way.startswith("hfpipe"):
            engine = trainer.train if way == "hfpipe trainer" else loop.train
            start = time.perf_counter()
            engine(job, lambda record: None)
            trained = time.perf_counter() - start
            size = job.recipe.evaluate.batch_size
            found = predict(
                job.model, job.task, job.evaluation_data, job.collate, batch_size=size, precision=job.precision,
                objective=job.objective,
            )  # fmt: skip
            return trained, found.seconds, job
        bare = stock(job, folder, best=way == "best stock Trainer")
        start = time.perf_counter()
        bare.train()
        trained = time.perf_counter() - start
        start = time.perf_counter()
        bare.evaluate()
        return trained, time.perf_counter() - start, job


def peak() -> float:
    """Operations per second of a bf16 matmul, the best of ten."""
    size = 2048
    left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def encoder_weights(model: Any) -> int:
    """Weights that every token passes through: all but the embeddings and the head."""
    return sum(part.numel() for name, part in model.named_parameters() if ".encoder." in name)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, dict[str, list[float]]] = {
        way: {"train": [], "evaluate": [], "share": [], "evaluate share": []} for way in WAYS
    }
    peaks = []
    with tempfile.TemporaryDirectory() as folder, chatter.into(Path(folder) / "log.txt"):
        seconds_of("hfpipe loop", 64)  # warm the caches
        for round_ in range(options.rounds):
            peaks.append(peak())
            for way in WAYS[round_ % 4 :] + WAYS[: round_ % 4]:  # no one is always first
                trained, evaluated, job = seconds_of(way, options.rows)
                operations = encoder_weights(job.model)
                tokens, test = int(lengths(job.train_data).sum()), int(lengths(job.evaluation_data).sum())
                found[way]["train"].append(len(job.train_data) / trained)
                found[way]["evaluate"].append(len(job.evaluation_data) / evaluated)
                found[way]["share"].append(6 * operations * tokens / trained / peaks[-1])
                found[way]["evaluate share"].append(2 * operations * test / evaluated / peaks[-1])
    print(f"{options.rounds} rounds of {options.rows} rows, batch {BATCH}, {options.threads} threads; bf16 matmul peak "
          f"{statistics.median(peaks) / 1e9:.0f} GFLOP/s ({min(peaks) / 1e9:.0f} to {max(peaks) / 1e9:.0f})\n")  # fmt: skip
    print("| | training examples/s | to run_glue | to best stock | share of peak | evaluation examples/s | to run_glue | "
          "to best stock | share of peak |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
    for way in WAYS:
        cells = []
        for what, share in (("train", "share"), ("evaluate", "evaluate share")):
            cells.append(f"{statistics.median(found[way][what]):.1f}")
            for other in WAYS[:2]:
                ratios = [own / theirs for own, theirs in zip(found[way][what], found[other][what], strict=True)]
                cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
            cells.append(f"{statistics.median(found[way][share]):.0%}")
        print(f"| {way} | {' | '.join(cells)} |")
    print(
        f"\n{machine()['processor']}, {machine()['cores']} cores; "
        + ", ".join(f"{k} {v}" for k, v in versions().items())
    )
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine(), "versions": versions(), "peaks": peaks, "results": found}, indent=1)
        )


if __name__ == "__main__":
    main()

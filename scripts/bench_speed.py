"""Training and evaluating MRPC with hfpipe, with transformers' run_glue defaults, and with the best-configured Trainer.

    python scripts/bench_speed.py [--rounds N] [--rows N] [--threads N] [--levers | --compile | --profile] [--json FILE]

Every round trains one epoch over the same rows and evaluates the validation split in each way, in turn, in one process; what
is compared is the time of the call that trains, and of the call that evaluates. Printed are the medians of examples per
second and of the ratios within a round, and the share of the bf16 matmul peak measured in that round, counting 6 (training)
or 2 (evaluating) operations for each weight of the encoder and each token that is no padding.

With `--levers` the ways are what hfpipe does for speed, one by one, and what is compared with is hfpipe without any of it.
`--compile` compares a compiled model with one that is not, by the second half of the steps and a second evaluation; what
was spent before them is printed too.
`--profile` prints instead where the time goes, by kind of operation, with torch's kernels and with hfpipe's own.

It needs MRPC and all-MiniLM-L6-v2 in the Hugging Face cache.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from bench_engines import bare_trainer, finish
from bench_gpu import matmul_peak

from hfpipe.evaluation.inference import predict
from hfpipe.parts.model import kernels
from hfpipe.parts.tasks import lengths
from hfpipe.recipe import load_recipe
from hfpipe.system import library_logs
from hfpipe.training.engines import loop, trainer
from hfpipe.training.job import Job
from hfpipe.training.prepare import prepare

BATCH = 32
FASTEST = ("train.batching.bucket=true", "train.kernels=fast")
PLAIN = "fp32, as the rows come"
Way = tuple[Any, tuple[str, ...]]  # an engine, and changes of the recipe
PEERS: dict[str, Way | None] = {
    "run_glue defaults": None,
    "best stock Trainer": None,
    "hfpipe trainer": (trainer.train, FASTEST),
    "hfpipe loop": (loop.train, FASTEST),
}
LEVERS: dict[str, Way | None] = {
    PLAIN: (loop.train, ("train.precision=fp32",)),
    "precision: bf16": (loop.train, ("train.precision=bf16",)),
    "batching.bucket": (loop.train, ("train.precision=fp32", "train.batching.bucket=true")),
    "kernels: fast": (loop.train, ("train.precision=fp32", "train.kernels=fast")),
    "bf16, bucket": (loop.train, ("train.precision=bf16", "train.batching.bucket=true")),
    "bf16, bucket, fast": (loop.train, ("train.precision=bf16", *FASTEST)),
    "bf16, by tokens, fast": (
        loop.train,
        ("train.precision=bf16", "train.kernels=fast", "train.batching={by: tokens, bucket: true}"),
    ),
}
BITS = "bits"
COMPILED: dict[str, Way | None] = {
    "bf16, bucket": (loop.train, ("train.precision=bf16", "train.batching.bucket=true")),
    "bf16, bucket, compile": (loop.train, ("train.precision=bf16", "train.batching.bucket=true", "train.compile=true")),
}
KINDS = {
    "matrix products of the layers": ("aten::mm", "aten::addmm"),
    "attention: products": ("aten::bmm", "aten::baddbmm"),
    "attention: softmax": (
        "aten::_softmax",
        "aten::_softmax_backward_data",
        "aten::all",
        "aten::where",
        "aten::isneginf",
    ),
    "attention: fused": ("aten::_scaled_dot_product_flash_attention_for_cpu",),
    "casts and copies": ("aten::copy_",),
    "zeros, of the gradient of the embeddings": ("aten::fill_", "aten::zero_"),
    "optimizer and clipping": ("aten::_fused_adamw_", "aten::linalg_vector_norm"),
    "gelu": ("aten::gelu", "aten::gelu_backward"),
    "layer norm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "dropout: random numbers": (BITS, "aten::bernoulli_"),
    "dropout: masks": ("aten::ge", "aten::div_"),
    "sums and products": ("aten::mul", "aten::mul_", "aten::add", "aten::add_", "aten::sum"),
    "batches": ("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__",),
}


def job_of(rows: int, *overrides: str) -> Job:
    """MRPC with MiniLM, one epoch over the first rows."""
    changes = [
        "train.epochs=1",
        f"train.batch_size={BATCH}",
        f"evaluate.batch_size={BATCH}",
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


def seconds_of(name: str, way: Way | None, rows: int, *, warm: bool) -> tuple[float, float, float, Job]:
    """Seconds of training and of evaluating, and the job; warm: by the second half of the steps, and what was before them."""
    if way is not None:
        engine, overrides = way
        job = job_of(rows, *overrides)
        if not warm:
            return seconds(lambda: engine(job, ignore)), evaluated(job), 0.0, job
        stamps: list[float] = []
        whole = seconds(lambda: engine(job, lambda record: stamps.append(time.perf_counter())))
        first, middle, last = 0, len(stamps) // 2, len(stamps) - 1
        trained = (stamps[last] - stamps[middle]) * (last - first) / (last - middle)
        begun = evaluated(job)
        measured = evaluated(job)
        return trained, measured, max(0.0, whole - trained) + max(0.0, begun - measured), job
    job = job_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        bare = stock(job, folder, best=name == "best stock Trainer")
        return seconds(bare.train), seconds(bare.evaluate), 0.0, job


def seconds(call: Any) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ignore(record: dict[str, Any]) -> None:
    """Leave a record of an engine where it is."""


def evaluated(job: Job) -> float:
    """Seconds of evaluating."""
    return predict(
        job.model,
        job.task,
        job.evaluation_data,
        job.collate,
        batch_size=job.recipe.evaluate.batch_size,
        precision=job.precision,
        objective=job.objective,
    ).seconds


def profile(rows: int) -> dict[str, list[str]]:
    """Print where the time goes, with torch's kernels and with hfpipe's own."""
    drawn = kernels.dropout_factors

    def seen(*given: Any) -> torch.Tensor:  # by the profiler, which knows nothing of numpy
        with torch.profiler.record_function(BITS):
            return drawn(*given)

    kernels.dropout_factors = seen
    heads, columns = [], []
    for kind in ("torch", "fast"):
        settings = ("train.batching.bucket=true", f"train.kernels={kind}")
        loop.train(job_of(64, *settings), ignore)  # what happens once
        job = job_of(rows, *settings)
        for what, call in (
            ("training", functools.partial(loop.train, job, ignore)),
            ("evaluating", functools.partial(evaluated, job)),
        ):
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
                took = seconds(call)
            spent = {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}
            parts = [sum(spent.get(name, 0.0) for name in names) for names in KINDS.values()]
            heads.append(f"{what}, {kind} kernels: share of {took:.1f} s")
            columns.append([f"{part / took:.1%}" for part in (*parts, max(0.0, took - sum(parts)))])
    print(f"{rows} rows trained on, {len(job.evaluation_data)} evaluated; batch {BATCH}, bf16, bucket\n")
    print(f"| | {' | '.join(heads)} |\n| --- |{' --- |' * len(heads)}")
    for name, cells in zip((*KINDS, "everything else"), zip(*columns, strict=True), strict=True):
        print(f"| {name} | {' | '.join(cells)} |")
    return dict(zip(heads, columns, strict=True))


def encoder_weights(model: Any) -> int:
    """Weights that every token passes through: all but the embeddings and the head."""
    return sum(part.numel() for name, part in model.named_parameters() if ".encoder." in name)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--levers", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder, library_logs.library_logs_to(Path(folder) / "log.txt"):
        loop.train(job_of(64, *FASTEST), ignore)  # warm the caches
        if options.profile:
            results = profile(options.rows)
        else:
            results = compare(COMPILED if options.compile else LEVERS if options.levers else PEERS, options)
    finish(results, options.json)


def compare(ways: dict[str, Way | None], options: argparse.Namespace) -> dict[str, Any]:
    """Measure all ways in every round, and print the table."""
    names = list(ways)
    others = names[:2] if ways is PEERS else names[:1]
    found: dict[str, dict[str, list[float]]] = {
        name: {"train": [], "evaluate": [], "train share": [], "evaluate share": [], "before": []} for name in names
    }
    peaks = []
    for round_ in range(options.rounds):
        peaks.append(matmul_peak(torch.device("cpu"), 2048))
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:  # no one is always first
            trained, measured, before, job = seconds_of(name, ways[name], options.rows, warm=options.compile)
            operations = encoder_weights(job.model)
            tokens, test = int(lengths(job.train_data).sum()), int(lengths(job.evaluation_data).sum())
            found[name]["train"].append(len(job.train_data) / trained)
            found[name]["evaluate"].append(len(job.evaluation_data) / measured)
            found[name]["train share"].append(6 * operations * tokens / trained / peaks[-1])
            found[name]["evaluate share"].append(2 * operations * test / measured / peaks[-1])
            found[name]["before"].append(before)
    median = statistics.median
    print(f"{options.rounds} rounds of {options.rows} rows, batch {BATCH}, {options.threads} threads; bf16 matmul peak "
          f"{median(peaks) / 1e9:.0f} GFLOP/s ({min(peaks) / 1e9:.0f} to {max(peaks) / 1e9:.0f})\n")  # fmt: skip
    head = [cell for what in ("training", "evaluation")
            for cell in (f"{what} examples/s", *(f"to {other}" for other in others), "share of peak")]  # fmt: skip
    print(f"| | {' | '.join(head)} |\n| --- |{' --- |' * len(head)}")
    for name in names:
        cells = []
        for what in ("train", "evaluate"):
            cells.append(f"{median(found[name][what]):.1f}")
            for other in others:
                ratios = [own / theirs for own, theirs in zip(found[name][what], found[other][what], strict=True)]
                cells.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
            cells.append(f"{median(found[name][f'{what} share']):.0%}")
        print(f"| {name} | {' | '.join(cells)} |")
    for name in names:
        if any(found[name]["before"]):
            print(f"\n{name}: {median(found[name]['before']):.0f} s before")
    return {"peaks": peaks, "ways": found}


if __name__ == "__main__":
    main()

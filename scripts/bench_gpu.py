"""Training and evaluating on a GPU: run_glue's defaults and the best-configured stock Trainer against hfpipe's engines.

    python scripts/bench_gpu.py [--rounds N] [--shapes base,large] [--lengths mrpc,512] [--rows N] [--batch N]
                                [--hfpipe KEY=VALUE ...] [--output benchmarks/gpu] [--tiny] [--device cpu]

BERT in the shapes of base and large, with random weights made here; rows of words of the embedded grammar, as long as MRPC's
(mean 53 tokens, 128 at most) or all of 512 tokens; so nothing is downloaded. In every round each way trains one epoch of
the same rows and then predicts the evaluation rows, in turn, and the bf16 matmul peak is measured beside it. Printed are
medians over the rounds: examples and non-padding tokens a second, the share of the matmul peak (6 operations for each
token and weight of the encoder in training, 2 in evaluation; attention itself and the embeddings count for nothing), peak
memory, and the ratios to the two stock ways of the same round. hfpipe puts rows of similar length together
(train.batching.bucket); --hfpipe gives further overrides of its recipe.
Goals: 6 to 1 against run_glue's defaults, 1.3 to 1 against the best stock Trainer, 50 % of the peak for base at MRPC's lengths.
Without CUDA it says so and ends well; `--tiny --device cpu` tries the script itself, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import numpy as np
import torch
import transformers
from transformers.trainer_callback import PrinterCallback

from hfpipe.recipe import load_recipe
from hfpipe.system import embedded, library_logs
from hfpipe.system.embedded.paraphrases import paraphrase_stream
from hfpipe.system.snapshot import machine, versions
from hfpipe.training.engines import loop, trainer
from hfpipe.training.job import predict_split
from hfpipe.training.prepare import prepare

SHAPES = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
}
LENGTHS = {"mrpc": 128, "512": 512}  # the longest row, in tokens
STOCK, BEST = "run_glue defaults", "best stock Trainer"
OURS = {"hfpipe trainer": trainer.train, "hfpipe loop": loop.train}
_PER_WEIGHT = {"train": 6, "evaluate": 2}  # operations for each token


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every way is given."""

    checkpoint: Path
    train: datasets.Dataset
    evaluation: datasets.Dataset
    max_length: int
    batch: int
    overrides: tuple[str, ...]
    device: torch.device
    bf16: bool


@dataclasses.dataclass
class Run:
    """What one way took in one round: seconds, and peak memory in MB where the device says it."""

    train: float
    evaluate: float
    memory: float | None


def make_checkpoint(folder: Path, shape: str, positions: int) -> int:
    """Write a BERT with random weights and the embedded tokenizer; return the weights of its encoder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded.checkpoint_folder("tiny-bert"))
    tokenizer.model_max_length = positions
    torch.manual_seed(0)
    config = transformers.BertConfig(**SHAPES[shape], max_position_embeddings=positions, pad_token_id=0)
    model = transformers.BertModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.encoder.parameters())


def make_rows(count: int, lengths: str, seed: int) -> datasets.Dataset:
    """Pairs of texts whose tokens, the three special ones included, are as many as MRPC's or all that fit."""
    generator = np.random.default_rng(seed)
    if lengths == "mrpc":
        tokens = np.clip(np.round(generator.normal(53.2, 14.0, count)), 12, LENGTHS["mrpc"]).astype(int)
    else:
        tokens = np.full(count, LENGTHS[lengths])
    words = (
        word for pair in paraphrase_stream(seed + 1, without=frozenset()) for word in pair[0].strip(".").lower().split()
    )
    pairs = []
    for total in tokens - 3:  # [CLS], [SEP], [SEP]; every word of the grammar is one token
        texts = [" ".join(islice(words, int(part))) for part in (total // 2, total - total // 2)]
        pairs.append(texts)
    columns = {"sentence1": [one for one, _ in pairs], "sentence2": [other for _, other in pairs]}
    features = datasets.Features(
        {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"), "label": datasets.ClassLabel(2)}
    )
    return datasets.Dataset.from_dict({**columns, "label": [row % 2 for row in range(count)]}, features=features)


def measured(setting: Setting, training: Callable[[], None], predicting: Callable[[], None]) -> Run:
    """The times of both calls, with everything on the device done."""
    on_gpu = setting.device.type == "cuda"
    seconds = []
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for call in (training, predicting):
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return Run(*seconds, torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None)


def stock(setting: Setting, folder: str, *, best: bool) -> Run:
    """A bare Trainer: as run_glue.py is by default, or with everything that transformers offers for speed switched on."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(setting.checkpoint)
    padding: Any = False if best else "max_length"

    def encode(batch: dict[str, list[str]]) -> Any:
        texts = (batch["sentence1"], batch["sentence2"])
        return tokenizer(*texts, truncation=True, max_length=setting.max_length, padding=padding)

    columns = ["sentence1", "sentence2"]
    train, evaluation = (
        rows.map(encode, batched=True, remove_columns=columns) for rows in (setting.train, setting.evaluation)
    )
    on_gpu = setting.device.type == "cuda"
    options: dict[str, Any] = {"per_device_eval_batch_size": 8}
    if best:
        options = {"per_device_eval_batch_size": 64, "bf16": setting.bf16, "tf32": True if on_gpu else None}
        fields = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
        grouped = "train_sampling_strategy" in fields
        options |= {"train_sampling_strategy": "group_by_length"} if grouped else {"group_by_length": True}
    transformers.set_seed(42)
    stock_trainer = transformers.Trainer(
        model=transformers.AutoModelForSequenceClassification.from_pretrained(setting.checkpoint, num_labels=2),
        args=transformers.TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=setting.batch,
            learning_rate=2e-5,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not on_gpu,
            dataloader_pin_memory=on_gpu,
            **options,
        ),
        train_dataset=train,
        data_collator=transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
        if best
        else transformers.default_data_collator,
        processing_class=tokenizer,
    )
    stock_trainer.remove_callback(PrinterCallback)
    if best:  # its predictions come in the order of the lengths, which matters to nobody here
        return _without_tf32_afterwards(
            lambda: measured(setting, stock_trainer.train, lambda: stock_trainer.predict(evaluation))
        )
    return measured(setting, stock_trainer.train, lambda: stock_trainer.predict(evaluation))


def _without_tf32_afterwards(call: Callable[[], Run]) -> Run:
    """TrainingArguments switches TF32 on for the whole process; the next way decides for itself."""
    try:
        return call()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = True  # torch's default


def ours(setting: Setting, engine: Callable[..., None]) -> Run:
    """An engine of hfpipe."""
    fields = {
        "name": "bench",
        "dataset": {"path": "given"},
        "task": {"text": ["sentence1", "sentence2"]},
        "model": {"checkpoint": str(setting.checkpoint), "max_length": setting.max_length},
        "train": {
            "epochs": 1,
            "batch_size": setting.batch,
            "precision": "bf16" if setting.bf16 else "fp32",
            "batching": {"bucket": True},
        },
        "evaluate": {"every": "never", "batch_size": 64},
        "checkpoints": {"every": "never"},
    }
    recipe = load_recipe(fields, setting.overrides)
    job = prepare(recipe, dataset={"train": setting.train, "validation": setting.evaluation})
    assert job.evaluation_data is not None
    encoded = job.evaluation_data
    return measured(setting, lambda: engine(job, lambda record: None), lambda: predict_split(job, encoded) and None)


def matmul_peak(device: torch.device, size: int, repeats: int = 10) -> float:
    """The best bf16 matrix product of two square matrices of random numbers, in FLOP/s."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def tokens_in(rows: datasets.Dataset, setting: Setting) -> int:
    """The tokens of rows that are no padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(setting.checkpoint)
    ids = tokenizer(rows["sentence1"][:], rows["sentence2"][:], truncation=True, max_length=setting.max_length)[
        "input_ids"
    ]
    return sum(map(len, ids))


def compared(setting: Setting, weights: int, rounds: int, peak_size: int) -> dict[str, Any]:
    """All ways, in turn, round after round."""
    ways: dict[str, Callable[[str], Run]] = {
        STOCK: lambda folder: stock(setting, folder, best=False),
        BEST: lambda folder: stock(setting, folder, best=True),
        **{name: lambda folder, engine=engine: ours(setting, engine) for name, engine in OURS.items()},
    }
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    peaks = []
    names = list(ways)
    for round_ in range(rounds + 1):
        if round_:
            peaks.append(matmul_peak(setting.device, peak_size))
        for way in names[round_ % len(names) :] + names[: round_ % len(names)]:  # no one is always first
            with tempfile.TemporaryDirectory() as folder:
                run = ways[way](folder)
            if round_:  # the first round warms up: kernels, caches, files
                runs[way].append(run)
    peak = statistics.median(peaks)
    found: dict[str, Any] = {"peak_flops": peak, "ways": {}}
    for way, own in runs.items():
        told: dict[str, Any] = {}
        for phase, rows in (("train", setting.train), ("evaluate", setting.evaluation)):
            tokens, seconds = tokens_in(rows, setting), statistics.median(getattr(run, phase) for run in own)
            told[phase] = {
                "examples_per_second": len(rows) / seconds,
                "tokens_per_second": tokens / seconds,
                "share_of_peak": _PER_WEIGHT[phase] * weights * tokens / seconds / peak,
            }
            for other in (STOCK, BEST):
                ratios = [getattr(b, phase) / getattr(a, phase) for a, b in zip(own, runs[other], strict=True)]
                told[phase][f"against {other}"] = {"median": statistics.median(ratios), "ratios": ratios}
        memory = [run.memory for run in own if run.memory is not None]
        told["memory_mb"] = statistics.median(memory) if memory else None
        found["ways"][way] = told
    return found


def table(title: str, found: dict[str, Any]) -> str:
    """The figures of one shape and length, in Markdown."""
    lines = [f"### {title}; bf16 matmul peak {found['peak_flops'] / 1e12:,.2f} TFLOP/s", ""]
    for phase, called in (("train", "training"), ("evaluate", "evaluation")):
        lines.append(
            f"| {called} | examples/s | tokens/s | of the peak | memory MB | against defaults | against best stock |"
        )
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for way, told in found["ways"].items():
            one, memory = told[phase], told["memory_mb"]
            lines.append(
                f"| {way} | {one['examples_per_second']:,.1f} | {one['tokens_per_second']:,.0f} | "
                f"{one['share_of_peak']:.1%} | {'' if memory is None else format(memory, ',.0f')} | "
                f"{one[f'against {STOCK}']['median']:.2f} | {one[f'against {BEST}']['median']:.2f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default="base,large")
    parser.add_argument("--lengths", default="mrpc,512")
    parser.add_argument("--rows", type=int, default=2048, help="training rows; half as many are predicted (2048)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--hfpipe", action="append", default=[], metavar="KEY=VALUE", help="overrides of hfpipe's recipe"
    )
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, few rows, one round: to try this script")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"no CUDA device here (torch {torch.__version__}): nothing was measured.")
        return
    if options.device == "cpu" and torch.cuda.is_available():
        parser.error("there is a GPU, and all ways would use it; hide it with CUDA_VISIBLE_DEVICES= to try the CPU")
    if options.tiny:
        options.shapes, options.rounds, options.rows, options.batch = "tiny", 1, 32, 8
    if unknown := {*options.shapes.split(",")} - {*SHAPES} | {*options.lengths.split(",")} - {*LENGTHS}:
        parser.error(f"unknown: {', '.join(unknown)}; shapes: {', '.join(SHAPES)}; lengths: {', '.join(LENGTHS)}")
    device = torch.device(options.device)
    bf16 = device.type == "cuda" and torch.cuda.get_device_capability()[0] >= 8
    name = torch.cuda.get_device_name() if device.type == "cuda" else machine()["processor"]
    results: dict[str, Any] = {}
    heading = [
        f"{name}; {', '.join(f'{k} {v}' for k, v in versions().items())}",
        f"Rows: {options.rows}, batch {options.batch}, rounds: {options.rounds} (medians); hfpipe and the best stock Trainer in "
        f"{'bf16' if bf16 else 'fp32'}, run_glue's defaults in fp32 padded to the longest; overrides of hfpipe: "
        f"{' '.join(options.hfpipe) or 'none'}.",
    ]
    if options.tiny:
        heading.append("A try of the script with a tiny model: the figures mean nothing.")
    print("\n\n".join(heading), end="\n\n", flush=True)
    tables = []
    with tempfile.TemporaryDirectory() as scratch, library_logs.library_logs_to(Path(scratch) / "log.txt"):
        os.environ["HF_DATASETS_CACHE"] = scratch
        for shape in options.shapes.split(","):
            checkpoint = Path(scratch) / shape
            weights = make_checkpoint(checkpoint, shape, max(LENGTHS.values()))
            for lengths in options.lengths.split(","):
                setting = Setting(
                    checkpoint=checkpoint,
                    train=make_rows(options.rows, lengths, 0),
                    evaluation=make_rows(options.rows // 2, lengths, 1),
                    max_length=LENGTHS[lengths],
                    batch=options.batch,
                    overrides=tuple(options.hfpipe),
                    device=device,
                    bf16=bf16,
                )
                title = f"BERT {shape} ({weights / 1e6:,.1f} M encoder weights), lengths {lengths}"
                found = compared(setting, weights, options.rounds, 8192 if device.type == "cuda" else 512)
                results[f"{shape} {lengths}"] = {"encoder_weights": weights, **found}
                tables.append(table(title, found))
                print(tables[-1], flush=True)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        told = {
            "device": name,
            "machine": machine(),
            "versions": versions(),
            "arguments": sys.argv[1:],
            "results": results,
        }
        options.output.with_suffix(".json").write_text(json.dumps(told, indent=1))
        options.output.with_suffix(".md").write_text("\n\n".join([*heading, *tables]))


if __name__ == "__main__":
    main()

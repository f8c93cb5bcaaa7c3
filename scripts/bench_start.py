"""How long `hfpipe finetune` takes to its first step, against a bare script for the same checkpoint and data.

    python scripts/bench_start.py [--rounds N] [--recipe RECIPE] [--engine trainer|loop] [--cold] [--json FILE] [--modules]

The bare script imports the same libraries, loads the same rows with `datasets`, maps the tokenizer over them, loads the
weights and takes one step, under `transformers.Trainer` or (for the engine loop) under Accelerate. Each measurement is a
fresh process that ends at the first update of the weights; the two alternate, and what is compared is the ratio of one
round, of the time on the clock and of that on the processor, which a busy machine disturbs less. The bare script imports
`evaluate`, as transformers' own run_glue.py does. Both find their tokens in the cache of an earlier run, or, with --cold,
start every time from an empty one.
Bound: 1.15. With --modules nothing is timed: it prints which modules hfpipe imports before the first step and the bare
script does not, by package.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

BARE = """
import json, os, sys
asked = json.loads(sys.argv[1])

import datasets
import evaluate
import torch
from transformers import (
    AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments,
    get_scheduler, set_seed,
)

STOP
rows = datasets.load_dataset(asked["dataset"], asked["name"])
tokenizer = AutoTokenizer.from_pretrained(asked["checkpoint"])

def encode(batch):
    return tokenizer(*(batch[name] for name in asked["text"]), truncation=True, max_length=asked["max_length"])

splits = [asked["train"], asked["evaluation"]]
encoded = {split: rows[split].map(encode, batched=True, remove_columns=asked["text"]) for split in splits}
set_seed(42)
model = AutoModelForSequenceClassification.from_pretrained(asked["checkpoint"], num_labels=2)
collate = DataCollatorWithPadding(tokenizer)
if asked["engine"] == "trainer":
    arguments = TrainingArguments(
        asked["folder"], per_device_train_batch_size=asked["batch_size"], max_steps=2, report_to="none",
        save_strategy="no", disable_tqdm=True, bf16=asked["bf16"], use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    Trainer(
        model=model, args=arguments, train_dataset=encoded[splits[0]], eval_dataset=encoded[splits[1]],
        data_collator=collate, processing_class=tokenizer,
    ).train()
else:
    from accelerate import Accelerator
    accelerator = Accelerator(mixed_precision="bf16" if asked["bf16"] else "no")
    columns = [name for name in encoded[splits[0]].column_names if name in (*tokenizer.model_input_names, "label")]
    loader = torch.utils.data.DataLoader(
        encoded[splits[0]].select_columns(columns), batch_size=asked["batch_size"], shuffle=True, collate_fn=collate
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    schedule = get_scheduler("linear", optimizer, 0, 100)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for batch in loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
"""
HFPIPE = """
import json, os, sys
asked = json.loads(sys.argv[1])
import torch

STOP
from hfpipe.cli.app import main
options = ["--engine", asked["engine"], "--runs-dir", asked["folder"]]
sys.argv = ["hfpipe", "finetune", asked["recipe"], *asked["overrides"], *options]
main()
"""
KINDS = ("seconds", "processor_seconds")
# The process ends here, whatever it is in the middle of: what it would do later is not asked about.
STOP = """
from torch.optim.optimizer import register_optimizer_step_post_hook
def stop(*_):
    if asked.get("modules"):
        with open(asked["modules"], "w") as file:
            json.dump(sorted(sys.modules), file)
    os._exit(0)
register_optimizer_step_post_hook(stop)
"""


def asked_of(recipe_name: str, overrides: list[str], engine: str) -> dict[str, object]:
    """What both programs are told: hfpipe the recipe, the bare script what stands in it."""
    import torch

    from hfpipe import load_recipe
    from hfpipe.parts.model.precision import choose
    from hfpipe.system import embedded

    recipe = load_recipe(recipe_name, overrides)
    path, checkpoint = recipe.dataset.path, recipe.model.checkpoint
    if path.startswith("embedded:"):
        path = str(embedded.dataset_folder(path.removeprefix("embedded:")))
    if checkpoint.startswith("embedded:"):
        checkpoint = str(embedded.checkpoint_folder(checkpoint.removeprefix("embedded:")))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "recipe": recipe_name,
        "overrides": overrides,
        "engine": engine,
        "dataset": path,
        "name": recipe.dataset.name,
        "train": recipe.dataset.splits.train,
        "evaluation": recipe.dataset.splits.evaluation,
        "text": list(recipe.task.text),
        "checkpoint": checkpoint,
        "max_length": recipe.model.max_length,
        "batch_size": recipe.train.batch_size,
        "bf16": choose(recipe.train.precision, device, "train.precision").name == "bf16",
    }


def to_first_step(program: str, asked: dict[str, object], cache: Path) -> dict[str, float]:
    """Seconds that a fresh process lives until its first update of the weights, on the clock and on the processor."""
    # One thread: on a busy machine the threads of the one step wait for each other for longer than all else takes.
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        start, used = time.perf_counter(), os.times()
        done = subprocess.run(
            [sys.executable, "-c", program.replace("STOP", STOP), json.dumps({**asked, "folder": folder})],
            env=environment,
            capture_output=True,
            text=True,
        )
        seconds, now = time.perf_counter() - start, os.times()
    if done.returncode:
        sys.exit(f"no first step:\n{done.stderr}")
    processor = now.children_user + now.children_system - used.children_user - used.children_system
    return {"seconds": seconds, "processor_seconds": processor}


def modules_of(program: str, asked: dict[str, object], cache: Path) -> set[str]:
    """The modules that a process has imported at its first update of the weights."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "modules.json"
        to_first_step(program, {**asked, "modules": str(listed)}, cache)
        return set(json.loads(listed.read_text()))


def shown(values: list[float], digits: int) -> str:
    """The median of some figures, and the least and the greatest of them."""
    extremes = f"({min(values):.{digits}f} to {max(values):.{digits}f})"
    return f" {statistics.median(values):>13.{digits}f} {extremes:>18}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--engine", choices=["trainer", "loop"], action="append")
    parser.add_argument("--cold", action="store_true", help="an empty cache every time: tokenizing counts too")
    parser.add_argument("--modules", action="store_true", help="print what hfpipe imports more, and time nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: allowed is 1 and more; a median wants 7 at least")
    from hfpipe.system.snapshot import machine, versions

    programs = {"bare script": BARE, "hfpipe finetune": HFPIPE}
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        caches = {how: Path(scratch) / how.replace(" ", "-") for how in programs}
        for engine in options.engine or ["trainer", "loop"]:
            asked = asked_of(options.recipe, options.overrides, engine)
            if options.modules:
                known, ours = (modules_of(program, asked, caches[how]) for how, program in programs.items())
                more = Counter(name.partition(".")[0] for name in ours - known)
                print(
                    f"{engine}: {len(ours):,} modules before the first step, {len(known):,} in the bare script; more:"
                )
                print("  " + ", ".join(f"{package} {count}" for package, count in more.most_common()))
                results[engine] = {"more": dict(more)}
                continue
            for how, program in programs.items():
                to_first_step(program, asked, caches[how])  # fills the caches: tokens, compiled Python, files
            times: dict[str, list[dict[str, float]]] = {how: [] for how in programs}
            for round_ in range(options.rounds):
                for how in list(programs) if round_ % 2 else list(programs)[::-1]:
                    if options.cold:
                        shutil.rmtree(caches[how], ignore_errors=True)
                    times[how].append(to_first_step(programs[how], asked, caches[how]))
            cache = "nothing in the cache" if options.cold else "tokens in the cache"
            print(f"{options.recipe}, engine {engine}, {cache}, {options.rounds} rounds: seconds to the first step")
            print(f"  {'':<16} {'on the clock':>12} {'(min to max)':>16} {'on the processor':>20} {'(min to max)':>16}")
            results[engine] = {"times": times}
            for how, runs in times.items():
                print(f"  {how:<16}" + "".join(shown([one[kind] for one in runs], 2) for kind in KINDS))
            for kind in KINDS:
                pairs = zip(times["hfpipe finetune"], times["bare script"], strict=True)
                results[engine][f"ratios of {kind}"] = [ours[kind] / bare[kind] for ours, bare in pairs]
            print(f"  {'ratio':<16}" + "".join(shown(results[engine][f"ratios of {kind}"], 3) for kind in KINDS))
    about = machine()
    print(f"\n{about['processor']}, {about['cores']} cores; " + ", ".join(f"{k} {v}" for k, v in versions().items()))
    if options.json:
        told = {"machine": about, "versions": versions(), "cold": options.cold, "results": results}
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

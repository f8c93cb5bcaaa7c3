"""Time and memory as the data grow: reading, checking, tokenizing and auditing rows, and a fixed number of steps on them.

    python scripts/bench_growth.py [--rows N] [--times 1,4,16,64] [--rounds N] [--steps N] [--json FILE]
    python scripts/bench_growth.py --rows 5000000 --times 1
    python scripts/bench_growth.py --classes 2,10,150,1500,30000

The rows are sentence pairs of the embedded generator in a parquet file with row groups of 10,000. Every size is a fresh
process with an empty cache. Its memory is what it holds of its own (RssAnon), sampled every 5 ms: Arrow files that are mapped
from the cache count for nothing there, since the kernel takes their pages back when it needs them. Said are the medians
over the rounds, the growth of the memory above what the process held after its imports and a first run on 1,000 rows, and
the time on the processor of a row, and of a step, against that of the smallest size: the clock on the wall says what others
do on the machine too. Goals: time within 10 %, memory flat.

With --classes it is the end of a run that grows: everything that is made of the logits of a split (metrics, intervals,
baselines, each class, the confusion, the calibration, every example) and report.html's tables, for made-up logits of 100 to
1,000,000 rows, as far as --cells numbers go. Goal: 10 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

ROW_GROUP = 10_000
DISTINCT = 200_000  # rows; then they come again, since drawing them takes longer than tokenizing them
MEASURED = """
import json, re, sys, threading, time
from pathlib import Path
file, warm, checkpoint, steps = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
import datasets, torch
datasets.disable_progress_bars()
from hfpipe.parts.inputs.audit import audit
from hfpipe.training.engines import loop
from hfpipe.training.job import prepare
from hfpipe.recipe import load_recipe
from hfpipe.parts.inputs.rows import read_rows

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

class Peak:
    def __enter__(self):
        self.most, self.over = held(), threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self
    def watch(self):
        while not self.over.wait(0.005):
            self.most = max(self.most, held())
    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

def recipe_of(path):
    return load_recipe({
        "dataset": {"path": "parquet", "data_files": path, "splits": {"evaluation": None}},
        "task": {"text": ["sentence1", "sentence2"]},
        "model": {"checkpoint": checkpoint, "max_length": 64},
        "train": {"batch_size": 32, "max_steps": steps, "precision": "fp32"},
        "evaluate": {"every": "never"}, "checkpoints": {"every": "never"},
    })

def trained(recipe):
    records, job = [], prepare(recipe)
    start = time.process_time()
    loop.train(job, records.append)
    return time.process_time() - start

rows = read_rows(recipe_of(warm))  # what is imported and allocated once, whatever the size
audit(recipe_of(warm), rows)
trained(recipe_of(warm))
del rows
found, recipe = {"before_mb": held()}, recipe_of(file)
with Peak() as peak:
    start, used = time.perf_counter(), time.process_time()
    rows = read_rows(recipe)
    found |= {"reading": time.perf_counter() - start, "reading_processor": time.process_time() - used}
found["reading_mb"] = peak.most
with Peak() as peak:
    start, used = time.perf_counter(), time.process_time()
    audit(recipe, rows)
    found |= {"auditing": time.perf_counter() - start, "auditing_processor": time.process_time() - used}
found["auditing_mb"] = peak.most
found["rows"] = len(rows.encoded["train"].data)
del rows
with Peak() as peak:
    found["training"] = trained(recipe)
found["training_mb"] = peak.most
print(json.dumps(found))
"""


EVALUATED = """
import json, resource, sys, time
from types import SimpleNamespace
import datasets, numpy as np
from hfpipe.evaluation.document import build_document
from hfpipe.evaluation.inference import Predictions
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.tasks import head_task
from hfpipe.recipe import load_recipe
from hfpipe.reports.html import tables
rows, classes = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
labels = rng.integers(0, classes, rows)
logits = rng.normal(size=(rows, classes), scale=0.5).astype(np.float32) if rows * classes < 2e7 else np.zeros(
    (rows, classes), np.float32)
wrong = rng.random(rows) < 0.2
logits[np.arange(rows), np.where(wrong, rng.integers(0, classes, rows), labels)] += 4
recipe = load_recipe({"dataset": {"path": "x"}, "task": {"text": "text"}, "model": {"checkpoint": "x"}})
task = head_task(recipe.task, tuple(f"class {k}" for k in range(classes)))
lengths = np.ones(rows, np.int64)
encoded = datasets.Dataset.from_dict({"labels": labels, "input_ids": [[1]] * rows})
raw = datasets.Dataset.from_dict({"text": ["a text"] * rows, "label": labels})
metrics = [("accuracy", load_metric("accuracy")), ("f1", load_metric("f1", average="macro")),
           ("matthews_correlation", load_metric("matthews_correlation"))]
def held():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
predictions = Predictions(list(logits), rng.exponential(size=rows), np.ones(rows), 1.0)
before, start = held(), time.perf_counter()
found = build_document(recipe, task, metrics, predictions, encoded, raw, target="x", split="validation", dataset="x")
seconds = time.perf_counter() - start
for one in (tables.metrics, ):
    one(found.document, "accuracy")
tables.classes(found.document), tables.confusion(found.document)
print(json.dumps({"seconds": seconds, "all_seconds": time.perf_counter() - start, "mb": held() - before,
                  "logits_mb": logits.nbytes / 2**20}))
"""


def write_rows(file: Path, rows: int) -> None:
    """Sentence pairs with labels, in a parquet file; a row group at a time is in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hfpipe.system.embedded.paraphrases import paraphrase_stream

    schema = pa.schema([("sentence1", pa.string()), ("sentence2", pa.string()), ("label", pa.int64())])
    stream = paraphrase_stream(0, without=frozenset())
    tables: list[pa.Table] = []
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, rows, ROW_GROUP):
            if start < DISTINCT:
                told = list(islice(stream, ROW_GROUP))
                labels = [row % 2 for row in range(len(told))]  # what they say is of no concern here
                columns = [[one for one, _ in told], [other for _, other in told], labels]
                tables.append(pa.table(columns, schema=schema))
            writer.write_table(tables[start // ROW_GROUP % len(tables)].slice(0, rows - start))


def measured(file: Path, warm: Path, checkpoint: str, steps: int) -> dict[str, float]:
    """What one fresh process with an empty cache says of itself."""
    with tempfile.TemporaryDirectory(dir=file.parent) as cache:
        # One thread: of a tiny model more of them only wait for each other.
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "HF_DATASETS_CACHE": cache, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", MEASURED, str(file), str(warm), checkpoint, str(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{file.name}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def evaluation_growth(classes: list[int], rows: list[int], cells: int) -> None:
    """Print what the end of a run costs, by classes and rows."""
    print(f"{'classes':>8} {'rows':>10} {'seconds':>8} {'MB above':>9} {'MB of logits':>13}")
    for count in classes:
        for size in rows:
            if count * size > cells:
                print(f"{count:>8,} {size:>10,} {'-':>8} {'-':>9} {count * size * 4 / 2**20:>13,.0f}")
                continue
            environment = {"OMP_NUM_THREADS": "1", **os.environ}
            command = [sys.executable, "-c", EVALUATED, str(size), str(count)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            one = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{count:>8,} {size:>10,} {one['all_seconds']:>8.2f} {one['mb']:>9,.0f} {one['logits_mb']:>13,.0f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="of the smallest size (10,000)")
    parser.add_argument("--times", default="1,4,16,64", help="how many times as many rows each size has")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30, help="that are trained on each size (30)")
    parser.add_argument("--classes", help="measure the end of a run with so many classes instead")
    parser.add_argument("--sizes", default="100,10000,100000,1000000", help="rows, with --classes")
    parser.add_argument("--cells", type=int, default=200_000_000, help="most logits, with --classes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.classes:
        from hfpipe.system.snapshot import machine, versions

        numbers = [[int(one) for one in text.split(",")] for text in (options.classes, options.sizes)]
        evaluation_growth(numbers[0], numbers[1], options.cells)
        about = machine()
        print(
            f"\n{about['processor']}, {about['cores']} cores; " + ", ".join(f"{k} {v}" for k, v in versions().items())
        )
        return
    if not Path("/proc/self/status").exists():
        sys.exit("memory is read from /proc/self/status, which only Linux has")

    from hfpipe.system import embedded
    from hfpipe.system.snapshot import machine, versions

    checkpoint = str(embedded.checkpoint_folder("tiny-bert"))
    sizes = [options.rows * int(times) for times in options.times.split(",")]
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as scratch:
        warm = Path(scratch) / "warm.parquet"
        write_rows(warm, 1000)
        for size in sizes:
            write_rows(Path(scratch) / f"{size}.parquet", size)
        for round_ in range(options.rounds):
            for size in sizes if round_ % 2 else sizes[::-1]:
                found[size].append(measured(Path(scratch) / f"{size}.parquet", warm, checkpoint, options.steps))
    print(f"rounds: {options.rounds}; {options.steps} steps of 32; memory above what was held at the start")
    print(
        f"{'rows':>10} {'reading':>9} {'auditing':>9} {'us a row':>9} {'ratio':>6} {'read MB':>8} {'audit MB':>9} "
        f"{'ms a step':>10} {'ratio':>6} {'train MB':>9}"
    )
    results: dict[int, dict[str, float]] = {}
    for size, runs in found.items():
        one = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        one["us_a_row"] = (one["reading_processor"] + one["auditing_processor"]) / size * 1e6
        one["ms_a_step"] = one["training"] / options.steps * 1e3
        results[size] = one
        least = results[sizes[0]]
        print(
            f"{size:>10,} {one['reading']:>8.2f}s {one['auditing']:>8.2f}s {one['us_a_row']:>9.1f} "
            f"{one['us_a_row'] / least['us_a_row']:>6.2f} {one['reading_mb'] - one['before_mb']:>+8.0f} "
            f"{one['auditing_mb'] - one['before_mb']:>+9.0f} {one['ms_a_step']:>10.2f} "
            f"{one['ms_a_step'] / least['ms_a_step']:>6.2f} {one['training_mb'] - one['before_mb']:>+9.0f}"
        )
    about = machine()
    print(f"\n{about['processor']}, {about['cores']} cores; " + ", ".join(f"{k} {v}" for k, v in versions().items()))
    if options.json:
        told = {"machine": about, "versions": versions(), "steps": options.steps, "results": results, "rounds": found}
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

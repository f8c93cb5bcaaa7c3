"""From raw parquet to tokens: hfpipe against a bare datasets.map with the same tokenizer, and a second run from the cache.

    python scripts/bench_preprocess.py [--rounds N] [--rows N] [--json FILE]

Every measurement is a fresh process with an empty cache, in turn; the time is that of the calls, without imports.
hfpipe's includes hashing the file and checking every row; the second run is timed in another process on the same cache.
Printed are medians over the rounds, the ratio of the same round, and the peak memory of the process.
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

BARE = """
import json, resource, sys, time
import datasets, transformers
file, checkpoint = sys.argv[1:3]
datasets.disable_progress_bars()
transformers.AutoConfig.from_pretrained(checkpoint), transformers.AutoTokenizer.from_pretrained(checkpoint)
datasets.load_dataset("parquet", data_files=f"{file}.tiny")  # the libraries import on first use
start = time.perf_counter()
tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
rows = datasets.load_dataset("parquet", data_files=file)["train"]
encode = lambda batch: tokenizer(batch["sentence1"], batch["sentence2"], truncation=True, max_length=64)
encoded = rows.map(encode, batched=True, remove_columns=["sentence1", "sentence2"]).rename_column("label", "labels")
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mb": peak, "rows": len(encoded)}))
"""
HFPIPE = """
import json, resource, sys, time
import datasets, transformers, hfpipe.parts.inputs.rows
from hfpipe.recipe import load_recipe
file, checkpoint = sys.argv[1:3]
datasets.disable_progress_bars()
recipe = load_recipe({
    "dataset": {"path": "parquet", "data_files": file, "splits": {"evaluation": None}},
    "task": {"text": ["sentence1", "sentence2"]},
    "model": {"checkpoint": checkpoint, "max_length": 64},
})
transformers.AutoConfig.from_pretrained(checkpoint), transformers.AutoTokenizer.from_pretrained(checkpoint)
datasets.load_dataset("parquet", data_files=f"{file}.tiny")  # the libraries import on first use
start = time.perf_counter()
rows = hfpipe.parts.inputs.rows.read_rows(recipe)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mb": peak, "rows": len(rows.encoded["train"].data)}))
"""


def measured(program: str, file: Path, checkpoint: str, cache: Path) -> dict[str, float]:
    """What one fresh process says of itself."""
    environment = {
        **os.environ,
        "HF_DATASETS_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(file), checkpoint],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    import datasets

    from hfpipe.system import embedded
    from hfpipe.system.embedded.paraphrases import paraphrase_stream
    from hfpipe.system.snapshot import machine, versions

    checkpoint = str(embedded.checkpoint_folder("tiny-bert"))
    found: dict[str, list[dict[str, float]]] = {"bare map": [], "hfpipe": [], "hfpipe, second run": []}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.parquet"
        told = list(islice(paraphrase_stream(0, without=frozenset()), options.rows))
        columns = {"sentence1": [a for a, _ in told], "sentence2": [b for _, b in told]}
        labels = [row % 2 for row in range(options.rows)]  # what they say is of no concern here
        rows = datasets.Dataset.from_dict({**columns, "label": labels})
        rows.to_parquet(file)
        rows.select(range(2)).to_parquet(f"{file}.tiny")
        for round_ in range(options.rounds):
            for how in ("bare map", "hfpipe") if round_ % 2 else ("hfpipe", "bare map"):
                with tempfile.TemporaryDirectory(dir=scratch) as cache:
                    found[how].append(measured(BARE if how == "bare map" else HFPIPE, file, checkpoint, Path(cache)))
                    if how == "hfpipe":
                        found["hfpipe, second run"].append(measured(HFPIPE, file, checkpoint, Path(cache)))
    print(f"{options.rows:,} rows of sentence pairs ({options.rounds} rounds)")
    print(f"{'':<20} {'seconds':>8} {'rows/s':>9} {'peak MB':>8} {'against bare':>13}  (min to max)")
    results = {}
    for how, runs in found.items():
        ratios = [bare["seconds"] / one["seconds"] for one, bare in zip(runs, found["bare map"], strict=True)]
        seconds = statistics.median(one["seconds"] for one in runs)
        peak = statistics.median(one["peak_mb"] for one in runs)
        ratio = statistics.median(ratios)
        print(
            f"{how:<20} {seconds:>8.2f} {options.rows / seconds:>9,.0f} {peak:>8.0f} {ratio:>13.3f}"
            f"  ({min(ratios):.3f} to {max(ratios):.3f})"
        )
        results[how] = {"seconds": seconds, "peak_mb": peak, "ratio": ratio, "ratios": ratios}
    again = [
        first["seconds"] / second["seconds"]
        for first, second in zip(found["hfpipe"], found["hfpipe, second run"], strict=True)
    ]
    print(f"the second run takes 1/{statistics.median(again):.0f} of the first ({min(again):.0f} to {max(again):.0f})")
    about = machine()
    print(f"\n{about['processor']}, {about['cores']} cores; " + ", ".join(f"{k} {v}" for k, v in versions().items()))
    if options.json:
        results["again"] = {"ratios": again}
        options.json.write_text(json.dumps({"machine": about, "versions": versions(), "results": results}, indent=1))


if __name__ == "__main__":
    main()

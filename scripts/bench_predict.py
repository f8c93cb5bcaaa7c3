"""Rows a second of hfpipe's predict against a bare transformers pipeline, on the same checkpoint and the same pairs.

    python scripts/bench_predict.py RUN INPUT [--rows N] [--rounds N] [--json FILE]

INPUT is a jsonl file with `sentence1` and `sentence2`, RUN a run on such pairs. All is measured in one process with loaded
models, in turn: a loop that calls the pipeline on one pair after the other, the pipeline on all of them in batches of 64
in their own order, and hfpipe from the file to a jsonl file, reading, checking and writing included. Printed are the
medians over the rounds, the ratios of the same round, and the greatest difference of a probability.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import transformers

import hfpipe


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("input", type=Path)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with open(given.input, encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, given.rows)]
    pairs = [{"text": row["sentence1"], "text_pair": row["sentence2"]} for row in rows]
    run = hfpipe.Run(given.run)
    bare = transformers.pipeline("text-classification", model=str(given.run / "model"), device="cpu")
    length = run.recipe.model.max_length
    options = {"top_k": None, "truncation": True, **({"max_length": length} if length else {})}
    seconds: dict[str, list[float]] = {"pipeline loop": [], "pipeline in batches": [], "hfpipe": []}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "rows.jsonl", Path(folder) / "out.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        run.predict([(row["sentence1"], row["sentence2"]) for row in rows[:64]])  # both are loaded and warm
        bare(pairs[:8], **options)
        for _ in range(given.rounds):
            taken, said = timed(lambda: [bare(pair, **options) for pair in pairs])
            seconds["pipeline loop"].append(taken)
            taken, batched = timed(lambda: bare(pairs, batch_size=64, **options))
            seconds["pipeline in batches"].append(taken)
            taken, _ = timed(lambda: hfpipe.predict_file(run, source, output, overwrite=True))
            seconds["hfpipe"].append(taken)
        told = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    apart = max(
        abs(share["score"] - row["probabilities"][share["label"]])
        for answers in (said, batched)
        for shares, row in zip(answers, told, strict=True)
        for share in shares
    )
    figures: dict[str, Any] = {"rows": len(rows), "rounds": given.rounds, "greatest_difference": apart}
    for name, taken in seconds.items():
        ratios = [other / own for other, own in zip(taken, seconds["hfpipe"], strict=True)]
        ratio, low, high = statistics.median(ratios), min(ratios), max(ratios)
        rate = len(rows) / statistics.median(taken)
        figures[name] = {"rows_per_second": rate, "hfpipe_ratio": ratio, "from": low, "to": high}
        print(f"{name:<20} {rate:8.1f} rows/s, hfpipe is {ratio:.2f} ({low:.2f} to {high:.2f}) times as fast")
    print(f"greatest difference of a probability: {apart:.2e}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

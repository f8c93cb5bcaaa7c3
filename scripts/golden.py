#!/usr/bin/env python
"""Write tests/golden/trajectory.json: what both engines must go on doing, step by step.

    python scripts/golden.py [--write]

Without --write it prints what differs from the file. Run it again only when the arithmetic is meant to change, and say so
in the changelog.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
FILE = Path(__file__).parent.parent / "tests" / "golden" / "trajectory.json"
OVERRIDES = [
    "train.max_steps=16",
    "train.batch_size=8",
    "train.accumulate=3",
    "train.precision=fp32",
    "train.max_grad_norm=0.5",
    "dataset.splits.train=train[:100]",
    "dataset.splits.evaluation=validation[:40]",
    "evaluate.every=8",
    "optimizer.weight_decay=0.1",
    "schedule.warmup=4",
    "loss.label_smoothing=0.1",
    "loss.class_weights=[1.0, 2.0]",
]
KEYS = ("loss", "grad_norm", "lr", "num_items")


def trajectory(engine: str) -> list[dict[str, Any]]:
    """The steps and evaluations of a short run of the quickstart: dropout, ragged windows, weights, smoothing, clipping."""
    import hfpipe

    with tempfile.TemporaryDirectory() as folder:
        run = hfpipe.finetune("quickstart", overrides=OVERRIDES, engine=engine, runs_dir=folder)
        steps = [
            {"step": one["step"], **{key: one[key] for key in KEYS}} for one in run.records if one["type"] == "step"
        ]
        measured = [
            {"step": one["step"], "evaluation": one["metrics"]} for one in run.records if one["type"] == "evaluation"
        ]
    return [*steps, *measured]


def difference(golden: list[dict[str, Any]], found: list[dict[str, Any]], tolerance: float) -> str | None:
    """The first step where two trajectories part by more than a relative tolerance, in words."""
    for before, after in zip(golden, found, strict=True):
        for key, value in flat(before).items():
            other = flat(after).get(key)
            if other is None or abs(other - value) > tolerance * max(abs(value), 1e-3):
                return f"step {before['step']}: {key} was {value!r} and is {other!r}"
    return None


def flat(record: dict[str, Any]) -> dict[str, float]:
    """A record with the figures of an evaluation beside the others."""
    return {**{key: one for key, one in record.items() if key != "evaluation"}, **record.get("evaluation", {})}


def main() -> None:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file anew")
    write = parser.parse_args().write
    found = {engine: trajectory(engine) for engine in ("trainer", "loop")}
    if found["trainer"] != found["loop"]:
        sys.exit(f"the engines part: {difference(found['trainer'], found['loop'], 0.0)}")
    if write:
        FILE.parent.mkdir(exist_ok=True)
        lines = ",\n".join(json.dumps(one) for one in found["loop"])
        FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        print(FILE)
    else:
        print(difference(json.loads(FILE.read_text(encoding="utf-8")), found["loop"], 1e-4) or "no difference")


if __name__ == "__main__":
    main()

"""What the quickstart reaches: five seeds, and the same model with its encoder frozen at random weights.

    python scripts/bench_quickstart.py

Prints the validation accuracy and the seconds of each run (from the prepared recipe to the finished run folder).
"""

from __future__ import annotations

import tempfile
import time

from transformers import AutoConfig, AutoModelForSequenceClassification

import hfpipe
from hfpipe.system import embedded
from hfpipe.system.snapshot import machine


def frozen_at_random() -> AutoModelForSequenceClassification:
    """The quickstart's model with fresh weights everywhere, of which only the classifier may learn."""
    config = AutoConfig.from_pretrained(embedded.checkpoint_folder("tiny-bert"), num_labels=2)
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.base_model.parameters():
        parameter.requires_grad_(False)
    return model


def accuracy(seed: int, folder: str, **parts: object) -> tuple[float, float]:
    started = time.perf_counter()
    recipe = hfpipe.load_recipe("quickstart", overrides=[f"seed={seed}"])
    run = hfpipe.finetune(recipe, runs_dir=folder, **parts)
    return run.metrics["accuracy"], time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, 6):
            reached, seconds = accuracy(seed, folder)
            print(f"seed {seed}: accuracy {reached:.4f} in {seconds:.0f} s", flush=True)
        reached, _ = accuracy(1, folder, model=frozen_at_random())
        print(f"encoder frozen at random weights: accuracy {reached:.4f}")
    print(f"{machine()['processor']}, {machine()['cores']} cores")


if __name__ == "__main__":
    main()

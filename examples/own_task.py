"""A kind of task of your own, in one file: how many complaints a report will bring, a count with a Poisson loss.

    python examples/own_task.py [FOLDER]

trains it on data made here, measures it with intervals and a baseline, and predicts into a file; in seconds, without a
network. FOLDER (by default a temporary one) then has the run with its report.html and model card. hfpipe is not changed:
a recipe names the class as `kind: own_task:CountTask`, and this file is found because its folder is on PYTHONPATH.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

import hfpipe
from hfpipe.parts.data import columns
from hfpipe.parts.metrics.sums import Sums, mean, values_of
from hfpipe.parts.tasks import Scored, lengths
from hfpipe.parts.tasks.text import Lines, encode_texts, text_inputs
from hfpipe.parts.tasks.tokenizer import load_tokenizer, padding_collator, rows_of_logits
from hfpipe.recipe.kinds import Kind
from hfpipe.recipe.schema import Task

Array = np.ndarray[Any, Any]


def poisson(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The negative log-likelihood of counts `[items]` whose log rate is `logits`, without what no weight changes."""
    return torch.nn.functional.poisson_nll_loss(logits, targets, log_input=True, reduction="none")


class PoissonDeviance:
    """The mean Poisson deviance of rates against counts, 0 where they are equal; lower is better."""

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """Rates and counts, both `[rows]`."""
        return values_of(self.sums(predictions, references))

    def sums(self, predictions: Any, references: Any) -> dict[str, Sums]:
        """The deviance of each row, to be averaged: value and intervals come from its sums."""
        rates, counts = np.asarray(predictions, float), np.asarray(references, float)
        logs = np.where(counts > 0, counts * np.log(np.maximum(counts, 1) / rates), 0)  # 0 log 0 is 0
        return {"poisson_deviance": mean(2 * (logs - counts + rates))}


@dataclass(frozen=True)
class CountTask:
    """A whole number of 0 or more for each row; the model's one output is the log of its expectation."""

    text: tuple[str, ...]
    label: str
    largest: int

    kind = Kind(
        loss="own_task:poisson",
        metric="own_task:PoissonDeviance",
        outputs=("expected_count",),
        fields={"largest": 1000},  # task.largest: a greater count is taken for a mistake in the data
        refuses=dict.fromkeys(("class_weights", "label_smoothing"), "counts are no classes"),
    )
    auto_model = "AutoModelForSequenceClassification"
    problem_type = "regression"
    scheme = calibration = None
    names = ()
    num_labels = 1

    load_processor = staticmethod(load_tokenizer)
    lengths = staticmethod(lengths)
    collator = staticmethod(padding_collator)
    unpad_logits = staticmethod(rows_of_logits)

    @classmethod
    def make(cls, spec: Task, rows: datasets.Dataset, title: str, where: str) -> CountTask:
        """The task of these rows."""
        return cls.from_head(spec, ())

    @classmethod
    def from_head(cls, spec: Task, names: tuple[str, ...]) -> CountTask:
        """The task of a trained head."""
        return cls(spec.text, spec.label_columns[0], spec.largest)  # type: ignore[attr-defined]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return (*self.text, self.label)

    def check(self, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
        """Refuse texts that are no text, and labels that are no counts."""
        columns.require_columns(rows, self.columns if labelled else self.text, split, where)
        for name in self.text:
            columns.require_text(rows, name, split, where)
        if labelled:
            values = columns.require_values(rows, self.label, split, where)
            counts = np.asarray(columns.as_numbers(values, split, self.label, where))
            bad = ~((counts >= 0) & (counts <= self.largest) & (counts == np.trunc(counts)))
            if bad.any():
                what = f"{split}: label {counts[bad][0]:g} is no count up to {self.largest}"
                columns.refuse(bad, what, where, "Mend these rows, or raise task.largest.")

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """Tokens, and the count as a float."""
        encoded = encode_texts(batch, self.text, tokenizer, max_length)
        return {**encoded, "labels": [float(count) for count in batch[self.label]]} if labelled else encoded

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """Expected counts, `[rows]`, and the counts."""
        expected = np.exp(np.concatenate(logits))
        return expected, np.asarray(encoded["labels"][:]) if "labels" in encoded.column_names else None

    def dummy_predictions(self) -> tuple[Array, Array]:
        """To try a metric on."""
        return np.array([0.5, 2.0]), np.array([0.0, 2.0])

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """What `hfpipe predict` writes."""
        return [{"expected_count": float(expected)} for expected in self.decode(logits, encoded, rows)[0]]

    def probabilities(self, logits: Sequence[Array]) -> None:
        """There are no classes."""

    def constant_predictions(self, references: Array) -> list[tuple[str, Array]]:
        """The mean count, which every model should beat."""
        mean = max(float(references.mean()), 1e-9)
        return [(f"always the mean count, {mean:.4g}", np.full(len(references), mean))]

    def degenerate(self, predictions: Array) -> str | None:
        """A model that learned the mean and nothing else."""
        if np.ptp(predictions) > 1e-3 * predictions[0]:
            return None
        return f"the model predicts about {predictions[0]:.4g} for all {len(predictions):,} examples"

    def findings(self, scored: Scored) -> dict[str, Any]:
        """A key of its own in the document: how often each count occurs, and is expected to."""
        found = []
        for count in range(int(scored.references.max()) + 1):
            logs = count * np.log(scored.predictions) - scored.predictions - sum(np.log(range(1, count + 1)))
            occurs = int((scored.references == count).sum())
            found.append({"count": count, "occurs": occurs, "expected": float(np.exp(logs).sum())})
        return {"counts": found}

    @staticmethod
    def example(columns: Sequence[str], options: str) -> Lines:
        """For the model card."""
        return text_inputs(columns, options, ["the angry doctor shouted"]), ["print(outputs.logits.exp().item())"]


WORDS = [["angry", "happy", "old"], ["doctor", "nurse", "king"], ["shouted", "smiled"], ["today", "again"]]
RECIPE: dict[str, Any] = {
    "name": "complaints",
    "task": {"kind": "own_task:CountTask", "text": "report", "label": "complaints", "largest": 100},
    "model": {"checkpoint": "embedded:tiny-bert", "max_length": 16},
    "optimizer": {"lr": 2e-3},
    "schedule": {"name": "linear", "warmup": 0.1},
    "train": {"epochs": 3, "batch_size": 16, "precision": "fp32"},
    "evaluate": {"best": "poisson_deviance", "greater_is_better": False},
}


def rows(number: int, seed: int) -> dict[str, list[Any]]:
    """Reports, and counts whose rate is twice as high where someone is angry, and eight times where someone shouted."""
    rng, counts = random.Random(seed), np.random.default_rng(seed)
    reports = [" ".join(["the", *(rng.choice(words) for words in WORDS)]) for _ in range(number)]
    rates = [0.5 * 2 ** ("angry" in report) * 8 ** ("shouted" in report) for report in reports]
    return {"report": reports, "complaints": [int(counts.poisson(rate)) for rate in rates]}


def main(folder: Path, engine: str = "loop") -> hfpipe.Run:
    """Train, measure and predict."""
    data = {
        "train": datasets.Dataset.from_dict(rows(320, 0)),
        "validation": datasets.Dataset.from_dict(rows(120, 1)),
    }
    files = {split: str(folder / f"{split}.parquet") for split in data}
    for split, path in files.items():
        data[split].to_parquet(path)
    recipe = {**RECIPE, "dataset": {"path": "parquet", "data_files": files}}
    run = hfpipe.finetune(recipe, runs_dir=folder / "runs", engine=engine)
    measured = hfpipe.evaluate(run)
    low, high = measured.intervals["poisson_deviance"] or (0.0, 0.0)
    baseline = measured.baseline or {}
    print(f"mean Poisson deviance {measured.metrics['poisson_deviance']:.3f} ({low:.3f} to {high:.3f});")
    print(f"{baseline['what']}: {baseline['metrics']['poisson_deviance']:.3f}")
    reports = folder / "reports.jsonl"
    reports.write_text('{"report": "the happy nurse smiled today"}\n{"report": "the angry doctor shouted again"}\n')
    output = folder / f"{run.id}.csv"
    hfpipe.predict_file(run, reports, output, keep=["report"])
    print(output.read_text(), end="")
    print(run.path / "report.html")
    return run


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))

"""Runs made up on disk, with every kind of value that a report shows, and without training anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfpipe.recipe import load_recipe
from hfpipe.runs import Run
from hfpipe.runs.evaluations import write_evaluation


def classification_of(names: Sequence[str], examples: int = 408, seed: int = 0) -> dict[str, Any]:
    """A document about `examples` examples of so many classes, with all that classification has."""
    random = np.random.default_rng(seed)
    references = random.integers(0, len(names), examples)
    predicted = np.where(random.random(examples) < 0.82, references, random.integers(0, len(names), examples))
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (references, predicted), 1)
    hits, of_right, of_said = counts.diagonal(), counts.sum(1), counts.sum(0)
    accuracy = float(hits.sum() / examples)
    classes = [
        {
            "name": name,
            "precision": float(hits[row] / of_said[row]) if of_said[row] else None,
            "recall": float(hits[row] / of_right[row]) if of_right[row] else None,
            "f1": float(2 * hits[row] / max(of_said[row] + of_right[row], 1)),
            "support": int(of_right[row]),
            "predicted": int(of_said[row]),
            "roc_auc": 0.9,
            "average_precision": None,
        }
        for row, name in enumerate(names)
    ]
    edges = np.linspace(0, 1, 11)
    bins = [
        {"low": float(low), "high": float(high), "count": int(20 * high) + 1, "confidence": float(low + 0.05),
         "accuracy": float((low + 0.05) ** 1.4)}
        for low, high in pairwise(edges[5:])
    ]  # fmt: skip
    part = {"metrics": {"accuracy": 0.8, "f1": 0.79, "loss": 0.5}, "intervals": {"accuracy": [0.7, 0.9], "f1": None}}
    return {
        "format": 1, "target": "one", "split": "validation", "overrides": [], "dataset": "0" * 64, "examples": examples,
        "metrics": {"loss": 0.4321, "accuracy": accuracy, "f1": accuracy + 0.01},
        "intervals": {"loss": [0.39, 0.48], "accuracy": [accuracy - 0.04, accuracy + 0.03], "f1": [accuracy - 0.03, 1.0]},
        "level": 0.95,
        "baseline": {
            "what": f"always {names[0]!r}, the most frequent class of the split",
            "metrics": {"loss": None, "accuracy": 0.684, "f1": 0.812},
        },
        "notices": [f"the model never predicts {names[-1]!r}"],
        "classes": classes,
        "confusion": {"names": list(names), "counts": counts.tolist()},
        "ranking": {"roc_auc": 0.8912, "average_precision": 0.9, "what": "of the second class"},
        "calibration": {"ece": 0.0412, "brier": 0.2611, "bins": bins},
        "errors": None,
        "slices": [{"by": "length", "value": value, "examples": 136, **part} for value in ("1 to 40", "41 to 60", "61 to 128")]
        + [{"by": "genre", "value": value, "examples": 204, **part} for value in ("news", "fiction")],
        "temperature": 1.31, "threshold": None, "fitted_on": "train[90%:]", "names": list(names), "scheme": None,
        "kind": "text-classification", "examples_per_second": 203.2,
    }  # fmt: skip


def regression_of(examples: int = 1500) -> dict[str, Any]:
    """A document about a regression."""
    random = np.random.default_rng(1)
    references = random.uniform(0, 5, examples)
    predicted = np.clip(references + random.normal(0, 0.6, examples), -0.2, 5.4)
    counts, edges = np.histogram(predicted - references, bins=24)
    worst = np.argsort(-np.abs(predicted - references))[:10]
    return {
        "format": 1, "split": "validation", "examples": examples, "level": 0.95, "kind": "text-regression",
        "metrics": {"loss": 0.36, "pearson": 0.8731, "spearmanr": 0.8702},
        "intervals": {"loss": None, "pearson": [0.861, 0.885], "spearmanr": [0.856, 0.883]},
        "baseline": {"what": "always the mean of the split", "metrics": {"loss": 2.1, "pearson": None, "spearmanr": None}},
        "errors": {
            "mean": 0.0123, "median_absolute": 0.4021, "rmse": 0.6, "r2": 0.82,
            "worst": [
                {"id": int(row), "reference": float(references[row]), "prediction": float(predicted[row])} for row in worst
            ],
            "residuals": {"edges": edges.tolist(), "counts": counts.tolist()},
            "points": [[float(a), float(b)] for a, b in zip(references, predicted, strict=True)],
        },
    }  # fmt: skip


def audit_of(names: Sequence[str] | None) -> dict[str, Any]:
    """What hfpipe.parts.inputs.audit.Audit.as_json gives."""

    def split(rows: int) -> dict[str, Any]:
        bins = [3, 90, 400, 800, 700, 420, 160, 60, 20, 5]
        return {
            "rows": rows, "labels": {name: rows // len(names) for name in names} if names else None,
            "numbers": None if names else {"least": 0.0, "mean": 2.61, "greatest": 5.0},
            "lengths": {"mean": 53.2, "median": 53.0, "p95": 74.0, "p99": 83.0, "longest": 103,
                        "histogram": [[11 * (place + 1), count] for place, count in enumerate(bins)]},
            "full": 12, "unknown": 0.0021, "empty": 0, "repeated": 3, "contradicted": 0, "repeated_ids": 0, "ignored": 0,
        }  # fmt: skip

    splits = {"train": split(3668), "validation": split(408)}
    return {"splits": splits, "shared": {"validation": 2}, "max_length": 128, "notices": []}


def records_of(steps: int, evaluations: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """Step and evaluation records as an engine emits them; one loss and one norm are spikes, one is no number."""
    random = np.random.default_rng(seed)
    noise, found = random.normal(0, 0.05, steps), []
    every = max(1, steps // evaluations)
    for step in range(1, steps + 1):
        share = step / steps
        loss = float(0.15 + 0.55 * np.exp(-4 * share) + abs(noise[step - 1]))
        one = {"type": "step", "step": step, "epoch": 3 * share, "loss": loss, "num_items": 32,
               "grad_norm": 2.0 - share + 4 * abs(float(noise[step - 1])),
               "lr": 2e-5 * min(10 * share, (1 - share) / 0.9)}  # fmt: skip
        if step == steps // 2:
            one |= {"loss": 4.0, "grad_norm": 900.0}
        if step == steps // 2 + 1:
            one |= {"loss": None, "grad_norm": None}
        found.append(one)
        if step % every == 0:
            metrics = {"loss": loss + 0.05, "accuracy": 0.7 + 0.12 * share, "f1": 0.75 + 0.1 * share}
            found.append({"type": "evaluation", "step": step, "epoch": 3 * share, "metrics": metrics, "seconds": 1.0})
    return found


@pytest.fixture(scope="session")
def classification() -> Callable[..., dict[str, Any]]:
    """Makes a document about so many classes."""
    return classification_of


@pytest.fixture(scope="session")
def regression() -> dict[str, Any]:
    """A document about a regression."""
    return regression_of()


@pytest.fixture(scope="session")
def audit() -> Callable[..., dict[str, Any]]:
    """Makes an audit of two splits with these classes."""
    return audit_of


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Writes a finished run into a folder; what is left out has no file."""
    return write_run


@pytest.fixture
def dummy_predictions(tmp_path: Path) -> Callable[..., Run]:
    """Writes a finished run from its parts; what is left out has no file."""
    return lambda *arguments, **parts: write_run(tmp_path / "runs", *arguments, **parts)


def write_run(
    folder: Path,
    name: str = "one",
    *,
    document: dict[str, Any] | None = None,
    steps: int = 225,
    audited: dict[str, Any] | None = None,
    notices: Sequence[str] = ("freshly initialised from seed 42: classifier.bias, classifier.weight",),
    others: Sequence[dict[str, Any]] = (),
    seed: int = 42,
    changes: Sequence[str] = (),
    **about: Any,
) -> Run:
    """A run of the quickstart recipe with these documents."""
    run = Run.create(load_recipe("quickstart", changes), folder, name)
    written = [{"type": "notice", "text": text} for text in notices] + records_of(steps, seed=seed)
    lines = "".join(json.dumps(record) + "\n" for record in written)
    (run.path / "records.jsonl").write_text(lines, encoding="utf-8")
    if document is not None:
        write_evaluation(run, "validation", document, [])
    for other in others:
        write_evaluation(run, other["split"], other, [])
    metrics = (document or {}).get("metrics", {})
    summary = {
        "steps": steps,
        "epochs": 3.0,
        "examples_per_second": 2367.3,
        "evaluated_step": steps * 2 // 3,
        "seconds": 3.0,
    }
    run.write_json(
        "metrics.json",
        {"split": "validation", "metrics": metrics, "examples": (document or {}).get("examples"), **summary},
    )
    if audited is not None:
        run.write_json("audit.json", audited)
    run.update_metadata(
        id=name, name="quickstart", status="finished", engine="trainer", seed=seed, device="cpu",
        precision={"name": "bf16", "why": "the CPU has it"}, started="2026-11-21T14:05:01+00:00",
        command=["/usr/bin/hfpipe", "finetune", "recipes/quickstart.yaml", "--runs-dir", "/home/someone/runs", "--name", name],
        versions={"python": "3.11.7", "hfpipe": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0"},
        machine={"system": "Linux", "processor": "a CPU", "cores": 4}, commit="9" * 40, rows={"train": 2400, "evaluation": 408},
        identity={"dataset": {"path": "embedded:paraphrases", "commit": None, "digest": "6" * 64}},
        **about,
    )  # fmt: skip
    return run

"""Predict and score: the same code for both engines and for `hfpipe evaluate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from hfpipe.errors import NumericError
from hfpipe.parts.batches import Collate, evaluation_loader
from hfpipe.parts.metrics import compute_all
from hfpipe.parts.objective import Objective
from hfpipe.parts.precision import Precision
from hfpipe.parts.tasks import IGNORED, TextTask, lengths

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Predictions:
    """What the model says of every row, in the order of the data.

    logits `[rows, num_labels]`; labels `[rows]` or None; losses and weights `[rows]` in float64, None without labels.
    """

    logits: Array
    labels: Array | None
    losses: Array | None
    weights: Array | None
    seconds: float


@contextmanager
def without_a_trace(model: torch.nn.Module) -> Iterator[None]:
    """Evaluate without changing what training does next: mode and random state are put back."""
    training = model.training
    cpu_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
        torch.set_rng_state(cpu_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


def predict(
    model: torch.nn.Module,
    encoded: datasets.Dataset,
    collate: Collate,
    *,
    batch_size: int,
    precision: Precision,
    objective: Objective | None = None,
) -> Predictions:
    """Run the model over every row exactly once, on all processes, and put the results in the order of the data.

    Rows of similar length go together, so that little is padded; no figure depends on the batch size.

    Raises:
        NumericError: a logit that is not finite, naming the row.
    """
    state = PartialState()
    started = time.perf_counter()
    order = np.argsort(-lengths(encoded), kind="stable")
    mine = order[state.process_index :: state.num_processes].tolist()
    device = next(model.parameters()).device
    parts: list[dict[str, Array]] = []
    with without_a_trace(model), precision.autocast(device):
        for batch in evaluation_loader(encoded, mine, collate, batch_size=batch_size):
            batch = {name: value.to(device) for name, value in batch.items()}
            labels = batch.pop("labels", None)
            logits = model(**batch).logits.float()
            part = {"logits": logits.cpu().numpy()}
            if labels is not None and objective is not None:
                part["labels"] = labels.cpu().numpy()
                part["losses"] = _per_row(objective.item_losses(logits, labels), labels)
                part["weights"] = _per_row(objective.weights(labels), labels)
            parts.append(part)
    gathered = gather_object([(mine, parts)]) if state.num_processes > 1 else [(mine, parts)]
    rows = np.concatenate([np.asarray(part_rows, dtype=np.int64) for part_rows, _ in gathered])
    everything = [part for _, shares in gathered for part in shares]
    place = np.argsort(rows)
    columns = {name: np.concatenate([part[name] for part in everything])[place] for name in everything[0]}
    bad = ~np.isfinite(columns["logits"]).all(axis=-1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise NumericError(
            f"the model's logits are not finite for {int(bad.sum()):,} of {len(bad):,} rows, first row {row}",
            fix="The weights have diverged or overflow in this precision; try train.precision=fp32 or a smaller optimizer.lr.",
        )
    return Predictions(
        columns["logits"],
        columns.get("labels"),
        columns.get("losses"),
        columns.get("weights"),
        time.perf_counter() - started,
    )


def _per_row(values: torch.Tensor, labels: torch.Tensor) -> Array:
    return values.reshape(len(labels), -1).sum(dim=1, dtype=torch.float64).cpu().numpy()


def decided(logits: Array, task: TextTask) -> Array:
    """What is predicted: the class with the greatest logit, `[rows]`, or the number itself for regression."""
    return logits.reshape(len(logits)) if task.is_regression else logits.argmax(axis=-1)


def compute_metrics(task: TextTask, metrics: list[tuple[str, Any]]) -> Callable[[Any], dict[str, float | None]]:
    """The function that Trainer calls with an EvalPrediction: metric names to numbers, None where undefined."""

    def compute(prediction: Any) -> dict[str, float | None]:
        labels = np.asarray(prediction.label_ids)
        counted = labels != IGNORED
        return compute_all(metrics, decided(np.asarray(prediction.predictions), task)[counted], labels[counted])

    return compute


def mean_loss_of(predictions: Predictions) -> float:
    """The loss over all items: the sum of their losses over the sum of their weights, in float64."""
    if predictions.losses is None or predictions.weights is None:
        raise ValueError("predictions without labels have no loss")
    return float(predictions.losses.sum() / predictions.weights.sum())


def told(metrics: Mapping[str, float | None]) -> list[str]:
    """The names of the metrics that are undefined on these predictions."""
    return [name for name, value in metrics.items() if value is None]

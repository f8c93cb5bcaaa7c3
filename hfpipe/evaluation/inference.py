"""Predict and score: the same code for both engines and for `hfpipe evaluate`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from hfpipe.errors import NumericError
from hfpipe.parts.data.columns import column, is_item, is_list
from hfpipe.parts.inputs.batches import Collate, evaluation_loader
from hfpipe.parts.inputs.buckets import cut_by_tokens
from hfpipe.parts.metrics.functions import logits_and_labels
from hfpipe.parts.metrics.scores import compute_all, takes_logits
from hfpipe.parts.model.precision import Precision
from hfpipe.parts.optim.objective import Objective
from hfpipe.parts.tasks import Task, outputs_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Predictions:
    """The model's outputs for every encoded row, in the order of the data.

    Attributes:
        logits: of each row without padding, `[num_labels]` for a text.
        losses: `[rows]` in float64, None without labels.
        weights: of the losses, `[rows]` in float64, None without labels.
        seconds: that the forward passes took, on all processes.
    """

    logits: list[Array]
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
        with torch.no_grad():  # in inference mode autocast would cast every weight again for every batch
            yield
    finally:
        model.train(training)
        torch.set_rng_state(cpu_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


def predict(
    model: torch.nn.Module,
    task: Task,
    encoded: datasets.Dataset,
    collate: Collate,
    *,
    batch_size: int,
    precision: Precision,
    objective: Objective | None = None,
) -> Predictions:
    """Run the model over every row exactly once, on all processes, and put the results in the order of the data.

    Rows of similar length go together, so that little is padded, and a batch has as many tokens as `batch_size` rows of
    mean length have; no metric depends on it.

    Raises:
        NumericError: a logit or a loss that is not finite, naming the row.
    """
    state = PartialState()
    started = time.perf_counter()
    tokens = task.lengths(encoded)
    order = np.argsort(-tokens, kind="stable")
    mine = order[state.process_index :: state.num_processes]
    budget = math.ceil(batch_size * int(tokens.sum()) / max(1, len(tokens)))
    batches = [batch.tolist() for batch in cut_by_tokens(mine, tokens, budget)]
    device = next(model.parameters()).device
    logits_of: list[Array] = []
    sums: list[Array] = []
    with without_a_trace(model), precision.autocast(device):
        for batch in evaluation_loader(encoded, batches, collate):
            batch = {name: value.to(device) for name, value in batch.items()}
            labels = batch.pop("labels", None)
            logits = outputs_of(model(**batch), batch).float()
            logits_of += task.unpad_logits(logits, batch if labels is None else {**batch, "labels": labels})
            if labels is not None and objective is not None:
                losses, weights = objective.item_losses(logits, labels), objective.weights(labels)
                sums.append(np.stack([_per_row(losses, labels), _per_row(weights, labels)]))
    share = (mine.tolist(), logits_of, sums)
    shares = gather_object([share]) if state.num_processes > 1 else [share]
    rows = np.concatenate([np.asarray(part, dtype=np.int64) for part, _, _ in shares])
    position = np.argsort(rows)
    everything = [one for _, part, _ in shares for one in part]
    ordered = [everything[index] for index in position]
    _require_finite(
        "the model's logits are",
        ordered,
        "The weights have diverged or overflow in this precision; try train.precision=fp32 or a smaller optimizer.lr.",
    )
    measured = [one for _, _, part in shares for one in part]
    totals = np.concatenate(measured, axis=1)[:, position] if measured else [None, None]
    if objective is not None and totals[0] is not None:
        _require_finite(
            f"the loss {objective.name!r} is", totals[0], "The logits are finite, so look at the loss itself."
        )
    return Predictions(ordered, totals[0], totals[1], time.perf_counter() - started)


def _require_finite(what: str, values: Sequence[Any], fix: str) -> None:
    bad = [row for row, one in enumerate(values) if not np.isfinite(one).all()]
    if bad:
        raise NumericError(f"{what} not finite for {len(bad):,} of {len(values):,} rows, first row {bad[0]}", fix=fix)


def _per_row(values: torch.Tensor, labels: torch.Tensor) -> Array:
    return values.reshape(len(labels), -1).sum(dim=1, dtype=torch.float64).cpu().numpy()


def compute_metrics(
    task: Task, metrics: list[tuple[str, Any]], encoded: datasets.Dataset, rows: datasets.Dataset
) -> Callable[[Any], dict[str, float | None]]:
    """The function that Trainer calls with an EvalPrediction: metric names to numbers, None where undefined."""

    def compute(prediction: Any) -> dict[str, float | None]:
        predictions, references = task.decode(prediction.predictions, encoded, rows)
        ids = scored_rows(encoded, len(rows))
        outputs = outputs_for(metrics, prediction.predictions, encoded, ids)
        return compute_all(metrics, predictions, references, outputs=outputs)

    return compute


def outputs_for(
    metrics: Sequence[tuple[str, Any]], logits: Sequence[Array], encoded: datasets.Dataset, ids: Array
) -> tuple[Array, Array] | None:
    """Logits and label ids of these rows, where a metric takes them."""
    if not any(takes_logits(metric) for _, metric in metrics):
        return None
    labels = encoded["labels"][:]
    return logits_and_labels([logits[row] for row in ids], [labels[row] for row in ids])


def scored_rows(encoded: datasets.Dataset, rows: int) -> Array:
    """The numbers of the rows that count: those whose one class, or 0 and 1 of each class, is ignored do not."""
    labels = column(encoded, "labels")
    if is_list(labels.type):
        if not pa.types.is_floating(labels.type.value_type):
            return np.arange(rows)  # labels of tokens, or of windows
        labels = pc.list_element(labels, 0)
    return np.flatnonzero(is_item(np.asarray(labels)))


def raw_rows(encoded: datasets.Dataset, rows: int) -> Array:
    """The raw row of each encoded one: of a long text several encoded rows come from one."""
    return np.asarray(encoded["row"][:]) if "row" in encoded.column_names else np.arange(rows)


def mean_loss_of(predictions: Predictions) -> float:
    """The loss over all items: the sum of their losses over the sum of their weights, in float64."""
    if predictions.losses is None or predictions.weights is None:
        raise ValueError("predictions without labels have no loss")
    return float(predictions.losses.sum() / predictions.weights.sum())

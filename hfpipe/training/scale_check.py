"""Is the gradient of an update the one that the recipe's reduction defines, however the update is cut into batches?

A few examples of the job go through its own model and objective twice: as one batch whose gradient is written down
straight from the definition in parts/optim/reduction.py, and as micro-batches on all processes through what both engines call
(loader, `tally`, `item_losses`, `backward_value`). Dropout is off, the forward pass is fp32, nothing is updated.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce

from hfpipe.errors import NumericError
from hfpipe.parts.inputs.batches import Examples, train_loader
from hfpipe.parts.tasks import outputs_of
from hfpipe.training.job import Job

TOLERANCE = 1e-3
"""Largest allowed norm of the difference of the two gradients, over the norm of the one from the definition.

Rounding gives 1e-7 to 1e-5 (padding to other lengths, sums in other orders, TF32 on a GPU up to some 1e-4); the faults
that are looked for give 0.1 and more: a mean of means, a count of one micro-batch, a second division.
"""

_EXAMPLES = 7  # no multiple of 2, 3 or 4: the last micro-batch is ragged, where a mean of means shows
_LOOKED_AT = 256  # rows among which the short ones are chosen
_SMALL_LOSS = 1e-2  # below, p - y of a nearly certain class has so few digits left that rounding shows in the gradient


@dataclass(frozen=True)
class ScaleCheck:
    """What the check measured.

    Attributes:
        ratio: the norm of the gradient from the micro-batches over that of the gradient from the definition.
        difference: the norm of their difference over the norm of the second; 0 when both are 0.
        allowed: the largest difference that passes.
        examples: how many.
        micro_batches: how many on each process.
        processes: how many.
    """

    ratio: float
    difference: float
    allowed: float
    examples: int
    micro_batches: int
    processes: int

    @property
    def ok(self) -> bool:
        """Whether the two gradients are the same within the tolerance."""
        return self.difference <= self.allowed

    @property
    def text(self) -> str:
        """One line for a person."""
        cut = f"{self.examples} examples as {self.micro_batches} micro-batch{'es' if self.micro_batches > 1 else ''}"
        cut += f" on {self.processes} processes" if self.processes > 1 else ""
        if math.isnan(self.ratio):
            return f"the gradient of {cut} and as one batch is 0: nothing to compare"
        return f"the gradient of {cut} is {self.ratio:.6f} times that as one batch (difference {self.difference:.1e})"

    def record(self) -> dict[str, Any]:
        """The record of a run's own check."""
        return {
            "type": "check",
            "name": "loss scale",
            "ok": self.ok,
            "ratio": self.ratio,
            "difference": self.difference,
            "allowed": self.allowed,
            "examples": self.examples,
            "micro_batches": self.micro_batches,
            "processes": self.processes,
            "text": self.text,
        }

    def error(self) -> NumericError:
        """What stops a run whose check failed."""
        return NumericError(
            f"the loss scale is off before the first step: {self.text}",
            allowed=f"a difference of {self.allowed:.0e}",
            fix="A loss that looks at other items of its batch does this: it must judge every item by itself. "
            "So does a model whose answer for a row depends on the rest of the batch or on the padding.",
        )


def is_due(job: Job) -> bool:
    """Whether a run checks itself: when an update is made of more than one forward pass."""
    return job.recipe.train.accumulate > 1 or PartialState().num_processes > 1


def check_scale(job: Job) -> ScaleCheck | None:
    """Measure the gradient of a few examples as one batch and in micro-batches; on all processes together.

    Weights, gradients, modes and random states are as before afterwards; the model is on the job's device, where every
    engine puts it. The memory needed is that of one backward pass: the gradients are subtracted in place.

    Returns:
        What was measured; None when there are fewer than two examples.

    Raises:
        NumericError: the gradient is not finite.
    """
    state = PartialState()
    few = few_examples(job, min(_EXAMPLES, max(job.recipe.train.batch_size, 3)))
    if len(few) < 2:
        return None
    parts = min(max(job.recipe.train.accumulate, 2), 4)
    model, objective = job.model, job.objective
    model.to(job.device)
    with dropout_off(model):
        whole = job.collate(Examples(few).__getitems__(range(len(few))))
        loader = train_loader(
            few,
            job.collate,
            batch_size=math.ceil(len(few) / (parts * state.num_processes)),
            seed=job.recipe.seed,
            rank=state.process_index,
            processes=state.num_processes,
        )
        micro_batches = list(loader)
        try:
            mean_loss = _backward_as_defined(job, whole, 1.0)
            defined = _gradient_norm(model)
            model.zero_grad()

            tally = objective.tally(micro_batches)
            for batch in micro_batches:
                value = objective.backward_value(_item_losses(job, batch), tally, state.num_processes)
                value.backward()  # type: ignore[no-untyped-call]
            if state.num_processes > 1:
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad = reduce(parameter.grad, "mean")  # as DDP does
            cut = _gradient_norm(model)

            _backward_as_defined(job, whole, -1.0)
            left = _gradient_norm(model)
        finally:
            model.zero_grad()
    if not math.isfinite(defined) or not math.isfinite(mean_loss):
        raise NumericError(
            f"the loss {objective.name!r} is {mean_loss} on the first examples, and its gradient has the norm {defined}",
            fix="The checkpoint holds numbers that are not finite, or the loss gives them; look at both.",
        )
    return ScaleCheck(
        ratio=cut / defined if defined else math.nan,
        difference=left / defined if defined else left,
        allowed=_allowed(model, mean_loss),
        examples=len(few),
        micro_batches=len(micro_batches),
        processes=state.num_processes,
    )


def few_examples(job: Job, count: int) -> datasets.Dataset:
    """Some short encoded rows of the training split that have items, as many classes among them as there are."""
    rows = job.train_data.select(range(min(len(job.train_data), _LOOKED_AT)))
    seen: Counter[str] = Counter()
    turn = {}
    for row in np.argsort(job.task.lengths(rows), kind="stable").tolist():
        labels = rows[row]["labels"]
        if job.objective.weights(torch.tensor([labels])).sum() > 0:
            turn[row] = seen[str(labels)]
            seen[str(labels)] += 1
    return rows.select(sorted(turn, key=turn.__getitem__)[:count])


@contextmanager
def dropout_off(model: torch.nn.Module) -> Iterator[None]:
    """Keep the model in evaluation mode whoever asks it to train, and put modes and random states back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    model.__dict__["train"] = lambda mode=True: model  # shadows the method: a job calls train() before every epoch
    try:
        with preserved_rng():
            yield
    finally:
        del model.__dict__["train"]
        for module, training in modes:
            module.training = training


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Put the global random states of Python, NumPy and torch back afterwards."""
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


def _item_losses(job: Job, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    moved = {name: value.to(job.device) for name, value in batch.items()}
    labels = moved.pop("labels")
    return job.objective.item_losses(outputs_of(job.model(**moved), moved), labels)


def _backward_as_defined(job: Job, batch: Mapping[str, torch.Tensor], sign: float) -> float:
    """Add the gradient of one batch, times the sign, as parts/optim/reduction.py defines it; return the mean loss.

    Written out here on purpose, without `tally` and `backward_value`: shared code can't check itself.
    """
    losses = _item_losses(job, batch)
    divisor = job.objective.weights(batch["labels"]).sum().item()
    summed = losses.sum()
    value = summed / divisor if job.objective.reduction == "mean" else summed
    (sign * value).backward()  # type: ignore[no-untyped-call]
    return float(summed.detach()) / divisor


def _gradient_norm(model: torch.nn.Module) -> float:
    norms = [torch.linalg.vector_norm(p.grad, dtype=torch.float32) for p in model.parameters() if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack([norm.cpu() for norm in norms]))) if norms else 0.0


def _allowed(model: torch.nn.Module, mean_loss: float) -> float:
    """The tolerance, wider for weights in half precision and for a loss so small that its gradient is mostly rounding.

    Never more than 0.5, so that a factor of 2 or 1/2 is always seen.
    """
    formats = {p.dtype for p in model.parameters() if p.is_floating_point()}
    rounding = max(10 * torch.finfo(kind).eps for kind in formats)
    return min(0.5, max(TOLERANCE, rounding) * max(1.0, _SMALL_LOSS / max(abs(mean_loss), 1e-12)))

"""What is minimised: a loss of one number per item, the weights of the items, and their reduction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce

from hfpipe.errors import RecipeError
from hfpipe.parts.data.columns import IGNORED
from hfpipe.parts.optim.losses import item_weights
from hfpipe.parts.optim.reduction import Reduction, Tally, item_scale, mean_loss

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss `(logits, targets) -> [items]`, the class weights that it already applies, and the reduction."""

    loss: Loss
    name: str
    reduction: Reduction
    class_weights: torch.Tensor | None = None

    def item_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of every label position, `[positions]`; 0 where the label is ignored.

        Args:
            logits: `[batch, classes]`, `[batch, 1]` for regression, `[batch, length, classes]`, or `[batch, 2, length]`.
            labels: `[batch]`, `[batch, length]`, `[batch, 2]`, or numbers or multi-hot `[batch, classes]` in floats;
                the class -100 and the number NaN are no items.

        Raises:
            RecipeError: the loss gives something else than one number per item.
        """
        logits, targets = as_items(logits, labels)
        counted = is_item(targets)
        # What is ignored is 0 on its way into the loss, so that nothing of it, not even a NaN, comes back.
        logits = logits.where(counted if logits.ndim == 1 else counted[:, None], logits.new_zeros(()))
        mask = counted if targets.ndim == 1 else counted[:, None]
        losses = self.loss(logits, targets.where(mask, targets.new_zeros(())))
        if not isinstance(losses, torch.Tensor) or losses.shape != targets.shape[:1]:
            got = f"shape {list(losses.shape)}" if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise RecipeError(
                f"loss {self.name!r} gave {got} for {len(targets)} items",
                allowed=f"one number per item, shape [{len(targets)}]",
                fix="Return the losses before any mean or sum (reduction='none' in torch); hfpipe reduces them.",
            )
        return losses.where(counted, losses.new_zeros(()))

    def backward_value(self, losses: torch.Tensor, tally: Tally, processes: int) -> torch.Tensor:
        """The scalar to call backward on for one micro-batch of an update.

        Args:
            losses: `[positions]`, from :meth:`item_losses`.
            tally: of the whole update.
            processes: DDP averages the gradients of so many, which is undone here.
        """
        return losses.sum() * (item_scale(self.reduction, tally.divisor, processes) if tally.divisor > 0 else 0.0)

    def tally(self, micro_batches: Iterable[Mapping[str, Any]]) -> Tally:
        """Count the items of one update over its micro-batches and over all processes, before any backward.

        Of rows that have no label, or classes of weight 0 alone, both numbers may be 0: such an update changes nothing.
        """
        counts = torch.zeros(2, dtype=torch.float64)
        for batch in micro_batches:
            labels = batch["labels"]
            counts[0] += is_item(as_targets(labels)).sum()
            counts[1] += self.weights(labels).sum(dtype=torch.float64)
        state = PartialState()
        if state.num_processes > 1:
            counts = reduce(counts.to(state.device), "sum").cpu()
        return Tally(int(counts[0]), float(counts[1]))

    def weights(self, labels: torch.Tensor) -> torch.Tensor:
        """The weight of every label position, `[positions]`: 0 where ignored, else 1 or the weight of its class."""
        targets = as_targets(labels)
        counted = is_item(targets)
        classes = targets if targets.ndim > 1 else targets.where(counted, targets.new_zeros(()))
        return item_weights(classes, self.class_weights).masked_fill(~counted, 0.0)


@dataclass
class UpdateLosses:
    """The losses of the items of one update, on the device until the step is recorded."""

    objective: Objective
    tally: Tally
    losses: list[torch.Tensor] = field(default_factory=list)

    def add(self, losses: torch.Tensor) -> None:
        """Remember the losses of one micro-batch."""
        self.losses.append(losses.detach())

    def summary(self, grad_norm: torch.Tensor | float) -> tuple[dict[str, Any], float]:
        """The loss part of a step record, and the norm of the gradient: the one time in a step that the device is waited for.

        Args:
            grad_norm: of the whole update, on its device.

        Returns:
            The mean over all processes and the raw reduced value, with what they were divided by; and the norm.
        """
        total = torch.stack([part.sum(dtype=torch.float64) for part in self.losses]).sum()
        state = PartialState()
        if state.num_processes > 1:
            total = reduce(total, "sum")
        summed, norm = torch.stack([total, torch.as_tensor(grad_norm).to(total)]).tolist()
        loss = mean_loss(summed, self.tally.divisor)
        if self.objective.reduction == "none":
            reduced: Any = self._vector(state)
        else:
            reduced = loss if self.objective.reduction == "mean" else summed
        values = {
            "loss": loss,
            "reduced_loss": reduced,
            "num_items": self.tally.num_items,
            "divisor": self.tally.divisor,
        }
        return values, norm

    def _vector(self, state: PartialState) -> list[float]:
        """Every position's loss, in the order that one process would have had them; 0 where the label is ignored."""
        mine = [part.tolist() for part in self.losses]
        shares = gather_object([mine]) if state.num_processes > 1 else [mine]
        return [value for parts in zip(*shares, strict=True) for part in parts for value in part]


def as_items(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One row per label position.

    Logits `[positions, classes]` and targets `[positions]`; regression: logits `[positions]`; multi-hot: both
    `[positions, classes]`.
    """
    logits, targets = logits.float(), as_targets(labels)
    if targets.ndim == 2 or not targets.is_floating_point():
        return logits.reshape(len(targets), -1), targets
    return logits.reshape(len(targets)), targets


def as_targets(labels: torch.Tensor) -> torch.Tensor:
    """Labels as one row per position: `[positions]`, or multi-hot `[positions, classes]` in floats."""
    if not labels.is_floating_point():
        return labels.reshape(-1)
    return labels.float() if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1).float()


def is_item(targets: torch.Tensor) -> torch.Tensor:
    """Which positions are items, `[positions]`: all but those of the class -100, or of the number NaN."""
    first = targets if targets.ndim == 1 else targets[:, 0]
    return ~first.isnan() if first.is_floating_point() else first != IGNORED

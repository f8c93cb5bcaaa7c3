"""How rows become updates, and what that was before where it changed in the middle of a run.

A run that goes on with updates of another size takes the rows that are left of the epoch that had started, groups them the
new way, and groups every later epoch so. Its position in the order then follows from the list of its plans alone: each row
of an epoch is trained on once, however often that changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np

from hfpipe.parts.inputs.batches import Lengths, Order, PartialEpoch, order_of
from hfpipe.parts.tasks import lengths
from hfpipe.recipe.schema import Batching, Recipe


@dataclass(frozen=True)
class BatchPlan:
    """How rows become updates from a step on.

    Attributes:
        after: the last step before it; 0 at the beginning.
        seed: of the order of the rows.
        rows: of an update, over all its micro-batches and processes.
        batches: micro-batches of an update, on all processes together.
        batching: which rows are put together.
    """

    after: int
    seed: int
    rows: int
    batches: int
    batching: Batching

    @property
    def size(self) -> str:
        """How much an update has, in words."""
        tokens = self.batching.tokens
        return f"{self.rows:,} rows" if tokens is None else f"{tokens * self.batches:,} tokens"

    def same_updates(self, other: BatchPlan) -> bool:
        """Whether both put the same rows into every update."""
        mine, theirs = self.batching, other.batching
        return (mine.by, mine.bucket, self.size, self.seed) == (theirs.by, theirs.bucket, other.size, other.seed)

    def order(self, encoded: datasets.Dataset, lengths: Lengths = lengths) -> Order:
        """The order in which encoded rows are trained on, whose lengths the task says."""
        return order_of(encoded, self.rows, self.seed, self.batching, batches=self.batches, lengths=lengths)

    def as_json(self) -> dict[str, Any]:
        """As `checkpoint.json` and `run.json` have it."""
        return {**vars(self), "batching": self.batching.model_dump(mode="json")}


def plan_for(recipe: Recipe, processes: int, after: int = 0) -> BatchPlan:
    """How a recipe puts rows together with so many processes."""
    spec = recipe.train
    batches = spec.accumulate * processes
    return BatchPlan(after, recipe.seed, spec.batch_size * batches, batches, spec.batching)


def read_plan(found: Mapping[str, Any]) -> BatchPlan:
    """A plan from JSON."""
    return BatchPlan(**{**found, "batching": Batching(**found["batching"])})


def partial_epoch_of(
    encoded: datasets.Dataset, batch_plans: Sequence[BatchPlan], lengths: Lengths = lengths
) -> tuple[PartialEpoch | None, int]:
    """The epoch in which a run changed its updates last with the rows that were left of it, and the offset of its steps.

    A step has a position in the order: its epoch times the updates of an epoch, and those before it in its epoch. Without a
    change the position of the step that follows n others is n; the offset is what has to be added after the last change.

    Args:
        encoded: the training rows.
        batch_plans: of the run, in the order of their steps.
        lengths: of the task.
    """
    partial_epoch, step_offset, order = None, 0, batch_plans[0].order(encoded, lengths)
    for plan in batch_plans[1:]:
        epoch, within = divmod(plan.after + step_offset, len(order.updates(0)))
        rows = np.concatenate(order.updates(epoch)[within:])
        partial_epoch = PartialEpoch(epoch, rows[rows >= 0])
        order = replace(plan.order(encoded, lengths), partial_epoch=partial_epoch)
        updates = order.updates(epoch)
        before = sum(bool((rows < 0).all()) for rows in updates)
        step_offset = epoch * len(updates) + before - plan.after
    return partial_epoch, step_offset

"""Updates that change their size on the way: every row of an epoch once, whatever was changed, and how often."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfpipe.parts.inputs.batch_plan import BatchPlan, partial_epoch_of, plan_for, read_plan
from hfpipe.parts.inputs.batches import EpochBatches, Order
from hfpipe.parts.inputs.buckets import shuffled
from hfpipe.recipe import load_recipe
from hfpipe.recipe.schema import Batching

EPOCHS = 3


def encoded(rows: int) -> datasets.Dataset:
    """Rows of 3 to 31 tokens."""
    return datasets.Dataset.from_dict(
        {"input_ids": [[1] * (3 + (7 * row) % 29) for row in range(rows)], "labels": [0] * rows}
    )


def order_and_shift(data: datasets.Dataset, plans: list[BatchPlan]) -> tuple[Order, int]:
    """The order after the last of the plans."""
    begun, shift = partial_epoch_of(data, plans)
    order = plans[-1].order(data)
    return Order(**{**vars(order), "partial_epoch": begun}), shift


def trained(data: datasets.Dataset, plans: list[BatchPlan]) -> list[list[list[int]]]:
    """The rows of the updates of each epoch as a run takes them, step after step, that changes them at these steps."""
    epochs: list[list[list[int]]] = [[] for _ in range(EPOCHS)]
    for place, (cut, following) in enumerate(pairwise([*plans, None]), start=1):
        order, shift = order_and_shift(data, plans[:place])
        count = len(order.updates(0))
        last = EPOCHS * count - shift if following is None else following.after
        for step in range(cut.after + 1, last + 1):
            epoch, within = divmod(step - 1 + shift, count)
            if epoch < EPOCHS:
                epochs[epoch].append([row for row in order.updates(epoch)[within].tolist() if row >= 0])
    return epochs


BATCHINGS = [{}, {"bucket": True}, {"by": "tokens"}, {"by": "tokens", "tokens": 40, "bucket": True}]


@st.composite
def made_plans(draw: st.DrawFn) -> list[BatchPlan]:
    """One to four ways of cutting, each from a later step on or from the same."""
    plans, after = [], 0
    for _ in range(draw(st.integers(1, 4))):
        batches = draw(st.integers(1, 4))
        spec = Batching(**draw(st.sampled_from(BATCHINGS)))
        plans.append(BatchPlan(after, draw(st.integers(0, 2)), batches * draw(st.integers(1, 9)), batches, spec))
        after += draw(st.integers(0, 12))
    return plans


@given(rows=st.integers(1, 60), plans=made_plans())
@settings(max_examples=300, deadline=None)
def test_every_row_of_an_epoch_is_trained_on_once(rows: int, plans: list[BatchPlan]) -> None:
    """No row is left out and none comes twice, in the epochs that were begun with other updates and in all others."""
    for updates in trained(encoded(rows), plans):
        assert all(updates)
        assert sorted(row for update in updates for row in update) == list(range(rows))


@given(rows=st.integers(1, 60), plans=made_plans(), processes=st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_micro_batches_of_an_epoch_that_was_begun(rows: int, plans: list[BatchPlan], processes: int) -> None:
    """It has as many of them as any other, none larger, and every process has one whenever another does."""
    data, batches = encoded(rows), plans[-1].batches
    widths = plans[-1].rows // batches
    plans[-1] = BatchPlan(
        plans[-1].after, plans[-1].seed, widths * batches * processes, batches * processes, plans[-1].batching
    )
    order, _ = order_and_shift(data, plans)
    samplers = [EpochBatches(order, accumulate=batches, rank=rank, processes=processes) for rank in range(processes)]
    epoch = order.partial_epoch.epoch if order.partial_epoch else 0
    shares = [list(sampler.shares(epoch)) for sampler in samplers]
    assert {len(share) for share in shares} == {len(sampler) for sampler in samplers}
    assert len(shares[0]) == len(list(samplers[0].shares(epoch + 1)))
    if order.tokens is None:
        assert all(0 < len(batch) <= widths for share in shares for batch in share)
    left = sorted(order.partial_epoch.left.tolist() if order.partial_epoch else range(rows))
    assert sorted(row for share in shares for batch in share for row in batch if row >= 0) == left


@pytest.mark.parametrize("size", [1, 3, 5, 16, 40, 44, 100])
@pytest.mark.parametrize("after", range(1, 12))
def test_without_buckets_the_order_goes_on(size: int, after: int) -> None:
    """The rows left are those that come next in the order of the epoch, up to the next multiple of the new size.

    By arithmetic: with updates of 8 rows `after` steps have taken min(8 * within, 44) rows of an epoch of 44.
    """
    epoch, within = divmod(after, 6)
    taken = 8 * within
    plans = [BatchPlan(0, 7, 8, 1, Batching()), BatchPlan(after, 7, size, 1, Batching())]
    order = shuffled(44, 7, epoch).tolist()
    edges = [taken, *range((taken // size + 1) * size, 44, size), 44]
    expected = [order[start:end] for start, end in pairwise(edges)]
    assert trained(encoded(44), plans)[epoch][within:] == expected
    for later in range(epoch + 1, EPOCHS):
        whole = shuffled(44, 7, later).tolist()
        assert trained(encoded(44), plans)[later] == [whole[start : start + size] for start in range(0, 44, size)]


def test_another_seed_shuffles_what_is_left() -> None:
    """In the middle of an epoch the rows that are left follow the order of the new seed, and so do later epochs."""
    plans = [BatchPlan(0, 7, 8, 1, Batching()), BatchPlan(3, 8, 8, 1, Batching())]
    begun, *later = trained(encoded(44), plans)
    left = set(shuffled(44, 7, 0).tolist()[24:])
    assert [row for update in begun[3:] for row in update] == [r for r in shuffled(44, 8, 0).tolist() if r in left]
    for epoch, updates in enumerate(later, start=1):
        assert [row for update in updates for row in update] == shuffled(44, 8, epoch).tolist()


@pytest.mark.parametrize("spec", BATCHINGS[1:], ids=str)
def test_rows_that_are_left_are_put_together_too(spec: dict[str, Any]) -> None:
    """Of what is left of an epoch the rows of similar length come together, and no update has too many tokens."""
    data = encoded(400)
    lengths = np.array([len(row) for row in data["input_ids"]])
    plans = [BatchPlan(0, 1, 4, 1, Batching()), BatchPlan(20, 1, 8, 1, Batching(**spec))]
    updates = trained(data, plans)[0][20:]
    if spec.get("by") == "tokens":
        budget = spec.get("tokens") or round(8 * lengths.mean())
        assert all(len(rows) * lengths[rows].max() <= budget for rows in updates)
    else:
        assert [len(rows) for rows in updates] == [8] * 40
    if spec.get("bucket"):
        spread = [float(np.ptp(lengths[rows])) for rows in updates]
        assert np.mean(spread) < 3  # at random it is about 22


def test_a_change_to_the_same_changes_nothing() -> None:
    """Updates that are cut as before, from the middle of an epoch on, are those that would have come."""
    first = BatchPlan(0, 3, 8, 1, Batching())
    for after in range(14):
        assert trained(encoded(44), [first, BatchPlan(after, 3, 8, 2, Batching())]) == trained(encoded(44), [first])


def test_what_makes_the_same_updates() -> None:
    """Micro-batches may be cut another way; rows, tokens, seed and batching may not."""
    recipe = load_recipe({"dataset": {"path": "./d"}, "task": {"text": "s"}, "model": {"checkpoint": "./m"}})

    def cut(processes: int = 1, seed: int = 42, **train: Any) -> BatchPlan:
        spec = recipe.train.model_copy(update={"batch_size": 8, **train})
        return plan_for(recipe.model_copy(update={"train": spec, "seed": seed}), processes)

    first = cut()
    assert first.same_updates(cut(batch_size=4, accumulate=2))
    assert first.same_updates(cut(2, batch_size=4))
    assert not first.same_updates(cut(2))
    assert not first.same_updates(cut(accumulate=2))
    assert not first.same_updates(cut(seed=1))
    assert not first.same_updates(cut(batching=Batching(bucket=True)))
    assert not first.same_updates(cut(batching=Batching(by="tokens")))
    tokens = Batching(by="tokens", tokens=64)
    assert cut(batching=tokens).same_updates(cut(batching=tokens, batch_size=1))  # which by tokens says nothing
    assert not cut(batching=tokens).same_updates(cut(batching=tokens, accumulate=2))
    assert read_plan(cut(batching=tokens).as_json()) == cut(batching=tokens)

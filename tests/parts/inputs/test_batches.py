"""Batches: an order of seed and epoch alone, cut the same for any number of processes."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfpipe.parts.inputs.batches import EpochBatches, Examples, Order, evaluation_loader, order_of, train_loader
from hfpipe.parts.inputs.buckets import shuffled
from hfpipe.parts.tasks import IGNORED
from hfpipe.recipe.schema import Batching


def encoded(rows: int) -> datasets.Dataset:
    """Rows that know their number."""
    return datasets.Dataset.from_dict(
        {"input_ids": [[row, row] for row in range(rows)], "labels": [row % 3 for row in range(rows)]}
    )


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Columns as tensors."""
    return {name: torch.tensor([example[name] for example in examples]) for name in examples[0]}


@given(rows=st.integers(1, 60), batch_size=st.integers(1, 9), processes=st.integers(1, 5), epoch=st.integers(0, 3))
def test_every_row_is_seen_once_and_in_one_order(rows: int, batch_size: int, processes: int, epoch: int) -> None:
    """All processes together take the next `batch_size * processes` rows of the order, blanks aside, once an epoch."""
    shares = []
    for rank in range(processes):
        batches = EpochBatches(Order(rows, 5, batch_size * processes), rank=rank, processes=processes)
        batches.epoch = epoch
        shares.append(list(batches))
        assert len(shares[-1]) == len(batches)
    order = shuffled(rows, 5, epoch).tolist()
    width = batch_size * processes
    for step, together in enumerate(zip(*shares, strict=True)):
        taken = [row for share in together for row in share if row >= 0]
        assert taken == order[step * width : (step + 1) * width]
        assert all(0 < len(share) <= batch_size for share in together)
        blanks = [share for share in together if share[0] < 0]
        assert all(len(share) == 1 for share in blanks)
        assert not blanks or len(taken) < processes
    assert sorted(row for share in shares for batch in share for row in batch if row >= 0) == list(range(rows))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    """Another seed or epoch is another order, the global generators are neither read nor moved."""
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state()
    first = shuffled(50, 1, 0).tolist()
    torch.manual_seed(1)
    np.random.seed(1)
    assert shuffled(50, 1, 0).tolist() == first
    assert shuffled(50, 2, 0).tolist() != first
    assert shuffled(50, 1, 1).tolist() != first
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_iterating_leaves_dropouts_generator_alone(workers: int) -> None:
    """Neither a training nor an evaluation loader draws from the generator that dropout uses."""
    loader = train_loader(encoded(10), collate, batch_size=4, seed=1, workers=workers)
    state = torch.get_rng_state()
    assert len(list(loader)) == 3
    list(evaluation_loader(encoded(10), [range(4), range(4, 8), range(8, 10)], collate))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_set_epoch_chooses_the_order_also_with_workers(workers: int) -> None:
    """Persistent workers follow the epoch that was set, and repeat it exactly."""
    loader = train_loader(encoded(10), collate, batch_size=4, seed=1, workers=workers)
    seen = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        seen.append([int(row) for batch in loader for row in batch["input_ids"][:, 0]])
        assert seen[-1] == shuffled(10, 1, epoch).tolist()
    assert seen[0] == seen[2] != seen[1]


def test_a_blank_is_a_row_that_counts_for_nothing() -> None:
    """A blank has the inputs of its row and only ignored labels, of the same type and shape."""
    examples = Examples(encoded(4))
    assert examples[2] == {"input_ids": [2, 2], "labels": 2}
    assert examples[-3] == {"input_ids": [2, 2], "labels": IGNORED}
    tokens = datasets.Dataset.from_dict({"input_ids": [[1, 2]], "labels": [[0, 1]]})
    assert Examples(tokens)[-1]["labels"] == [IGNORED, IGNORED]
    numbers = datasets.Dataset.from_dict({"input_ids": [[1]], "labels": [0.5]})
    blank = Examples(numbers)[-1]["labels"]
    assert isinstance(blank, float)
    assert math.isnan(blank)  # -100.0 is a number like others
    several = datasets.Dataset.from_dict({"input_ids": [[1]], "labels": [[0.0, 1.0]]})
    assert all(math.isnan(one) for one in Examples(several)[-1]["labels"])


def test_an_evaluation_keeps_the_given_order() -> None:
    """Rows come in the order and in the batches that were asked for."""
    batches = list(evaluation_loader(encoded(5), [[4, 2], [0], [3, 1]], collate))
    assert [batch["input_ids"][:, 0].tolist() for batch in batches] == [[4, 2], [0], [3, 1]]


ROWS = 61
LENGTHS = [300 if row == 10 else 3 + (7 * row) % 29 for row in range(ROWS)]  # one is an update of its own by tokens


@pytest.mark.parametrize("spec", [{}, {"bucket": True}, {"by": "tokens"}, {"by": "tokens", "bucket": True}], ids=str)
def test_the_rows_of_an_update_do_not_depend_on_how_it_is_cut(spec: dict[str, Any]) -> None:
    """Eight rows, or their tokens, as 8x1, 4x2, 2x4 and on two processes: the same updates in the same order."""
    rows = datasets.Dataset.from_dict({"input_ids": [[1] * length for length in LENGTHS], "labels": [0] * ROWS})
    seen = []
    for batch_size, accumulate, processes in ((8, 1, 1), (4, 2, 1), (2, 4, 1), (4, 1, 2), (2, 2, 2)):
        order = order_of(rows, 8, 3, Batching(**spec), batches=accumulate * processes)
        shares = [
            list(EpochBatches(order, accumulate=accumulate, rank=rank, processes=processes))
            for rank in range(processes)
        ]
        assert len({len(share) for share in shares}) == 1
        together = [[row for share in step for row in share] for step in zip(*shares, strict=True)]
        updates = [list(chain(*together[at : at + accumulate])) for at in range(0, len(together), accumulate)]
        seen.append([sorted(row for row in update if row >= 0) for update in updates])
        assert len(together) % accumulate == 0 or "by" not in spec  # an update of one row has blank micro-batches
        if not spec:
            assert all(len(share) <= batch_size for batches in shares for share in batches)
    assert all(one == seen[0] for one in seen)
    assert sorted(chain(*seen[0])) == list(range(ROWS))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_process_knows_the_micro_batches_of_all(processes: int) -> None:
    """What all processes train on in a micro-step stands together, in the order of their ranks, whichever of them asks."""
    order = Order(61, 3, 8 * processes)
    samplers = [EpochBatches(order, rank=rank, processes=processes) for rank in range(processes)]
    expected = [share for step in zip(*(sampler.shares(1) for sampler in samplers), strict=True) for share in step]
    assert all(list(sampler.all_shares(1)) == expected for sampler in samplers)


def test_a_budget_of_tokens_holds_for_every_micro_batch() -> None:
    """Padded to its longest row none has more, but for one row that is shared out; the mean decides without a number."""
    rows = datasets.Dataset.from_dict({"input_ids": [[1] * length for length in LENGTHS], "labels": [0] * ROWS})
    order = order_of(rows, 16, 0, Batching(by="tokens", tokens=64, bucket=True), batches=2)
    assert order.tokens == 128
    lengths = np.array(LENGTHS)
    for batch in EpochBatches(order, accumulate=2):
        assert (len(batch) - 1) * lengths[batch].max() <= 64
    assert order_of(rows, 16, 0, Batching(by="tokens"), batches=2).tokens == round(16 * np.mean(LENGTHS))


def test_the_task_says_how_long_a_row_is() -> None:
    """Rows without tokens, such as images, are put together by the lengths that are given."""
    rows = datasets.Dataset.from_dict({"pixels": [0] * ROWS, "labels": [0] * ROWS})
    spec = Batching(by="tokens", tokens=64)
    order = order_of(rows, 16, 0, spec, batches=1, lengths=lambda encoded: np.full(len(encoded), 16))
    assert {int((update >= 0).sum()) for update in order.updates(0)} == {4, ROWS % 4}

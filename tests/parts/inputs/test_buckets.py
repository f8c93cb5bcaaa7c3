"""Updates of similar length: every row once, at random, the same for every way of cutting them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfpipe.parts.inputs.buckets import (
    by_examples,
    by_tokens,
    cut_by_tokens,
    padding_multiple,
    padding_share,
    shuffled,
    updates_by_tokens,
)


def lengths_of(rows: int, seed: int = 0) -> np.ndarray:
    """Lengths as of sentences: 5 to about 120 tokens."""
    return np.minimum(5 + np.random.default_rng(seed).gamma(4, 10, rows).astype(int), 128)


@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 99), st.integers(0, 9), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_row_once_in_updates_of_one_size(rows: int, size: int, seed: int, epoch: int, bucket: bool) -> None:
    """All updates but the last are full, whatever the numbers."""
    updates = by_examples(rows, size, seed, epoch, lengths_of(rows) if bucket else None)
    assert sorted(np.concatenate(updates).tolist()) == list(range(rows))
    assert [len(update) for update in updates[:-1]] == [size] * (len(updates) - 1)
    assert len(updates) == -(-rows // size)


@given(st.integers(1, 400), st.integers(1, 900), st.integers(0, 99), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_update_has_more_tokens_and_every_epoch_as_many_updates(
    rows: int, tokens: int, seed: int, bucket: bool
) -> None:
    """Each row once an epoch; within the tokens unless a row alone has more; the count is that of any epoch."""
    lengths = lengths_of(rows, seed)
    epochs = [by_tokens(tokens, seed, epoch, lengths, bucket=bucket) for epoch in range(3)]
    for updates in epochs:
        assert sorted(np.concatenate(updates).tolist()) == list(range(rows))
        assert all(len(one) == 1 or len(one) * lengths[one].max() <= tokens for one in updates)
    assert len({len(updates) for updates in epochs}) == 1


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=200),
    st.integers(1, 400),
    st.integers(0, 99),
    st.sets(st.integers(0, 199)),
)
@settings(max_examples=150, deadline=None)
def test_without_buckets_an_update_has_all_that_fits(sizes: list[int], tokens: int, seed: int, gone: set[int]) -> None:
    """Of the rows that come next as many as fit, whatever their lengths; at most a halved update could take one more.

    What is left of an epoch makes no more updates than the whole, each within the tokens and in the order of the epoch.
    """
    lengths = np.array(sizes)
    count = updates_by_tokens(tokens, seed, lengths)
    for epoch in range(12):
        updates = by_tokens(tokens, seed, epoch, lengths, bucket=False)
        assert len(updates) == count
        order = np.concatenate(updates)
        assert sorted(order.tolist()) == list(range(len(sizes)))
        greedy = cut_by_tokens(order, lengths, tokens)
        for update, after in pairwise(greedy):
            assert (len(update) + 1) * max(lengths[update].max(), lengths[after[0]]) > tokens
        left = np.array([row for row in range(len(sizes)) if row not in gone], dtype=np.int64)
        rest = by_tokens(tokens, seed, epoch, lengths, bucket=False, left=left)
        assert len(rest) <= count
        assert [row for one in rest for row in one.tolist()] == [row for row in order.tolist() if row not in gone]
        assert all(len(one) == 1 or len(one) * lengths[one].max() <= tokens for one in [*updates, *rest])


def test_one_long_row_leaves_the_updates_of_the_others_as_they_are() -> None:
    """200 rows of about 10 tokens and one of 62 with room for 82: about 25 updates, where the longest row decided for all 200.

    By arithmetic: 82 tokens take 7 rows of up to 11 tokens, 8 of up to 10, so that 200 of them make 25 to 29 updates.
    """
    lengths = np.array([9 + row % 3 for row in range(200)] + [62])
    for bucket in (False, True):
        counts = {len(by_tokens(82, seed, epoch, lengths, bucket=bucket)) for seed in range(5) for epoch in range(3)}
        assert min(counts) >= 25
        assert max(counts) <= 31
    assert [len(one) for one in by_tokens(82, 0, 0, np.full(7, 90), bucket=False)] == [1] * 7


def test_a_million_short_updates_do_not_wait_for_an_order_that_fits() -> None:
    """An epoch is drawn again a few times at most: the count is what the first epochs need at most."""
    lengths = lengths_of(3000)
    count = updates_by_tokens(500, 4, lengths)
    plain = [len(cut_by_tokens(shuffled(3000, 4, epoch), lengths, 500)) for epoch in range(60)]
    assert max(plain[:8]) == count
    assert max(plain) - min(plain) < 0.03 * count  # so that few updates are halved
    assert sum(one > count for one in plain) < 30


def test_without_buckets_the_order_is_the_shuffled_one() -> None:
    """What runs did before there were buckets stays as it was."""
    assert np.concatenate(by_examples(100, 8, 3, 1, None)).tolist() == shuffled(100, 3, 1).tolist()


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize(("how", "repeated"), [("examples", 0.0), ("tokens", 0.1)])
def test_an_epoch_depends_on_seed_and_number_alone(how: str, repeated: float, epoch: int) -> None:
    """The same again, and another one for another seed or epoch: rows change their company and updates their place.

    BatchPlan by tokens, all rows of a length may happen to fill an update, and then they do so in every epoch.
    """
    lengths = lengths_of(4000)

    def make(seed: int, epoch: int) -> list[np.ndarray]:
        if how == "examples":
            return by_examples(4000, 16, seed, epoch, lengths)
        return by_tokens(1000, seed, epoch, lengths, bucket=True)

    first, again = make(7, epoch), make(7, epoch)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    for other in (make(8, epoch), make(7, epoch + 1)):
        shared = {tuple(sorted(one.tolist())) for one in first} & {tuple(sorted(one.tolist())) for one in other}
        assert len(shared) <= repeated * len(first)
        assert [one.tolist() for one in first[:3]] != [one.tolist() for one in other[:3]]


def test_buckets_leave_little_padding() -> None:
    """On lengths like those of sentence pairs a third and more of padding becomes a few per cent."""
    lengths = lengths_of(4000)
    plain = padding_share(by_examples(4000, 32, 0, 0, None), lengths)
    bucketed = padding_share(by_examples(4000, 32, 0, 0, lengths), lengths)
    budget = padding_share(by_tokens(2048, 0, 0, lengths, bucket=True), lengths)
    assert plain > 0.35
    assert bucketed < 0.04
    assert budget < 0.03


def test_updates_of_a_length_come_at_any_time() -> None:
    """Long updates are spread over the epoch: the mean place of the longest tenth is near the middle."""
    lengths = lengths_of(4000)
    for updates in (by_examples(4000, 32, 1, 0, lengths), by_tokens(2048, 1, 0, lengths, bucket=True)):
        longest = np.argsort([-lengths[one].max() for one in updates])[: len(updates) // 10]
        assert 0.3 < longest.mean() / len(updates) < 0.7


def test_padding_share_by_hand() -> None:
    """Two batches of lengths 2, 4 and 3: 6 of 8 tokens, and all 3."""
    assert padding_share([[0, 1], [2]], np.array([2, 4, 3])) == pytest.approx(1 - 9 / 11)
    assert padding_share([], np.array([2])) == 0
    assert padding_share([[0, 1], [2]], np.array([2, 4, 3]), 8) == pytest.approx(1 - 9 / 24)


def test_batches_of_so_many_tokens() -> None:
    """Every row comes once and in order, no batch is padded to more tokens, and none could have taken one row more."""
    lengths = np.array([9, 2, 7, 7, 30, 1, 2, 5])
    order = np.argsort(-lengths, kind="stable")
    batches = cut_by_tokens(order, lengths, 16)
    assert np.concatenate(batches).tolist() == order.tolist()
    assert [batch.tolist() for batch in batches] == [[4], [0], [2, 3], [7, 1, 6], [5]]
    assert cut_by_tokens(order[:0], lengths, 16) == []


def test_padding_to_a_multiple_is_for_gpus() -> None:
    """8 where the padded length is still one that the model takes; as long as the longest row elsewhere."""
    assert padding_multiple("cpu", 128, 512) is None
    assert (
        padding_multiple("cuda", 128, 512)
        == padding_multiple("cuda", 100, 104)
        == padding_multiple("cuda", 9, None)
        == 8
    )
    assert padding_multiple("cuda", 130, 130) is None

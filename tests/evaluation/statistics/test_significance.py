"""Significance: the tests agree with their closed forms, reject as often as they say, and find what their power promises."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hfpipe.evaluation.statistics import significance
from hfpipe.evaluation.statistics.significance import (
    deviation,
    mcnemar,
    p_of_resamples,
    power,
    prediction_interval,
    seeds_needed,
    smallest_difference,
    t_interval,
    welch,
)

COUNTS = st.integers(0, 30)
FIGURES = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_mcnemar_is_the_binomial_over_the_disagreements(
    both: int, neither: int, only_first: int, only_second: int
) -> None:
    """Its p is the sum of all binomial probabilities no greater than that of what was seen; agreement changes nothing."""
    first = np.array([True] * both + [False] * neither + [True] * only_first + [False] * only_second)
    second = np.array([True] * both + [False] * neither + [False] * only_first + [True] * only_second)
    found = mcnemar(first, second)
    apart = only_first + only_second
    ways = [math.comb(apart, one) for one in range(apart + 1)]
    expected = sum(way for way in ways if way <= ways[only_second]) / 2**apart
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert mcnemar(second, first).p == pytest.approx(found.p, rel=1e-12)


def test_mcnemar_rejects_equal_models_as_seldom_as_it_says() -> None:
    """Two models that are right equally often, 400 examples, 500 draws: between 2 and 8 % come out below 0.05."""
    rng = np.random.default_rng(7)
    hard = rng.random((500, 400)) < 0.5  # on the hard half both guess, so that they differ on a quarter of all examples
    rights = [np.where(hard, rng.random(hard.shape) < 0.5, True) for _ in range(2)]
    rejected = np.mean([mcnemar(*pair).p < 0.05 for pair in zip(*rights, strict=True)])
    assert 0.02 <= rejected <= 0.08


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0] * 99, 0.02),
        ([-1.0] * 99, 0.02),
        ([1.0] * 50 + [-1.0] * 49, 1.0),
        ([0.0] * 99, 1.0),
        ([1.0] * 97 + [-1.0] * 2, 0.06),
        ([1.0] * 97 + [math.nan] * 2, 2 / 98),
        ([math.nan] * 60 + [1.0] * 39, None),
        ([], None),
    ],
)
def test_the_p_of_resamples(differences: list[float], expected: float | None) -> None:
    """Twice the share beyond 0, never 0, ties on both sides, and none where most resamples are undefined."""
    found = p_of_resamples(np.array(differences))
    assert found == (expected if expected is None else pytest.approx(expected))


@given(FIGURES, FIGURES)
def test_welch_is_its_formula(first: list[float], second: list[float]) -> None:
    """t, the degrees of freedom of Welch and Satterthwaite, p and interval, written out."""
    found = welch(first, second)
    parts = [np.var(side, ddof=1) / len(side) for side in (first, second)]
    assert found.difference == pytest.approx(np.mean(second) - np.mean(first), abs=1e-12)
    if min(deviation(first), deviation(second)) < 1e-6:
        return
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (first, second), strict=True)
    )
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.difference) / error, freedom), rel=1e-6, abs=1e-12)
    half = stats.t.isf(0.025, freedom) * error
    assert found.interval == pytest.approx([found.difference - half, found.difference + half], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("first", "second"), [([0.5], [0.6, 0.7]), ([0.5, 0.5], [0.6, 0.6, 0.6])])
def test_what_welch_cannot_say(first: list[float], second: list[float]) -> None:
    """One value has no deviation, and neither have equal values on both sides: there is a difference, and no p."""
    found = welch(first, second)
    assert found.difference == pytest.approx(np.mean(second) - np.mean(first))
    assert found.interval is None
    assert found.p is None


def test_equal_values_on_one_side_are_no_warning() -> None:
    """A group without deviation is tested against one with it."""
    assert 0 < welch([0.5, 0.5, 0.5], [0.6, 0.7, 0.8]).p < 0.2


@pytest.mark.parametrize(("effect", "sizes"), [(1.5, (5,)), (0.8, (10,)), (1.5, (5, 5)), (2.0, (3, 8)), (0.0, (4, 4))])
def test_the_power_is_the_share_of_simulated_tests_that_find_the_difference(
    effect: float, sizes: tuple[int, ...]
) -> None:
    """20,000 simulated t tests find the difference as often as the formula says, within 1.5 %."""
    rng = np.random.default_rng(3)
    sides = [rng.normal(size=(20_000, size)) for size in sizes]
    sides[0] = sides[0] + effect
    tested = stats.ttest_1samp(sides[0], 0, axis=1) if len(sides) == 1 else stats.ttest_ind(*sides, axis=1)
    assert power(effect, sizes) == pytest.approx((tested.pvalue < 0.05).mean(), abs=0.015)


def test_the_power_never_turns_undefined() -> None:
    """Where scipy has no number for the far tail the power is still between 0.05 and 1, and grows with effect and seeds."""
    for sizes in ((2,), (3,), (10,), (100_000,), (2, 2), (1_000, 1_000)):
        grown = [power(effect, sizes) for effect in (0, 1e-6, 0.01, 0.1, 1, 3, 10, 100, 1e5)]
        assert np.isfinite(grown).all()
        assert grown[0] == pytest.approx(0.05)
        assert all(later >= before - 1e-9 for before, later in pairwise(grown))


@pytest.mark.parametrize(
    ("effect", "groups", "expected"),
    [(0.5, 2, 64), (0.8, 2, 26), (0.2, 2, 394), (0.5, 1, 34), (0.2, 1, 199), (1000.0, 1, 2)],
)
def test_the_seeds_needed_are_those_of_the_tables(effect: float, groups: int, expected: int) -> None:
    """Cohen's table 2.4.1 for two groups (64, 26, 394 at 0.8 and 0.05), G*Power's numbers for one mean."""
    assert seeds_needed(effect * 0.01, 0.01, groups=groups) == expected
    assert seeds_needed(-effect * 0.01, 0.01, groups=groups) == expected


@settings(max_examples=25, deadline=None)
@given(st.floats(0.02, 20), st.sampled_from([1, 2]))
def test_the_seeds_needed_are_the_fewest(effect: float, groups: int) -> None:
    """So many reach the power, and one fewer does not; what they can tell at least is no more than the difference."""
    needed = seeds_needed(effect, 1.0, groups=groups)
    assert power(effect, [needed] * groups) >= significance.POWER
    assert needed == 2 or power(effect, [needed - 1] * groups) < significance.POWER
    assert smallest_difference(1.0, [needed] * groups) <= effect + 1e-6


def test_no_number_of_seeds() -> None:
    """No difference takes no number of seeds, a tiny one more than anybody trains, and without deviation two do."""
    assert seeds_needed(0.0, 0.1) is None
    assert seeds_needed(1e-9, 0.1) is None
    assert seeds_needed(0.1, 0.0) == 2
    assert smallest_difference(0.1, [1]) is None
    assert smallest_difference(0.1, [5, 1]) is None


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    """Simulated groups that far apart are told apart in 80 % of 20,000 draws."""
    rng = np.random.default_rng(5)
    shift = smallest_difference(2.0, [5, 7])
    tested = stats.ttest_ind(rng.normal(0, 2, (20_000, 5)), rng.normal(shift, 2, (20_000, 7)), axis=1)
    assert (tested.pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.015)


def test_the_intervals_cover() -> None:
    """95 % of 4,000 intervals of 5 values hold the mean, and 95 % of the predictions hold a sixth value."""
    rng = np.random.default_rng(11)
    draws = rng.normal(3, 2, (4_000, 6))
    means = [t_interval(list(draw[:5])) for draw in draws]
    sixth = [prediction_interval(list(draw[:5])) for draw in draws]
    assert np.mean([low <= 3 <= high for low, high in means]) == pytest.approx(0.95, abs=0.012)
    held = [low <= draw[5] <= high for (low, high), draw in zip(sixth, draws, strict=True)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_one_value_and_equal_values() -> None:
    """One value has neither deviation nor interval; equal ones have exactly 0, and no interval either: they show nothing."""
    assert deviation([0.1]) is t_interval([0.1]) is prediction_interval([0.1]) is None
    assert deviation([0.1] * 3) == 0
    assert t_interval([0.1] * 3) is prediction_interval([0.1] * 3) is None

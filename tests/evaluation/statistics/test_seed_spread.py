"""A figure over several seeds, in numbers and in words."""

from __future__ import annotations

import pytest
from scipy import stats

from hfpipe.evaluation.statistics.seed_spread import spread

ACCURACIES = {1: 0.80, 2: 0.84, 3: 0.79, 4: 0.81}


def test_the_numbers() -> None:
    """Mean, deviation, interval, extremes and baseline are those of the values."""
    found = spread("accuracy", ACCURACIES, dict.fromkeys(ACCURACIES, 0.70))
    assert found["mean"] == pytest.approx(0.81)
    assert found["standard_deviation"] == pytest.approx(0.0216025, abs=1e-6)
    half = stats.t.ppf(0.975, 3) * 0.0216025 / 2
    assert found["interval"] == pytest.approx([0.81 - half, 0.81 + half], abs=1e-6)
    assert found["best"] == {"value": 0.84, "seed": 2}
    assert found["worst"] == {"value": 0.79, "seed": 3}
    assert found["baseline"] == 0.70
    assert found["difference"] == pytest.approx(0.11)
    assert found["seeds_needed"] == 3
    assert "0.1100 above the baseline 0.7000, and 3 seeds would tell that from noise" in found["text"]


def test_less_is_better_for_a_loss() -> None:
    """The best loss is the least; above its baseline it is worse, and that is said."""
    found = spread("loss", {1: 0.5, 2: 0.4}, {1: 0.3, 2: 0.3})
    assert found["best"] == {"value": 0.4, "seed": 2}
    assert found["worst"] == {"value": 0.5, "seed": 1}
    assert "above the baseline 0.3000, which is worse" in found["text"]


def test_a_baseline_of_each_seed_is_subtracted_from_its_own_figure() -> None:
    """Where seeds hold out rows of their own, the baselines differ as the figures do, and the gain may not."""
    found = spread("accuracy", {1: 0.8, 2: 0.9, 3: 0.7}, {1: 0.5, 2: 0.61, 3: 0.39})
    assert found["difference"] == pytest.approx(0.3)
    assert found["seeds_needed"] == 2
    assert found["standard_deviation"] == pytest.approx(0.1)


def test_one_seed_has_no_deviation_and_says_so() -> None:
    """Its mean is the figure, and everything about noise is None."""
    found = spread("accuracy", {7: 0.8}, {7: 0.5})
    assert found["mean"] == 0.8
    assert [found[key] for key in ("standard_deviation", "interval", "seeds_needed", "smallest_difference")] == [
        None
    ] * 4
    assert "one seed has no deviation" in found["text"]


def test_equal_values_say_so() -> None:
    """All equal: the deviation is 0, and no number of seeds is made of it."""
    found = spread("accuracy", {1: 0.9, 2: 0.9, 3: 0.9}, {1: 0.5, 2: 0.5, 3: 0.5})
    assert found["standard_deviation"] == 0
    assert found["seeds_needed"] is None
    assert "all 3 seeds give the same value" in found["text"]


def test_an_undefined_figure_is_left_out_and_named() -> None:
    """The mean is over the seeds that have the figure; without any there is nothing but words."""
    found = spread("f1", {1: 0.5, 2: None, 3: 0.7})
    assert found["mean"] == pytest.approx(0.6)
    assert found["undefined"] == [2]
    assert "undefined for seed 2" in found["text"]
    assert "no baseline is known" in found["text"]
    assert spread("f1", {1: None})["seeds"] == 0


def test_a_figure_that_hfpipe_does_not_know_has_no_direction() -> None:
    """Its best is the greatest, and `greater_is_better` says that nobody knows."""
    found = spread("novelty", {1: 1.0, 2: 3.0}, {1: 5.0, 2: 5.0})
    assert found["greater_is_better"] is None
    assert found["best"]["seed"] == 2
    assert "worse" not in found["text"]

"""Long series are made short without losing a spike, a hole or the mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpipe.reports.html.thinning import thin


def test_a_short_series_is_left_as_it_is() -> None:
    """Every step is a point, and what is no number is a hole."""
    series = thin([1, 2, 3], [0.5, None, float("inf")])
    assert series.width == 1
    np.testing.assert_array_equal(series.mean, [0.5, np.nan, np.nan])


@given(
    st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=400),
    st.integers(1, 50),
)
def test_bins_are_those_of_the_plain_definition(values: list[float | None], most: int) -> None:
    """Against a loop over the bins: mean, least and greatest of what is there, and never more points than asked for."""
    series = thin(range(1, len(values) + 1), values, most)
    assert len(series.steps) <= most
    for place in range(len(series.steps)):
        part = [value for value in values[place * series.width : (place + 1) * series.width] if value is not None]
        if not part:
            assert np.isnan([series.mean[place], series.least[place], series.greatest[place]]).all()
            continue
        assert series.mean[place] == pytest.approx(np.mean(part), abs=1e-6)
        assert (series.least[place], series.greatest[place]) == (min(part), max(part))


def test_a_spike_of_one_step_in_100_000_stays_visible() -> None:
    """It is in the band of its bin."""
    values = [1.0] * 100_000
    values[54_321] = 900.0
    series = thin(range(100_000), values)
    assert series.greatest.max() == 900.0
    assert len(series.steps) <= 300

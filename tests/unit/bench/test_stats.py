"""Percentiles and ratios."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.stats import difference, percentile, ratio, spread


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1.0), (0.5, 2.5), (0.99, 3.97), (1, 4.0)], ids=["least", "median", "p99", "most"]
)
def test_percentile_interpolates(share: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], share) == pytest.approx(expected)


def test_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_percentile_stays_in_the_sample(values: list[float], share: float) -> None:
    assert min(values) - 1e-6 <= percentile(values, share) <= max(values) + 1e-6


def test_a_ratio_is_of_pairs_and_not_of_medians() -> None:
    # a machine that gets three times slower for the last pair changes no ratio
    found = ratio([1.0, 1.0, 3.0], [2.0, 2.0, 6.0])
    assert (found.median, found.low, found.high) == (0.5, 0.5, 0.5)


def test_ratio_range_below_five_pairs_is_min_to_max() -> None:
    assert str(ratio([1, 2, 4], [2, 2, 2])) == "1.00x (0.50 to 2.00)"
    assert str(ratio([1], [2])) == "0.50x (one pair)"


def test_from_five_pairs_on_an_outlier_leaves_the_interval() -> None:
    found = ratio([1.0] * 20 + [100.0], [1.0] * 21)
    assert (found.median, found.high) == (1.0, 1.0)


def test_samples_that_do_not_pair_up() -> None:
    with pytest.raises(ValueError, match="1 and 2"):
        ratio([1], [1, 2])


def test_spread_text() -> None:
    assert spread([3, 1, 2]) == "2.0 (1.0 to 3.0)"
    assert spread([1.26], 1) == "1.3"


def test_difference_of_pairs() -> None:
    found = difference([1.0, 2.0, 4.0], [0.0, 2.0, 2.0])
    assert found.mean == 1.0
    assert found.low == 0.0, "a resample of three may be three times the smallest"
    assert found.high == 2.0


def test_difference_needs_pairs() -> None:
    with pytest.raises(ValueError, match="3 and 2 values don't pair up"):
        difference([1, 2, 3], [1, 2])

"""Splits of a stream by position: a pure function, in the shares that were asked for, hundred by hundred."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_api.spec.data import Split
from trainmaster_trainer.data.own.parts import BLOCK, TEST, TRAIN, VALIDATION, Parts


def split(validation: float, test: float, seed: int = 0) -> Split:
    return Split(train=1 - validation - test, validation=validation, test=test, seed=seed)


SHARES = st.tuples(st.floats(0.001, 0.45), st.floats(0.001, 0.45))


@given(shares=SHARES, seed=st.integers(0, 2**31 - 1), start=st.integers(0, 10**9))
@settings(max_examples=40, deadline=None)
def test_each_hundred_items_have_the_shares(shares: tuple[float, float], seed: int, start: int) -> None:
    parts, first = Parts(split(*shares, seed)), start // BLOCK * BLOCK
    sides = [parts.of(item) for item in range(first, first + BLOCK)]
    for side, share in ((VALIDATION, shares[0]), (TEST, shares[1])):
        assert abs(sides.count(side) - share * BLOCK) < 1 + 1e-9


@given(shares=SHARES, seed=st.integers(0, 2**31 - 1), order=st.permutations(range(0, 500, 7)))
@settings(max_examples=20, deadline=None)
def test_split_of_an_item_is_a_function_of_its_position(
    shares: tuple[float, float], seed: int, order: list[int]
) -> None:
    asked, one = Parts(split(*shares, seed)), Parts(split(*shares, seed))
    found = {item: asked.of(item) for item in order}
    assert found == {item: one.of(item) for item in sorted(order)}


@given(shares=SHARES, items=st.integers(0, 777))
@settings(max_examples=40, deadline=None)
def test_count_is_that_of_the_items(shares: tuple[float, float], items: int) -> None:
    parts = Parts(split(*shares))
    sides = [parts.of(item) for item in range(items)]
    assert [parts.count(items, side) for side in (TRAIN, VALIDATION, TEST)] == [
        sides.count(side) for side in (TRAIN, VALIDATION, TEST)
    ]


def test_shares_that_are_no_whole_hundredth_are_met_in_the_long_run() -> None:
    parts = Parts(split(0.0125, 0.2504))
    assert parts.count(1_000_000, VALIDATION) == pytest.approx(12_500, abs=3)
    assert parts.count(1_000_000, TEST) == pytest.approx(250_400, abs=3)


def test_another_seed_is_another_split() -> None:
    sides = [[Parts(split(0.2, 0.2, seed)).of(item) for item in range(300)] for seed in (0, 1)]
    assert sides[0] != sides[1]
    assert np.any(np.diff(np.flatnonzero(np.array(sides[0]) == VALIDATION)) > 5), "at random places"

"""Which side a row is on: every row once, the same for the same seed, and what each kind of split promises."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.model_selection import StratifiedShuffleSplit
from trainmaster_trainer.data.split import by_column, by_group, by_time, stratified
from trainmaster_trainer.errors import DataError

Shares = tuple[float, float, float]
seeds = st.integers(0, 2**31 - 1)
shares = st.sampled_from(
    [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33), (0.98, 0.01, 0.01), (0.9, 0.1, 0.0), (0.9, 0.0, 0.1)]
)


def codes(most: int, least_rows: int = 1) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """Rows of up to `most` kinds, of very different frequency."""
    return arrays.arrays(
        np.int64, st.integers(least_rows, 400), elements=st.integers(0, most - 1).map(lambda x: x * x // most)
    )


@settings(deadline=None)
@given(codes(12), shares, seeds)
def test_stratified_counts_are_the_share_rounded(classes: np.ndarray[Any, Any], asked: Shares, seed: int) -> None:
    sides = stratified(classes, asked, seed)
    used = [side for side in range(3) if asked[side] > 0]
    assert set(sides.tolist()) <= set(used)
    for each in np.unique(classes):
        counts = np.bincount(sides[classes == each], minlength=3)
        size = counts.sum()
        if size >= len(used):
            assert all(counts[side] > 0 for side in used)
        else:
            assert counts[0] > 0
        # where the exact share of each split is a row or more, nothing but rounding moves a count
        if all(size * asked[side] >= 1 for side in used):
            assert np.all(np.abs(counts - size * np.asarray(asked)) < 1)


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(10, 40), shares, seeds)
def test_stratified_totals_have_their_shares(number: int, size: int, asked: Shares, seed: int) -> None:
    """Classes that all round alike: rounding each alone would move half a row per class into one split."""
    if min(share for share in asked if share) * size < 1:
        return
    sides = stratified(np.repeat(np.arange(number), size), asked, seed)
    counts = np.bincount(sides, minlength=3)
    assert np.all(np.abs(counts - number * size * np.asarray(asked)) < 2)


@settings(deadline=None)
@given(codes(5, 200), seeds)
def test_stratified_proportions_are_those_of_scikit_learn(classes: np.ndarray[Any, Any], seed: int) -> None:
    names, sizes = np.unique(classes, return_counts=True)
    if sizes.min() < 2 or len(names) < 2:
        return
    rest, test = next(StratifiedShuffleSplit(1, test_size=0.2, random_state=0).split(classes, classes))
    sides = stratified(classes, (0.8, 0.0, 0.2), seed)
    for each in names:
        assert abs(int((classes[sides == 2] == each).sum()) - int((classes[test] == each).sum())) <= 1
        assert abs(int((classes[sides == 0] == each).sum()) - int((classes[rest] == each).sum())) <= 1


@settings(deadline=None)
@given(codes(8, 20), shares, seeds)
def test_stratified_depends_on_seed_and_classes_alone(classes: np.ndarray[Any, Any], asked: Shares, seed: int) -> None:
    assert np.array_equal(stratified(classes, asked, seed), stratified(classes.copy(), asked, seed))
    # names of classes don't matter: the same partition under other numbers of the same order
    assert np.array_equal(stratified(classes, asked, seed), stratified(classes * 7 - 3, asked, seed))


def test_stratified_draws_other_rows_with_another_seed() -> None:
    classes = np.repeat([0, 1], 100)
    found = {stratified(classes, (0.8, 0.1, 0.1), seed).tobytes() for seed in range(5)}
    assert len(found) == 5


@settings(deadline=None)
@given(codes(30, 3), shares, seeds)
def test_groups_are_in_one_split(groups: np.ndarray[Any, Any], asked: Shares, seed: int) -> None:
    used = [side for side in range(3) if asked[side] > 0]
    if len(np.unique(groups)) < len(used):
        with pytest.raises(DataError, match=f"at least {len(used)} groups"):
            by_group(groups, asked, seed)
        return
    sides = by_group(groups, asked, seed)
    assert all(len(set(sides[groups == each].tolist())) == 1 for each in np.unique(groups))
    assert set(sides.tolist()) == set(used)
    assert np.array_equal(sides, by_group(groups, asked, seed))


@pytest.mark.parametrize("number", [40, 5000, 60_000], ids=["looped", "both", "dealt out"])
def test_groups_come_near_to_the_shares(number: int) -> None:
    sizes = np.random.default_rng(1).integers(1, 9, number)
    sides = by_group(np.repeat(np.arange(number), sizes), (0.7, 0.2, 0.1), 5)
    counts = np.bincount(sides, minlength=3)
    assert np.all(np.abs(counts - sizes.sum() * np.array([0.7, 0.2, 0.1])) <= 8)


def test_a_group_larger_than_its_share_goes_to_train() -> None:
    groups = np.repeat([0, 1, 2], [60, 20, 20])
    assert by_group(groups, (0.5, 0.25, 0.25), 0)[0] == 0


@settings(deadline=None)
@given(codes(60, 3), shares)
def test_times_are_in_order(times: np.ndarray[Any, Any], asked: Shares) -> None:
    used = [side for side in range(3) if asked[side] > 0]
    if len(np.unique(times)) < len(used):
        with pytest.raises(DataError, match=f"at least {len(used)} different times"):
            by_time(times, asked)
        return
    sides = by_time(times, asked)
    assert set(sides.tolist()) == set(used)
    for before, after in pairwise(used):
        assert times[sides == before].max() < times[sides == after].min()


@settings(deadline=None)
@given(st.permutations(range(50)), shares)
def test_times_without_ties_have_their_shares(times: list[int], asked: Shares) -> None:
    if 50 * min(share for share in asked if share) < 1:
        return
    counts = np.bincount(by_time(np.array(times), asked), minlength=3)
    assert np.all(np.abs(counts - 50 * np.asarray(asked)) <= 1)


def test_a_tie_at_a_border_is_on_the_nearer_side() -> None:
    times = np.array([1] * 7 + [2] * 2 + [3], "datetime64[D]")
    assert by_time(times, (0.8, 0.1, 0.1)).tolist() == [0] * 7 + [1, 1, 2]
    times = np.array([1] * 2 + [2] * 7 + [3] * 2 + [4])
    assert by_time(times, (0.7, 0.2, 0.1)).tolist() == [0] * 9 + [1, 1, 2]


def test_a_column_says_the_split_in_any_spelling() -> None:
    words = ["train", " Training", "VAL", "dev", "valid", "Validation", "test", "testing "]
    sides = by_column(np.array([7, 0, 1, 2, 3, 4, 5, 6]), words, str)
    assert sides.tolist() == [2, 0, 0, 1, 1, 1, 1, 2]


def test_a_column_with_other_words_is_refused_with_its_rows() -> None:
    found = np.array([0] * 5 + [1] * 12)
    with pytest.raises(DataError) as caught:
        by_column(found, ["train", "holdout"], lambda row: f"b.csv: row {row + 1}, column part")
    text = str(caught.value)
    assert "b.csv: row 6, column part: 'holdout'; b.csv: row 7" in text
    assert "row 15, column part: 'holdout' and 2 more" in text
    assert "validation: validation, valid, val, dev" in text

"""The order of samples is a function of seed and step, and of nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_trainer.data import order
from trainmaster_trainer.data.order import WINDOW, Sampler, split_rows
from trainmaster_trainer.data.permutation import Permutation

rows = st.integers(8, 300)
seeds = st.integers(0, 2**31 - 1)


@given(rows, seeds, st.sampled_from([(0.8, 0.1), (0.5, 0.25), (0.34, 0.33)]))
def test_splits_cover_every_row_once(count: int, seed: int, shares: tuple[float, float]) -> None:
    parts = split_rows(count, *shares, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert abs(len(parts[1]) - count * shares[1]) <= 0.5
    again = split_rows(count, *shares, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(rows, st.integers(1, 8), seeds, st.integers(0, 5))
def test_epoch_leaves_out_less_than_a_batch(count: int, batch: int, seed: int, epoch: int) -> None:
    numbers = np.arange(count) * 7 + 3  # rows of a split aren't 0..n
    sampler = Sampler(numbers, batch, seed)
    first = epoch * sampler.steps_per_epoch
    seen = np.concatenate([sampler.indices(first + step) for step in range(sampler.steps_per_epoch)])
    assert len(set(seen.tolist())) == len(seen)
    assert set(seen.tolist()) <= set(numbers.tolist())
    assert count - len(seen) < batch
    assert sampler.epoch(first) == sampler.epoch(first + sampler.steps_per_epoch - 1) == epoch


@given(rows, seeds, st.integers(0, 500), st.sampled_from([1, 2, 4, 8]))
def test_workers_share_a_step_without_changing_it(count: int, seed: int, step: int, world_size: int) -> None:
    numbers = np.arange(count)
    alone = Sampler(numbers, 8, seed).indices(step)
    shares = [Sampler(numbers, 8, seed).indices(step, rank, world_size) for rank in range(world_size)]
    assert np.array_equal(np.concatenate(shares), alone)


@given(rows, seeds, st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_a_position_depends_on_no_position_before_it(count: int, seed: int, steps: list[int]) -> None:
    used = Sampler(np.arange(count), 8, seed)
    for step in steps:
        assert np.array_equal(used.indices(step), Sampler(np.arange(count), 8, seed).indices(step))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    numbers = np.arange(64)
    orders = {tuple(Sampler(numbers, 64, seed).indices(epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@settings(deadline=None)
@given(st.integers(1, 5000), seeds)
def test_permutation_is_a_bijection(n: int, seed: int) -> None:
    found = Permutation(n, [seed, 0])(np.arange(n))
    assert sorted(found.tolist()) == list(range(n))


def test_permutation_leaves_no_trace_of_the_order() -> None:
    """Neighbours, and halves of the rows, meet as often as in any random order: within 5 standard deviations."""
    n = 100_003
    found = Permutation(n, [7, 3])(np.arange(n))
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 5 / np.sqrt(n)
    assert abs(np.corrcoef(found, np.arange(n))[0, 1]) < 5 / np.sqrt(n)
    low = (found < n // 2).reshape(-1)[: n - n % 64].reshape(-1, 64).sum(axis=1)  # of each batch of 64
    assert abs(low.mean() - 32) < 0.2
    assert abs(low.std() - 4) < 0.4  # sqrt(64 / 4)


def test_order_of_many_rows_is_that_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "MANY", 500)
    monkeypatch.setattr(order, "PART", 96)
    numbers = np.arange(1000) * 7 + 3
    used = Sampler(numbers, 8, 5)
    epochs = [np.concatenate([used.indices(epoch * 125 + step) for step in range(125)]) for epoch in range(2)]
    for found in epochs:
        assert sorted(found.tolist()) == numbers.tolist()
    assert not np.array_equal(*epochs)
    for step in (124, 3, 130, 4, 249):
        whole = np.concatenate(epochs)[step * 8 : step * 8 + 8]
        assert np.array_equal(Sampler(numbers, 8, 5).indices(step), whole)
        shares = [used.indices(step, rank, 4) for rank in (2, 0, 3, 1)]
        assert np.array_equal(np.concatenate([shares[1], shares[3], shares[0], shares[2]]), whole)


classes_of_rows = st.lists(st.integers(0, 4), min_size=8, max_size=200).map(lambda found: np.array(found))


@settings(deadline=None)
@given(classes_of_rows, seeds, st.integers(0, 6))
def test_balanced_epoch_has_every_class_equally_often(classes: npt.NDArray[np.int64], seed: int, epoch: int) -> None:
    numbers = np.arange(len(classes)) * 3 + 1
    sampler = Sampler(numbers, 1, seed, classes)  # a batch of one leaves nothing out
    drawn = np.concatenate(
        [sampler.indices(epoch * sampler.steps_per_epoch + step) for step in range(sampler.steps_per_epoch)]
    )
    assert len(drawn) == len(numbers)
    counts = np.bincount(classes[(drawn - 1) // 3])[np.unique(classes)]
    assert counts.max() - counts.min() <= 1


@settings(deadline=None)
@given(classes_of_rows, seeds)
def test_balanced_rows_of_a_class_wait_for_each_other(classes: npt.NDArray[np.int64], seed: int) -> None:
    sampler = Sampler(np.arange(len(classes)), 1, seed, classes)
    times = np.zeros(len(classes), int)
    for step in range(4 * sampler.steps_per_epoch):
        times[sampler.indices(step)] += 1
        if (step + 1) % sampler.steps_per_epoch == 0:
            assert all(np.ptp(times[classes == each]) <= 1 for each in np.unique(classes))


@settings(deadline=None)
@given(classes_of_rows, seeds, st.lists(st.integers(0, 400), min_size=1, max_size=6), st.sampled_from([1, 2, 4, 8]))
def test_balanced_position_depends_on_no_position_before_it_and_no_world_size(
    classes: npt.NDArray[np.int64], seed: int, steps: list[int], world_size: int
) -> None:
    numbers = np.arange(len(classes))
    used = Sampler(numbers, 8, seed, classes)
    for step in steps:
        fresh = Sampler(numbers, 8, seed, classes)
        shares = [used.indices(step, rank, world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate(shares), fresh.indices(step))


def test_balanced_epochs_and_seeds_have_orders_of_their_own() -> None:
    numbers, classes = np.arange(64), np.repeat([0, 1], [56, 8])
    orders = {
        tuple(Sampler(numbers, 64, seed, classes).indices(epoch).tolist()) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9
    first, second = (set(Sampler(numbers, 64, 0, classes).indices(epoch).tolist()) for epoch in range(2))
    assert set(range(56)) <= first | second  # 32 of the 56 in the first epoch, the other 24 in the second


@settings(deadline=None)
@given(classes_of_rows, seeds, st.integers(1, 8), st.booleans())
def test_rounds_are_counted_by_replaying_the_order(
    classes: npt.NDArray[np.int64], seed: int, batch: int, by_length: bool
) -> None:
    """How often a class has been gone through: its rows are drawn once each before the first one is drawn again."""
    numbers = np.arange(len(classes))
    lengths = numbers % 7 + 1 if by_length else None
    sampler = Sampler(numbers, batch, seed, classes, lengths)
    # what an epoch leaves out is drawn, too, and known only to an order that leaves nothing out
    whole = Sampler(numbers, 1, seed, classes)
    times = np.zeros(len(classes), int)
    for epoch in range(4):
        drawn = epoch_of(whole, epoch).ravel()
        expected = sorted((int(row), int(times[row]) + int(np.sum(drawn[:at] == row))) for at, row in enumerate(drawn))
        times += np.bincount(drawn, minlength=len(classes))
        steps = [epoch * sampler.steps_per_epoch + step for step in range(sampler.steps_per_epoch)]
        found = [
            (int(row), int(number))
            for step in steps
            for row, number in zip(sampler.indices(step), sampler.rounds(step), strict=True)
        ]
        assert len(set(found)) == len(found)
        assert set(found) <= set(expected)
        assert len(expected) - len(found) < batch


@settings(deadline=None)
@given(classes_of_rows, seeds, st.lists(st.integers(0, 400), min_size=1, max_size=6), st.sampled_from([1, 2, 4, 8]))
def test_rounds_depend_on_no_position_before_and_no_world_size(
    classes: npt.NDArray[np.int64], seed: int, steps: list[int], world_size: int
) -> None:
    numbers = np.arange(len(classes))
    used = Sampler(numbers, 8, seed, classes)
    for step in steps:
        shares = [used.rounds(step, rank, world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate(shares), Sampler(numbers, 8, seed, classes).rounds(step))


def test_rounds_without_classes_are_epochs() -> None:
    for lengths in (None, np.arange(40)):
        sampler = Sampler(np.arange(40), 8, 3, lengths=lengths)
        assert [sampler.rounds(step, 1, 2).tolist() for step in (0, 4, 5, 11)] == [[0] * 4, [0] * 4, [1] * 4, [2] * 4]


def test_balanced_order_is_numpys_permutation_of_its_rows() -> None:
    """The order of existing runs: kept, though rounds travel with the rows."""
    numbers, classes = np.arange(12) * 3, np.repeat([0, 1], [9, 3])
    members = [numbers[classes == each] for each in (0, 1)]
    drawn = np.concatenate(
        [
            np.random.default_rng([5, 0, 1]).permutation(members[0])[:6],
            *(np.random.default_rng([5, number, 2]).permutation(members[1]) for number in range(2)),
        ]
    )
    expected = np.random.default_rng([5, 0]).permutation(drawn)
    assert Sampler(numbers, 12, 5, classes).indices(0).tolist() == expected.tolist()


lengths_of_rows = st.lists(st.integers(1, 40), min_size=8, max_size=300).map(lambda found: np.array(found))


def epoch_of(sampler: Sampler, epoch: int) -> npt.NDArray[np.int64]:
    """Return the rows of an epoch, one line per step."""
    first = epoch * sampler.steps_per_epoch
    return np.stack([sampler.indices(first + step) for step in range(sampler.steps_per_epoch)])


@settings(deadline=None)
@given(lengths_of_rows, st.integers(1, 8), seeds, st.integers(0, 4))
def test_lengths_leave_an_epoch_its_rows(lengths: npt.NDArray[np.int64], batch: int, seed: int, epoch: int) -> None:
    numbers = np.arange(len(lengths))[::-2].copy()  # a split: every other row, in any order
    batch = min(batch, len(numbers))
    plain, sorted_by = Sampler(numbers, batch, seed), Sampler(numbers, batch, seed, lengths=lengths)
    assert sorted(epoch_of(sorted_by, epoch).ravel()) == sorted(epoch_of(plain, epoch).ravel())


@settings(deadline=None)
@given(lengths_of_rows, seeds, st.lists(st.integers(0, 400), min_size=1, max_size=6), st.sampled_from([1, 2, 4, 8]))
def test_lengths_order_is_a_function_of_the_step_and_of_no_world_size(
    lengths: npt.NDArray[np.int64], seed: int, steps: list[int], world_size: int
) -> None:
    numbers = np.arange(len(lengths))
    used = Sampler(numbers, 8, seed, lengths=lengths)
    for step in steps:
        fresh = Sampler(numbers, 8, seed, lengths=lengths)
        shares = [used.indices(step, rank, world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate(shares), fresh.indices(step))


@settings(deadline=None)
@given(lengths_of_rows, st.integers(1, 8), seeds)
def test_lengths_of_one_window_are_cut_where_they_are_sorted(
    lengths: npt.NDArray[np.int64], batch: int, seed: int
) -> None:
    sampler = Sampler(np.arange(len(lengths)), batch, seed, lengths=lengths)
    batches = epoch_of(sampler, 0)[:WINDOW]
    if sampler.steps_per_epoch > WINDOW:
        return  # several windows: their batches are mixed
    found = sorted((int(lengths[rows].min()), int(lengths[rows].max())) for rows in batches)
    assert all(before[1] <= after[0] for before, after in pairwise(found))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), min_size=8, max_size=200), seeds)
def test_lengths_and_balanced_classes_together(rows_of: list[tuple[int, int]], seed: int) -> None:
    classes, lengths = np.array(rows_of).T
    numbers = np.arange(len(classes))
    plain, sorted_by = Sampler(numbers, 4, seed, classes), Sampler(numbers, 4, seed, classes, lengths)
    for epoch in range(3):
        assert sorted(epoch_of(sorted_by, epoch).ravel()) == sorted(epoch_of(plain, epoch).ravel())


def test_lengths_save_most_of_the_padding_and_keep_batches_random() -> None:
    dice = np.random.default_rng(0)
    lengths = dice.geometric(0.02, 20_000)
    numbers = np.arange(len(lengths))

    def padding(sampler: Sampler) -> float:
        found = lengths[epoch_of(sampler, 1)]
        return 1 - float(found.sum()) / float((found.max(axis=1) * 32).sum())

    sampler = Sampler(numbers, 32, 7, lengths=lengths)
    assert padding(sampler) < 0.1 < 0.6 < padding(Sampler(numbers, 32, 7))
    means = lengths[epoch_of(sampler, 0)].mean(axis=1)
    half = len(means) // 2
    assert abs(means[:half].mean() / means[half:].mean() - 1) < 0.2  # long rows don't come last
    partners = [{tuple(sorted(rows)) for rows in epoch_of(sampler, epoch).tolist()} for epoch in range(2)]
    assert not partners[0] & partners[1]

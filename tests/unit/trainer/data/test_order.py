"""The order of samples is a function of seed and step, and of nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_trainer.data.order import Sampler, split_rows

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

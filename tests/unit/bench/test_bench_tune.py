"""What the benchmarks of searches make of what their arms noted."""

from __future__ import annotations

import math

import pytest

from tests.bench.bench_tune import NAMES, Measured, Trial, result
from tests.bench.regret_arms import Found
from tests.bench.tune_arms import ARMS


def run_of(pairs: list[tuple[float, float]], slots: int = 1, mib: float = 90) -> Measured:
    return Measured([Trial(*pair) for pair in pairs], slots, mib)


def test_overhead_of_one_slot() -> None:
    assert run_of([(0, 1), (1.5, 2.5), (3, 4)]).overhead == pytest.approx(0.5)


def test_overhead_of_two_slots() -> None:
    """A slot that waits for its first trial, or has none left at the end, is without work too."""
    assert run_of([(0, 1), (0, 1), (1.2, 2.2), (1.4, 2.4)], 2).overhead == pytest.approx((0.2 + 0.4 + 0.2) / 2)


def test_trials_after_equal_time() -> None:
    one = run_of([(10, 11), (11.5, 12.5), (13, 14)])
    assert one.wall == 4
    assert [one.ended_after(seconds) for seconds in (0.5, 1, 3.9, 4)] == [0, 1, 2, 3]


def test_bars_of_trials() -> None:
    def trials(overhead: float, mib: float = 90) -> Measured:
        return run_of([(0, 1), (1 + overhead, 2 + overhead)], mib=mib)

    taken = {arm: {1: [trials(each) for each in (0.5, 0.7, 0.4)], 2: [trials(0.5)] * 3} for arm in ARMS}
    taken["torchtrainer"] = {1: [trials(6)] * 3, 2: [trials(4)] * 3}
    taken["optuna"][1] = [trials(0.0, 0.0)] * 3
    found = result(taken)
    assert [bar.verdict for bar in found.bars] == ["PASS", "PASS", "PASS", "MISS", "PASS"]
    assert found.bars[3].measured == "0.12x (0.12 to 0.12)"
    ended = {(row[0], row[1]): row[2:] for row in found.tables[1].rows}
    assert ended[NAMES["torchtrainer"], "1"] == ["1 (1 to 1)", "50.0 (50.0 to 50.0)"]
    assert ended[NAMES["trainmaster"], "1"] == ["2 (2 to 2)", "33.3 (33.3 to 33.3)"]


def test_memory_that_was_not_found_is_a_miss() -> None:
    taken = {arm: {workers: [run_of([(0, 1), (1.5, 2.5)], mib=0)] for workers in (1, 2)} for arm in ARMS}
    assert result(taken).bars[-1].verdict == "MISS"


def test_epochs_until_a_result() -> None:
    found = Found()
    for epochs, best in ((9, 0.5), (1, None), (9, 0.4), (9, 0.9)):
        found.add(epochs, best)
    assert (found.best, found.epochs) == (0.9, 28)
    assert (found.epochs_to(0.5), found.epochs_to(0.6), found.epochs_to(0.95)) == (9, 28, math.inf)

"""What the benchmarks of searches make of what their arms noted."""

from __future__ import annotations

import math

import pytest

from tests.bench.bench_tune import overhead, result
from tests.bench.regret_arms import Found
from tests.bench.tune_arms import ARMS


def test_overhead_of_one_slot() -> None:
    assert overhead([(0, 1), (1.5, 2.5), (3, 4)], 1) == pytest.approx(0.5)


def test_overhead_of_two_slots() -> None:
    """A slot that waits for its first trial, or has none left at the end, is without work too."""
    assert overhead([(0, 1), (0, 1), (1.2, 2.2), (1.4, 2.4)], 2) == pytest.approx((0.2 + 0.4 + 0.2) / 2)


def test_bars_of_trials() -> None:
    taken = {arm: {1: [0.5, 0.7, 0.4], 2: [0.5, 0.5, 0.5]} for arm in ARMS}
    taken["torchtrainer"] = {1: [6.0, 6.0, 6.0], 2: [4.0, 4.0, 4.0]}
    found = result(taken, [80, 90, 120])
    assert [bar.verdict for bar in found.bars] == ["PASS", "PASS", "PASS", "MISS", "MISS"]
    assert found.bars[3].measured == "0.12x (0.12 to 0.12)"


def test_epochs_until_a_result() -> None:
    found = Found()
    for epochs, best in ((9, 0.5), (1, None), (9, 0.4), (9, 0.9)):
        found.add(epochs, best)
    assert (found.best, found.epochs) == (0.9, 28)
    assert (found.epochs_to(0.5), found.epochs_to(0.6), found.epochs_to(0.95)) == (9, 28, math.inf)

"""When a checkpoint is due, by what the job says."""

from __future__ import annotations

import math

import pytest
from trainmaster_trainer.checkpoint.interval import Interval


@pytest.mark.parametrize(
    ("every", "seconds", "steps", "epochs"),
    [("10m", 600, 0, 0), ("45s", 45, 0, 0), ("500step", math.inf, 500, 0), ("2ep", math.inf, 0, 2)],
)
def test_interval_is_of_time_steps_or_epochs(every: str, seconds: float, steps: int, epochs: int) -> None:
    found = Interval(every)
    assert (found.seconds(cost=3.0), found.steps, found.epochs) == (seconds, steps, epochs)


@pytest.mark.parametrize(
    ("cost", "waits", "seconds"),
    [(0.01, False, 5), (0.01, True, 30), (2.0, False, 200), (2.0, True, 200), (60.0, False, 900), (60.0, True, 900)],
)
def test_automatic_ones_take_a_hundredth_of_the_time(cost: float, waits: bool, seconds: float) -> None:
    found = Interval("auto", waits)
    assert found.seconds(cost) == pytest.approx(seconds)
    assert (found.steps, found.epochs) == (0, 0)

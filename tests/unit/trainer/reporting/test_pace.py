"""The longest step of an attempt."""

from __future__ import annotations

import pytest
from trainmaster_api.messages import TrainerState
from trainmaster_trainer.driver.endings import patience
from trainmaster_trainer.reporting.pace import Pace


def of(*moments: float) -> float:
    pace = Pace()
    for each in moments:
        pace.moved(each)
    return pace.longest


def test_pace_without_the_first_five() -> None:
    assert of(0, 100, 200, 300, 400) == 0
    assert of(0, 100, 200, 300, 400, 500, 507, 510) == 7


def test_pace_a_restart_is_no_step() -> None:
    pace = Pace()
    for each in range(10):
        pace.moved(float(each))
    pace.restarted()
    pace.moved(1000.0)
    pace.moved(1003.0)
    assert pace.longest == 3


@pytest.mark.parametrize(
    ("state", "asked", "longest", "expected"),
    [
        (TrainerState.TRAINING, 300, 0.0, 300),
        (TrainerState.TRAINING, 300, 59.0, 300),
        (TrainerState.TRAINING, 300, 100.1, 501),
        (TrainerState.STARTING, 300, 100.0, 600),
        (TrainerState.STARTING, 300, 200.0, 1000),
    ],
)
def test_patience_of_long_steps(state: TrainerState, asked: int, longest: float, expected: int) -> None:
    assert patience(asked, state, longest) == expected

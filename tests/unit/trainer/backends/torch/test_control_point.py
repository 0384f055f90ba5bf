"""Control points: about twice a second, whatever a step takes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from trainmaster_trainer.backends.torch.control_point import INTERVAL_SECONDS, ControlPoint

from tests.unit.trainer.harness import Recording, make_context, small_job


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("step_seconds", [0.0004, 0.01, 0.3, 4.0])
def test_the_gap_settles_at_half_a_second_or_one_step(tmp_path: Path, step_seconds: float) -> None:
    clock = Clock()
    control_point = ControlPoint(make_context(small_job(), tmp_path), 0, clock)
    step, points = 0, []
    while len(points) < 12:
        if step >= control_point.next_step:
            control_point.exchange(step, wants_save=False)
            points.append(clock.now)
        clock.now += step_seconds
        step += 1
    last = points[-1] - points[-2]
    assert last == pytest.approx(max(INTERVAL_SECONDS, step_seconds), rel=0.3)
    assert max(b - a for a, b in pairwise(points)) < 1.5 * max(INTERVAL_SECONDS, step_seconds)


def test_what_rank_0_is_told_reaches_the_decision(tmp_path: Path) -> None:
    go_on = ControlPoint(make_context(small_job(), tmp_path), 7).exchange(7, wants_save=True)
    assert (go_on.stop, go_on.save) == (False, True)
    stop = ControlPoint(make_context(small_job(), tmp_path, recording=Recording(stop_at=0)), 7).exchange(
        7, wants_save=False
    )
    assert (stop.stop, stop.save) == (True, False)


def test_the_time_left_follows_the_pace_of_this_process(tmp_path: Path) -> None:
    clock = Clock()
    control_point = ControlPoint(make_context(small_job(), tmp_path), 50, clock)
    assert control_point.eta_seconds(50, 100) is None
    clock.now += 20
    assert control_point.eta_seconds(60, 100) == pytest.approx(80)

"""When a status is written, over many jobs."""

from __future__ import annotations

import pytest
from trainmaster_operator.kube.trainingjob_cache import JobKey
from trainmaster_operator.status_throttle import STARTUP_WRITES_AT_ONCE, STARTUP_WRITES_PER_SECOND, StatusThrottle

from tests.unit.operator.policy.wrappers import Bench, at, pods, progress, swap

KEYS = [JobKey("ml", f"job-{number}") for number in range(1000)]


class Clock:
    """Seconds by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> StatusThrottle:
    return StatusThrottle(clock)


def counts() -> tuple[dict[str, object], dict[str, object]]:
    """Of a job that starts: as written, and with a worker more that is ready."""
    bench = Bench().started()
    old = bench.status
    bench.plan(40, swap(pods(), 1, ready=False))
    return old, bench.status


def test_counts_of_many_jobs_that_start_share_a_budget(pace: StatusThrottle, clock: Clock) -> None:
    old, new = counts()
    delays = [pace.delay(key, old, new, at(40)) for key in KEYS]
    assert delays.count(0.0) == STARTUP_WRITES_AT_ONCE
    assert all(delay is not None and delay > 0 for delay in delays[STARTUP_WRITES_AT_ONCE:]), "asked again later"
    clock.now = 10.0
    again = [pace.delay(key, old, new, at(50)) for key in KEYS]
    assert again.count(0.0) == 10 * STARTUP_WRITES_PER_SECOND


def test_nothing_else_waits_for_the_budget(pace: StatusThrottle) -> None:
    old, new = counts()
    for key in KEYS:
        pace.delay(key, old, new, at(40))
    bench = Bench().running()
    before = bench.status
    bench.plan(60, pods(), progress=progress(step=200))
    assert pace.delay(KEYS[0], before, bench.status, at(60)) == 0, "figures of a training"
    assert pace.delay(KEYS[0], {}, new, at(60)) == 0, "a transition"


def test_equal_uses_nothing(pace: StatusThrottle) -> None:
    old, new = counts()
    assert {pace.delay(key, old, old, at(40)) for key in KEYS} == {None}
    assert pace.delay(KEYS[0], old, new, at(40)) == 0


def test_a_job_that_was_just_written_waits_and_uses_nothing(pace: StatusThrottle) -> None:
    old, new = counts()
    for key in KEYS:
        pace.written(key, at(39))
    assert {pace.delay(key, old, new, at(40)) for key in KEYS} == {29.0}
    for key in KEYS:
        pace.forget(key)
    assert pace.delay(KEYS[0], old, new, at(40)) == 0

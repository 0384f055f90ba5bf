"""What the recovery benchmark makes of a job's status."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.bench_recovery import FAULTS, Sample, durations, is_back, result

TIMINGS = {
    "scheduledSeconds": 0.5,
    "startedSeconds": 2.0,
    "rayReadySeconds": 9.0,
    "loadedSeconds": 15.0,
    "firstStepSeconds": 15.5,
}


def job(attempt: int = 1, recoveries: int = 0, running: str = "True") -> dict[str, Any]:
    conditions = [{"type": "Running", "status": running}]
    return {"status": {"attempt": attempt, "restarts": {"recoveries": recoveries}, "conditions": conditions}}


def test_stages_follow_one_another() -> None:
    assert list(durations(TIMINGS).values()) == [0.5, 1.5, 7.0, 6.0, 0.5]


def test_a_stage_that_is_missing_is_no_zero() -> None:
    with pytest.raises(KeyError):
        durations({key: value for key, value in TIMINGS.items() if key != "loadedSeconds"})


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (job(), False),
        (job(recoveries=1), True),
        (job(recoveries=1, running="False"), False),
        (job(attempt=2), True),
        (job(attempt=2, running="False"), False),
    ],
    ids=["not noticed yet", "recovered", "recovering", "next attempt trains", "next attempt starts"],
)
def test_back_means_another_attempt_or_recovery_that_trains(after: dict[str, Any], expected: bool) -> None:
    assert is_back(job(), after) is expected


def test_result_tables() -> None:
    samples = [Sample(20.0, durations(TIMINGS), seconds, 30) for seconds in (4.0, 5.0, 9.0)]
    start, faults = result({fault.name: samples for fault in FAULTS}).tables
    assert start.rows[2] == ["every worker has joined Ray", "7.0 (7.0 to 7.0)"]
    assert faults.rows[0] == [FAULTS[0].name, "5.0 (4.0 to 9.0)", "30"]

"""Why a driver ended without a result."""

from __future__ import annotations

import pytest
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.driver.no_result import explain

TRACEBACK = ["rank 0 runs in process 7", "Traceback (most recent call last):", "KeyError: 'x'"]
NOISE = [
    "rank 0 runs in process 7",
    "\x1b[33m(raylet)\x1b[0m The node has been marked dead",
    "core_worker.cc:609: lost",
]


@pytest.mark.parametrize(
    ("code", "log", "started", "lives", "expected", "text"),
    [
        (-9, NOISE, True, True, FailureClass.HEAD_LOST, "the driver was killed by SIGKILL"),
        (-9, NOISE, True, False, FailureClass.HEAD_LOST, "the driver was killed by SIGKILL"),
        (1, NOISE, True, False, FailureClass.HEAD_LOST, "Ray's node process (raylet) ended, and the driver with it"),
        (1, NOISE, True, True, FailureClass.INTERNAL_ERROR, "the driver ended with status 1 and without a result"),
        (1, TRACEBACK, True, False, FailureClass.INTERNAL_ERROR, "the driver ended with status 1"),
        (1, [], False, False, FailureClass.INTERNAL_ERROR, "the driver ended with status 1"),
    ],
)
def test_explain(code: int, log: list[str], started: bool, lives: bool, expected: FailureClass, text: str) -> None:
    found = explain(code, log, raylet_started=started, raylet_lives=lives)
    assert found.failure_class is expected
    assert found.message.startswith(text)
    assert not any("raylet" in line or "core_worker" in line for line in found.last_lines)

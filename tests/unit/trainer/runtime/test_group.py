"""How Ray is started on a laptop; everything else of it needs a real Ray and is in the integration tests."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_trainer import group
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.settings import DriverSettings

SETTINGS = DriverSettings(
    job_file="", attempt=1, workers=2, storage_uri="", base_dir="", scratch="/tmp", result_file="", token_file=""
)
TOO_SLOW = "The current node timed out during startup. This could happen because"


class Ray:
    """Fails to start a number of times."""

    def __init__(self, failures: int, message: str = TOO_SLOW) -> None:
        self.failures = failures
        self.message = message
        self.started = self.ended = 0

    def init(self, **arguments: Any) -> None:
        self.started += 1
        if self.started <= self.failures:
            raise Exception(self.message)

    def shutdown(self) -> None:
        self.ended += 1


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # is set by the start: give back what was there
    return "token"


def test_a_busy_machine_gets_more_time(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    ray = Ray(2)
    monkeypatch.setattr(group, "ray", ray)
    group._start(SETTINGS, token)
    assert (ray.started, ray.ended) == (3, 2), "what was half started is ended first"


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setattr(group, "ray", Ray(100))
    with pytest.raises(TrainingError, match="this machine is too busy"):
        group._start(SETTINGS, token)


def test_another_error_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    ray = Ray(1, "no such file")
    monkeypatch.setattr(group, "ray", ray)
    with pytest.raises(Exception, match="no such file"):
        group._start(SETTINGS, token)
    assert ray.started == 1

"""The message about a call that storage doesn't respond to."""

from __future__ import annotations

import time

import pytest
from trainmaster_api.messages import WAITING_LIMIT
from trainmaster_trainer.storage.waiting import Wait, calling, waiting


@pytest.mark.parametrize(
    ("reason", "ending"),
    [("", "while writing LATEST"), ("connection refused", "while writing LATEST (connection refused)")],
)
def test_wait_text(reason: str, ending: str) -> None:
    wait = Wait("http://s3:9000", "writing LATEST", 1767225599.5, reason)
    assert str(wait) == f"storage http://s3:9000 has not responded since 2025-12-31T23:59:59Z {ending}"


def test_wait_text_is_cut_to_the_limit() -> None:
    text = str(Wait("http://s3:9000", "writing LATEST", 0.0, "x" * 1000))
    assert len(text) == WAITING_LIMIT
    assert text.endswith("x…")


def test_waiting_text_is_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    with calling("there", "writing LATEST") as call:
        first = str(waiting(0))
        now, monotonic = time.time() + 90, time.monotonic() + 90
        monkeypatch.setattr(time, "time", lambda: now)
        monkeypatch.setattr(time, "monotonic", lambda: monotonic)
        assert str(waiting(0)) == first
        call.reason = "connection refused"
        assert str(waiting(0)) == f"{first} (connection refused)"


def test_waiting_returns_the_oldest_call() -> None:
    with calling("there", "writing a"), calling("there", "writing b"):
        wait = waiting(0)
        assert wait is not None
        assert wait.doing == "writing a"
    assert waiting(0) is None

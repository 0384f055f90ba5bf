"""Times and durations as text."""

from __future__ import annotations

import re

import pytest
from trainmaster_api.text import duration_text, now_text, time_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (-3, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m"), (60, "1m"), (200, "3m20s"), (3600, "1h"),
        (3900, "1h5m"), (7261, "2h1m"), (86400 * 3 + 3600 * 4, "3d4h"),
    ],
)  # fmt: skip
def test_duration_text(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text
    assert duration_text(None, unknown="") == ""


def test_now_text() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", now_text("seconds"))


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (951782400.9, "2000-02-29T00:00:00Z"),  # 11,016 days
        (1767225599.0, "2025-12-31T23:59:59Z"),
    ],
)
def test_time_text(timestamp: float, text: str) -> None:
    assert time_text(timestamp) == text
    assert time_text(1.25, "milliseconds") == "1970-01-01T00:00:01.250Z"

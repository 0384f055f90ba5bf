"""Times, durations and values as text, for every part that prints or sends them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))


def now_text(timespec: str = "milliseconds") -> str:
    """Return the time, RFC 3339 in UTC. `timespec`: `seconds` or `milliseconds`, as `datetime.isoformat` takes it."""
    return _rfc3339(datetime.now(UTC), timespec)


def time_text(timestamp: float, timespec: str = "seconds") -> str:
    """Return a time that is given in seconds since 1970, RFC 3339 in UTC.

    Args:
        timestamp: The time.
        timespec: `seconds` or `milliseconds`, as `datetime.isoformat` takes it.
    """
    return _rfc3339(datetime.fromtimestamp(timestamp, UTC), timespec)


def _rfc3339(time: datetime, timespec: str) -> str:
    return time.isoformat(timespec=timespec).replace("+00:00", "Z")


def duration_text(seconds: float | None, unknown: str = "-") -> str:
    """Return a duration in its two largest units: `45s`, `3m20s`, `2h5m`, `3d4h`.

    Args:
        seconds: The duration; None for one that isn't known.
        unknown: What to return for that.
    """
    if seconds is None:
        return unknown
    whole = max(0, round(seconds))
    for size, name, smaller, unit in _UNITS:
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{name}" + (f"{rest}{unit}" if rest else "")
    return f"{whole}s"


def value_text(value: Any) -> str:
    """Return a value of a parameter or of a metric, for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

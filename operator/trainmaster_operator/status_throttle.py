"""When a status is written: what matters at once, figures from time to time, and counts of a start if there is time.

When a thousand jobs start at once, their worker counts would be a third of all status writes, and each of them is work
for the API server that the starting pods wait for. So they share a budget, and a job that gets nothing of it shows its
count a little later, or never, because by then it is provisioned.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from .kube.ratelimit import TokenBucket
from .kube.trainingjob_cache import JobKey
from .policy.plan import News, news, write_delay

STARTUP_WRITES_PER_SECOND = 1.0
STARTUP_WRITES_AT_ONCE = 20
_AGAIN_SECONDS = 10.0


class StatusThrottle:
    """Decides for each job; what it remembers may be lost.

    Args:
        clock: Seconds, for the shared budget; by default the event loop's.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._written_at: dict[JobKey, datetime] = {}
        self._budget = TokenBucket(STARTUP_WRITES_PER_SECOND, STARTUP_WRITES_AT_ONCE, clock)

    def delay(self, key: JobKey, old: dict[str, Any], new: dict[str, Any], now: datetime) -> float | None:
        """Return the seconds until the status is to be written; 0: now, which uses the budget; None: not needed."""
        delay = write_delay(old, new, self._written_at.get(key), now)
        if delay == 0 and news(old, new) is News.STARTUP and not self._budget.take():
            return _AGAIN_SECONDS
        return delay

    def written(self, key: JobKey, now: datetime) -> None:
        """Record that the status was written."""
        self._written_at[key] = now

    def forget(self, key: JobKey) -> None:
        """Drop a job that is gone."""
        self._written_at.pop(key, None)

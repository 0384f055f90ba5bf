"""Limits of request rate: a token bucket for everything, exponential back-off for one thing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

_RNG = random.Random()


class TokenBucket:
    """Lets `burst` requests pass at once and `qps` per second in the long run; the rest waits in order."""

    def __init__(self, qps: float, burst: int, clock: Callable[[], float] | None = None) -> None:
        if qps <= 0 or burst < 1:
            raise ValueError(f"qps {qps} must be above 0 and burst {burst} at least 1")
        self._qps = qps
        self._burst = float(burst)
        self._clock = clock
        self._tokens = float(burst)
        self._updated: float | None = None

    def take(self) -> bool:
        """Take a token if there is one."""
        self._refill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def reserve(self) -> float:
        """Take a token and return the seconds to wait before using it (0.0: now)."""
        self._refill()
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._qps)

    async def acquire(self) -> None:
        """Wait for a token. A caller that is cancelled while it waits doesn't give its token back."""
        delay = self.reserve()
        if delay > 0:
            await asyncio.sleep(delay)

    def _refill(self) -> None:
        now = self._clock() if self._clock else asyncio.get_running_loop().time()
        if self._updated is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._qps)
        self._updated = now


def backoff(failures: int, base: float, limit: float, rng: random.Random | None = None) -> float:
    """Return the seconds to wait after `failures` consecutive failures (1 or more): doubles from `base` up to `limit`.

    Between half of it and all of it, at random, so that things that failed together don't come back together.
    """
    delay = min(limit, base * 2.0 ** min(failures - 1, 32))
    return delay * (rng or _RNG).uniform(0.5, 1.0)

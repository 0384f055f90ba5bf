"""A work queue of keys, like controller-runtime's: deduplicated, one run per key at a time, with back-off and delays.

It coalesces because reconciling is level-triggered: a reconcile reads the whole state of a job, so ten events while it
waits need one reconcile, and events carry no information that could be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from trainmaster_operator.kube.ratelimit import backoff

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

BACKOFF_BASE = 0.5
BACKOFF_LIMIT = 120.0
# An event for a failing key may shorten its back-off (the user may have fixed the cause), but not to zero: an object
# whose reconciliation fails after it has caused an event would spin.
FAILING_PAUSE = 1.0
TIMER_SLACK = 0.001


class QueueMetrics(Protocol):
    """Interface that the queue reports its metrics to."""

    def waited(self, seconds: float) -> None:
        """Record how long a key was ready before it was taken."""

    def worked(self, seconds: float, failed: bool) -> None:
        """Record how long a key took to handle."""


@dataclass(slots=True)
class _Timer(Generic[K]):
    due: float
    key: K

    def __lt__(self, other: _Timer[K]) -> bool:
        return self.due < other.due


class KeyedQueue(Generic[K]):
    """Runs `handle(key)` for added keys, with `concurrency` keys at a time.

    - A key that is added while it waits is not added again; one that is added while it runs, runs once more afterwards,
      because the run may already have read the state that has changed.
    - `handle` returns the seconds after which the key wants to run again, or None.
    - A key whose handler raises is retried after a back-off that doubles for that key only.
    - Ready keys run in the order in which they became ready, so no key starves another.
    """

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        *,
        concurrency: int = 16,
        metrics: QueueMetrics | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._handle = handle
        self._concurrency = concurrency
        self._metrics = metrics
        self._rng = rng
        self._ready: deque[K] = deque()
        self._ready_at: dict[K, float] = {}
        self._running: set[K] = set()
        self._again: dict[K, float] = {}  # keys added while they run, with the delay afterwards
        self._timers: list[_Timer[K]] = []
        self._due: dict[
            K, float
        ] = {}  # the earliest timer of each key; a heap can't remove the others, so they are void
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def running(self) -> int:
        """Keys being handled."""
        return len(self._running)

    @property
    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._due)

    def add(self, key: K, after: float = 0.0) -> None:
        """Add the key, to run now or after some seconds. The earliest of several delays counts."""
        if key in self._failures:
            after = max(after, FAILING_PAUSE)
        if key in self._running:
            self._again[key] = min(after, self._again.get(key, after))
        elif key in self._ready_at:
            return
        elif after <= 0:
            self._due.pop(key, None)
            self._make_ready(key)
        else:
            due = self._now() + after
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._timers, _Timer(due, key))
                self._wake.set()

    def forget(self, key: K) -> None:
        """Drop what is remembered of a key that is gone: its timers and its failures."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    def oldest(self) -> float:
        """Return the seconds that the key at the head of the queue has been waiting; 0.0 if there is none."""
        return self._now() - self._ready_at[self._ready[0]] if self._ready else 0.0

    async def run(self) -> None:
        """Process keys until cancelled, which also cancels the running handlers."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                self._fire_timers()
                while self._ready and len(self._running) < self._concurrency:
                    key = self._ready.popleft()
                    waited = self._now() - self._ready_at.pop(key)
                    self._running.add(key)
                    if self._metrics:
                        self._metrics.waited(waited)
                    tasks.create_task(self._work(key))
                await self._sleep_until_needed()

    async def _work(self, key: K) -> None:
        started = self._now()
        failed = False
        after: float | None = None
        try:
            after = await self._handle(key)
            self._failures.pop(key, None)
        except Exception as error:  # one failing key must not stop the others
            failed = True
            count = self._failures[key] = self._failures.get(key, 0) + 1
            after = backoff(count, BACKOFF_BASE, BACKOFF_LIMIT, self._rng)
            logger.warning("%s: %s; retrying in %.1f s", key, error, after, exc_info=not _expected(error))
        finally:
            self._running.discard(key)
            if self._metrics:
                self._metrics.worked(self._now() - started, failed)
            self._wake.set()
        wishes = [wish for wish in (self._again.pop(key, None), after) if wish is not None]
        if wishes:
            self.add(key, min(wishes))

    def _make_ready(self, key: K) -> None:
        self._ready.append(key)
        self._ready_at[key] = self._now()
        self._wake.set()

    def _fire_timers(self) -> None:
        # the loop's own timers come up to its clock's resolution early
        now = self._now() + TIMER_SLACK
        while self._timers and self._timers[0].due <= now:
            timer = heapq.heappop(self._timers)
            if self._due.get(timer.key) == timer.due:
                del self._due[timer.key]
                self._make_ready(timer.key)

    async def _sleep_until_needed(self) -> None:
        timeout = self._timers[0].due - self._now() if self._timers else None
        if timeout is not None and timeout <= 0:
            return
        # not wait_for: until Python 3.12 it forgets a cancellation that comes together with the wake-up
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _expected(error: Exception) -> bool:
    """Return whether the error is a response of the API; anything else is a bug, and logged with its traceback."""
    return hasattr(error, "reason") and hasattr(error, "code")

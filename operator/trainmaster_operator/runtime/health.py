"""Health probes: they check what the operator does, not whether a web server answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from .metrics import Metrics

LOOP_LAG_LIMIT = 5.0
QUEUE_AGE_LIMIT = 180.0
# A watch that is silent for 90 s is broken off and tried again, so a stream task that did nothing for twice that hangs.
STREAM_AGE_LIMIT = 200.0

Check = Callable[[], str | None]


class LoopLag:
    """Worst lateness of the event loop within the last minute, in seconds."""

    def __init__(self, period: float = 0.5, window: int = 120) -> None:
        self._period = period
        self._window = window
        self._lags: list[float] = []

    @property
    def worst(self) -> float:
        """Seconds."""
        return max(self._lags, default=0.0)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._period
            await asyncio.sleep(self._period)
            self._lags = [*self._lags[1 - self._window :], max(0.0, loop.time() - due)]


class Health:
    """Checks behind the probes: each returns None, or a message that names the problem.

    Liveness asks whether a restart would help; an API server that is away isn't such a case. Readiness asks whether
    the caches are filled; a standby is ready.
    """

    def __init__(self) -> None:
        self.live: dict[str, Check] = {}
        self.ready: dict[str, Check] = {}

    @staticmethod
    def limit(read: Callable[[], float], limit: float, what: str) -> Check:
        """Return a check that a value is at most `limit`."""

        def check() -> str | None:
            value = read()
            return None if value <= limit else f"{what} is {value:.1f} s, more than {limit:.0f} s"

        return check


def application(health: Health, metrics: Metrics) -> web.Application:
    """Return the application that serves `/healthz`, `/readyz` and `/metrics` over plain HTTP."""

    def probe(checks: dict[str, Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            results = {name: check() for name, check in checks.items()}
            lines = [f"{name}: {problem or 'ok'}" for name, problem in results.items()]
            return web.Response(text="\n".join([*lines, ""]), status=503 if any(results.values()) else 200)

        return answer

    async def expose(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.router.add_get("/healthz", probe(health.live))
    app.router.add_get("/readyz", probe(health.ready))
    app.router.add_get("/metrics", expose)
    return app

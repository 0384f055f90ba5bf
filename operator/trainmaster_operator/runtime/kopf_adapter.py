"""The only module that uses kopf: TrainingJob events, login, settings.

kopf's high-level handlers keep their state in annotations and finalizers of the object; `on.event` doesn't, so that is
the one that is used, and it does no more than remember the body and enqueue the key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import kopf
from trainmaster_api import GROUP, PLURAL, VERSION

from trainmaster_operator.kube.connection import LoginInfo

Object = dict[str, Any]


class NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no last-seen state on the object: only change handlers need it, and building it is half of kopf's CPU."""

    def build(self, **_: Any) -> Any:
        """Return nothing to compare."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """Return nothing: nothing is stored."""
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


class Backoffs:
    """Pauses between kopf's tries of a request: about a minute in all, never two alike. Can be walked repeatedly."""

    def __iter__(self) -> Iterator[float]:
        return iter([pause * random.uniform(0.5, 1.5) for pause in (0.5, 1, 2, 4, 8, 15, 30)])


def login() -> LoginInfo:
    """Return the credentials of the pod's service account, else of KUBECONFIG; raise LoginError with what to do."""
    settings = kopf.OperatorSettings()
    info = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    if info is None:
        raise kopf.LoginError("no cluster: run in a pod with a service account, or set KUBECONFIG")
    return info


def registry(seen: Callable[[Object], None], gone: Callable[[Object], None]) -> kopf.OperatorRegistry:
    """Return kopf's registry of everything that it does for us.

    Args:
        seen: Called with the body of a TrainingJob that exists.
        gone: Called with the last body of one that was deleted.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def connect(**_: Any) -> LoginInfo:
        return login()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers, id="enqueue")
    async def enqueue(event: Any, **_: Any) -> None:
        (gone if event["type"] == "DELETED" else seen)(event["object"])

    return handlers


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings: what it would do beyond login, list and watch is switched off."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True  # of several replicas the Lease chooses one
    chosen.posting.enabled = False
    chosen.posting.loggers = False
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 330
    chosen.watching.connect_timeout = 5
    chosen.watching.chunk_size = 500
    chosen.networking.request_timeout = 20
    chosen.networking.connect_timeout = 5
    chosen.networking.error_backoffs = Backoffs()
    chosen.queueing.idle_timeout = 1.0
    chosen.persistence.finalizer = f"{GROUP}/finalizer"  # never set: nothing here needs one
    chosen.persistence.diffbase_storage = NoDiffBase()
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{GROUP}")
    chosen.execution.max_workers = 1
    chosen.scanning.disabled = True  # the CRD is ours and is there: no right to read all CRDs is needed
    chosen.process.ultimate_exiting_timeout = 20
    return chosen


class KopfThread:
    """Kopf in a loop and a thread of its own.

    When kopf stops it cancels every task of its loop that is younger than itself, and it takes the process' signals:
    in our loop it would end the writes of others in the middle. Its handlers call back into our loop.

    Args:
        seen: Called in the caller's loop with the body of a TrainingJob that exists.
        gone: Called in the caller's loop with the last body of one that was deleted.
        namespaces: Only these; empty: all.
    """

    def __init__(
        self, seen: Callable[[Object], None], gone: Callable[[Object], None], namespaces: tuple[str, ...]
    ) -> None:
        self._seen = seen
        self._gone = gone
        self._namespaces = namespaces
        self._stop = threading.Event()

    async def run(self) -> None:
        """Run until stopped; raises what kopf raises."""
        loop = asyncio.get_running_loop()

        def post(call: Callable[[Object], None]) -> Callable[[Object], None]:
            def later(body: Object) -> None:
                # the loop may be closing while kopf handles its last event
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(call, body)

            return later

        handlers = registry(post(self._seen), post(self._gone))
        await asyncio.to_thread(asyncio.run, self._operator(handlers))

    async def _operator(self, handlers: kopf.OperatorRegistry) -> None:
        await kopf.operator(
            registry=handlers,
            settings=settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )

    def stop(self) -> None:
        """Ask it to stop; `run` returns soon after."""
        self._stop.set()


def quiet() -> None:
    """Silence kopf's log line for every event."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)

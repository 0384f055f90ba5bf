"""A plain client of the API: creates objects at a steady pace and sees by one watch when each is ready.

It is its own code, not the operator's, so that the yardstick doesn't move with what it measures.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from testbed.control_plane import ControlPlane

Json = dict[str, Any]
IN_FLIGHT = 32
TRIES = 5


class TooSlowError(Exception):
    """Not everything was ready in time; the message says how far it came."""


@dataclass(frozen=True)
class Workload:
    """What an arm of the benchmark creates for each job and how it is seen to be ready."""

    objects: Callable[[int], Iterable[tuple[str, Json]]]
    """(collection path, manifest) of everything that the client creates for job `i`."""
    watched: str
    """Collection path that is watched."""
    ready_job: Callable[[Json], str | None]
    """Name of the job that a ready object belongs to; None while the object isn't ready."""
    job_name: Callable[[int], str]
    parts: int = 1
    """Ready objects that make a job ready."""


@dataclass
class Timing:
    """Seconds on the client's clock (epoch) by job."""

    sent: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)

    @property
    def begin(self) -> float:
        """First create."""
        return min(self.sent.values())

    @property
    def end(self) -> float:
        """Last job ready."""
        return max(self.ready.values())

    @property
    def delays(self) -> list[float]:
        """From create to ready, job by job."""
        return [at - self.sent[job] for job, at in self.ready.items()]


class PlainClient:
    """Create and watch, nothing else."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def create(self, path: str, body: Json) -> None:
        """Create one object.

        Raises:
            RuntimeError: the API server refused it.
        """
        data = orjson.dumps(body)
        for left in range(TRIES - 1, -1, -1):
            try:
                async with self._slots, self._session.post(self._server + path, data=data) as answer:
                    said = await answer.text()
                # 409 after a lost answer is our own object; 429 asks to come again
                if answer.status == 201 or (answer.status == 409 and left < TRIES - 1):
                    return
                if answer.status != 429 or not left:
                    raise RuntimeError(f"POST {path}: {answer.status} {said[:500]}")
                await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # the server closes connections that idled; only so many times in a row
                if not left:
                    raise

    async def version(self, path: str) -> str:
        """Resource version of a collection, to watch from."""
        async with self._session.get(f"{self._server}{path}?limit=1") as answer:
            found: str = orjson.loads(await answer.read())["metadata"]["resourceVersion"]
            return found

    async def watch(self, path: str, version: str) -> AsyncIterator[Json]:
        """Objects as they are added and changed, from a version on, without an end.

        The API server drops a watcher that reads too slowly for a moment; it goes on where it was.
        """
        while True:
            async for found in self._stream(f"{self._server}{path}?watch=1&resourceVersion={version}"):
                version = found["metadata"]["resourceVersion"]
                yield found

    async def _stream(self, url: str) -> AsyncIterator[Json]:
        rest = b""
        async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{url}: {answer.status} {(await answer.text())[:500]}")
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"{url} ended: {event['object'].get('message')}")
                    yield event["object"]


@asynccontextmanager
async def connect(plane: ControlPlane) -> AsyncIterator[PlainClient]:
    """A client with the admin's certificate."""
    context = ssl.create_default_context(cafile=str(plane.ca))
    context.load_cert_chain(plane.admin.cert, plane.admin.key)
    headers = {"User-Agent": "trainmaster-bench", "Content-Type": "application/json", "Accept": "application/json"}
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield PlainClient(session, plane.server)


async def drive(plane: ControlPlane, work: Workload, jobs: int, rate: float, patience: float) -> Timing:
    """Create `jobs` jobs at `rate` per second and wait until all are ready.

    Raises:
        TooSlowError: they weren't within `patience` seconds.
    """
    timing = Timing()
    async with connect(plane) as client:
        version = await client.version(work.watched)
        seen = asyncio.create_task(_see(client, work, version, jobs, timing))
        made = asyncio.create_task(_create(client, work, jobs, rate, timing))
        try:
            async with asyncio.timeout(patience):
                await asyncio.gather(seen, made)
        except TimeoutError:
            done = f"{len(timing.ready)} of {jobs} jobs ready after {patience:.0f} s"
            raise TooSlowError(f"{done} ({len(timing.sent)} created)") from None
        finally:
            seen.cancel()
            made.cancel()
    return timing


async def _create(client: PlainClient, work: Workload, jobs: int, rate: float, timing: Timing) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for index in range(jobs):
            await asyncio.sleep(max(0.0, began + index / rate - time.monotonic()))
            timing.sent[work.job_name(index)] = time.time()
            for path, body in work.objects(index):
                group.create_task(client.create(path, body))


async def _see(client: PlainClient, work: Workload, version: str, jobs: int, timing: Timing) -> None:
    parts: dict[str, set[str]] = {}
    async for found in client.watch(work.watched, version):
        job = work.ready_job(found)
        if job is None or job in timing.ready:
            continue
        ready = parts.setdefault(job, set())
        ready.add(found["metadata"]["name"])
        if len(ready) == work.parts:
            timing.ready[job] = time.time()
            if len(timing.ready) == jobs:
                return

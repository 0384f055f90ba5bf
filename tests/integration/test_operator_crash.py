"""The operator dies before or after each of its writes, at every point of several stories; the next one carries on.

Each story is run once without a crash to count its writes, then once for each of them and each side. What is there in
the end must be the same.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.names import HEADS_SERVICE, LABEL_JOB
from trainmaster_operator.kube.client import PODS, SERVICES, TRAINING_JOBS, Client, Resource
from trainmaster_operator.kube.errors import ApiError
from trainmaster_operator.kube.reflector import Reflector
from trainmaster_operator.kube.trainingjob_cache import JobKey, JobStore
from trainmaster_operator.manifests import is_heads_service
from trainmaster_operator.policy.settings import Settings
from trainmaster_operator.policy.snapshot import PodView
from trainmaster_operator.reconcile import Caches, Reconciler

from tests.integration.operator_harness import Bed, Object, job


class Crash(BaseException):
    """The process is gone."""


class Mortal(Client):
    """A client whose process dies at its n-th write: before it is sent, or after it was carried out."""

    fatal = 10_000
    after = False
    count = 0
    dead = False

    async def _once(self, method: str, *args: Any, **kwargs: Any) -> Object:
        if self.dead:
            raise Crash
        if method == "GET":
            return await super()._once(method, *args, **kwargs)
        self.count += 1
        if self.count != self.fatal:
            return await super()._once(method, *args, **kwargs)
        if self.after:
            with suppress(ApiError):
                await super()._once(method, *args, **kwargs)
        self.dead = True
        raise Crash


class Nobody:
    def get(self, key: JobKey) -> None:
        return None

    def received(self, key: JobKey) -> None:
        return None


class Process:
    """Caches and reconciler as one life of the operator has them; time can be moved on."""

    def __init__(self, here: Bed, key: JobKey, fatal: int = 10_000, after: bool = False) -> None:
        self.client = Mortal(here.client._connection)
        self.client.fatal, self.client.after = fatal, after
        self.key = key
        self.jobs = JobStore()
        label = f"{LABEL_JOB}={self.key.name}"
        self.pods: Reflector[JobKey, PodView] = self._cache(PODS, label, lambda body: self.key, PodView.from_pod)
        self.services: Reflector[str, bool] = self._cache(
            SERVICES, "", lambda body: self.key.namespace, is_heads_service
        )
        self.skip = timedelta()
        self.reconcile = Reconciler(
            self.client,
            Caches(self.jobs, self.pods, self.services, Nobody()),
            Settings(progress_url="https://op/v1/progress"),
            now=lambda: datetime.now(UTC) + self.skip,
        )

    def _cache(
        self, resource: Resource, labels: str, key: Callable[[Object], Any], trim: Callable[[Object], Any]
    ) -> Reflector[Any, Any]:
        return Reflector(
            self.client,
            resource,
            namespaces=(self.key.namespace,),
            labels=labels,
            key=key,
            trim=trim,
            changed=lambda key: None,
        )

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(cache.run()) for cache in (self.pods, self.services)]
        try:
            await asyncio.wait_for(self.pods.synced.wait(), 10)
            await asyncio.wait_for(self.services.synced.wait(), 10)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, reached: Callable[[Object, set[str]], bool]) -> None:
        """Look at the job again and again until it is where the story wants it and nothing is left to write."""
        async with asyncio.timeout(20):
            while True:
                before = self.client.count
                body = await Client.get(self.client, TRAINING_JOBS, self.key.namespace, self.key.name)
                self.jobs.put(body)
                after = await self.reconcile(self.key)
                if reached(self.jobs.get(self.key) or {}, {pod.name for pod in self.pods.get(self.key)}):
                    if self.client.count == before:
                        return
                elif after:
                    self.skip += timedelta(seconds=after)  # back-offs pass at once
                await asyncio.sleep(0.02)


Story = Callable[[Bed, str], Awaitable[None]]
Goal = Callable[[Object, set[str]], bool]


def status(body: Object) -> Object:
    return body.get("status") or {}


def holds(body: Object, kind: str) -> bool:
    return any(item["type"] == kind and item["status"] == "True" for item in status(body).get("conditions") or ())


async def pods_ready(here: Bed, name: str) -> None:
    """Wait until all pods of an attempt run; the kubelet of the bed makes them so."""

    async def ready() -> bool:
        mine = [pod for pod in await here.list() if pod["metadata"]["labels"][LABEL_JOB] == name]
        return len(mine) == 3 and all(pod.get("status", {}).get("phase") == "Running" for pod in mine)

    await here.until(ready, f"pods of {name}")


async def end_head(here: Bed, name: str) -> None:
    message = ExitMessage(outcome=Outcome.COMPLETE, step=9).encode()
    await pods_ready(here, name)
    await here.kubelet.set(f"{name}-1-head", "Succeeded", exit_code=0, message=message)


async def kill_head(here: Bed, name: str) -> None:
    await pods_ready(here, name)
    await here.kubelet.set(f"{name}-1-head", "Failed", exit_code=137)


async def suspend(here: Bed, name: str) -> None:
    await pods_ready(here, name)
    await here.edit({"spec": {"run": {"suspend": True}}}, name)


def attempt_is(number: int) -> Goal:
    def reached(body: Object, pods: set[str]) -> bool:
        name = body["metadata"]["name"]
        wanted = {f"{name}-{number}-head", f"{name}-{number}-w-0", f"{name}-{number}-w-1"}
        return status(body).get("attempt") == number and pods == wanted and holds(body, "Provisioned")

    return reached


def is_complete(body: Object, pods: set[str]) -> bool:
    return holds(body, "Complete") and pods == {f"{body['metadata']['name']}-1-head"}


def is_suspended(body: Object, pods: set[str]) -> bool:
    return holds(body, "Suspended") and not pods


# name: what happens once the job runs, where it must end, restarts it must count
STORIES: dict[str, tuple[Story | None, Goal, int]] = {
    "start": (None, attempt_is(1), 0),
    "complete": (end_head, is_complete, 0),
    "restart": (kill_head, attempt_is(2), 1),
    "suspend": (suspend, is_suspended, 0),
}


async def live(here: Bed, story: str, name: str, crashes: list[tuple[int, bool]]) -> tuple[int, int]:
    """Run a story with crashes at the given writes of successive lives; (writes of the last life, crashes)."""
    act, goal, restarts = STORIES[story]
    key = JobKey(here.namespace, name)
    for service in await here.list(SERVICES):  # all jobs of the namespace share it: each story makes it again
        await here.client.delete(SERVICES, here.namespace, HEADS_SERVICE, uid=service["metadata"]["uid"])
    await here.submit(job(name))
    if act is not None:  # what comes before the story is done by another life
        before = Process(here, key)
        async with before.alive():
            await before.until(attempt_is(1))
        await act(here, name)
    crashed = 0
    for fatal, after in crashes:
        process = Process(here, key, fatal, after)
        async with process.alive():
            try:
                await process.until(goal)
            except Crash:
                crashed += 1
            else:  # what it had to write depends on the moment: this time it was done sooner
                assert process.client.count < fatal
    last = Process(here, key)
    async with last.alive():
        await last.until(goal)
    body = await here.get(name)
    assert status(body)["restarts"]["total"] == restarts, status(body)
    numbers = [attempt["attempt"] for attempt in status(body)["attempts"]]
    assert numbers == sorted(set(numbers))
    assert not (holds(body, "Complete") and holds(body, "Failed"))
    uid = body["metadata"]["uid"]
    assert await here.names(SERVICES) == {HEADS_SERVICE}
    for thing in await here.list():
        if thing["metadata"]["labels"][LABEL_JOB] == name:
            assert thing["metadata"]["ownerReferences"][0]["uid"] == uid
    return last.client.count, crashed


@pytest.mark.parametrize("story", STORIES)
async def test_a_crash_at_any_write_changes_nothing_in_the_end(here: Bed, story: str) -> None:
    total, _ = await live(here, story, f"{story}-0", [])
    assert total >= 2
    points = list(itertools.product(range(1, total + 1), (False, True)))
    crashes = 0
    for fatal, after in points:
        _, crashed = await live(here, story, f"{story}-{fatal}{'a' if after else 'b'}", [(fatal, after)])
        crashes += crashed
    assert crashes >= len(points) - 4
    print(f"{story}: {crashes} crashes in {total} writes")


async def test_two_crashes_in_one_story(here: Bed) -> None:
    total, _ = await live(here, "start", "none", [])
    twice = 0
    for first, second in itertools.product(range(1, total), (1, 2)):
        _, crashed = await live(here, "start", f"two-{first}-{second}", [(first, True), (second, True)])
        twice += crashed == 2
    print(f"{twice} times twice")
    assert twice >= total // 2

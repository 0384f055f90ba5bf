import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from trainmaster_operator.kube.client import PODS, Client
from trainmaster_operator.kube.reflector import Reflector

from tests.unit.operator.kube.fake_api import FakeApi, Fault, connect, until

POD_PATH = "/api/v1/namespaces/ns/pods"


@asynccontextmanager
async def running(client: Client, changes: list[str] | None = None) -> AsyncIterator[Reflector[str, tuple[str, str]]]:
    reflector = Reflector(
        client,
        PODS,
        namespaces=("ns",),
        key=lambda body: body.get("job", "?"),
        trim=lambda body: (body["metadata"]["name"], body.get("phase", "")),
        changed=changes.append if changes is not None else lambda _: None,
    )
    task = asyncio.create_task(reflector.run())
    try:
        await asyncio.wait_for(reflector.synced.wait(), 5)
        yield reflector
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainmaster_operator.kube.reflector.backoff", lambda *_: 0.01)


async def test_list_then_events_keep_views_grouped_by_key() -> None:
    api, changes = FakeApi(), []
    api.put(POD_PATH, "a", job="one", phase="Pending")
    api.put(POD_PATH, "b", job="two")
    async with connect(api) as client, running(client, changes) as reflector:
        assert reflector.get("one") == (("a", "Pending"),)
        api.put(POD_PATH, "c", job="one", phase="Pending")
        await until(lambda: len(reflector.get("one")) == 2)
        api.put(POD_PATH, "a", job="one", phase="Running")
        await until(lambda: ("a", "Running") in reflector.get("one"))
        api.drop(POD_PATH, "b")
        await until(lambda: not reflector.get("two"))
        assert len(reflector) == 2
        assert changes == ["one", "two", "one", "one", "two"]


async def test_a_change_that_the_view_does_not_show_is_no_news() -> None:
    api, changes = FakeApi(), []
    api.put(POD_PATH, "a", job="one", phase="Running")
    async with connect(api) as client, running(client, changes) as reflector:
        changes.clear()
        api.put(POD_PATH, "a", job="one", phase="Running", heartbeat=1)
        api.put(POD_PATH, "b", job="two")
        await until(lambda: reflector.get("two"))
        assert changes == ["two"]


async def test_objects_deleted_during_a_gap_leave_the_cache() -> None:
    api, changes = FakeApi(), []
    for name in "abc":
        api.put(POD_PATH, name, job=name)
    async with connect(api) as client, running(client, changes) as reflector:
        changes.clear()
        api.drop(POD_PATH, "b", event=False)
        api.faults = [Fault("WATCH", "gone")]
        api.break_watches()
        await until(lambda: not reflector.get("b"))
        assert changes == ["b"], "a re-list tells only what changed"
        assert len(reflector) == 2


async def test_reflector_gap_with_a_reused_name() -> None:
    api = FakeApi()
    api.put(POD_PATH, "a", job="one", phase="Failed")
    async with connect(api) as client, running(client) as reflector:
        api.drop(POD_PATH, "a", event=False)
        api.put(POD_PATH, "a", event=False, job="one", phase="Pending")
        api.faults = [Fault("WATCH", "gone")]
        api.break_watches()
        await until(lambda: reflector.get("one") == (("a", "Pending"),))


async def test_an_answer_to_our_own_write_is_there_at_once() -> None:
    api, changes = FakeApi(), []
    async with connect(api) as client, running(client, changes) as reflector:
        await until(lambda: api.count("WATCH") == 1)
        created = api.put(POD_PATH, "a", event=False, job="one", phase="Pending")
        reflector.observe(created)
        assert reflector.get("one") == (("a", "Pending"),)
        api.events.append((api.version, POD_PATH, "ADDED", created))
        api.put(POD_PATH, "z", job="last")
        await until(lambda: reflector.get("last"))
        assert changes == ["last"], "the echo of our own write is no news"


async def test_a_late_answer_does_not_bring_a_deleted_object_back() -> None:
    api = FakeApi()
    async with connect(api) as client, running(client) as reflector:
        created = api.put(POD_PATH, "a", job="one")
        api.drop(POD_PATH, "a")
        api.put(POD_PATH, "z", job="last")
        await until(lambda: reflector.get("last"))
        reflector.observe(created)
        assert reflector.get("one") == ()


async def test_an_older_event_does_not_undo_a_newer_answer() -> None:
    api = FakeApi()
    async with connect(api) as client, running(client) as reflector:
        await until(lambda: api.count("WATCH") == 1)
        old = api.put(POD_PATH, "a", event=False, job="one", phase="Pending")
        new = api.put(POD_PATH, "a", event=False, job="one", phase="Running")
        reflector.observe(new)
        api.events.append((int(old["metadata"]["resourceVersion"]), POD_PATH, "ADDED", old))
        api.put(POD_PATH, "z", job="last")
        await until(lambda: reflector.get("last"))
        assert reflector.get("one") == (("a", "Running"),)


async def test_reflector_older_list_does_not_undo_our_own_write() -> None:
    api = FakeApi()
    async with connect(api) as client, running(client) as reflector:
        await until(lambda: api.count("WATCH") == 1)
        api.faults = [Fault("WATCH", "gone")]
        real = api._list

        def stale(request: Any) -> Any:
            answer = real(request)  # the list is taken, then the write happens, then the answer arrives
            reflector.observe(api.put(POD_PATH, "a", event=False, job="one"))
            api._list = real  # type: ignore[method-assign]
            return answer

        api._list = stale  # type: ignore[method-assign]
        api.break_watches()
        await until(lambda: api.count("WATCH") >= 3)
        assert reflector.get("one") == (("a", ""),)


@pytest.mark.parametrize("fault", ["truncate", "reset", "end", 500])
async def test_after_a_broken_stream_nothing_is_missing(fault: str | int) -> None:
    api = FakeApi()
    async with connect(api) as client, running(client) as reflector:
        await until(lambda: api.count("WATCH") == 1)
        api.faults = [Fault("WATCH", fault)]
        api.break_watches()
        api.put(POD_PATH, "a", job="one")
        await until(lambda: reflector.get("one"))
        assert api.count("GET") == 1, "the watch resumes where it was; no new list"


async def test_reflector_backs_off_from_closed_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    api = FakeApi()
    api.faults = [Fault("WATCH", "end") for _ in range(10_000)]
    async with connect(api) as client, running(client):
        await asyncio.sleep(1.0)  # a rate is tested, and a rate needs time
        assert api.count("WATCH") >= 2, "it keeps retrying"
        assert api.count("WATCH") <= 12

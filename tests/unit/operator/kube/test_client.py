import asyncio
import time
from itertools import chain, repeat

import pytest
from trainmaster_operator.kube.client import PODS, Client
from trainmaster_operator.kube.connection import Connection
from trainmaster_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    FencedError,
    GoneError,
    InvalidError,
    NotFoundError,
    ServerError,
    UnauthorizedError,
    UnreachableError,
    WebhookError,
)

from tests.unit.operator.kube.fake_api import FakeApi, Fault, Login, connect, serve

PODS_IN_NS = "/api/v1/namespaces/ns/pods"


def pod(name: str = "a") -> dict[str, object]:
    return {"metadata": {"name": name}}


async def test_create_with_a_lost_answer_finds_its_own_object() -> None:
    api = FakeApi()
    api.faults = [Fault("POST", "drop")]
    async with connect(api) as client:
        with pytest.raises(AlreadyExistsError):
            await client.create(PODS, "ns", pod())
    assert api.count("POST") == 2
    assert list(api.objects) == [f"{PODS_IN_NS}/a"]


async def test_a_reset_connection_is_tried_again() -> None:
    api = FakeApi()
    api.faults = [Fault("POST", "reset"), Fault("POST", 503)]
    async with connect(api) as client:
        created = await client.create(PODS, "ns", pod())
    assert created["metadata"]["uid"]
    assert api.count("POST") == 3


async def test_retry_after_is_a_lower_bound() -> None:
    api = FakeApi()
    api.faults = [Fault("POST", 429, headers={"Retry-After": "1"})]
    async with connect(api) as client:
        started = time.monotonic()
        await client.create(PODS, "ns", pod())
    assert time.monotonic() - started >= 1.0
    assert api.count("POST") == 2


async def test_a_storm_of_server_errors_ends_after_five_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainmaster_operator.kube.client.backoff", lambda *_: 0.001)
    api = FakeApi()
    api.faults = [Fault("POST", 500) for _ in range(9)]
    async with connect(api) as client:
        with pytest.raises(ServerError):
            await client.create(PODS, "ns", pod())
    assert api.count("POST") == 5


async def test_a_webhook_that_fails_is_left_to_the_caller() -> None:
    """Each call may take its whole timeout, and calls that create pods wait longer between retries."""
    api = FakeApi()
    message = 'Internal error occurred: failed calling webhook "x": context deadline exceeded'
    api.faults = [Fault("POST", 500, message=message)]
    async with connect(api) as client:
        with pytest.raises(WebhookError, match="failed calling webhook"):
            await client.create(PODS, "ns", pod())
    assert api.count("POST") == 1


async def test_strict_creation_refuses_unknown_fields() -> None:
    api = FakeApi()
    async with connect(api) as client:
        await client.create(PODS, "ns", pod(), strict=True)
        await client.create(PODS, "ns", pod("b"))
    assert [query.get("fieldValidation") for query in api.queries("POST")] == ["Strict", None]


@pytest.mark.parametrize(
    ("code", "error"), [(400, InvalidError), (422, InvalidError), (404, NotFoundError), (409, ConflictError)]
)
async def test_a_refusal_is_not_repeated(code: int, error: type[Exception]) -> None:
    api = FakeApi()
    api.faults = [Fault("POST", code)]
    async with connect(api) as client:
        with pytest.raises(error):
            await client.create(PODS, "ns", pod())
    assert api.count("POST") == 1


async def test_delete_of_a_reused_name_is_a_conflict() -> None:
    api = FakeApi()
    api.put(PODS_IN_NS, "a")
    async with connect(api) as client:
        with pytest.raises(ConflictError):
            await client.delete(PODS, "ns", "a", uid="of-the-one-before", grace=0)
    assert f"{PODS_IN_NS}/a" in api.objects


async def test_after_a_401_the_credentials_are_read_again_once() -> None:
    api = FakeApi()
    tokens = iter(["stale", "good", "good"])
    async with serve(api) as url, Connection(lambda: Login(url, next(tokens)), user_agent="test") as connection:
        await Client(connection).create(PODS, "ns", pod())
        api.token = "other"
        with pytest.raises(UnauthorizedError):
            await Client(connection).create(PODS, "ns", pod("b"))
    assert api.count("POST") == 3


async def test_a_fenced_client_sends_no_write_but_reads() -> None:
    api = FakeApi()
    api.put(PODS_IN_NS, "a")
    async with connect(api, may_write=lambda: False) as client:
        assert (await client.get(PODS, "ns", "a"))["metadata"]["name"] == "a"
        for write in (client.create(PODS, "ns", pod("b")), client.delete(PODS, "ns", "a", uid="x")):
            with pytest.raises(FencedError):
                await write
    assert api.requests == [f"GET {PODS_IN_NS}/a"]


async def test_list_pages() -> None:
    api = FakeApi()
    api.page = 3
    for index in range(7):
        api.put(PODS_IN_NS, f"p{index}")
    async with connect(api) as client:
        pages = [[body["metadata"]["name"] for body in items] async for items, _ in client.list_pages(PODS, "ns")]
    assert pages == [["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6"]]


async def test_a_page_token_that_expired_is_gone() -> None:
    api = FakeApi()
    api.faults = [Fault("GET", 410, reason="Expired")]
    async with connect(api) as client:
        with pytest.raises(GoneError):
            _ = [page async for page in client.list_pages(PODS, "ns")]


async def test_a_watch_gives_events_of_any_size_in_order() -> None:
    api = FakeApi()
    big = api.put(PODS_IN_NS, "big", note="x" * 400_000)
    api.put(PODS_IN_NS, "small")
    async with connect(api) as client:
        seen = []
        async for kind, body in client.watch(PODS, "ns", "0"):
            seen.append((kind, body["metadata"]["name"], len(body.get("note", ""))))
            if len(seen) == 2:
                break
    assert seen == [("ADDED", "big", len(big["note"])), ("ADDED", "small", 0)]


async def test_watch_truncated_event_is_an_error() -> None:
    api = FakeApi()
    api.put(PODS_IN_NS, "a")
    api.faults = [Fault("WATCH", "truncate")]
    async with connect(api) as client:
        with pytest.raises(UnreachableError, match="within an event"):
            _ = [event async for event in client.watch(PODS, "ns", "0")]


async def test_an_expired_version_is_gone() -> None:
    api = FakeApi()
    api.faults = [Fault("WATCH", "gone")]
    async with connect(api) as client:
        with pytest.raises(GoneError):
            _ = [event async for event in client.watch(PODS, "ns", "0")]


async def test_a_silent_watch_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainmaster_operator.kube.client.WATCH_SILENCE_SECONDS", 0.1)
    async with connect(FakeApi()) as client, asyncio.timeout(5):
        with pytest.raises(UnreachableError):
            _ = [event async for event in client.watch(PODS, "ns", "1000")]


async def test_fence_lost_while_connecting_sends_nothing() -> None:
    api = FakeApi()
    answers = iter([True, False])  # asked before the connection is made, and again when it is there
    async with connect(api, may_write=lambda: next(answers)) as client:
        with pytest.raises(FencedError):
            await client.create(PODS, "ns", pod())
    assert api.requests == []


@pytest.mark.parametrize("verb", ["create", "delete", "replace"])
async def test_fence_lost_before_the_request(verb: str) -> None:
    api = FakeApi()
    api.put(PODS_IN_NS, "a")
    answers = chain([True, True], repeat(False))
    async with connect(api, may_write=lambda: next(answers)) as client:
        writes = {
            "create": lambda: client.create(PODS, "ns", pod()),
            "delete": lambda: client.delete(PODS, "ns", "a", uid="x"),
            "replace": lambda: client.replace(PODS, {**pod("a"), "metadata": {"name": "a", "namespace": "ns"}}),
        }
        with pytest.raises(FencedError):
            await writes[verb]()
    assert api.requests == []


async def test_fence_is_asked_again_on_a_reused_connection() -> None:
    api = FakeApi()
    answers = iter([True, True, True, True, False])
    async with connect(api, may_write=lambda: next(answers)) as client:
        await client.create(PODS, "ns", pod("a"))
        with pytest.raises(FencedError):
            await client.create(PODS, "ns", pod("b"))
    assert api.count("POST") == 1

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from trainmaster_api.messages import CheckpointRef, ProgressMessage, TrainerState
from trainmaster_operator.kube.errors import UnreachableError
from trainmaster_operator.kube.tokens import TokenIdentity
from trainmaster_operator.kube.trainingjob_cache import JobKey
from trainmaster_operator.runtime import tls
from trainmaster_operator.runtime.endpoint import Endpoint
from trainmaster_operator.runtime.leader_proxy import LeaderProxy
from trainmaster_operator.runtime.metrics import Metrics
from trainmaster_operator.runtime.progress import COALESCE_SECONDS, ProgressStore

from testbed.control_plane import free_port

CERTIFICATES = tls.generate(("127.0.0.1", "op.svc"))
KEY = JobKey("ns", "job")


def message(**fields: Any) -> ProgressMessage:
    given = {"namespace": "ns", "name": "job", "uid": "u", "attempt": 1, "state": TrainerState.TRAINING}
    return ProgressMessage(**given | {"time": "2026-01-01T00:00:00Z"} | fields)


class Tokens:
    def __init__(self) -> None:
        self.fails = False

    async def review(self, token: str) -> TokenIdentity | None:
        if self.fails:
            raise UnreachableError(0, "Down", "no answer")
        return {"head": TokenIdentity("ns", "head-uid"), "other": TokenIdentity("ns", "x")}.get(token)


class Replica:
    def __init__(self, leader: bool, holder: str = "", port: int = 0) -> None:
        self.port = port or free_port()
        self.tokens = Tokens()
        self.changes: list[tuple[JobKey, float]] = []
        self.store = ProgressStore(lambda key, after: self.changes.append((key, after)))
        self.peer = LeaderProxy(lambda: holder, self.port, CERTIFICATES.ca, "op.svc")
        self.endpoint = Endpoint(
            self.tokens,  # type: ignore[arg-type]
            self.store,
            lambda message: "head-uid" if message.attempt == 1 else None,
            lambda: leader,
            self.peer,
            Metrics(),
            images_of=lambda message: ["b@sha256:2", "", "a@sha256:1", "b@sha256:2"],
        )

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1") -> AsyncIterator[None]:
        runner = web.AppRunner(self.endpoint.application())
        await runner.setup()
        async with self.peer:
            await web.TCPSite(runner, host, self.port, ssl_context=CERTIFICATES.server_context()).start()
            try:
                yield
            finally:
                await runner.cleanup()

    async def push(self, token: str, body: bytes | ProgressMessage, host: str = "127.0.0.1") -> int:
        return (await self.answer(token, body, host))[0]

    async def answer(
        self, token: str, body: bytes | ProgressMessage, host: str = "127.0.0.1"
    ) -> tuple[int, str | None]:
        data = body if isinstance(body, bytes) else body.model_dump_json().encode()
        context = ssl.create_default_context(cadata=CERTIFICATES.ca)
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"https://{host}:{self.port}/v1/progress",
                data=data,
                headers={"Authorization": f"Bearer {token}"},
                ssl=context,
                server_hostname="op.svc",
            ) as response,
        ):
            return response.status, response.headers.get("X-Trainmaster-Images")


@pytest.mark.parametrize(
    ("token", "body", "code"),
    [
        ("head", message(), 204),
        ("", message(), 401),
        ("bad", message(), 401),
        ("other", message(), 403),
        ("head", message(attempt=2), 403),
        ("head", b"{", 400),
        ("head", b" " * 65_537, 413),
    ],
)
async def test_progress_authorization(token: str, body: bytes | ProgressMessage, code: int) -> None:
    replica = Replica(leader=True)
    async with replica.serve():
        assert await replica.push(token, body) == code
    assert (replica.store.get(KEY) is not None) == (code == 204)


async def test_the_answer_says_what_the_pods_run_to_their_head_alone() -> None:
    leader = Replica(leader=True)
    standby = Replica(leader=False, holder="pod_127.0.0.1_abc", port=leader.port)
    async with leader.serve("127.0.0.1"), standby.serve("127.0.0.2"):
        for host in ("127.0.0.1", "127.0.0.2"):
            assert await leader.answer("head", message(), host) == (204, "a@sha256:1,b@sha256:2")
            assert await leader.answer("other", message(), host) == (403, None)


async def test_a_token_that_cannot_be_reviewed_is_not_a_bad_one() -> None:
    replica = Replica(leader=True)
    replica.tokens.fails = True
    async with replica.serve():
        assert await replica.push("head", message()) == 503


async def test_more_than_a_driver_ever_sends_is_refused() -> None:
    replica = Replica(leader=True)
    async with replica.serve():
        codes = [await replica.push("head", message()) for _ in range(30)]
    assert codes[:20] == [204] * 20
    assert codes[-1] == 429


async def test_a_standby_hands_on_to_the_leader() -> None:
    leader = Replica(leader=True)
    standby = Replica(leader=False, holder="pod_127.0.0.1_abc", port=leader.port)
    async with leader.serve("127.0.0.1"), standby.serve("127.0.0.2"):
        assert await standby.push("head", message(step=7), "127.0.0.2") == 204
        assert await standby.push("other", message(), "127.0.0.2") == 403
    assert standby.store.get(KEY) is None
    stored = leader.store.get(KEY)
    assert stored is not None
    assert stored.step == 7


@pytest.mark.parametrize("holder", ["", "pod__abc", "pod_127.0.0.3_abc"])
async def test_a_standby_without_a_leader_says_so(holder: str) -> None:
    standby = Replica(leader=False, holder=holder)
    async with standby.serve():
        assert await standby.push("head", message()) == 503


async def test_two_standbys_do_not_hand_it_on_for_ever() -> None:
    one = Replica(leader=False, holder="pod_127.0.0.2_abc")
    two = Replica(leader=False, holder="pod_127.0.0.1_abc", port=one.port)
    async with one.serve("127.0.0.1"), two.serve("127.0.0.2"):
        assert await one.push("head", message()) == 503


def test_transitions_are_looked_at_now_and_figures_later() -> None:
    changes: list[float] = []
    store = ProgressStore(lambda key, after: changes.append(after))
    saved = CheckpointRef(step=5, attempt=1, uri="s3://x", time="2026-01-01T00:00:00Z")
    store.put(message(step=1))
    store.put(message(step=2))
    store.put(message(step=3, checkpoint=saved))
    store.put(message(step=4, checkpoint=saved, state=TrainerState.STOPPING))
    store.put(message(attempt=2))
    assert changes == [0.0, COALESCE_SECONDS, 0.0, 0.0, 0.0]


def test_an_older_message_does_not_replace_a_newer_one() -> None:
    store = ProgressStore(lambda key, after: None)
    store.put(message(step=9, time="2026-01-01T00:00:09Z"))
    store.put(message(step=8, time="2026-01-01T00:00:08Z"))
    store.put(message(step=1, attempt=1, time="2025-01-01T00:00:00Z"))
    assert store.get(KEY) == message(step=9, time="2026-01-01T00:00:09Z")
    store.put(message(uid="new", time="2020-01-01T00:00:00Z"))
    assert store.get(KEY) == message(uid="new", time="2020-01-01T00:00:00Z"), "another job of the name"

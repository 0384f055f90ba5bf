"""What the API server's refusals mean, in one sentence each."""

from __future__ import annotations

import json
import threading

import pytest
from trainmaster_cli.cluster.api import Expired, NotFound, NotReady, core_path, jobs_path, refused
from trainmaster_cli.cluster.jobs import watch_job
from trainmaster_cli.errors import UserError

from tests.unit.operator.policy.wrappers import Bench

from .fake_api import FakeApi

JOBS, POD_LOG = jobs_path("team"), core_path("team", "pods", "p", "log")


def answer(message: str) -> str:
    return json.dumps({"kind": "Status", "message": message})


@pytest.mark.parametrize(
    ("status", "body", "path", "kind", "part"),
    [
        (404, "404 page not found\n", JOBS, UserError, "has no TrainingJobs (the CRD trainingjobs.trainmaster.dev is"),
        (404, answer("the server could not find the requested resource"), JOBS, UserError, "install the chart"),
        (404, answer('trainingjobs.trainmaster.dev "x" not found'), f"{JOBS}/x", NotFound, "not found"),
        (404, answer('pods "p" not found'), POD_LOG, NotFound, "not found"),
        (401, answer("Unauthorized"), JOBS, UserError, "refuses your credentials; log in again"),
        (
            403, answer('User "eve" cannot list resource "trainingjobs" in API group "x"'), JOBS, UserError,
            "no right to list trainingjobs in namespace team; the role `view` has it: User",
        ),
        (
            403, answer('User "eve" cannot patch resource "trainingjobs"'), JOBS, UserError,
            "no right to patch trainingjobs in namespace team; the role `edit` has it",
        ),
        (
            403, answer('User "eve" cannot get resource "secrets" in API group ""'), core_path("team", "secrets", "s"),
            UserError, "no right to get secrets in namespace team; ask for it",
        ),
        (403, "no reason", jobs_path(None), UserError, f"no right to get {jobs_path(None)} in all namespaces"),
        (410, answer("too old resource version"), JOBS, Expired, "too old"),
        (400, answer('container "trainer" is waiting to start: ContainerCreating'), POD_LOG, NotReady, "waiting to"),
        (500, answer("etcdserver:  request\n timed out."), JOBS, UserError, "answered 500: etcdserver: request timed"),
    ],
)  # fmt: skip
def test_a_refusal_is_a_sentence(status: int, body: str, path: str, kind: type[Exception], part: str) -> None:
    found = refused(status, body, "GET", path)
    assert type(found) is kind
    assert part in str(found)


class Recorded(threading.Event):
    """Is set after three waits, of which it keeps the seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return len(self.waits) > 3


def test_a_watch_that_ends_at_once_is_begun_again_after_a_while() -> None:
    """Else a proxy that cuts watches off is asked as often as it can answer."""
    job, is_over = Bench().raw, Recorded()
    assert list(watch_job(FakeApi(job), job, is_over)) == []
    assert is_over.waits[0] == 0
    assert all(wait > 0.5 for wait in is_over.waits[1:])


def test_a_watch_whose_version_is_gone_lists_again() -> None:
    """And tells what has changed in the meantime."""
    bench = Bench()
    job = bench.raw
    now = {**job, "metadata": {**job["metadata"], "resourceVersion": "7"}}
    api = FakeApi(now)
    gone = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}
    turns = iter([[gone], [], [{"type": "DELETED", "object": now}]])
    asked: list[str] = []

    def lines(path: str, **query: str) -> list[bytes]:
        asked.append(query["resourceVersion"])
        return [json.dumps(event).encode() for event in next(turns)]

    api.lines = lines  # type: ignore[method-assign,assignment]
    assert list(watch_job(api, job)) == [now, None]
    assert asked == ["1", "7", "7"]

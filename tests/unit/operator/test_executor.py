"""What is asked of the API server for a plan, and what each of its answers means."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from trainmaster_operator import executor as module
from trainmaster_operator.executor import PARALLEL, Executor, post_event
from trainmaster_operator.kube.client import EVENTS, TRAINING_JOBS, Object, Resource
from trainmaster_operator.kube.errors import ApiError, UnreachableError, from_status
from trainmaster_operator.policy.actions import (
    Action,
    CreatePod,
    DeleteJob,
    DeletePod,
    EnsureSecret,
    EnsureService,
    Event,
)
from trainmaster_operator.policy.snapshot import Conflict, Rejection

from tests.unit.operator.policy.wrappers import NAME, SETTINGS, UID, Bench

HEAD, WORKER = CreatePod("digits-1-head", "head", 1), CreatePod("digits-1-w-1", "worker", 1, 1)
SECRET, SERVICE = EnsureSecret("digits-run"), EnsureService("trainmaster-heads")


class Api:
    """Keeps what is created. `errors`: (verb, name) -> what the request raises."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.stored: dict[tuple[str, str], Object] = {}
        self.errors: dict[tuple[str, str], ApiError] = {}
        self.now = self.most = 0

    async def _turn(self, verb: str, name: str) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        failed = self.errors.get((verb, name))
        for _ in range(0 if failed else 5):  # an error comes before the other answers
            await asyncio.sleep(0)
        self.now -= 1
        if failed:
            raise failed

    async def create(
        self, resource: Resource, namespace: str | None, body: Mapping[str, Any], *, strict: bool = False
    ) -> Object:
        name = body["metadata"]["name"]
        self.calls.append(("create", resource.kind, namespace, name, strict))
        await self._turn("create", name)
        if (resource.kind, name) in self.stored:
            raise from_status(409, {"reason": "AlreadyExists"})
        self.stored[resource.kind, name] = dict(body)
        return self.stored[resource.kind, name]

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return self.stored[resource.kind, name]

    async def delete(self, resource: Resource, namespace: str | None, name: str, **options: Any) -> Object:
        self.calls.append(("delete", resource.kind, namespace, name, options))
        await self._turn("delete", name)
        return {"kind": resource.kind, "metadata": {"name": name}}

    def names(self, verb: str = "create") -> list[str]:
        return [call[3] for call in self.calls if call[0] == verb]


class Cache:
    def __init__(self) -> None:
        self.observed: list[str] = []

    def observe(self, found: Object) -> None:
        self.observed.append(found["metadata"]["name"])


class Operator:
    def __init__(self) -> None:
        self.api, self.pods, self.services = Api(), Cache(), Cache()
        self.executor = Executor(self.api, self.pods, self.services, SETTINGS)  # type: ignore[arg-type]

    async def does(self, *actions: Action, **snapshot: Any) -> module.Outcome:
        return await self.executor.execute(Bench().snapshot(**snapshot), actions)


@pytest.fixture
def operator() -> Operator:
    return Operator()


async def test_create_what_pods_depend_on_first(operator: Operator) -> None:
    assert not await operator.does(HEAD, WORKER, SERVICE, SECRET)
    assert sorted(operator.api.names()[:2]) == ["digits-run", "trainmaster-heads"]
    assert operator.api.names()[2:] == ["digits-1-head", "digits-1-w-1"]
    assert {call[2] for call in operator.api.calls} == {"team"}
    assert {call[1]: call[4] for call in operator.api.calls} == {"Secret": False, "Service": False, "Pod": True}
    assert operator.pods.observed == ["digits-1-head", "digits-1-w-1"], "the next plan sees them"
    assert operator.services.observed == ["trainmaster-heads"]


async def test_create_no_pods_beside_a_secret_of_unknown_content(operator: Operator) -> None:
    operator.api.stored["Secret", "digits-run"] = {"metadata": {"name": "digits-run"}}
    found = await operator.does(SECRET, HEAD)
    assert found == module.Outcome(secret_existed=True)
    assert operator.api.names() == ["digits-run"]
    # the plan that follows knows it, and is carried out
    assert not await operator.does(SECRET, HEAD, secret_existed=True)
    assert operator.api.names() == ["digits-run", "digits-1-head"]


async def test_create_secret_with_a_new_token_each_time() -> None:
    tokens = []
    for _ in range(2):
        operator = Operator()
        await operator.does(SECRET)
        tokens.append(str(operator.api.stored["Secret", "digits-run"]))
    assert tokens[0] != tokens[1]


async def test_create_service_that_another_job_has_created(operator: Operator) -> None:
    await operator.does(SERVICE)
    assert not await operator.does(SERVICE, HEAD)
    assert operator.services.observed == ["trainmaster-heads"] * 2
    assert operator.pods.observed == ["digits-1-head"]


async def test_create_service_whose_name_is_taken(operator: Operator) -> None:
    operator.api.stored["Service", "trainmaster-heads"] = {"metadata": {"name": "trainmaster-heads"}, "spec": {}}
    found = await operator.does(SERVICE, HEAD)
    assert found.conflicts == (Conflict("Service", "trainmaster-heads"),)
    assert operator.pods.observed == []


def owned(*owners: Object) -> Object:
    return {"metadata": {"name": "digits-1-head", "ownerReferences": list(owners)}}


async def test_create_pod_whose_response_was_lost(operator: Operator) -> None:
    operator.api.stored["Pod", "digits-1-head"] = owned({"uid": "x"}, {"uid": UID, "controller": True})
    assert not await operator.does(HEAD)
    assert operator.pods.observed == ["digits-1-head"]


@pytest.mark.parametrize(
    ("owners", "holder"),
    [
        ((), ""),
        (({"uid": UID, "kind": "TrainingJob", "name": NAME},), ""),  # an owner that isn't the controller
        (({"uid": "other", "controller": True, "kind": "TrainingJob", "name": NAME},), f"TrainingJob/{NAME}"),
    ],
)
async def test_create_pod_whose_name_is_taken(operator: Operator, owners: tuple[Object, ...], holder: str) -> None:
    operator.api.stored["Pod", "digits-1-head"] = owned(*owners)
    found = await operator.does(HEAD)
    assert found.conflicts == (Conflict("Pod", "digits-1-head", holder),)
    assert operator.pods.observed == []


@pytest.mark.parametrize(("action", "kind"), [(SECRET, "Secret"), (SERVICE, "Service"), (HEAD, "Pod")])
@pytest.mark.parametrize("code", [400, 403, 404, 409, 413, 422, 429, 500, 503])
async def test_refused_creation_is_an_observation(operator: Operator, action: Any, kind: str, code: int) -> None:
    operator.api.errors["create", action.name] = from_status(code, {"message": "no, because"})
    found = await operator.does(action)
    assert found.rejections == (Rejection(action.name, code, "no, because", kind),)


async def test_one_refusal_does_not_keep_the_others_from_being_created(operator: Operator) -> None:
    operator.api.errors["create", "digits-1-head"] = from_status(403, {"message": "quota"})
    found = await operator.does(HEAD, WORKER)
    assert [each.name for each in found.rejections] == ["digits-1-head"]
    assert operator.pods.observed == ["digits-1-w-1"]


@pytest.mark.parametrize("error", [UnreachableError(0, "Timeout", "no answer"), from_status(401, {})])
async def test_missing_answer_is_raised_after_all_were_tried(operator: Operator, error: ApiError) -> None:
    operator.api.errors["create", "digits-1-head"] = error
    with pytest.raises(type(error)) as caught:
        await operator.does(HEAD, WORKER)
    assert caught.value is error
    assert operator.pods.observed == ["digits-1-w-1"]


async def test_requests_in_flight_are_limited(operator: Operator) -> None:
    many = [CreatePod(f"digits-1-w-{index}", "worker", 1, index) for index in range(3 * PARALLEL)]
    await operator.does(*many)
    assert operator.api.most == PARALLEL
    assert len(operator.pods.observed) == len(many)


async def test_delete_pod_once_per_grace_period(operator: Operator) -> None:
    for grace in (None, None, 0, 0):
        await operator.does(DeletePod("digits-1-head", "uid-7", grace))
    assert [call[4] for call in operator.api.calls] == [{"uid": "uid-7", "grace": None}, {"uid": "uid-7", "grace": 0}]
    assert operator.pods.observed == ["digits-1-head"] * 2, "with its deletionTimestamp"
    await operator.does(DeletePod("digits-1-head", "uid-8"))
    assert operator.api.calls[-1][4]["uid"] == "uid-8", "another pod of that name"


@pytest.mark.parametrize("code", [404, 409])
async def test_delete_pod_that_is_gone(operator: Operator, code: int) -> None:
    operator.api.errors["delete", "digits-1-head"] = from_status(code, {"reason": "Gone"})
    for _ in range(2):
        assert not await operator.does(DeletePod("digits-1-head", "uid-7"))
    assert operator.api.names("delete") == ["digits-1-head"]
    assert operator.pods.observed == []


async def test_delete_pod_is_tried_again_after_an_error(operator: Operator) -> None:
    operator.api.errors["delete", "digits-1-head"] = from_status(500, {})
    with pytest.raises(ApiError):
        await operator.does(DeletePod("digits-1-head", "uid-7"))
    operator.api.errors.clear()
    await operator.does(DeletePod("digits-1-head", "uid-7"))
    assert operator.api.names("delete") == ["digits-1-head"] * 2


async def test_accepted_deletes_are_forgotten_oldest_first(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_DELETES", 2)
    for uid in ("a", "b", "c", "b", "a"):
        await operator.does(DeletePod(uid, uid))
    assert operator.api.names("delete") == ["a", "b", "c", "a"]


@pytest.mark.parametrize("code", [None, 404, 409])
async def test_delete_job_of_this_uid_only(operator: Operator, code: int | None) -> None:
    if code is not None:
        operator.api.errors["delete", NAME] = from_status(code, {})
    assert not await operator.does(DeleteJob(UID))
    assert operator.api.calls == [
        ("delete", TRAINING_JOBS.kind, "team", NAME, {"uid": UID, "propagation": "Background"})
    ]


REFERENCE = {"kind": "TrainingJob", "namespace": "team", "name": NAME, "uid": UID}
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def test_event_is_posted_once() -> None:
    api = Api()
    for event in (Event("Normal", "Started", "go"), Event("Normal", "Started", "go"), Event("Normal", "Started", "x")):
        await post_event(api, REFERENCE, event, NOW)  # type: ignore[arg-type]
    assert len(set(api.names())) == len(api.stored) == 2
    body = api.stored[EVENTS.kind, api.names()[0]]
    assert (body["type"], body["reason"], body["message"]) == ("Normal", "Started", "go")
    assert body["involvedObject"] == REFERENCE
    assert body["firstTimestamp"] == body["lastTimestamp"] == "2026-01-01T12:00:00Z"


async def test_event_message_is_cut_to_what_the_api_server_accepts() -> None:
    api = Api()
    await post_event(api, REFERENCE, Event("Warning", "Failed", "ä" * 2000), NOW)  # type: ignore[arg-type]
    (body,) = api.stored.values()
    assert body["message"] == "ä" * 1024

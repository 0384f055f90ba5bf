"""Executes a plan's actions. Each is idempotent: a process may die in between, and two replicas may both execute it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainmaster_api.spec.job import TrainingJob

from . import manifests
from .kube.client import EVENTS, PODS, SECRETS, SERVICES, TRAINING_JOBS, Client, Object, Resource
from .kube.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ServerError,
    ThrottledError,
)
from .kube.reflector import Reflector
from .kube.trainingjob_cache import JobKey
from .policy.actions import Action, CreatePod, DeleteJob, DeletePod, EnsureSecret, EnsureService, Event
from .policy.format import format_time
from .policy.settings import Settings
from .policy.snapshot import Conflict, PodView, Rejection, Snapshot

PARALLEL = 32
REMEMBERED_DELETES = 10_000
# Responses to a creation that the next plan turns into a condition with advice. No response at all, or expired
# credentials, have nothing to do with the job: these errors are raised, and the queue retries with back-off.
_REFUSALS = (ForbiddenError, InvalidError, NotFoundError, ConflictError, ThrottledError, ServerError)


@dataclass(frozen=True)
class Outcome:
    """Observations made while executing a plan, for the next plan."""

    rejections: tuple[Rejection, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    secret_existed: bool = False

    def __bool__(self) -> bool:
        return bool(self.rejections or self.conflicts or self.secret_existed)

    def merged(self, other: Outcome) -> Outcome:
        """Return both in one."""
        return Outcome(
            self.rejections + other.rejections,
            self.conflicts + other.conflicts,
            self.secret_existed or other.secret_existed,
        )


class Executor:
    """Creates and deletes what a plan lists, and puts the responses into the caches at once.

    Without the latter the next reconcile could plan on a cache that doesn't have a pod yet, and create it again.
    """

    def __init__(
        self,
        client: Client,
        pods: Reflector[JobKey, PodView],
        services: Reflector[str, bool],
        settings: Settings,
    ) -> None:
        self._client = client
        self._pods = pods
        self._services = services
        self._settings = settings
        # Accepted deletes, by UID with their grace period: the cache may show the pod without its deletionTimestamp for
        # a while. A shorter grace period is another delete (a pod on a dead node is deleted with 0).
        self._deleted: OrderedDict[str, int | None] = OrderedDict()

    async def execute(self, snapshot: Snapshot, actions: Iterable[Action]) -> Outcome:
        """Execute all actions: first what pods depend on, then the pods in parallel.

        Raises:
            ApiError: the first of the errors that aren't observations, after all actions have been tried.
        """
        # Secret and Service first: a pod whose Secret doesn't exist waits in the kubelet with a back-off.
        todo = [action for action in actions if not (isinstance(action, EnsureSecret) and snapshot.secret_existed)]
        first = [action for action in todo if isinstance(action, EnsureSecret | EnsureService)]
        rest = [action for action in todo if not isinstance(action, EnsureSecret | EnsureService)]
        outcome = await self._all(self._do(snapshot, action) for action in first)
        # a name conflict or a Secret of unknown content changes the plan for the pods
        return outcome if outcome else await self._all(self._do(snapshot, action) for action in rest)

    async def _all(self, calls: Iterable[Coroutine[Any, Any, Outcome]]) -> Outcome:
        slots = asyncio.Semaphore(PARALLEL)

        async def one(call: Coroutine[Any, Any, Outcome]) -> Outcome:
            async with slots:
                return await call

        # return_exceptions: one failed call must not hide what the others did, because the caches depend on it
        outcome = Outcome()
        errors: list[BaseException] = []
        for result in await asyncio.gather(*(one(call) for call in calls), return_exceptions=True):
            if isinstance(result, BaseException):
                errors.append(result)
            else:
                outcome = outcome.merged(result)
        if errors:
            raise errors[0]
        return outcome

    async def _do(self, snapshot: Snapshot, action: Action) -> Outcome:
        namespace = snapshot.raw["metadata"]["namespace"]
        match action:
            case EnsureSecret():
                return await self._secret(snapshot, namespace)
            case EnsureService():
                return await self._service(namespace)
            case CreatePod():
                return await self._pod(snapshot, namespace, action)
            case DeletePod():
                await self._delete_pod(namespace, action)
            case DeleteJob():
                # The UID is a precondition: a job that was deleted and recreated under the name is left alone.
                with contextlib.suppress(NotFoundError, ConflictError):
                    await self._client.delete(
                        TRAINING_JOBS, namespace, snapshot.name, uid=action.uid, propagation="Background"
                    )
        return Outcome()

    async def _secret(self, snapshot: Snapshot, namespace: str) -> Outcome:
        body = manifests.secret(_job(snapshot), self._settings, secrets.token_hex(32))
        try:
            await self._client.create(SECRETS, namespace, body)
        except AlreadyExistsError:
            # Its owner can't be read: the operator has no permission to read Secrets. The launcher compares the UID.
            return Outcome(secret_existed=True)
        except _REFUSALS as error:
            return _refusal(SECRETS, body, error)
        return Outcome()

    async def _service(self, namespace: str) -> Outcome:
        """Create the Service of the namespace's heads, unless another job has done so."""
        body = manifests.heads_service(namespace)
        try:
            stored = await self._client.create(SERVICES, namespace, body)
        except AlreadyExistsError:
            stored = await self._client.get(SERVICES, namespace, body["metadata"]["name"])
            if not manifests.is_heads_service(stored):
                return Outcome(conflicts=(Conflict(SERVICES.kind, stored["metadata"]["name"]),))
        except _REFUSALS as error:
            return _refusal(SERVICES, body, error)
        self._services.observe(stored)
        return Outcome()

    async def _pod(self, snapshot: Snapshot, namespace: str, action: CreatePod) -> Outcome:
        job = _job(snapshot)
        if action.index is None:
            body = manifests.head(job, action.attempt)
        else:
            body = manifests.worker(job, action.attempt, action.index)
        try:
            # strict field validation: by default the API server drops a misspelled field of a template silently
            stored = await self._client.create(PODS, namespace, body, strict=True)
        except AlreadyExistsError:
            # Either an earlier create succeeded and its response was lost, or the name belongs to another owner.
            stored = await self._client.get(PODS, namespace, body["metadata"]["name"])
            holder = _controller(stored)
            if holder.get("uid") != snapshot.uid:
                who = f"{holder['kind']}/{holder['name']}" if holder else ""
                return Outcome(conflicts=(Conflict(PODS.kind, stored["metadata"]["name"], who),))
        except _REFUSALS as error:
            return _refusal(PODS, body, error)
        self._pods.observe(stored)
        return Outcome()

    async def _delete_pod(self, namespace: str, action: DeletePod) -> None:
        if self._deleted.get(action.uid, -1) == action.grace:  # accepted already; -1 is no grace period
            return
        try:
            answer = await self._client.delete(PODS, namespace, action.name, uid=action.uid, grace=action.grace)
        except (NotFoundError, ConflictError):
            answer = {}  # it is gone; a pod that has its name by now has a different UID
        self._deleted[action.uid] = action.grace
        if len(self._deleted) > REMEMBERED_DELETES:
            self._deleted.popitem(last=False)
        if answer.get("kind") == PODS.kind:
            self._pods.observe(answer)


async def post_event(client: Client, reference: Object, event: Event, now: datetime) -> None:
    """Post a Kubernetes Event on the TrainingJob; idempotent for the same event."""
    digest = hashlib.sha256(f"{reference['uid']}/{event.reason}/{event.message}".encode()).hexdigest()[:16]
    time = format_time(now)
    body = {
        "apiVersion": "v1",
        "kind": EVENTS.kind,
        "metadata": {"name": f"{reference['name']}.{digest}", "namespace": reference["namespace"]},
        "involvedObject": reference,
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1024],
        "source": {"component": "trainmaster-operator"},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
    try:
        await client.create(EVENTS, reference["namespace"], body)
    except AlreadyExistsError:
        return


def _refusal(resource: Resource, body: Object, error: ApiError) -> Outcome:
    return Outcome(rejections=(Rejection(body["metadata"]["name"], error.code, error.message, resource.kind),))


def _job(snapshot: Snapshot) -> TrainingJob:
    assert snapshot.job is not None, "a plan creates nothing for a job that isn't valid"
    return snapshot.job


def _controller(body: Object) -> Object:
    owners: list[Object] = body["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})

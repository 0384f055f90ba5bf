"""Reconciles one TrainingJob: observe, plan, execute, write the status once.

`policy.plan` decides from what was observed, and is level-triggered: it doesn't know which event caused the reconcile.
Nothing is remembered between two reconciles that couldn't be lost. So reconciling is idempotent, and a crash before or
after any call is repaired by the next reconcile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from trainmaster_api.messages import ProgressMessage

from . import manifests
from .executor import Executor, Outcome, post_event
from .kube.client import TRAINING_JOBS, Client, Object
from .kube.errors import ApiError, ConflictError, NotFoundError
from .kube.reflector import Reflector
from .kube.trainingjob_cache import JobKey, JobStore
from .policy.actions import CreatePod, Event
from .policy.plan import Plan, plan
from .policy.settings import Settings
from .policy.snapshot import PodView, Snapshot
from .room import Room
from .status_throttle import StatusThrottle

logger = logging.getLogger(__name__)

# Executing may observe something that changes the plan (a rejected pod, a name conflict): then plan again at once,
# because the status must not be written from a plan that failed. More rounds than this are a bug.
ROUNDS = 3


class ProgressSource(Protocol):
    """Source of the trainers' progress messages."""

    def get(self, key: JobKey) -> ProgressMessage | None:
        """Return the newest message of a job."""

    def received(self, key: JobKey) -> datetime | None:
        """Return when that message arrived."""


@dataclass(frozen=True)
class Caches:
    """Caches of the cluster's state: reconciling a converged job sends no request."""

    jobs: JobStore
    pods: Reflector[JobKey, PodView]
    services: Reflector[str, bool]
    progress: ProgressSource


class Reconciler:
    """Handler of the queue: called with a key, returns the seconds after which to reconcile the key again.

    Args:
        client: Client of the API; fenced, so that a replica that is no longer the leader sends nothing.
        caches: Caches of the cluster's state.
        settings: The operator's defaults.
        status_written: Called with (old status, new status) after each write.
        enqueue: Enqueues another job after some seconds.
        now: The wall clock, UTC.
    """

    def __init__(
        self,
        client: Client,
        caches: Caches,
        settings: Settings,
        *,
        status_written: Callable[[Object, Object], None] = lambda old, new: None,
        enqueue: Callable[[JobKey, float], None] = lambda key, after: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._caches = caches
        self._settings = settings
        self._status_written = status_written
        self._now = now
        self._executor = Executor(client, caches.pods, caches.services, settings)
        self._resolved: dict[JobKey, tuple[tuple[str, int], Any]] = {}
        self._throttle = StatusThrottle()
        self._room = Room(enqueue)
        self._listening_since: datetime | None = None

    async def __call__(self, key: JobKey) -> float | None:
        """Reconcile one job."""
        # Progress is kept in memory, so after a restart or a failover every driver seems silent: count from here.
        self._listening_since = self._listening_since or self._now()
        raw = self._caches.jobs.get(key)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            self.forget(key)  # no finalizer: the garbage collector deletes the dependents by their owner references
            return None
        outcome = Outcome()
        self._room.seen(key, sum(not pod.ended for pod in self._caches.pods.get(key)), self._now())
        for _ in range(ROUNDS):
            snapshot = self._observe(key, raw, outcome)
            decided = plan(snapshot, self._now())
            if not await self._is_newest(key, raw, decided):
                return 0.0
            # Actions before the status: a status that lists an attempt is a promise that its pods have been created. A
            # crash in between is harmless, because the next plan adopts the pods that it finds.
            found = await self._executor.execute(snapshot, decided.actions)
            if not found:
                break
            outcome = outcome.merged(found)
        if decided.refused:
            self._room.refused(key, self._now(), decided.status.get("waitingSince") or "")
        elif not decided.status.get("waitingSince"):
            self._room.granted(key)
        return await self._write(key, raw, decided)

    def forget(self, key: JobKey) -> None:
        """Drop what is remembered of a job that is gone."""
        self._resolved.pop(key, None)
        self._throttle.forget(key)
        self._room.seen(key, 0, self._now())
        self._room.forget(key)

    def _observe(self, key: JobKey, raw: Object, outcome: Outcome) -> Snapshot:
        meta = raw["metadata"]
        # Validated once per change of the spec, which is what generation counts, and not in each reconcile.
        identity = meta["uid"], meta.get("generation", 0)
        if self._resolved.get(key, (None,))[0] != identity:
            self._resolved[key] = identity, manifests.resolve(raw, self._settings)
        job, problems = self._resolved[key][1]
        progress = self._caches.progress.get(key)
        return Snapshot(
            raw=raw,
            job=job,
            problems=problems,
            pods=self._caches.pods.get(key),
            gone=self._caches.pods.gone(key),
            heads_service=any(self._caches.services.get(key.namespace)),
            # of an earlier job of the same name: not this one's progress
            progress=progress if progress is not None and progress.uid == meta["uid"] else None,
            progress_received=self._caches.progress.received(key),
            listening_since=self._listening_since,
            refused_at=self._room.refused_at(key),
            room_at=self._room.room_at(key),
            rejections=outcome.rejections,
            conflicts=outcome.conflicts,
            secret_existed=outcome.secret_existed,
        )

    async def _is_newest(self, key: JobKey, raw: Object, decided: Plan) -> bool:
        """Make sure that pods are created for the job as it is now, however stale the watch of TrainingJobs is.

        A lagging watch shows a job before its suspend or its edit, and pods cost more than one read. The first attempt
        needs no such check: pods of a job that is gone are garbage-collected.
        """
        started = bool((raw.get("status") or {}).get("attempt"))
        if not started or not any(isinstance(action, CreatePod) for action in decided.actions):
            return True
        try:
            fresh = await self._client.get(TRAINING_JOBS, key.namespace, key.name)
        except NotFoundError:
            self._caches.jobs.remove(key, raw["metadata"]["uid"])
            return False
        return not self._caches.jobs.put(fresh)

    async def _write(self, key: JobKey, raw: Object, decided: Plan) -> float | None:
        # Figures (steps, metrics) change all the time, and each write costs the API server and every watcher. So the
        # throttle writes transitions at once and figures rarely; `delay` is None if nothing has changed.
        old, now = raw.get("status") or {}, self._now()
        delay = self._throttle.delay(key, old, decided.status, now)
        if delay is None or delay > 0:
            return _sooner(decided.requeue_after, delay)
        meta = {field: raw["metadata"][field] for field in ("name", "namespace", "uid", "resourceVersion")}
        body = {
            "apiVersion": TRAINING_JOBS.api_version,
            "kind": TRAINING_JOBS.kind,
            "metadata": meta,
            "status": decided.status,
        }
        # PUT with the resourceVersion that was planned on: optimistic concurrency. A patch would succeed on an object
        # that the plan has not seen.
        try:
            stored = await self._client.replace(TRAINING_JOBS, body, "status")
        except NotFoundError:
            self._caches.jobs.remove(key, meta["uid"])
            return 0.0
        except ConflictError:  # the object was changed in the meantime: reconcile again with the current one
            self._caches.jobs.put(await self._client.get(TRAINING_JOBS, key.namespace, key.name))
            return 0.0
        # Read your own writes: the watch may deliver this status a moment later, and a plan on the old one would
        # record the same end again.
        self._caches.jobs.put(stored)
        self._throttle.written(key, now)
        self._tell(key, raw, old, decided)
        for event in decided.events:
            await self._post(raw, event)
        return decided.requeue_after

    def _tell(self, key: JobKey, raw: Object, old: Object, decided: Plan) -> None:
        self._status_written(old, decided.status)
        if old.get("phase") != decided.status.get("phase"):
            new = decided.status
            logger.info(
                "%s: %s -> %s %s", key, old.get("phase", "new"), new.get("phase"), new.get("reason", ""),
                extra={"k8s_ref": _reference(raw)},
            )  # fmt: skip

    async def _post(self, raw: Object, event: Event) -> None:
        try:
            await post_event(self._client, _reference(raw), event, self._now())
        except ApiError as error:  # events are best effort; conditions are the source of truth
            logger.warning("could not post event %s: %s", event.reason, error)


def _sooner(one: float | None, other: float | None) -> float | None:
    both = [value for value in (one, other) if value is not None]
    return min(both, default=None)


def _reference(raw: Object) -> Object:
    meta = raw["metadata"]
    return {
        "apiVersion": TRAINING_JOBS.api_version,
        "kind": TRAINING_JOBS.kind,
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
    }

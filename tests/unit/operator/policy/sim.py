"""A cluster in memory: an API server with its rules, a kubelet that the test moves, and an operator that may crash.

The operator sees pods through a cache that lags behind what others do, but not behind what it did itself; that is what
the real one promises. Every call may be the one at which it dies.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from trainmaster_api.messages import ProgressMessage
from trainmaster_operator.manifests import resolve
from trainmaster_operator.policy.actions import Action, CreatePod, DeleteJob, DeletePod, EnsureSecret, EnsureService
from trainmaster_operator.policy.format import format_time, parse_time
from trainmaster_operator.policy.plan import plan, write_delay
from trainmaster_operator.policy.snapshot import Conflict, Exit, PodView, Rejection, Snapshot

from .wrappers import SETTINGS, T0, raw_job


class CrashError(Exception):
    """The operator died at a call."""


class QuotaError(Exception):
    """The namespace has no room for another pod."""


@dataclass
class Cluster:
    """The truth: the job, its pods by name, and the clock."""

    raw: dict[str, Any] = field(default_factory=raw_job)
    pods: dict[str, PodView] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    """UIDs of pods on nodes that don't answer."""
    heads_service: bool = False
    secret: bool = False
    seconds: float = 0.0
    made: int = 0
    gone: bool = False
    quota: int = 99
    """Pods that the namespace may have."""
    foreign_pods: int = 0
    """Pods of others that count against it."""
    trace: list[str] = field(default_factory=list)

    @property
    def now(self) -> Any:
        return T0 + timedelta(seconds=self.seconds)

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"]["uid"])

    @property
    def status(self) -> dict[str, Any]:
        return self.raw.get("status") or {}

    def say(self, text: str) -> None:
        self.trace.append(f"{self.seconds:7.1f} {text}")

    def facts(self) -> tuple[Any, ...]:
        """Everything that an operator can change."""
        return dict(self.pods), self.raw, self.secret, self.heads_service, self.gone

    # -- the API ------------------------------------------------------------------------------------------------
    def create_pod(self, action: CreatePod) -> PodView | None:
        """None: the name is taken. Raises QuotaError when the namespace is full."""
        if action.name in self.pods:
            return None
        if sum(not pod.ended for pod in self.pods.values()) + self.foreign_pods >= self.quota:
            raise QuotaError(f"exceeded quota: small, requested: pods=1, used: pods=x, limited: pods={self.quota}")
        self.made += 1
        made = PodView(
            uid=f"pod-{self.made}", name=action.name, attempt=action.attempt, role=action.role, index=action.index,
            owner_uid=self.uid, created=format_time(self.now), duration=self.duration,
        )  # fmt: skip
        self.pods[action.name] = made
        return made

    def delete_pod(self, name: str, uid: str, grace: int) -> PodView | None:
        """What is left of it; None: nothing."""
        pod = self.pods.get(name)
        if pod is None or pod.uid != uid:
            return None
        if pod.ended or not pod.node:
            del self.pods[name]
            return None
        if not pod.deleting:
            pod = replace(pod, deleting=format_time(self.now + timedelta(seconds=grace)))
            self.pods[name] = pod
        return pod

    def write_status(self, version: str, status: dict[str, Any]) -> bool:
        """False: another writer was faster."""
        if self.raw["metadata"]["resourceVersion"] != version:
            return False
        self.raw = {**self.raw, "status": copy.deepcopy(status)}
        self._bump()
        return True

    @property
    def duration(self) -> str:
        """What a pod that is made now trains to."""
        return str(self.raw["spec"]["training"].get("loop", {}).get("duration", "10ep"))

    def raise_duration(self, epochs: int) -> None:
        """A user's change."""
        self.raw = copy.deepcopy(self.raw)
        self.raw["spec"]["training"]["loop"] = {"duration": f"{epochs}ep"}
        self.raw["metadata"]["generation"] += 1
        self._bump()

    def edit_spec(self, **run: Any) -> None:
        """A user's change."""
        self.raw = copy.deepcopy(self.raw)
        self.raw["spec"]["run"].update(run)
        self.raw["metadata"]["generation"] += 1
        self._bump()

    def _bump(self) -> None:
        self.raw["metadata"] = {
            **self.raw["metadata"],
            "resourceVersion": str(int(self.raw["metadata"]["resourceVersion"]) + 1),
        }

    # -- the kubelet --------------------------------------------------------------------------------------------
    def run_pod(self, name: str) -> None:
        """It gets a node and becomes ready."""
        pod, time = self.pods[name], format_time(self.now)
        if pod.ended or pod.ready or pod.uid in self.dead:
            return
        self.pods[name] = replace(
            pod, phase="Running", ready=True, node="node", scheduled_at=time, started_at=time, unschedulable=""
        )

    def end_pod(self, name: str, code: int, message: str = "", reason: str = "Error", **fields: Any) -> None:
        """Its container ends; a pod that was being deleted goes altogether."""
        pod = self.pods[name]
        if pod.ended or not pod.node or pod.uid in self.dead:
            return
        ended = Exit(code, reason, message, format_time(self.now))
        phase = "Succeeded" if code == 0 else "Failed"
        self.pods[name] = replace(pod, exit=ended, phase=phase, ready=False, **fields)

    def finish_delete(self, name: str) -> None:
        """The object of a pod that was being deleted goes."""
        if self.pods[name].deleting and self.pods[name].uid not in self.dead:
            del self.pods[name]


@dataclass
class Operator:
    """The loop around `plan`, call by call."""

    cluster: Cluster
    cache: dict[str, PodView] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    progress: ProgressMessage | None = None
    written_at: Any = None
    calls: int = 0
    crash_at: int | None = None
    before: bool = True
    """Whether it dies before the call's effect, or after it."""
    requeue: float | None = None
    refused_at: Any = None
    resolved: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new process: it lists everything, and remembers nothing."""
        self.cache, self.job = dict(self.cluster.pods), self.cluster.raw
        self.progress, self.written_at, self.crash_at, self.calls = None, None, None, 0
        self.refused_at = None

    def catch_up(self) -> None:
        """The watches have delivered everything."""
        self.cache, self.job = dict(self.cluster.pods), self.cluster.raw

    def reconcile(self) -> bool:
        """One look; True if it changed anything. Dies with CrashError at call `crash_at`."""
        if self.cluster.gone:
            return False
        conflicts: tuple[Conflict, ...] = ()
        rejections: tuple[Rejection, ...] = ()
        secret_existed, before = False, self.cluster.facts()
        for _ in range(3):
            snapshot = self._observe(conflicts, rejections, secret_existed)
            decided = plan(snapshot, self.cluster.now)
            first = [a for a in decided.actions if isinstance(a, EnsureSecret | EnsureService)]
            rest = [a for a in decided.actions if not isinstance(a, EnsureSecret | EnsureService)]
            found: list[Any] = []
            for group in (first, rest):
                if not found:
                    found = [hit for hit in [self._act(a, snapshot.secret_existed) for a in group] if hit]
            if not found:
                break
            conflicts += tuple(hit for hit in found if isinstance(hit, Conflict))
            rejections += tuple(hit for hit in found if isinstance(hit, Rejection))
            secret_existed = secret_existed or "secret" in found
        self.requeue = decided.requeue_after
        if decided.refused:
            self.refused_at = self.cluster.now
        elif not decided.status.get("waitingSince"):
            self.refused_at = None
        self._write(decided.status)
        return self.cluster.facts() != before

    def _observe(
        self, conflicts: tuple[Conflict, ...], rejections: tuple[Rejection, ...], secret_existed: bool
    ) -> Snapshot:
        generation = self.job["metadata"]["generation"]
        if generation not in self.resolved:
            self.resolved[generation] = resolve(self.job, SETTINGS)
        job, problems = self.resolved[generation]
        return Snapshot(
            self.job, job, problems, tuple(self.cache.values()), self.cluster.heads_service, self.progress,
            conflicts=conflicts, rejections=rejections, secret_existed=secret_existed, refused_at=self.refused_at,
            progress_received=parse_time(self.progress.time) if self.progress else None,
        )  # fmt: skip

    def _write(self, status: dict[str, Any]) -> None:
        delay = write_delay(self.job.get("status") or {}, status, self.written_at, self.cluster.now)
        if delay is None or delay > 0:
            return
        version = self.job["metadata"]["resourceVersion"]
        if self._call(lambda: self.cluster.write_status(version, status)):
            self.written_at = self.cluster.now
        self.job = self.cluster.raw  # its own write, or what the conflict made it read

    def _call(self, effect: Any) -> Any:
        self.calls += 1
        dies = self.crash_at is not None and self.calls >= self.crash_at
        if dies and self.before:
            raise CrashError
        result = effect()
        if dies:
            raise CrashError
        return result

    def _act(self, action: Action, secret_known: bool) -> Any:
        cluster = self.cluster
        cluster.say(str(action))
        match action:
            case EnsureSecret():
                return None if secret_known else self._call(self._secret)
            case EnsureService():
                self._call(self._service)
            case CreatePod():
                return self._create(action)
            case DeletePod():
                grace = 75 if action.grace is None else action.grace
                left = self._call(lambda: cluster.delete_pod(action.name, action.uid, grace))
                if left is None:
                    self.cache.pop(action.name, None)
                else:
                    self.cache[action.name] = left
            case DeleteJob():
                self._call(lambda: setattr(cluster, "gone", True))
        return None

    def _secret(self) -> str | None:
        existed, self.cluster.secret = self.cluster.secret, True
        return "secret" if existed else None

    def _service(self) -> None:
        self.cluster.heads_service = True

    def _create(self, action: CreatePod) -> Conflict | Rejection | None:
        try:
            made = self._call(lambda: self.cluster.create_pod(action))
        except QuotaError as error:
            return Rejection(action.name, 403, str(error))
        there = made or self.cluster.pods[action.name]
        if there.owner_uid != self.cluster.uid:
            return Conflict("Pod", action.name)
        self.cache[action.name] = there
        return None

"""Remembers which jobs were refused pods, and which of them is next when pods of their namespace go away.

A courtesy: what is forgotten costs a later start and nothing else, because refused jobs also retry by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from .kube.trainingjob_cache import JobKey

# A quota counts a pod as gone a moment after the pod is gone.
SETTLE_SECONDS = 0.5


@dataclass(slots=True)
class _Refused:
    at: datetime
    since: str
    room: datetime | None = None


class Room:
    """The jobs that wait for room, of all namespaces.

    Args:
        enqueue: Asks for a job to be reconciled after some seconds.
    """

    def __init__(self, enqueue: Callable[[JobKey, float], None]) -> None:
        self._enqueue = enqueue
        self._refused: dict[JobKey, _Refused] = {}
        self._pods: dict[JobKey, int] = {}

    def refused_at(self, key: JobKey) -> datetime | None:
        """Return when a job was last refused a pod, or gave pods back; None: not since it got all of them."""
        found = self._refused.get(key)
        return found.at if found else None

    def room_at(self, key: JobKey) -> datetime | None:
        """Return when pods of the namespace went away and it was this job's turn."""
        found = self._refused.get(key)
        return found.room if found else None

    def refused(self, key: JobKey, now: datetime, since: str) -> None:
        """Remember a refusal. `since`: when the job began to wait, RFC 3339."""
        before = self._refused.get(key)
        self._refused[key] = _Refused(now, since, before.room if before else None)

    def granted(self, key: JobKey) -> None:
        """Forget the refusals of a job that has all its pods, or needs none."""
        self._refused.pop(key, None)

    def seen(self, key: JobKey, pods: int, now: datetime) -> None:
        """Compare a job's live pods with those of before; fewer: the job that waited longest is next."""
        before = self._pods.get(key, 0)
        self._pods[key] = pods
        waiting = [other for other in self._refused if other.namespace == key.namespace and other != key]
        if pods >= before or not waiting:
            return
        first = min(waiting, key=lambda other: (self._refused[other].since, other))
        self._refused[first].room = now
        self._enqueue(first, SETTLE_SECONDS)

    def forget(self, key: JobKey) -> None:
        """Drop a job that is gone."""
        self._refused.pop(key, None)
        self._pods.pop(key, None)

"""The newest message of each trainer, in memory: a restarted operator gets the next one within seconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from trainmaster_api.messages import ProgressMessage

from trainmaster_operator.kube.trainingjob_cache import JobKey

# Status isn't written more often than this for progress alone, so reconciling more often would be of no use.
COALESCE_SECONDS = 10.0


class ProgressStore:
    """Newest progress message of each job.

    Args:
        changed: Called with the key of a job and the seconds after which it is worth a reconcile.
        now: The wall clock, UTC.
    """

    def __init__(
        self,
        changed: Callable[[JobKey, float], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._changed = changed
        self._now = now
        self._newest: dict[JobKey, ProgressMessage] = {}
        self._received: dict[JobKey, datetime] = {}

    def get(self, key: JobKey) -> ProgressMessage | None:
        """Return the newest message, or None."""
        return self._newest.get(key)

    def received(self, key: JobKey) -> datetime | None:
        """Return when the newest message arrived, or None."""
        return self._received.get(key)

    def forget(self, key: JobKey) -> None:
        """Drop the message of a job that is gone."""
        self._newest.pop(key, None)
        self._received.pop(key, None)

    def put(self, message: ProgressMessage) -> None:
        """Take a message over unless a newer one is there."""
        key = JobKey(message.namespace, message.name)
        old = self._newest.get(key)
        if old is not None and old.uid == message.uid and _order(old) > _order(message):
            return
        self._newest[key] = message
        self._received[key] = self._now()
        self._changed(key, COALESCE_SECONDS if old is not None and _alike(old, message) else 0.0)


def _order(message: ProgressMessage) -> tuple[int, str]:
    """Return the sort key: attempt, then the sender's clock (RFC 3339 in UTC sorts as text)."""
    return message.attempt, message.time


def _alike(old: ProgressMessage, new: ProgressMessage) -> bool:
    """Return whether only the figures moved on, and nothing happened that a user waits for."""

    def facts(message: ProgressMessage) -> tuple[object, ...]:
        return (
            message.uid,
            message.attempt,
            message.state,
            message.checkpoint,
            message.recoveries,
            message.ray_ready_time,
            message.loaded_time,
            message.first_step_time,
            bool(message.waiting),
        )

    return facts(old) == facts(new)

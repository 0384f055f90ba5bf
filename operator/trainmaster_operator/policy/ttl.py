"""run.ttlSecondsAfterFinished: as in batch/v1, counted from completionTime; 0 deletes at once."""

from __future__ import annotations

from datetime import timedelta

from .actions import DeleteJob
from .context import PlanContext
from .format import parse_time


def expire(context: PlanContext) -> None:
    """Delete a finished job when its TTL has expired, and only once its end is in the written status."""
    ttl = context.job.spec.run.ttl_seconds_after_finished
    done = parse_time(context.old.completion_time)
    if ttl is None or done is None:
        return
    until = done + timedelta(seconds=ttl)
    if context.now >= until:
        context.act(DeleteJob(context.snapshot.uid))
    else:
        context.wake_at(until)

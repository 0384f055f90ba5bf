"""run.ttlSecondsAfterFinished: as in batch/v1, counted from completionTime; 0 deletes at once."""

from __future__ import annotations

from datetime import timedelta

from .actions import DeleteJob
from .context import Draft
from .times import parse_time


def expire(draft: Draft) -> None:
    """Delete a finished job when its time is over, and only once its end stands in the written status."""
    ttl = draft.job.spec.run.ttl_seconds_after_finished
    done = parse_time(draft.old.completion_time)
    if ttl is None or done is None:
        return
    until = done + timedelta(seconds=ttl)
    if draft.now >= until:
        draft.act(DeleteJob(draft.snapshot.uid))
    else:
        draft.wake_at(until)

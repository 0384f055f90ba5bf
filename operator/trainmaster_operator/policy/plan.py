"""The plan: from what was observed to the actions to take and the status to write.

A plan runs the `STEPS` below from top to bottom; a step that returns True ends it. Every policy has its own module.
Nothing here reads a clock, does I/O or draws a random number, so the same snapshot always gives the same plan: a crash
is repaired by planning again, and tests need no cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from . import (
    all_or_nothing,
    attempts,
    checkpoint,
    completion,
    deadlines,
    extend,
    failure_policy,
    staleness,
    startup,
    startup_timings,
    status,
    suspend,
    ttl,
)
from .actions import Action, CreatePod, DeleteJob, DeletePod, EnsureSecret, EnsureService, Event
from .context import OVERDUE_SECONDS, PlanContext
from .format import parse_time
from .snapshot import Snapshot
from .status import News, news, write_delay

__all__ = [
    "Action",
    "CreatePod",
    "DeleteJob",
    "DeletePod",
    "EnsureSecret",
    "EnsureService",
    "Event",
    "News",
    "Plan",
    "news",
    "plan",
    "write_delay",
]


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions and status for one reconcile.

    Attributes:
        actions: in this order: what outlives attempts first, then pods. All pods of an attempt are in one plan and may
            be created in parallel, once the Secret and the Service exist.
        status: the complete desired status. It is written only after every action has succeeded, because the next
            plan trusts it: a recorded attempt is one whose pods have all been created.
        requeue_after: seconds until the plan would change without an event; None: never.
        events: to be sent after the status was written; empty if it needn't be written.
        refused: pods were rejected or released; the time of that goes into the snapshots of later plans.
    """

    actions: tuple[Action, ...]
    status: dict[str, Any]
    requeue_after: float | None = None
    events: tuple[Event, ...] = ()
    refused: bool = False


def plan(snapshot: Snapshot, now: datetime) -> Plan:
    """Return what to do about a job.

    Args:
        snapshot: what was observed of it.
        now: present time, with a time zone.
    """
    if snapshot.raw["metadata"].get("deletionTimestamp"):
        return Plan((), snapshot.raw.get("status") or {})  # the garbage collector does the rest
    context = PlanContext.of(snapshot, now)
    for step in STEPS:
        if step(context):
            break
    # These look at what the steps have decided, whichever of them was the last.
    _withdraw(context)
    _watch_ends(context)
    if snapshot.job is not None:
        deadlines.watch(context)
    status.derive(context)
    return Plan(
        tuple(context.actions), context.status.wire(), context.wake, status.events(context), refused=context.refused
    )


def _finished(context: PlanContext) -> bool:
    """Clean up a finished job: delete what still runs, keep what explains the end, and expire it after its TTL."""
    if not completion.clean_up(context):
        return False
    ttl.expire(context)
    return True


def _ended(context: PlanContext) -> bool:
    """Record the end of the open attempt, before anything that proves it is deleted."""
    if context.live is None:
        return False
    # A head that was asked to stop ends like one that was drained; only what was asked tells the two apart, so it is
    # determined before the verdict. Suspend takes precedence: a suspended job doesn't continue to the new duration.
    suspending, extending = suspend.stopping(context), extend.stopping(context)
    verdict = failure_policy.verdict(context, suspending or extending)
    if verdict is None:
        return False
    if extending and not suspending:
        verdict = extend.verdict(context, verdict)
    attempts.end(context, verdict)
    return completion.complete(context) or failure_policy.decide(context) or True


def _between(context: PlanContext) -> bool:
    """Wait between two attempts: old pods terminate, and a back-off passes. Return True while it lasts."""
    # Both are called, because each sets its condition and its wake-up: `or` would skip the second.
    left, waits = startup.clear_away(context), failure_policy.back_off(context)
    return left or waits


def _withdraw(context: PlanContext) -> None:
    """Leave an attempt out of the status until all its pods have been created.

    If it were written, the next plan would read it as an attempt that has lost the missing pods, and count a failure.
    The next plan adopts it by its pods.
    """
    if context.live is None or context.written is not None:
        return
    created = {action.name for action in context.actions if isinstance(action, CreatePod)}
    if all_or_nothing.missing(context) - created:
        old = context.old
        context.set(attempt=old.attempt, attempts=old.attempts, restarts=old.restarts, start_time=old.start_time)


def _watch_ends(context: PlanContext) -> None:
    """Reconcile again when the node of a terminating pod must be considered dead: such a pod causes no event."""
    for pod in context.pods:
        until = parse_time(pod.deleting)
        if until and not context.overdue(pod):
            context.wake_at(until + timedelta(seconds=OVERDUE_SECONDS))


# The order is the policy. First what only records (an invalid spec ends here), then the end of the job, then the end of
# an attempt, then requests to stop, and only then new pods: whatever is about to stop never creates any.
STEPS: tuple[Callable[[PlanContext], bool], ...] = (
    startup.accept,
    attempts.adopt,
    checkpoint.follow,
    staleness.check,
    startup_timings.account,
    extend.reopen,  # before _finished, which would keep a complete job closed
    _finished,
    _ended,  # before the stops: an attempt that has ended can't be stopped any more
    suspend.stop,
    extend.stop,
    deadlines.enforce,
    failure_policy.decide,  # again, for a failed attempt of earlier plans: run.retries.max may have been lowered since
    suspend.suspend,
    _between,
    startup.start,
    startup.provision,
)

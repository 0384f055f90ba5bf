"""The plan: from what was observed to what is to be done, and to the status that says so.

A plan reads the steps below from top to bottom; a step that returns True has the last word. Every policy has a file of
its own. Nothing here has a clock, does I/O or draws a random number, so the same snapshot always gives the same plan.
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
    """What is to be done now.

    Attributes:
        actions: in this order: what outlives attempts first, then pods. All pods of an attempt are in one plan and may
            be created in parallel, once the Secret and the Service exist.
        status: the complete desired status. It is written only after every action has succeeded, because the next
            plan trusts it: a written attempt is one whose pods have all been created.
        requeue_after: seconds until the plan would change by itself; None: not without an event.
        events: to be sent after the status was written; empty if it needn't be written.
        refused: pods were refused or given back; when that was, goes into the snapshots of later plans.
    """

    actions: tuple[Action, ...]
    status: dict[str, Any]
    requeue_after: float | None = None
    events: tuple[Event, ...] = ()
    refused: bool = False


def plan(snapshot: Snapshot, now: datetime) -> Plan:
    """What is to be done about a job.

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
    _withdraw(context)
    _watch_ends(context)
    if snapshot.job is not None:
        deadlines.watch(context)
    status.derive(context)
    return Plan(
        tuple(context.actions), context.status.wire(), context.wake, status.events(context), refused=context.refused
    )


def _finished(context: PlanContext) -> bool:
    """A job that has ended: what runs is deleted, what explains stays, and the job goes when its time is over."""
    if not completion.clean_up(context):
        return False
    ttl.expire(context)
    return True


def _ended(context: PlanContext) -> bool:
    """The end of the open attempt. It is written down before anything that proves it is deleted."""
    if context.live is None:
        return False
    suspending, extending = suspend.stopping(context), extend.stopping(context)
    verdict = failure_policy.verdict(context, suspending or extending)
    if verdict is None:
        return False
    if extending and not suspending:
        verdict = extend.verdict(context, verdict)
    attempts.end(context, verdict)
    return completion.complete(context) or failure_policy.decide(context) or True


def _between(context: PlanContext) -> bool:
    """Between two attempts: old pods terminate, and after a failure a back-off passes. True while it lasts."""
    left, waits = startup.clear_away(context), failure_policy.back_off(context)
    return left or waits


def _withdraw(context: PlanContext) -> None:
    """Leave an attempt out of the status until all its pods have been created.

    Written, it would read as an attempt that has lost the others. The next plan finds it again by its pods.
    """
    if context.live is None or context.written is not None:
        return
    created = {action.name for action in context.actions if isinstance(action, CreatePod)}
    if all_or_nothing.missing(context) - created:
        old = context.old
        context.set(attempt=old.attempt, attempts=old.attempts, restarts=old.restarts, start_time=old.start_time)


def _watch_ends(context: PlanContext) -> None:
    """A pod that doesn't terminate makes no event: reconcile again when its node must be considered dead."""
    for pod in context.pods:
        until = parse_time(pod.deleting)
        if until and not context.overdue(pod):
            context.wake_at(until + timedelta(seconds=OVERDUE_SECONDS))


STEPS: tuple[Callable[[PlanContext], bool], ...] = (
    startup.accept,
    attempts.adopt,
    checkpoint.follow,
    staleness.check,
    startup_timings.account,
    extend.reopen,
    _finished,
    _ended,
    suspend.stop,
    extend.stop,
    deadlines.enforce,
    failure_policy.decide,
    suspend.suspend,
    _between,
    startup.start,
    startup.provision,
)

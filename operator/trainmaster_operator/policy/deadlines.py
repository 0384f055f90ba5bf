"""run.activeDeadlineSeconds and run.pendingDeadlineSeconds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from trainmaster_api.reasons import ConditionType, FailureClass

from .attempts import Verdict, end
from .context import PlanContext
from .failure_policy import fail
from .format import parse_time


def enforce(context: PlanContext) -> bool:
    """Fail a job whose deadline has passed. True if it has."""
    passed = [message for until, message in _limits(context) if context.now >= until]
    if not passed:
        return False
    if context.live:
        end(context, Verdict.failed(FailureClass.DEADLINE_EXCEEDED, passed[0], context.head))
    fail(context, FailureClass.DEADLINE_EXCEEDED, passed[0])
    return True


def watch(context: PlanContext) -> None:
    """Reconcile again at the next deadline. Comes last: an attempt that began in this plan has deadlines too."""
    if not context.finished:
        for until, _ in _limits(context):
            context.wake_at(until)


def _limits(context: PlanContext) -> Iterator[tuple[datetime, str]]:
    """Yield the times at which the job fails, each with its message. A stopping or suspended job has none."""
    run = context.job.spec.run
    if run.suspend:
        return
    started, pending = parse_time(context.status.start_time), _pending_since(context)
    if started and run.active_deadline_seconds:
        text = f"run.activeDeadlineSeconds = {run.active_deadline_seconds} exceeded; the job was started at"
        yield started + timedelta(seconds=run.active_deadline_seconds), f"{text} {context.status.start_time}."
    if pending and run.pending_deadline_seconds:
        waits = context.condition(ConditionType.PROVISIONED)
        text = f"run.pendingDeadlineSeconds = {run.pending_deadline_seconds} exceeded before all pods were running"
        yield pending + timedelta(seconds=run.pending_deadline_seconds), f"{text}: {waits.message if waits else ''}"


def _pending_since(context: PlanContext) -> datetime | None:
    """Return since when an attempt waits for pods: since they were refused, since its start, or since it lost one."""
    if context.status.waiting_since:
        return parse_time(context.status.waiting_since)
    provisioned = context.condition(ConditionType.PROVISIONED)
    if context.live is None or provisioned is None or provisioned.status == "True":
        return None
    moments = [parse_time(context.live.start_time), parse_time(provisioned.last_transition_time)]
    return max(moment for moment in moments if moment)

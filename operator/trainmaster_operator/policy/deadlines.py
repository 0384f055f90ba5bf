"""run.activeDeadlineSeconds and run.pendingDeadlineSeconds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from trainmaster_api.reasons import ConditionType, FailureClass

from .attempts import Verdict, end
from .context import Draft
from .failure_policy import fail
from .times import parse_time


def enforce(draft: Draft) -> bool:
    """Fail a job whose time is over. True if it has."""
    passed = [message for until, message in _limits(draft) if draft.now >= until]
    if not passed:
        return False
    if draft.live:
        end(draft, Verdict.failed(FailureClass.DEADLINE_EXCEEDED, passed[0], draft.head))
    fail(draft, FailureClass.DEADLINE_EXCEEDED, passed[0])
    return True


def watch(draft: Draft) -> None:
    """Look again when the next deadline is due. Comes last: an attempt that began in this plan has deadlines too."""
    if not draft.finished:
        for until, _ in _limits(draft):
            draft.wake_at(until)


def _limits(draft: Draft) -> Iterator[tuple[datetime, str]]:
    """Moments at which the job fails, each with the sentence for it. A job that stops or is suspended has none."""
    run = draft.job.spec.run
    if run.suspend:
        return
    started, pending = parse_time(draft.status.start_time), _pending_since(draft)
    if started and run.active_deadline_seconds:
        text = f"run.activeDeadlineSeconds = {run.active_deadline_seconds} seconds have passed since"
        yield started + timedelta(seconds=run.active_deadline_seconds), f"{text} {draft.status.start_time}."
    if pending and run.pending_deadline_seconds:
        waits = draft.condition(ConditionType.PROVISIONED)
        text = f"run.pendingDeadlineSeconds = {run.pending_deadline_seconds} seconds have passed, and not all pods run"
        yield pending + timedelta(seconds=run.pending_deadline_seconds), f"{text}: {waits.message if waits else ''}"


def _pending_since(draft: Draft) -> datetime | None:
    """Since when the attempt waits for its pods: from its start, or from when it lost one that it had."""
    provisioned = draft.condition(ConditionType.PROVISIONED)
    if draft.live is None or provisioned is None or provisioned.status == "True":
        return None
    moments = [parse_time(draft.live.start_time), parse_time(provisioned.last_transition_time)]
    return max(moment for moment in moments if moment)

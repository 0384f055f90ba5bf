"""run.activeDeadlineSeconds and run.pendingDeadlineSeconds."""

from __future__ import annotations

from datetime import datetime, timedelta

from trainmaster_api.reasons import ConditionType, FailureClass

from .attempts import Verdict, end
from .draft import Draft
from .failure import fail
from .times import parse_time


def enforce(draft: Draft) -> bool:
    """Fail a job whose time is over. True if it has."""
    run = draft.job.spec.run
    if run.suspend:
        return False
    started = parse_time(draft.status.start_time)
    if started and run.active_deadline_seconds:
        limit = f"run.activeDeadlineSeconds = {run.active_deadline_seconds}"
        if _passed(draft, started, run.active_deadline_seconds):
            return _exceeded(draft, f"{limit} seconds have passed since {draft.status.start_time}.")
    pending = _pending_since(draft)
    if pending and run.pending_deadline_seconds and _passed(draft, pending, run.pending_deadline_seconds):
        waits = draft.condition(ConditionType.PROVISIONED)
        text = f"run.pendingDeadlineSeconds = {run.pending_deadline_seconds} seconds have passed, and not all pods run"
        return _exceeded(draft, f"{text}: {waits.message if waits else ''}")
    return False


def _passed(draft: Draft, since: datetime, seconds: int) -> bool:
    until = since + timedelta(seconds=seconds)
    if draft.now < until:
        draft.wake_at(until)
    return draft.now >= until


def _pending_since(draft: Draft) -> datetime | None:
    """Since when the attempt waits for its pods: from its start, or from when it lost one that it had."""
    provisioned = draft.condition(ConditionType.PROVISIONED)
    if draft.live is None or provisioned is None or provisioned.status == "True":
        return None
    moments = [parse_time(draft.live.start_time), parse_time(provisioned.last_transition_time)]
    return max(moment for moment in moments if moment)


def _exceeded(draft: Draft, message: str) -> bool:
    if draft.live:
        end(draft, Verdict.failed(FailureClass.DEADLINE_EXCEEDED, message, draft.head))
    fail(draft, FailureClass.DEADLINE_EXCEEDED, message)
    return True

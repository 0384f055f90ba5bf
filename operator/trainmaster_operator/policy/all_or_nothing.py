"""All or nothing: an attempt that can't get all its pods gives back those it has, and tries again later.

Two attempts that each hold half of what a quota or the nodes have room for would otherwise wait for each other. When
the next try is due follows from the status and from when the last refusal was, so a restarted operator tries at once.
"""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta

from trainmaster_api import names
from trainmaster_api.reasons import ConditionType, FailureClass, Reason

from .attempts import Verdict, begin, end
from .context import PlanContext
from .failure_policy import decide
from .format import format_time, parse_time
from .refusals import Refusal, explain

# How long pods of an incomplete attempt are kept while a quota refuses the rest of them: the time that terminating pods
# of another job need to make room.
QUOTA_HOLD_SECONDS = 15
# The same where others can't be waiting for these very pods, or where a cluster autoscaler may be adding nodes.
HOLD_SECONDS = 300
# While pods are held the rest is tried again within this time.
HELD_RETRY_LIMIT_SECONDS = 5
RETRY_BASE_SECONDS = 1
RETRY_LIMIT_SECONDS = 60
# After pods were given back: each try makes pods of a new attempt.
RELEASED_BASE_SECONDS = 5
RELEASED_LIMIT_SECONDS = 300


def refused(context: PlanContext) -> bool:
    """Handle pods that the API server rejected. Always return True: nothing else can be done in this plan."""
    refusals = [explain(context, rejection) for rejection in context.snapshot.rejections]
    final = next((refusal for refusal in refusals if not refusal.heals), None)
    if final is not None:
        if context.live is None:
            begin(context, context.status.attempt + 1, context.now)
        end(context, Verdict.failed(FailureClass.POD_REJECTED, final.message))
        decide(context)
        return True
    _wait(context, next((refusal for refusal in refusals if refusal.hopeless), refusals[0]))
    return True


def _wait(context: PlanContext, refusal: Refusal) -> None:
    context.refused = True
    context.set(waiting_since=context.status.waiting_since or format_time(context.now))
    context.set_condition(ConditionType.PROVISIONED, False, refusal.reason, refusal.message)
    _say_idle(context)
    if has_been_whole(context):
        _keep_running(context, refusal.message)
        return
    limit: float = QUOTA_HOLD_SECONDS if refusal.reason is Reason.WAITING_FOR_QUOTA else HOLD_SECONDS
    if context.live and context.current and (refusal.hopeless or _held_for(context) >= limit):
        release(context)
    due = next_try(context)
    assert due is not None
    context.wake_at(due)


def _keep_running(context: PlanContext, message: str) -> None:
    """Handle a worker of a training attempt that can't be recreated.

    The others wait for it, idle, and would resume from the same checkpoint in a new attempt, so after a while their
    room is worth more to other jobs. Not counted: nothing of the job's own failed.
    """
    if context.since(context.status.waiting_since) >= HOLD_SECONDS:
        text = f"A lost worker could not be replaced for {HOLD_SECONDS} s, so the attempt released its pods. {message}"
        end(context, Verdict.failed(FailureClass.PREEMPTED, text))
        return
    due = next_try(context)
    assert due is not None
    context.wake_at(due)


def release(context: PlanContext) -> None:
    """Give back the pods of the newest attempt, which has never been whole.

    Its number is used up and its entry goes: it was no attempt at training, and ten of them would push those out that
    were. The pods are deleted by the next plan, which has read the new number in the written status.
    """
    records = [record for record in context.status.attempts if record.attempt != context.status.attempt]
    restarts = context.status.restarts
    if context.record is not None:
        total = max(0, restarts.total - int(bool(records)))
        context.set(restarts=restarts.model_copy(update={"total": total}))
    start_time = context.old.start_time if context.written is None or records else None
    since = context.status.waiting_since or format_time(context.now)
    context.set(attempts=records, start_time=start_time, startup_timings=None, waiting_since=since)
    text = f"Attempt {context.status.attempt} released its pods, because not all of them could be created."
    context.set_condition(ConditionType.RUNNING, False, Reason.WAITING_FOR_OLD_PODS, text)
    context.refused = True
    context.wake_in(0)


def has_been_whole(context: PlanContext) -> bool:
    """Return whether all pods of the newest attempt have run at the same time once."""
    timings = context.status.startup_timings
    known = timings is not None and (timings.started_seconds is not None or timings.ray_ready_seconds is not None)
    return known and context.written is not None


def due_later(context: PlanContext) -> bool:
    """Return whether creating pods has to wait; the condition keeps its reason."""
    due = next_try(context)
    if due is None or context.now >= due:
        return False
    context.wake_at(due)
    _say_idle(context)
    return True


def _say_idle(context: PlanContext) -> None:
    """Say that nothing runs, in the plan that is refused as in those that wait, so that it is written once."""
    if context.live is None:
        text = "No attempt is running: its pods can't be created yet."
        context.set_condition(ConditionType.RUNNING, False, Reason.STOPPED, text)


def next_try(context: PlanContext) -> datetime | None:
    """Return when refused pods are to be tried again; None: now.

    The pauses grow with the time that has been waited, so that what appears after seconds is found after seconds, and
    what takes hours is not asked for every second. They start over when pods of the namespace have gone.
    """
    snapshot, since = context.snapshot, parse_time(context.status.waiting_since)
    last = context.now if context.refused else snapshot.refused_at
    if last is None or since is None:
        return None
    waited = (last - max(since, snapshot.room_at or since)).total_seconds()
    base, limit = RETRY_BASE_SECONDS, RETRY_LIMIT_SECONDS
    if context.find(context.status, context.status.attempt) is None and context.status.attempt:
        base, limit = RELEASED_BASE_SECONDS, RELEASED_LIMIT_SECONDS
    elif context.live and context.current:
        limit = HELD_RETRY_LIMIT_SECONDS
    return last + timedelta(seconds=min(limit, max(base, waited / 2)) * _jitter(snapshot.uid, last))


def _jitter(uid: str, last: datetime) -> float:
    """Return 0.5 to 1.5, another one for each job and each try, and the same for the same snapshot."""
    return 0.5 + zlib.crc32(f"{uid}/{last.isoformat()}".encode()) / 2**32


def _held_for(context: PlanContext) -> float:
    return max(context.since(pod.created) for pod in context.current)


def unfit(context: PlanContext) -> bool:
    """Give back pods that have nodes when others of an attempt that was never whole have found none for long."""
    placed = [pod for pod in context.current if pod.node]
    if not placed or has_been_whole(context):
        return False
    left = HOLD_SECONDS - _held_for(context)
    if left > 0:
        context.wake_in(left)
        return False
    release(context)
    return True


def missing(context: PlanContext) -> set[str]:
    """Return the names of the newest attempt's pods that do not exist."""
    name, attempt = context.snapshot.name, context.status.attempt
    needed = {names.head_pod(name, attempt)}
    needed |= {names.worker_pod(name, attempt, index) for index in range(context.job.spec.cluster.workers.count)}
    return needed - {pod.name for pod in context.current}

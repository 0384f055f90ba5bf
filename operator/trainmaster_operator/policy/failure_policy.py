"""Failure policy: what ended an attempt, what it costs, and when the next one may start."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FAILURE_RULES, ConditionType, FailureClass, Reason, Retry
from trainmaster_api.status import AttemptStatus

from .attempts import Verdict, is_counted
from .context import PlanContext
from .format import format_time, parse_time
from .pod_failures import cause_of_exit, disruption_of
from .snapshot import PodView

BACKOFF_SECONDS = 10
BACKOFF_LIMIT_SECONDS = 300
# How long a worker's end waits for the head's own word on it: the head knows the cause, the worker only the effect.
SETTLE_SECONDS = 3
# A worker that has seen the head go is replaced if the head is still there by then.
ORDERLY_SECONDS = 15


def verdict(context: PlanContext, stopping: bool) -> Verdict | None:
    """Return how the newest attempt has ended, or None while it runs.

    Args:
        context: The plan's context; its newest attempt is open.
        stopping: We asked the head to stop: its orderly end is not a failure.
    """
    head = context.head
    if head is None:
        return _vanished(context, stopping) if context.written else None
    if head.ended:
        return _head_ended(context, head, stopping)
    if context.overdue(head):
        return Verdict("Suspended", "The node of the head pod is unreachable.") if stopping else _node_lost(head)
    # a head that is about to end takes its workers along: their ends say nothing then
    return None if stopping or head.deleting else _first_failure(context) or _silent(context, head)


def decide(context: PlanContext) -> bool:
    """Decide after a failure: fail the job, or retry after a back-off. Return True if it has failed."""
    record = context.record
    if record is None or record.failure_class is None or context.finished:
        return False
    rule, budget = FAILURE_RULES[record.failure_class], context.job.spec.run.retries.max
    if rule.retry is Retry.NEVER:
        fail(context, record.failure_class, record.message)
    elif rule.retry is Retry.COUNTED and context.status.restarts.counted >= budget:
        used = (
            f"run.retries.max = {budget} was reached with attempt {record.attempt}" if budget else "run.retries.max = 0"
        )
        fail(context, record.failure_class, f"{record.message} ({used}.)")
    return context.finished


def fail(context: PlanContext, failure: FailureClass, message: str) -> None:
    """Fail the job permanently."""
    advice = FAILURE_RULES[failure].advice
    text = message if advice in message else f"{_sentence(message)} To do: {advice}."
    context.set_condition(ConditionType.FAILED, True, failure, text)
    context.set_condition(ConditionType.RUNNING, False, failure, "The job has failed.")
    context.set(completion_time=format_time(context.now), dashboard="")
    context.wake_in(0)


def back_off(context: PlanContext) -> bool:
    """Wait before the attempt after a failure. True while it waits."""
    record = context.record
    ended = parse_time(record.end_time) if record else None
    if record is None or record.failure_class is None or ended is None:
        return False
    start = ended + timedelta(seconds=backoff_seconds(context, record))
    if context.now >= start:
        return False
    cost = "counted" if is_counted(record) else "not counted"
    message = (
        f"Attempt {record.attempt} failed ({record.failure_class.value}, {cost}): {_sentence(record.message)} "
        f"The next attempt starts at {format_time(start)}."
    )
    context.set_condition(ConditionType.RUNNING, False, Reason.BACKING_OFF, message)
    context.wake_at(start)
    return True


def backoff_seconds(context: PlanContext, last: AttemptStatus) -> int:
    """Return 10 s, doubled for each consecutive failure without a new checkpoint, at most 5 minutes.

    It follows from the status alone, so a restart of the operator changes nothing.
    """
    saved = context.status.last_checkpoint.attempt if context.status.last_checkpoint else 0
    row = 0
    for record in reversed(context.status.attempts):
        if record.result != "Failed" or record.attempt <= saved:
            break
        row += 1
    doublings = max(0, row - 1)
    # a long row outgrows the entries that are kept; the limit is reached well before
    return int(min(BACKOFF_LIMIT_SECONDS, BACKOFF_SECONDS * 2**doublings))


# --- the head ------------------------------------------------------------------------------------------------------


def _vanished(context: PlanContext, stopping: bool) -> Verdict:
    """Return the verdict on a head pod that has disappeared, by its last known state, else by the conditions."""
    last = next((p for p in context.snapshot.gone if p.role == "head" and p.attempt == context.status.attempt), None)
    if last and last.exit:
        return _head_ended(context, last, stopping)
    if stopping:
        return Verdict("Suspended", "Stopped as asked.")
    known = disruption_of(last) if last else None
    if known:
        return Verdict.failed(known[0], known[1], last)
    if _was_stopping(context) or (last and last.deleting):
        return Verdict.failed(FailureClass.PREEMPTED, "The head pod was deleted while saving a checkpoint.", last)
    return Verdict.failed(FailureClass.HEAD_LOST, "The head pod disappeared without a result.", last)


def _was_stopping(context: PlanContext) -> bool:
    """Return whether the head was being deleted, according to the written status or its last message."""
    written = any(c.type == ConditionType.RUNNING and c.reason == Reason.STOPPED for c in context.old.conditions)
    return written or context.reason(ConditionType.RUNNING) == Reason.STOPPED


def _head_ended(context: PlanContext, head: PodView, stopping: bool) -> Verdict:
    said = head.exit.result if head.exit else None
    if said and said.outcome == Outcome.COMPLETE:
        return Verdict("Complete", said.message or "The training is complete.", pod=head, said=said)
    if said and said.outcome == Outcome.FAILED:
        return _worker_knows_better(context, said) or _said_failed(head, said, context)
    if stopping:
        return Verdict("Suspended", said.message if said and said.message else "Stopped as asked.", said=said)
    known = disruption_of(head)
    if known:
        return Verdict.failed(known[0], known[1], head, said)
    if said or head.deleting:
        text = "The head pod was deleted; it saved a checkpoint and stopped." if said else "The head pod was deleted."
        return Verdict.failed(FailureClass.PREEMPTED, text, head, said)
    failure, message = cause_of_exit(head, context.job.spec.cluster.head.memory)
    return Verdict.failed(failure or FailureClass.HEAD_LOST, message, head)


def _worker_knows_better(context: PlanContext, said: ExitMessage) -> Verdict | None:
    """Return a worker's own account of its end, where the head only saw the worker disappear."""
    if said.failure_class is not FailureClass.WORKER_LOST:
        return None
    verdicts = (_worker_ended(context, pod) for pod in context.workers.values() if pod.ended and not pod.deleting)
    return next((v for v in verdicts if v and v.failure is not FailureClass.WORKER_LOST), None)


def _said_failed(pod: PodView, said: ExitMessage, context: PlanContext) -> Verdict:
    failure = said.failure_class or FailureClass.INTERNAL_ERROR
    message = said.message or f"Pod {pod.name}: {FAILURE_RULES[failure].meaning}."
    # the head names the pod where it began; its node is worth more than the head's
    origin = next((p for p in context.current if p.name == said.pod), pod)
    if origin is not pod:
        return Verdict("Failed", message, failure, _with_exit(origin, pod), said)
    return Verdict.failed(failure, message, pod, said)


def _with_exit(origin: PodView, head: PodView) -> PodView:
    """Return the pod in which the failure began, with the attempt's exit code unless it has its own."""
    return origin if origin.exit else replace(origin, exit=head.exit)


def _silent(context: PlanContext, head: PodView) -> Verdict | None:
    """Return the verdict on a head that was Ready and is now neither Ready nor reporting progress.

    The driver supervises the training processes, but nothing in the pod supervises a launcher or a Ray head that hangs.
    """
    started, changed = parse_time(head.started_at), parse_time(head.ready_changed)
    if head.ready or not started or not changed or changed <= started:
        return None
    message, limit = context.snapshot.progress, context.job.spec.run.stall_seconds
    spoke = parse_time(message.time) if message and message.attempt == context.status.attempt else None
    left = limit - (context.now - max(changed, spoke or changed)).total_seconds()
    if left > 0:
        context.wake_in(left)
        return None
    text = f"Pod {head.name} has been NotReady for {limit} s and stopped reporting progress; its driver or its Ray node"
    text += " is hung."
    return Verdict.failed(FailureClass.STALLED, text, head)


# --- the workers ---------------------------------------------------------------------------------------------------


def _first_failure(context: PlanContext) -> Verdict | None:
    """Return the worker that ended first and by itself, unless it can be replaced."""
    ended = [pod for pod in context.workers.values() if pod.ended and not replaceable(context, pod)]
    ended.sort(key=lambda pod: (pod.exit.finished_at if pod.exit else "", pod.index or 0))
    for pod in ended:
        found = _worker_ended(context, pod)
        if found:
            return found
    overdue = [pod for pod in context.workers.values() if context.overdue(pod)]
    return _node_lost(overdue[0]) if overdue else None


def replaceable(context: PlanContext, pod: PodView) -> bool:
    """Return whether the attempt continues with a new pod in this worker's place."""
    if pod.deleting or not pod.ended:
        return True
    known = disruption_of(pod)
    if known:
        return FAILURE_RULES[known[0]].retry is Retry.FREE
    said = pod.exit.result if pod.exit else None
    if said is None:
        return False
    if speaks_of_head(said):
        return context.since(pod.exit.finished_at if pod.exit else None) >= ORDERLY_SECONDS
    return bool(said.failure_class and FAILURE_RULES[said.failure_class].retry is Retry.FREE)


def speaks_of_head(said: ExitMessage) -> bool:
    """Return whether a worker ended because its head did: then the head's result counts.

    The word that the head is gone may come before the head's own, which may well be that it is complete.
    """
    return said.outcome != Outcome.FAILED or said.failure_class is FailureClass.HEAD_LOST


def _worker_ended(context: PlanContext, pod: PodView) -> Verdict | None:
    said = pod.exit.result if pod.exit else None
    age = context.since(pod.exit.finished_at if pod.exit else None)
    if said and speaks_of_head(said):
        context.wake_in(ORDERLY_SECONDS - age)
        return None
    if said:
        return _said_failed(pod, said, context)
    known = disruption_of(pod)
    failure, message = known or cause_of_exit(pod, context.job.spec.cluster.workers.memory)
    if failure is None and age < SETTLE_SECONDS:
        context.wake_in(SETTLE_SECONDS - age)
        return None
    return Verdict.failed(failure or FailureClass.WORKER_LOST, message, pod)


def _node_lost(pod: PodView) -> Verdict:
    message = f"Pod {pod.name} can't be deleted from node {pod.node or '?'}: the node is unreachable."
    return Verdict.failed(FailureClass.NODE_LOST, message, pod)


def _sentence(text: str) -> str:
    return text if text.rstrip().endswith((".", "!", "?", ")")) else f"{text.rstrip()}."

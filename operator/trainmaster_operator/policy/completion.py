"""The end of the job: completion, and what is kept of a job that has finished."""

from __future__ import annotations

from trainmaster_api.reasons import ConditionType, FailureClass, Reason

from .context import PlanContext
from .failure_policy import speaks_of_head
from .format import format_time
from .snapshot import PodView


def complete(context: PlanContext) -> bool:
    """Complete the job if the newest attempt ended with the model."""
    record = context.record
    if record is None or record.result != "Complete" or context.finished:
        return False
    context.set_condition(ConditionType.COMPLETE, True, Reason.TRAINING_COMPLETE, record.message)
    context.set(completion_time=format_time(context.now), dashboard="")
    context.wake_in(0)
    return True


def clean_up(context: PlanContext) -> bool:
    """Delete the pods of a finished job, except those that explain its end. Return whether it has finished."""
    if not context.finished:
        return False
    head = context.head
    alive = head is not None and not head.ended and not context.overdue(head)
    saving = alive and context.reason(ConditionType.FAILED) in _SAVES
    for pod in context.pods:
        if saving and pod is head:
            context.delete(pod, grace=None)
        elif not (saving and pod in context.current) and not _kept(context, pod):
            context.delete(pod)
    return True


# The head was training when the job ended: it saves first, and needs its workers for that.
_SAVES = {FailureClass.DEADLINE_EXCEEDED.value}


def _kept(context: PlanContext, pod: PodView) -> bool:
    """Return the pods to keep: the head for the run's log, and a worker that caused the failure."""
    if pod.attempt != context.status.attempt or not pod.ended:
        return False
    if pod.role == "head":
        return True
    said = pod.exit.result if pod.exit else None
    return bool(pod.exit and pod.exit.code and (said is None or not speaks_of_head(said)))

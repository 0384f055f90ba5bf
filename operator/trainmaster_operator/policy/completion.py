"""The end of the job: complete, and what is left of a job that has finished."""

from __future__ import annotations

from trainmaster_api.reasons import ConditionType, FailureClass, Reason

from .context import Draft
from .failure_policy import speaks_of_head
from .snapshot import PodView
from .times import format_time


def complete(draft: Draft) -> bool:
    """The newest attempt ended with the model: so has the job."""
    record = draft.record
    if record is None or record.result != "Complete" or draft.finished:
        return False
    draft.say(ConditionType.COMPLETE, True, Reason.TRAINING_COMPLETE, record.message)
    draft.set(completion_time=format_time(draft.now), dashboard="")
    draft.wake_in(0)
    return True


def clean_up(draft: Draft) -> bool:
    """What runs is deleted; what explains the end stays. True if the job has finished: then nothing else happens."""
    if not draft.finished:
        return False
    head = draft.head
    alive = head is not None and not head.ended and not draft.overdue(head)
    saving = alive and draft.reason(ConditionType.FAILED) in _SAVES
    for pod in draft.pods:
        if saving and pod is head:
            draft.delete(pod, grace=None)
        elif not (saving and pod in draft.current) and not _kept(draft, pod):
            draft.delete(pod)
    return True


# The head was training when the job ended: it saves first, and needs its workers for that.
_SAVES = {FailureClass.DEADLINE_EXCEEDED.value}


def _kept(draft: Draft, pod: PodView) -> bool:
    """The head's log is the run's log; a worker that failed by itself explains the failure."""
    if pod.attempt != draft.status.attempt or not pod.ended:
        return False
    if pod.role == "head":
        return True
    said = pod.exit.result if pod.exit else None
    return bool(pod.exit and pod.exit.code and (said is None or not speaks_of_head(said)))

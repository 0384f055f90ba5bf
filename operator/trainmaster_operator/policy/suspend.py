"""run.suspend: save first, then stop; what has begun to stop stops, even if the wish is taken back meanwhile."""

from __future__ import annotations

from trainmaster_api.reasons import ConditionType, Reason

from .attempts import Verdict, end
from .context import Draft

# Seconds that the head has beyond run.stopGraceSeconds for its last message and its logs; as in its manifest.
AFTER_SAVE_SECONDS = 15


def stopping(draft: Draft) -> bool:
    """Whether the open attempt has been asked to stop, or is to be."""
    begun = draft.reason(ConditionType.SUSPENDED) == Reason.SUSPENDING
    return draft.live is not None and (begun or draft.job.spec.run.suspend)


def stop(draft: Draft) -> bool:
    """Ask the head to save and stop; the workers go when it has gone. True while the attempt is open."""
    if not stopping(draft):
        return False
    head = draft.head
    if head is None:
        end(draft, Verdict("Suspended", "Stopped before it had a head pod."))
        return True
    draft.say(
        ConditionType.SUSPENDED, False, Reason.SUSPENDING, "A checkpoint is being saved, then the pods are deleted."
    )
    draft.delete(head, draft.job.spec.run.stop_grace_seconds + AFTER_SAVE_SECONDS)
    return True


def suspend(draft: Draft) -> bool:
    """Between attempts: a suspended job has no pods. True while it is to be suspended."""
    if not draft.job.spec.run.suspend:
        return False
    for pod in draft.pods:
        draft.delete(pod)
    left = [pod.name for pod in draft.pods if not draft.overdue(pod)]
    if left:
        draft.say(ConditionType.SUSPENDED, False, Reason.SUSPENDING, f"Waiting for {len(left)} pods to end.")
        return True
    saved = draft.status.last_checkpoint
    text = f"It goes on from step {saved.step} when run.suspend is false." if saved else "It has not begun to train."
    draft.say(ConditionType.SUSPENDED, True, Reason.SUSPENDED, text)
    draft.say(ConditionType.RUNNING, False, Reason.SUSPENDED)
    draft.say(ConditionType.PROVISIONED, False, Reason.PODS_REMOVED)
    draft.set(start_time=None, dashboard="")
    return True

"""run.suspend: save first, then stop; what has begun to stop stops, even if the wish is taken back meanwhile."""

from __future__ import annotations

from trainmaster_api.reasons import ConditionType, Reason

from .attempts import Verdict, end
from .context import PlanContext

# Seconds that the head has beyond run.stopGraceSeconds for its last message and its logs; as in its manifest.
AFTER_SAVE_SECONDS = 15


def stopping(context: PlanContext) -> bool:
    """Whether the open attempt has been asked to stop, or is to be."""
    begun = context.reason(ConditionType.SUSPENDED) == Reason.SUSPENDING
    return context.live is not None and (begun or context.job.spec.run.suspend)


def stop(context: PlanContext) -> bool:
    """Ask the head to save and stop; the workers go when it has gone. True while the attempt is open."""
    if not stopping(context):
        return False
    head = context.head
    if head is None:
        end(context, Verdict("Suspended", "Stopped before it had a head pod."))
        return True
    context.say(
        ConditionType.SUSPENDED, False, Reason.SUSPENDING, "A checkpoint is being saved, then the pods are deleted."
    )
    context.delete(head, context.job.spec.run.stop_grace_seconds + AFTER_SAVE_SECONDS)
    return True


def suspend(context: PlanContext) -> bool:
    """Between attempts: a suspended job has no pods. True while it is to be suspended."""
    if not context.job.spec.run.suspend:
        return False
    for pod in context.pods:
        context.delete(pod)
    left = [pod.name for pod in context.pods if not context.overdue(pod)]
    if left:
        context.say(ConditionType.SUSPENDED, False, Reason.SUSPENDING, f"Waiting for {len(left)} pods to end.")
        return True
    saved = context.status.last_checkpoint
    text = f"It goes on from step {saved.step} when run.suspend is false." if saved else "It has not begun to train."
    context.say(ConditionType.SUSPENDED, True, Reason.SUSPENDED, text)
    context.say(ConditionType.RUNNING, False, Reason.SUSPENDED)
    context.say(ConditionType.PROVISIONED, False, Reason.PODS_REMOVED)
    context.set(start_time=None, dashboard="")
    return True

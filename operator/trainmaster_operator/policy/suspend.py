"""run.suspend: save first, then stop; a stop that has begun is completed, even if run.suspend is reset meanwhile."""

from __future__ import annotations

from trainmaster_api.reasons import ConditionType, Reason

from .attempts import Verdict, end
from .context import PlanContext

# Seconds that the head has beyond run.stopGraceSeconds for its last message and its logs.
AFTER_SAVE_SECONDS = 15


def stopping(context: PlanContext) -> bool:
    """Return whether the open attempt has been asked to stop, or is about to be."""
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
    context.set_condition(
        ConditionType.SUSPENDED, False, Reason.SUSPENDING, "A checkpoint is being saved, then the pods are deleted."
    )
    context.delete(head, context.job.spec.run.stop_grace_seconds + AFTER_SAVE_SECONDS)
    return True


def suspend(context: PlanContext) -> bool:
    """Keep a suspended job without pods. Return True while it is to be suspended."""
    if not context.job.spec.run.suspend:
        return False
    for pod in context.pods:
        context.delete(pod)
    left = [pod.name for pod in context.pods if not context.overdue(pod)]
    if left:
        context.set_condition(
            ConditionType.SUSPENDED, False, Reason.SUSPENDING, f"Waiting for {len(left)} pods to terminate."
        )
        return True
    saved = context.status.last_checkpoint
    text = f"Will resume from step {saved.step}." if saved else "Training has not started yet."
    text += " Set run.suspend to false to resume."
    context.set_condition(ConditionType.SUSPENDED, True, Reason.SUSPENDED, text)
    context.set_condition(ConditionType.RUNNING, False, Reason.SUSPENDED)
    context.set_condition(ConditionType.PROVISIONED, False, Reason.PODS_REMOVED)
    context.set(start_time=None, dashboard="", waiting_since=None)
    return True

"""training.loop.duration may be raised: a live attempt stops at a checkpoint, a complete job becomes live again."""

from __future__ import annotations

from dataclasses import replace

from trainmaster_api.reasons import ConditionType, Reason
from trainmaster_api.status import AttemptStatus
from trainmaster_api.types import parse_count

from .attempts import Verdict, end
from .context import PlanContext
from .suspend import AFTER_SAVE_SECONDS


def stopping(context: PlanContext) -> bool:
    """Return whether the open attempt trains to a duration that is no longer enough."""
    return context.live is not None and _is_raised(context, context.live)


def verdict(context: PlanContext, found: Verdict) -> Verdict:
    """Return how an attempt has ended that was stopped for its duration."""
    if found.result != "Suspended":
        return found
    text = f"Stopped at a checkpoint, to continue to {context.job.spec.training.loop.duration}."
    return replace(found, result="Extended", message=text)


def stop(context: PlanContext) -> bool:
    """Ask the head to save and stop; the next attempt gets the new duration. True while the attempt is open."""
    if not stopping(context):
        return False
    head, duration = context.head, context.job.spec.training.loop.duration
    if head is None:
        end(context, Verdict("Extended", f"Stopped before it had a head pod, to continue to {duration}."))
        return True
    text = f"Saving a checkpoint; training then continues to {duration}."
    context.set_condition(ConditionType.RUNNING, False, Reason.DURATION_EXTENDED, text)
    context.delete(head, context.job.spec.run.stop_grace_seconds + AFTER_SAVE_SECONDS)
    return True


def reopen(context: PlanContext) -> bool:
    """Make a complete job live again whose duration was raised. Always False: the next attempt starts in this plan."""
    record = context.record
    if record is None or not context.holds(ConditionType.COMPLETE) or not _is_raised(context, record):
        return False
    saved, duration = context.status.last_checkpoint, context.job.spec.training.loop.duration
    where = f"step {saved.step}" if saved else "the start"
    text = f"training.loop.duration was raised from {record.duration} to {duration}; training resumes from {where}."
    context.set_condition(ConditionType.COMPLETE, False, Reason.DURATION_EXTENDED, text)
    context.set_condition(ConditionType.RUNNING, False, Reason.DURATION_EXTENDED, text)
    context.set_condition(ConditionType.PROVISIONED, False, Reason.PODS_REMOVED)
    # the model of the shorter run stays in storage until the longer one replaces it, but it is not this job's result
    context.set(completion_time=None, start_time=None, model_uri="", test_metrics={})
    return False


def _is_raised(context: PlanContext, record: AttemptStatus) -> bool:
    """Return whether the spec's duration exceeds the attempt's, which an older operator didn't record."""
    if context.snapshot.job is None or not record.duration:
        return False
    (old, unit), (new, new_unit) = parse_count(record.duration), parse_count(context.job.spec.training.loop.duration)
    return unit == new_unit and new > old

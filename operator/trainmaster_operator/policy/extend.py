"""A run may be made longer: by `training.loop.duration`, a search by the trials or the hours of its budget.

A live attempt stops at a checkpoint, a complete job becomes live again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainmaster_api.reasons import ConditionType, Reason
from trainmaster_api.status import AttemptStatus
from trainmaster_api.tuning.budget import hours_limit, trials_limit
from trainmaster_api.tuning.plan import asked_trials, is_population
from trainmaster_api.types import parse_count

from .attempts import Verdict, end
from .context import PlanContext
from .suspend import AFTER_SAVE_SECONDS


@dataclass(frozen=True)
class _Raise:
    """What was raised since an attempt began.

    Attributes:
        reason: Of the conditions.
        goal: What the next attempt continues to.
        what: Which field, from which value to which.
        is_search: Whether it is the budget of a search.
    """

    reason: Reason
    goal: str
    what: str
    is_search: bool = False


def stopping(context: PlanContext) -> bool:
    """Return whether the open attempt trains to a duration, or with a budget, that is no longer enough."""
    return context.live is not None and _raised(context, context.live) is not None


def verdict(context: PlanContext, found: Verdict) -> Verdict:
    """Return how an attempt has ended that was stopped to be extended."""
    raised = _raised(context, context.live) if context.live is not None else None
    if found.result != "Suspended" or raised is None:
        return found
    return replace(found, result="Extended", message=f"Stopped at a checkpoint, to continue to {raised.goal}.")


def stop(context: PlanContext) -> bool:
    """Ask the head to save and stop; the next attempt gets the new value. True while the attempt is open."""
    raised = _raised(context, context.live) if context.live is not None else None
    if raised is None:
        return False
    head = context.head
    if head is None:
        end(context, Verdict("Extended", f"Stopped before it had a head pod, to continue to {raised.goal}."))
        return True
    what = "the search" if raised.is_search else "training"
    text = f"Saving a checkpoint; {what} then continues to {raised.goal}."
    context.set_condition(ConditionType.RUNNING, False, raised.reason, text)
    context.delete(head, context.job.spec.run.stop_grace_seconds + AFTER_SAVE_SECONDS)
    return True


def reopen(context: PlanContext) -> bool:
    """Make a complete job live again that was extended. Always False: the next attempt starts in this plan."""
    record = context.record
    if record is None or not context.holds(ConditionType.COMPLETE):
        return False
    raised = _raised(context, record)
    if raised is None:
        return False
    saved = context.status.last_checkpoint
    where = f"training resumes from step {saved.step}" if saved else "training resumes from the start"
    text = f"{raised.what}; {'the search continues' if raised.is_search else where}."
    context.set_condition(ConditionType.COMPLETE, False, raised.reason, text)
    context.set_condition(ConditionType.RUNNING, False, raised.reason, text)
    context.set_condition(ConditionType.PROVISIONED, False, Reason.PODS_REMOVED)
    # the model of the shorter run stays in storage until the longer one replaces it, but it is not this job's result
    context.set(completion_time=None, start_time=None, model_uri="", test_metrics={})
    return False


def _raised(context: PlanContext, record: AttemptStatus) -> _Raise | None:
    """Return what the spec has more of than the attempt; older operators didn't record it."""
    if context.snapshot.job is None:
        return None
    spec = context.job.spec
    if record.duration:
        (old, unit), (new, new_unit) = parse_count(record.duration), parse_count(spec.training.loop.duration)
        if unit == new_unit and new > old:
            duration = spec.training.loop.duration
            what = f"training.loop.duration was raised from {record.duration} to {duration}"
            return _Raise(Reason.DURATION_EXTENDED, duration, what)
    trials = asked_trials(spec.tuning) if spec.tuning is not None and not is_population(spec.tuning) else None
    if trials is not None and record.max_trials is not None and trials > record.max_trials:
        field = trials_limit(spec, trials).path.removeprefix("spec.")
        what = f"{field} was raised from {record.max_trials} to {trials}"
        return _Raise(Reason.TRIALS_EXTENDED, f"{trials} trials", what, is_search=True)
    hours = spec.tuning.budget.max_hours if spec.tuning is not None else None
    if hours is not None and record.max_hours is not None and hours > record.max_hours:
        field = hours_limit(spec, hours).path.removeprefix("spec.")
        what = f"{field} was raised from {record.max_hours:g} to {hours:g} hours"
        return _Raise(Reason.HOURS_EXTENDED, f"{hours:g} hours", what, is_search=True)
    return None

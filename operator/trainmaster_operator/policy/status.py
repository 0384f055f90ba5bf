"""The status as a whole: the derived columns, the events that tell of it, and when it is worth a write."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any

from trainmaster_api.reasons import ConditionType, FailureClass, Phase, Reason
from trainmaster_api.status import Condition

from .actions import Event
from .context import PlanContext

WRITE_INTERVAL_SECONDS = 10.0
# Before the first report there are only worker counts and stages, and many jobs may start at once.
STARTUP_INTERVAL_SECONDS = 30.0

# Reasons of Provisioned=False that a user should know of: many need an action.
_OBSTACLES = {
    FailureClass.UNSCHEDULABLE,
    FailureClass.IMAGE_PULL,
    FailureClass.INVALID_CONFIGURATION,
    FailureClass.POD_REJECTED,
    Reason.WAITING_FOR_QUOTA,
    Reason.WAITING_FOR_ADMISSION,
    Reason.WAITING_FOR_DEPENDENCY,
    Reason.WAITING_FOR_VOLUMES,
    Reason.NAMESPACE_TERMINATING,
}


def derive(context: PlanContext) -> None:
    """Set phase, reason and worker counts for the printed columns, and the generation of every condition.

    `kubectl wait` ignores a condition whose observedGeneration is older.
    """
    seen = context.status.observed_generation
    if any(item.observed_generation != seen for item in context.status.conditions):
        newest = [item.model_copy(update={"observed_generation": seen}) for item in context.status.conditions]
        context.set(conditions=newest)
    phase, reason = _phase(context)
    context.set(phase=phase, reason=reason)
    if context.snapshot.job is not None:
        desired = context.job.spec.cluster.workers.count
        ready = sum(pod.ready and not pod.ended for pod in context.workers.values()) if context.live else 0
        workers = context.status.workers.model_copy(update={"desired": desired, "ready": ready})
        context.set(workers=workers, workers_ready=f"{ready}/{desired}")


def _phase(context: PlanContext) -> tuple[Phase, str]:
    reason = context.reason
    if context.holds(ConditionType.COMPLETE):
        return Phase.COMPLETE, reason(ConditionType.COMPLETE)
    if context.holds(ConditionType.FAILED):
        return Phase.FAILED, reason(ConditionType.FAILED)
    accepted = context.condition(ConditionType.ACCEPTED)
    if accepted and accepted.status == "False":
        return Phase.PENDING, accepted.reason
    if context.holds(ConditionType.SUSPENDED):
        return Phase.SUSPENDED, reason(ConditionType.SUSPENDED)
    if reason(ConditionType.SUSPENDED) == Reason.SUSPENDING:
        return Phase.SUSPENDING, Reason.SUSPENDING.value
    if reason(ConditionType.DEGRADED) == Reason.NAME_CONFLICT and context.holds(ConditionType.DEGRADED):
        return Phase.PENDING, Reason.NAME_CONFLICT.value
    if context.holds(ConditionType.RUNNING):
        return Phase.RUNNING, reason(ConditionType.RUNNING)
    if reason(ConditionType.PROVISIONED) in _OBSTACLES:
        return Phase.PENDING, reason(ConditionType.PROVISIONED)
    if not context.status.attempts:
        return Phase.PENDING, reason(ConditionType.RUNNING)
    if _after_failure(context) or reason(ConditionType.RUNNING) == Reason.RECOVERING:
        return Phase.RESTARTING, reason(ConditionType.RUNNING)
    provisioned = context.holds(ConditionType.PROVISIONED)
    return Phase.STARTING, reason(ConditionType.RUNNING if provisioned else ConditionType.PROVISIONED)


def _after_failure(context: PlanContext) -> bool:
    """Return whether the attempt that counts now follows a failure, or is itself one that another follows."""
    records = context.status.attempts
    before = records[-2] if context.live and len(records) > 1 else records[-1]
    return before.result == "Failed"


def events(context: PlanContext) -> tuple[Event, ...]:
    """Return events for what changed against the written status: few, each one something that a user waits for."""
    found = []
    for kind, word in _NEWS:
        new = context.condition(kind)
        if new is not None and _is_news(context, new, word):
            found.append(Event(word, new.reason, _text(context, new)))
    return tuple(found)


_NEWS: tuple[tuple[ConditionType, Any], ...] = (
    (ConditionType.COMPLETE, "Normal"),
    (ConditionType.FAILED, "Warning"),
    (ConditionType.ACCEPTED, "Warning"),
    (ConditionType.DEGRADED, "Warning"),
    (ConditionType.PROVISIONED, "Warning"),
    (ConditionType.SUSPENDED, "Normal"),
    (ConditionType.RUNNING, "Warning"),
)


_EXTENDED = (Reason.DURATION_EXTENDED, Reason.TRIALS_EXTENDED, Reason.HOURS_EXTENDED)


def _is_news(context: PlanContext, new: Condition, word: str) -> bool:
    old = next((item for item in context.old.conditions if item.type == new.type), None)
    changed = old is None or (old.status, old.reason) != (new.status, new.reason)
    match new.type:
        case ConditionType.COMPLETE | ConditionType.FAILED:
            return changed and (new.status == "True" or new.reason in _EXTENDED)
        case ConditionType.DEGRADED:  # an image that can't be pulled is reported by Provisioned
            return changed and new.status == "True" and new.reason in (Reason.NAME_CONFLICT, Reason.CHECKPOINT_NOT_READ)
        case ConditionType.ACCEPTED:
            return new.status == "False" and (old is None or old.message != new.message)
        case ConditionType.PROVISIONED:
            return (
                changed
                and new.reason in _OBSTACLES
                and (context.live is not None or bool(context.status.waiting_since))
            )
        case ConditionType.SUSPENDED:
            return changed and (new.status == "True" or new.reason == Reason.RESUMED)
        case _:
            return changed and new.reason == Reason.BACKING_OFF


def _text(context: PlanContext, condition: Condition) -> str:
    if condition.reason == Reason.RESUMED:
        return f"Resumed with attempt {context.status.attempt}."
    return condition.message[:1000]


# --- writes --------------------------------------------------------------------------------------------------------


class News(Enum):
    """What a status has to tell."""

    TRANSITION = "a condition, an attempt, a phase: what users and their scripts wait for"
    PROGRESS = "figures of a training"
    STARTUP = "worker counts and stages of a job that doesn't train yet"


def write_delay(old: dict[str, Any], new: dict[str, Any], last_write: datetime | None, now: datetime) -> float | None:
    """Return when the status is to be written.

    Args:
        old: status as written, from the newest body of the job; {} if there is none.
        new: status of the plan.
        last_write: when this process last wrote it; None: never.
        now: the same clock.

    Returns:
        None: nothing has changed; 0: now; else seconds, because only figures have changed.
    """
    found = news(old, new)
    if found is None:
        return None
    if last_write is None or found is News.TRANSITION:
        return 0.0
    interval = WRITE_INTERVAL_SECONDS if found is News.PROGRESS else STARTUP_INTERVAL_SECONDS
    return max(0.0, interval - (now - last_write).total_seconds())


def news(old: dict[str, Any], new: dict[str, Any]) -> News | None:
    """Return what a plan's status has that the written one doesn't; None if they are equal."""
    if old == new:
        return None
    if _transitions(old) != _transitions(new):
        return News.TRANSITION
    figures = any(old.get(key) != new.get(key) for key in ("progress", "lastCheckpoint"))
    return News.PROGRESS if figures or _running(old) != _running(new) else News.STARTUP


def _running(status: dict[str, Any]) -> str:
    """Return the message of Running, for example why there is no step."""
    conditions = status.get("conditions") or ()
    return next((item.get("message", "") for item in conditions if item["type"] == ConditionType.RUNNING), "")


def _transitions(status: dict[str, Any]) -> tuple[Any, ...]:
    """Return the parts of a status that users wait for; everything else is figures."""
    conditions = [(item["type"], item["status"], item["reason"]) for item in status.get("conditions") or ()]
    attempts = [(record["attempt"], record.get("endTime")) for record in status.get("attempts") or ()]
    plain = [status.get(key) for key in ("phase", "reason", "attempt", "restarts", "completionTime")]
    return (conditions, attempts, *plain)

"""The status is true while nothing moves: since when there was no step and, where known, why.

Times of steps are the trainer's, times of arrival the operator's. Only differences of the same clock are used.
"""

from __future__ import annotations

from datetime import datetime

from trainmaster_api.messages import ProgressMessage, TrainerState
from trainmaster_api.reasons import ConditionType, Reason

from .context import PlanContext
from .format import format_time, parse_time

STALE_SECONDS = 15
# A model whose steps take a minute is not stale after 15 s.
STALE_STEPS = 2


def check(context: PlanContext) -> bool:
    """Change the message of Running, and drop the ETA, if no step has been reported for a while.

    The message has a time and no duration, so that it is written only once however long it lasts. Always False.
    """
    if context.live is None or not context.holds(ConditionType.RUNNING):
        return False
    message = context.snapshot.progress
    if message is not None and (message.attempt != context.status.attempt or message.uid != context.snapshot.uid):
        message = None
    if message is not None and message.state is not TrainerState.TRAINING:
        return False
    last = _last_step(context, message)
    if last is None:
        return False
    left = _limit(message) - (context.now - last).total_seconds()
    if left > 0:
        context.wake_in(left)
        _say_resumed(context, message)
        return False
    progress = context.status.progress
    if progress is not None:
        context.set(progress=progress.model_copy(update={"eta": "", "eta_seconds": None}))
    since = progress.step_time if progress and progress.step_time else format_time(last)
    step = f" (step {progress.step})" if progress else ""
    text = f"No step has been completed since {since}{step}{_why(context, message)}."
    context.set_condition(ConditionType.RUNNING, True, Reason.NO_RECENT_STEP, text)
    return False


def _last_step(context: PlanContext, message: ProgressMessage | None) -> datetime | None:
    """Return when the last step was finished, by the operator's clock; None: it can't be told."""
    snapshot, progress = context.snapshot, context.status.progress
    if message is None:  # a restarted operator has heard nothing yet, and gives the trainer time to speak
        return snapshot.listening_since if progress is not None else None
    received, sent = snapshot.progress_received or parse_time(message.time), parse_time(message.time)
    finished = parse_time(message.step_time)
    if received is None or sent is None:
        return None
    return received - (sent - finished) if finished is not None and finished <= sent else received


def _limit(message: ProgressMessage | None) -> float:
    left = message.total_steps - message.step if message else 0
    if message is None or message.eta_seconds is None or left <= 0:
        return STALE_SECONDS
    return max(STALE_SECONDS, STALE_STEPS * message.eta_seconds / left)


def _why(context: PlanContext, message: ProgressMessage | None) -> str:
    received = context.snapshot.progress_received
    silent = message is None or (received is not None and context.since(format_time(received)) >= STALE_SECONDS)
    if message is not None and message.waiting and not silent:
        return f": {message.waiting}"
    for pod in sorted(context.current, key=lambda pod: pod.name):
        if pod.deleting and pod.disruption:
            return f": pod {pod.name} is being removed from node {pod.node} ({pod.disruption})"
        if not pod.ready and not pod.ended and pod.started_at:
            when = f" since {pod.ready_changed}" if pod.ready_changed else ""
            return f": pod {pod.name} on node {pod.node} has been NotReady{when}"
    if silent:
        when = f" since {format_time(received)}" if received is not None else ""
        return f": the driver has not reported{when}"
    return ""


def _say_resumed(context: PlanContext, message: ProgressMessage | None) -> None:
    """Report how long the gap was, once steps have resumed."""
    old = next((item for item in context.old.conditions if item.type == ConditionType.RUNNING), None)
    before = parse_time(context.old.progress.step_time) if context.old.progress else None
    now = parse_time(message.step_time) if message else None
    if old is None or old.reason != Reason.NO_RECENT_STEP or before is None or now is None or now <= before:
        return
    gap = round((now - before).total_seconds())
    context.set_condition(ConditionType.RUNNING, True, Reason.TRAINING, f"Training; steps resumed after {gap} s.")

"""The history of attempts: an entry begins with the pods of an attempt and ends with its result."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FAILURE_RULES, ConditionType, FailureClass, Reason, Retry
from trainmaster_api.status import AttemptStatus
from trainmaster_api.tuning.plan import asked_trials

from .checkpoint import take_checkpoint, take_result
from .context import KEPT_ATTEMPTS, PlanContext, WhyNot
from .format import format_time, parse_time
from .snapshot import PodView


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended.

    Attributes:
        failure: why, exactly if the result is Failed.
        message: one or two sentences.
        pod: the pod that it is about.
        said: the launcher's message, if it left one.
    """

    result: Literal["Complete", "Failed", "Suspended", "Extended"]
    message: str
    failure: FailureClass | None = None
    pod: PodView | None = None
    said: ExitMessage | None = None

    @classmethod
    def failed(
        cls, failure: FailureClass, message: str, pod: PodView | None = None, said: ExitMessage | None = None
    ) -> Verdict:
        """Return a failure of that class."""
        return cls("Failed", message, failure, pod, said)


def adopt(context: PlanContext) -> bool:
    """Adopt pods of an unrecorded attempt: the operator ended between creating them and writing the status."""
    newest = max((pod.attempt for pod in context.pods), default=0)
    if newest > context.status.attempt:
        found = [pod for pod in context.pods if pod.attempt == newest]
        created = [moment for moment in (parse_time(pod.created) for pod in found) if moment]
        begin(context, newest, min(created or [context.now]), found[0])
    return False


def begin(context: PlanContext, attempt: int, start: datetime, made_for: PodView | None = None) -> None:
    """Open the entry of an attempt whose pods have been created, or are by this very plan.

    Args:
        context: The plan's context.
        attempt: Its number.
        start: When its first pod was created.
        made_for: One of its pods, which says what they were made for; None: the spec as it is.
    """
    before = context.record
    restarts = context.status.restarts
    counted = restarts.counted + int(is_counted(before))
    total = restarts.total + int(bool(context.status.attempts))
    spec = context.job.spec
    duration, trials, hours = (
        (made_for.duration, made_for.max_trials, made_for.max_hours) if made_for is not None else ("", None, None)
    )
    if spec.tuning is not None:
        trials, hours = trials or asked_trials(spec.tuning), hours or spec.tuning.budget.max_hours
    record = AttemptStatus(
        attempt=attempt,
        start_time=format_time(start),
        duration=duration or spec.training.loop.duration,
        max_trials=trials,
        max_hours=hours,
    )
    context.set(
        attempt=attempt,
        attempts=[*context.status.attempts, record][-KEPT_ATTEMPTS:],
        restarts=restarts.model_copy(update={"total": total, "counted": counted}),
        start_time=context.status.start_time or format_time(start),
        startup_timings=None,
    )
    resumed = context.reason(ConditionType.SUSPENDED) in (Reason.SUSPENDED, Reason.SUSPENDING, Reason.RESUMED)
    context.set_condition(ConditionType.SUSPENDED, False, Reason.RESUMED if resumed else Reason.NOT_SUSPENDED)
    if context.status.waiting_since is None:  # else the conditions keep their message about what is waited for
        say_starting(context)
    if context.condition(ConditionType.CHECKPOINTED) is None:
        context.set_condition(
            ConditionType.CHECKPOINTED, False, Reason.NO_CHECKPOINT, "No checkpoint has been saved yet."
        )


def say_starting(context: PlanContext) -> None:
    """Report that the pods of the newest attempt exist and are starting."""
    attempt = context.status.attempt
    text = f"The pods of attempt {attempt} are starting."
    context.set_condition(ConditionType.PROVISIONED, False, Reason.PODS_CREATED, text)
    context.set_condition(ConditionType.RUNNING, False, Reason.STARTING, f"Attempt {attempt} is starting.")


def end(context: PlanContext, verdict: Verdict) -> None:
    """Close the newest attempt's entry with its result.

    The pods stay for now: they are deleted only by a plan that has read the result in the written status, because a
    crash in between would lose it.
    """
    said, pod = verdict.said, verdict.pod
    if said:
        take_checkpoint(context, said.checkpoint)
        take_result(context, said)
    exit_code = pod.exit.code if pod and pod.exit else None
    context.amend(
        end_time=format_time(context.now),
        result=verdict.result,
        failure_class=verdict.failure,
        message=verdict.message[:4096],
        node=pod.node if pod and verdict.failure else "",
        rank=said.rank if said else None,
        exit_code=exit_code if verdict.failure else None,
        last_lines=said.last_lines[-20:] if said and said.outcome == Outcome.FAILED else [],
    )
    context.set(waiting_since=None)
    reason = _reason(verdict)
    attempt = context.status.attempt
    context.set_condition(ConditionType.PROVISIONED, False, reason, f"Attempt {attempt} has ended.")
    context.set_condition(ConditionType.RUNNING, False, reason, f"Attempt {attempt} has ended: {verdict.message}")
    context.wake_in(0)


def is_counted(record: AttemptStatus | None) -> bool:
    """Return whether the attempt's end counts against run.retries.max."""
    return bool(record and record.failure_class and FAILURE_RULES[record.failure_class].retry is Retry.COUNTED)


def _reason(verdict: Verdict) -> WhyNot:
    if verdict.failure:
        return verdict.failure
    return Reason.TRAINING_COMPLETE if verdict.result == "Complete" else Reason.STOPPED

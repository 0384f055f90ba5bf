"""`trainmaster why`: one sentence from the lowest layer that knows. Pure: objects in, an answer out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from trainmaster_api.names import LABEL_JOB
from trainmaster_api.reasons import FAILURE_RULES, ConditionType, FailureClass, Reason, Retry
from trainmaster_api.text import duration_text

from .api import Object
from .evidence import from_events, from_pods, stopper
from .jobs import age, attempt_of, condition, holds, parse_time, status_of

_PATIENCE_SECONDS = 15
_FRAME = re.compile(r'File "([^"]+)", line (\d+),? in (\S+)')
_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib/python3|trainmaster_trainer/|^<frozen")
_RANK_ERROR = re.compile(r"rank (\d+): (\w+): (.*?) \((\S+:\d+ in [^)]+)\)(.*)", re.DOTALL)
_OF_THE_USERS_CODE = {
    FailureClass.STALLED, FailureClass.USER_CODE_ERROR, FailureClass.WORKER_LOST, FailureClass.NO_PROGRESS,
}  # fmt: skip
# What Provisioned says of an obstacle is better than anything that can be told from pods alone.
_OBSTACLES = {
    FailureClass.UNSCHEDULABLE, FailureClass.IMAGE_PULL, FailureClass.INVALID_CONFIGURATION, FailureClass.POD_REJECTED,
    Reason.WAITING_FOR_QUOTA, Reason.WAITING_FOR_ADMISSION, Reason.WAITING_FOR_DEPENDENCY, Reason.WAITING_FOR_VOLUMES,
    Reason.NAMESPACE_TERMINATING, Reason.REPLACING_WORKER,
}  # fmt: skip


class Kind(Enum):
    """What an answer is; its value is the exit code of `trainmaster why`."""

    FINE = 0
    """Nothing is wrong, or everything is as a person has asked for."""
    FAILED = 1
    """It won't train without a change."""
    WAITS = 3
    """It doesn't train at the moment; time, or somebody, may heal it."""


@dataclass(frozen=True)
class Answer:
    """Why a job is as it is.

    Attributes:
        kind: Whether something is wrong.
        text: One sentence or two, with what to do.
    """

    kind: Kind
    text: str


def explain(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer:
    """Return why a job is as it is.

    Args:
        job: The TrainingJob as the API serves it.
        pods: Its pods.
        events: Events of the job and its pods, oldest first.
        now: The present time.
    """
    attempt = status_of(job).get("attempt", 0)
    mine = [pod for pod in pods if LABEL_JOB in (pod["metadata"].get("labels") or {})]
    current = [pod for pod in mine if attempt_of(pod) >= attempt]
    for find in _LAYERS:
        found = find(job, current, events, now)
        if found is not None:
            return found
    return _moving(job, now)


# --- the job as a whole --------------------------------------------------------------------------------------------


def _deleted(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    since = job["metadata"].get("deletionTimestamp")
    if not since:
        return None
    left = f"; {len(pods)} pods are still there" if pods else ""
    return Answer(Kind.WAITS, f"It is being deleted since {age(since, now)}{left}.")


def _unseen(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    """Report an operator that hasn't looked at the job: then everything else is old."""
    meta, status = job["metadata"], status_of(job)
    if status.get("conditions"):
        return None
    created = parse_time(meta.get("creationTimestamp"))
    old = (now - created).total_seconds() if created else 0.0
    if old < _PATIENCE_SECONDS:
        return Answer(Kind.FINE, f"Nothing is wrong: it was created {duration_text(old)} ago and is about to start.")
    return Answer(
        Kind.WAITS,
        f"The operator has not looked at it since it was created {duration_text(old)} ago: it isn't running, or it "
        "doesn't watch this namespace; `kubectl get pods -A -l app.kubernetes.io/name=trainmaster` shows it.",
    )


def _rejected(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    accepted = condition(job, ConditionType.ACCEPTED)
    if accepted.get("status") != "False":
        return None
    problems = [line for line in str(accepted.get("message", "")).splitlines() if line.strip()]
    if len(problems) == 1:
        return Answer(Kind.FAILED, f"The spec is invalid: {problems[0]}")
    lines = "".join(f"\n  {line}" for line in problems)
    return Answer(Kind.FAILED, f"The spec is invalid, {len(problems)} problems:{lines}")


def _complete(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    if not holds(job, ConditionType.COMPLETE):
        return None
    done = condition(job, ConditionType.COMPLETE)
    since = age(status_of(job).get("completionTime"), now)
    return Answer(Kind.FINE, f"Nothing is wrong: it completed {since} ago: {_sentence(done.get('message'))}")


def _failed(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    if not holds(job, ConditionType.FAILED):
        return None
    failed = condition(job, ConditionType.FAILED)
    text = str(failed.get("message", ""))
    return Answer(Kind.FAILED, f"It failed ({failed.get('reason')}): {_with_frame(job, failed['reason'], text)}")


def _stopped(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    suspended = condition(job, ConditionType.SUSPENDED)
    is_under_way = suspended.get("reason") == Reason.SUSPENDING
    if suspended.get("status") != "True" and not is_under_way:
        return None
    by = stopper(job)
    name = job["metadata"]["name"]
    if is_under_way:
        return Answer(Kind.FINE, f"It is stopping, as asked{by}: {_sentence(suspended.get('message'))}")
    saved = status_of(job).get("lastCheckpoint")
    where = f"will resume from step {saved['step']}" if saved else "had not saved a checkpoint"
    return Answer(
        Kind.FINE, f"It was suspended{by} {age(suspended['lastTransitionTime'], now)} ago and {where}; "
        f"`trainmaster resume {name}` continues it.",
    )  # fmt: skip


def _conflict(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    degraded = condition(job, ConditionType.DEGRADED)
    if degraded.get("status") != "True" or degraded.get("reason") != Reason.NAME_CONFLICT:
        return None
    return Answer(Kind.WAITS, f"It can't start: {_sentence(degraded.get('message'))}")


# --- the attempt ---------------------------------------------------------------------------------------------------


def _back_off(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    running = condition(job, ConditionType.RUNNING)
    if running.get("reason") != Reason.BACKING_OFF:
        return None
    text = str(running.get("message", ""))
    record = _last_attempt(job)
    until = re.search(r"The next attempt starts at (\S+)\.", text)
    moment = parse_time(until[1]) if until else None
    if record.get("failureClass") and moment is not None:
        failure = record["failureClass"]
        left = (moment - now).total_seconds()
        when = f"in {duration_text(left)} (at {until[1]})" if until and left > 0 else "now"
        cost = _cost(job, failure)
        said = _with_frame(job, failure, record.get("message", ""))
        text = f"Attempt {record['attempt']} failed ({failure}, {cost}): {said} The next attempt starts {when}."
    return Answer(Kind.WAITS, text)


def _cost(job: Object, failure: str) -> str:
    """Return what the next attempt costs: `retry 1 of 3`."""
    if FAILURE_RULES[FailureClass(failure)].retry is not Retry.COUNTED:
        return "not counted"
    used = (status_of(job).get("restarts") or {}).get("counted", 0)
    most = (((job.get("spec") or {}).get("run") or {}).get("retries") or {}).get("max")
    return f"retry {used + 1}" + (f" of {most}" if most is not None else "")


def _obstacle(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    provisioned = condition(job, ConditionType.PROVISIONED)
    if provisioned.get("status") == "True" or provisioned.get("reason") not in _OBSTACLES:
        return None
    since = age(status_of(job).get("waitingSince") or provisioned.get("lastTransitionTime"), now)
    text = _sentence(provisioned.get("message"))
    lower = from_events(events, now) if provisioned["reason"] == Reason.WAITING_FOR_VOLUMES else None
    return Answer(Kind.WAITS, f"It has been waiting for {since}: {f'{lower} ' if lower else ''}{text}")


def _pods(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    """Report what pods and their events say before the operator does, or while it is away."""
    if holds(job, ConditionType.RUNNING) and condition(job, ConditionType.RUNNING)["reason"] == Reason.TRAINING:
        return None
    found = from_pods(pods, now)
    if found is None and not holds(job, ConditionType.PROVISIONED):
        found = from_events(events, now)
    return Answer(Kind.WAITS, found) if found else None


def _no_step(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    running = condition(job, ConditionType.RUNNING)
    if running.get("reason") != Reason.NO_RECENT_STEP:
        return None
    limit = ((job.get("spec") or {}).get("run") or {}).get("stallSeconds")
    after = f" It is given up after {limit} s (run.stallSeconds)." if limit else ""
    return Answer(Kind.WAITS, f"{_sentence(running.get('message'))}{after}")


def _other_waits(job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Answer | None:
    running = condition(job, ConditionType.RUNNING)
    if running.get("reason") not in (Reason.RECOVERING, Reason.WAITING_FOR_OLD_PODS, Reason.STOPPED):
        return None
    return Answer(Kind.WAITS, f"{_sentence(running.get('message'))} (since {age(running['lastTransitionTime'], now)})")


_LAYERS: tuple[Callable[[Object, Sequence[Object], Sequence[Object], datetime], Answer | None], ...] = (
    _deleted,
    _unseen,
    _complete,
    _rejected,
    _failed,
    _stopped,
    _conflict,
    _back_off,
    _obstacle,
    _pods,
    _no_step,
    _other_waits,
)


def _moving(job: Object, now: datetime) -> Answer:
    running, progress = condition(job, ConditionType.RUNNING), status_of(job).get("progress") or {}
    if running.get("status") == "True" and progress.get("totalSteps"):
        eta = f", ETA {progress['eta']}" if progress.get("eta") else ""
        done = f"step {progress.get('step', 0)} of {progress['totalSteps']}{eta}"
        saying = running.get("message", "")
        more = f"; {saying[0].lower()}{saying[1:].rstrip('.')}" if saying and saying != "Training." else ""
        return Answer(Kind.FINE, f"Nothing is wrong: {done}{more}.")
    latest = running if holds(job, ConditionType.PROVISIONED) else condition(job, ConditionType.PROVISIONED)
    text = _sentence((latest or running).get("message") or "the attempt is starting")
    started = _last_attempt(job).get("startTime")
    since = f" (attempt {status_of(job)['attempt']}, {age(started, now)} old)" if started else ""
    return Answer(Kind.FINE, f"Nothing is wrong: it is starting{since}: {text}")


# --- what users did ------------------------------------------------------------------------------------------------


def _with_frame(job: Object, failure: str, text: str) -> str:
    """Return a failure's message with the user's own line of code first, where one is known."""
    found = _RANK_ERROR.match(text)
    if found:
        rank, error, what, place, rest = found.groups()
        return f"{place}: {error}: {what} (rank {rank}){_sentence(rest) if rest.strip() else '.'}"
    frame = _users_frame(_last_attempt(job).get("lastLines") or ())
    if frame and frame not in text and failure in _OF_THE_USERS_CODE:
        rank = _last_attempt(job).get("rank")
        whose = f" (rank {rank})" if rank is not None else ""
        return f"at {frame}{whose}: {_sentence(text)}"
    return _sentence(text)


def _users_frame(lines: Sequence[str]) -> str:
    """Return the first frame that isn't a library's, which is the nearest to what failed: `own.py:12 in forward`."""
    frames = [match.groups() for line in lines if (match := _FRAME.search(line))]
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])]
    if not own:
        return ""
    file, line, function = own[0]
    return f"{file.rpartition('/')[2]}:{line} in {function}"


def _last_attempt(job: Object) -> Object:
    records = status_of(job).get("attempts") or ()
    return records[-1] if records else {}


def _sentence(text: object) -> str:
    found = str(text or "").strip()
    return found if not found or found.endswith((".", "!", "?", ")")) else f"{found}."

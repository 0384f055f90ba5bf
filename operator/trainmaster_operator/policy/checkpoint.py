"""What the trainer reports: steps, checkpoints, and what was lost."""

from __future__ import annotations

from collections.abc import Sequence

from trainmaster_api.layout import run_uri
from trainmaster_api.messages import (
    CheckpointRef,
    ExitMessage,
    Outcome,
    ProgressMessage,
    TrackerRef,
    TrainerState,
    TuningProgress,
)
from trainmaster_api.reasons import ConditionType, Reason
from trainmaster_api.spec.tracking import MAX_TRACKERS
from trainmaster_api.status import (
    AttemptStatus,
    CheckpointStatus,
    Progress,
    Status,
    StorageStatus,
    TrackerStatus,
    TuningStatus,
)

from .context import PlanContext
from .format import eta_text, metric_text, parse_time, percent_text

_RUNNING = {
    TrainerState.TRAINING: (True, Reason.TRAINING, "Training."),
    TrainerState.FINISHING: (True, Reason.TRAINING, "Training has finished; the model is being evaluated and stored."),
    TrainerState.STARTING: (
        False,
        Reason.STARTING,
        "The workers are joining the Ray cluster and loading data and model.",
    ),
    TrainerState.RECOVERING: (
        False,
        Reason.RECOVERING,
        "A worker was lost; training resumes from the newest checkpoint once it has been replaced.",
    ),
    TrainerState.STOPPING: (False, Reason.STOPPED, "Saving a checkpoint before stopping."),
}


def follow(context: PlanContext) -> bool:
    """Take over the trainer's newest message, if it is of the newest attempt."""
    meta = context.job.metadata
    storage = context.job.spec.storage
    context.set(
        run_uri=run_uri(storage.uri or "", meta.namespace, meta.name, meta.uid),
        storage=StorageStatus(
            endpoint=storage.endpoint, region=storage.region, credentials_secret=storage.credentials_secret
        ),
    )
    message = context.snapshot.progress
    record = context.record
    if message is None or message.uid != meta.uid or message.attempt != context.status.attempt or record is None:
        return False
    take_checkpoint(context, message.checkpoint)
    _take_trackers(context, message.trackers)
    _take_fingerprint(context, message.data_fingerprint)
    _take_tuning(context, message.tuning)
    if message.resume is not None:
        context.set(resume=message.resume.value)
    _take_read(context, message)
    _take_attempt(context, message, record)
    if context.live:  # a late message of an attempt that has ended may bring its last checkpoint, and nothing else
        context.set(progress=_not_backwards(context, message, _progress(message)))
        holds, reason, text = _RUNNING[message.state]
        if message.read and not message.began_again and reason is Reason.TRAINING:
            text = f"{text} Resumed: {message.read}."
        context.set_condition(ConditionType.RUNNING, holds, reason, text)
    return False


def take_checkpoint(context: PlanContext, found: CheckpointRef | None) -> None:
    """Record the newest committed checkpoint, by (attempt, step); never an older one."""
    known = context.status.last_checkpoint
    if found is None or (known and (known.attempt, known.step) >= (found.attempt, found.step)):
        return
    context.set(last_checkpoint=CheckpointStatus(**found.model_dump()))
    context.set_condition(
        ConditionType.CHECKPOINTED, True, Reason.CHECKPOINT_COMMITTED, f"Step {found.step} of attempt {found.attempt}."
    )


def take_result(context: PlanContext, said: ExitMessage) -> None:
    """Take over what the launcher's exit message has beyond the last progress message."""
    progress = context.status.progress or Progress()
    step = max(progress.step, said.step or 0)
    update = {"step": step, "percent": percent_text(step, progress.total_steps), "eta_seconds": None, "eta": ""}
    if said.outcome == Outcome.COMPLETE:
        update |= {"percent": "100%", "total_steps": max(progress.total_steps, step)}
        context.set(test_metrics=said.test_metrics, model_uri=said.model_uri)
    context.set(progress=progress.model_copy(update=update))
    _take_trackers(context, said.trackers)
    _take_fingerprint(context, said.data_fingerprint)
    if context.record:
        context.amend(last_step=max(step, context.record.last_step or 0))


def _take_trackers(context: PlanContext, found: Sequence[TrackerRef]) -> None:
    """Record the trackers' runs; one that is unreachable at the moment keeps its URL."""
    known = {tracker.name: tracker for tracker in context.status.trackers}
    known |= {each.name: TrackerStatus(name=each.name, url=each.url) for each in found}
    context.set(trackers=list(known.values())[:MAX_TRACKERS])


def _take_fingerprint(context: PlanContext, found: str) -> None:
    """Record what identifies the run's data; an attempt that doesn't know it yet leaves it as it is."""
    if found:
        context.set(data_fingerprint=found)


def _take_read(context: PlanContext, message: ProgressMessage) -> None:
    """Report a program of the user's own that has read none of its checkpoint files."""
    if message.began_again:
        context.set_condition(ConditionType.DEGRADED, True, Reason.CHECKPOINT_NOT_READ, f"{message.read}.")
    elif context.reason(ConditionType.DEGRADED) == Reason.CHECKPOINT_NOT_READ and message.read:
        context.set_condition(ConditionType.DEGRADED, False, Reason.HEALTHY)


def last_step_before(status: Status, attempt: int) -> int | None:
    """Return the last completed step known of the attempts before."""
    earlier = [record for record in status.attempts if record.attempt < attempt and record.last_step is not None]
    return earlier[-1].last_step if earlier else None


def _take_tuning(context: PlanContext, found: TuningProgress | None) -> None:
    """Record how far the search is; an attempt that hasn't read its journal yet leaves it as it is."""
    if found is not None:
        counters = found.model_dump(include=set(TuningStatus.model_fields), by_alias=False)
        context.set(tuning=TuningStatus(**counters, summary=found.summary))


def _progress(message: ProgressMessage) -> Progress:
    eta = None if message.eta_seconds is None else round(message.eta_seconds)
    search = message.tuning
    if search is not None and not search.is_over:
        return Progress(percent=search.text, metric=search.best_text, step_time=message.step_time, time=message.time)
    return Progress(
        step=message.step,
        total_steps=message.total_steps,
        epoch=message.epoch,
        percent=percent_text(message.step, message.total_steps),
        eta_seconds=eta,
        eta=eta_text(eta),
        metric=metric_text(message.metric, message.metrics),
        metrics=message.metrics,
        step_time=message.step_time,
        time=message.time,
    )


def _not_backwards(context: PlanContext, message: ProgressMessage, new: Progress) -> Progress:
    """Return the progress to show: within an attempt the step decreases only with a recovery that was counted."""
    old, written = context.old.progress, context.written
    if old is None or written is None or written.last_step is None or message.recoveries > written.recoveries:
        return new
    if new.step >= old.step:
        return new
    kept = {"step": old.step, "epoch": old.epoch, "step_time": old.step_time}
    return new.model_copy(update={**kept, "percent": percent_text(old.step, new.total_steps)})


def _take_attempt(context: PlanContext, message: ProgressMessage, record: AttemptStatus) -> None:
    """Record what the attempt resumed from and what was lost, computed from the entries and the message alone."""
    written = context.find(context.old, record.attempt)
    new_recoveries = message.recoveries - (written.recoveries if written else 0)
    if new_recoveries > 0:
        total = context.old.restarts.recoveries + new_recoveries
        context.set(restarts=context.status.restarts.model_copy(update={"recoveries": total}))
    fields: dict[str, object] = {
        "last_step": max(message.step, record.last_step or 0),
        "recoveries": max(message.recoveries, record.recoveries),
    }
    began = message.resumed_from_step
    if record.resumed_from_step is None and began is not None:
        fields["resumed_from_step"] = began
    if began is not None or message.first_step_time:
        start = fields.get("resumed_from_step", record.resumed_from_step) or 0
        done = last_step_before(context.status, record.attempt) or 0
        assert isinstance(start, int)
        fields["lost_steps"] = max(0, done - start) + message.lost_steps
    fields["recovery_seconds"] = record.recovery_seconds or _recovery_seconds(context, message, record)
    context.amend(**fields)


def _recovery_seconds(context: PlanContext, message: ProgressMessage, record: AttemptStatus) -> int | None:
    # not always the number before: attempts that gave back their pods leave no entry
    before = next((item for item in reversed(context.status.attempts) if item.attempt < record.attempt), None)
    first = parse_time(message.first_step_time)
    ended = parse_time(before.end_time) if before and before.result == "Failed" else None
    return max(0, round((first - ended).total_seconds())) if first and ended else None

"""The newest values of a run: fed by rank 0's reports, read by the progress push, the display and the exit message."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from trainmaster_api.messages import (
    WAITING_LIMIT,
    CheckpointRef,
    ExitMessage,
    Outcome,
    ProgressMessage,
    Resume,
    TrackerRef,
    TrainerState,
    TuningProgress,
)
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.text import now_text as now

from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.storage.waiting import waiting
from trainmaster_trainer.tuning.trials import TrialRecord

from .event import EventKind
from .pace import Pace

Event = dict[str, Any]

MOVING = {ReportKind.LOADED, ReportKind.FIRST_STEP, ReportKind.STEP, ReportKind.VALIDATION, ReportKind.DONE}
"""Reports whose step is where the run is. A CHECKPOINT's is where it was when the copy was made: the best so far is
written together with a newer one, so it may be thousands of steps back."""


class RunState:
    """Thread-safe. Listeners are called in the thread that brings the news and must not block."""

    def __init__(self, job: TrainingJob, attempt: int) -> None:
        self._job = job
        self._lock = threading.RLock()
        self._listeners: list[Callable[[Event], None]] = []
        self._attempt = attempt
        self._began = time.monotonic()
        self.state = TrainerState.STARTING
        self.last: Report | None = None
        """Newest report with the position of the run."""
        self._data = ""
        self.waiting = ""
        """What a save waits for, from rank 0; empty: nothing."""
        self.metrics: dict[str, float] = {}
        self.checkpoint: CheckpointRef | None = None
        self.resumed_from_step: int | None = None
        self.data_fingerprint = ""
        """Of the data that the run has accepted."""
        self.resume: Resume | None = None
        self.read = ""
        """What the user's program has read of its checkpoint."""
        self.began_again = False
        self.recoveries = 0
        self.lost_steps = 0
        self.trackers: dict[str, TrackerRef] = {}
        self.tuning: TuningProgress | None = None
        self.ended_trials: dict[int, TrialRecord] = {}
        """The trials of a search that have ended, by number; also those that ended in earlier attempts."""
        self.last_move = time.monotonic()
        """When the run last made progress, for the stall detection."""
        self.pace = Pace()
        self._highest = 0
        """The newest step, less what a recovery has lost."""
        self._furthest = 0
        """The newest step there has been: a step that was lost and is made again is no progress."""
        self._step_time: str | None = None
        self._failures_without_step = 0
        self._times: dict[str, str] = {}

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event from now on."""
        with self._lock:
            self._listeners.append(listener)

    def emit(self, event: str, **fields: Any) -> None:
        """Tell every listener."""
        data = {"event": event, "time": now(), "seconds": round(time.monotonic() - self._began, 3), **fields}
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(data)

    def to(self, state: TrainerState, message: str = "") -> None:
        """Change the phase; the same phase again is reported only with a message."""
        with self._lock:
            if self.state is state and not message:
                return
            self.state = state
            self.last_move = time.monotonic()
        self.emit(EventKind.STATE, state=str(state), message=message)

    def ray_ready(self) -> None:
        """Record that all workers have joined."""
        self._mark("ray_ready")
        self.moved()
        self.emit(EventKind.RAY_READY)

    def committed(self, found: CheckpointRef) -> None:
        """Record a checkpoint that this process has committed, of a program of the user's own."""
        with self._lock:
            self.checkpoint = found
            last = self.last
        report = Report(
            kind=ReportKind.CHECKPOINT,
            step=found.step,
            total_steps=last.total_steps if last else 0,
            epoch=last.epoch if last else 0,
            checkpoint=found,
        )
        self.emit(EventKind.REPORT, **report.model_dump(mode="json", by_alias=False))

    def moved(self) -> None:
        """Record that the run has made progress."""
        with self._lock:
            self.last_move = time.monotonic()

    def trials_ended(self, trials: Iterable[TrialRecord]) -> None:
        """Take note of trials that have ended, or had ended before this attempt."""
        with self._lock:  # replaced and not changed: it is read from other threads
            self.ended_trials = {**self.ended_trials, **{each.number: each for each in trials}}

    def searched(self, found: TuningProgress, message: str = "", **more: Any) -> None:
        """Record how far the search is.

        Args:
            found: Counters and best.
            message: What has happened; empty: a trial that runs had a validation.
            **more: Other fields of the event.
        """
        with self._lock:
            self.tuning = found
        self.trial_moved()
        fields = found.model_dump(by_alias=False, exclude={"running"})
        self.emit(EventKind.TRIALS, message=message, ended=found.ended, **fields, **more)

    def trial_moved(self) -> None:
        """Record that a trial has made progress."""
        self.moved()
        with self._lock:
            self._step_time = now()

    def tracked(self, tracker: TrackerRef) -> None:
        """Take note of where a tracker shows the run."""
        with self._lock:
            self.trackers[tracker.name] = tracker
        self.emit(EventKind.TRACKER, **tracker.model_dump(by_alias=False))

    def recovering(self, message: str) -> int:
        """Record a recovery. Return the number of consecutive recoveries without a new step."""
        with self._lock:
            self.recoveries += 1
            self._failures_without_step += 1
            count = self._failures_without_step
        self.to(TrainerState.RECOVERING, message)
        return count

    def report(self, report: Report) -> None:
        """Record a report of rank 0."""
        if report.kind is ReportKind.DATA:
            if report.message == self._data:  # said already, by the ranks before
                return
            self._data = report.message
        with self._lock:
            self._move(report)
            finite = {key: value for key, value in report.metrics.items() if math.isfinite(value)}
            self.metrics.update(finite)
            if report.checkpoint is not None:
                self.checkpoint = report.checkpoint
            self.data_fingerprint = report.fingerprint or self.data_fingerprint
            self.resume = report.resume or self.resume
            if report.kind is ReportKind.RESUMED:
                self.read, self.began_again = report.reads[:WAITING_LIMIT], report.began_again
            if report.kind is ReportKind.WAITING:
                self.waiting = report.message[:WAITING_LIMIT]
        if report.kind is ReportKind.LOADED:
            self._mark("loaded")
        if report.kind is ReportKind.FIRST_STEP:
            self._mark("first_step")
        self._advance(report)
        self.emit(EventKind.REPORT, **report.model_dump(mode="json", by_alias=False))

    def progress(self) -> ProgressMessage:
        """Return the progress message for the operator."""
        with self._lock:
            last, meta = self.last, self._job.metadata
            eta = last.eta_seconds if last and last.eta_seconds is not None else None
            return ProgressMessage(
                namespace=meta.namespace,
                name=meta.name,
                uid=meta.uid,
                attempt=self._attempt,
                state=self.state,
                step=last.step if last else 0,
                total_steps=last.total_steps if last else 0,
                epoch=last.epoch if last else 0,
                eta_seconds=eta if eta is not None and math.isfinite(eta) and eta >= 0 else None,
                metric=self._job.spec.checkpoint.metric,
                metrics=dict(self.metrics),
                checkpoint=self.checkpoint,
                resumed_from_step=self.resumed_from_step,
                recoveries=self.recoveries,
                lost_steps=self.lost_steps,
                step_time=self._step_time,
                waiting=self.waiting or str(waiting() or ""),  # of a rank, or of this process
                ray_ready_time=self._times.get("ray_ready"),
                loaded_time=self._times.get("loaded"),
                first_step_time=self._times.get("first_step"),
                data_fingerprint=self.data_fingerprint,
                resume=self.resume,
                read=self.read,
                began_again=self.began_again,
                trackers=list(self.trackers.values()),
                tuning=self.tuning,
                time=now(),
            )

    def ended(
        self, outcome: Outcome, message: str = "", failure: FailureClass | None = None, **more: Any
    ) -> ExitMessage:
        """Return the result, with the newest values."""
        with self._lock:
            return ExitMessage(
                outcome=outcome,
                failure_class=failure,
                message=message,
                step=self.last.step if self.last else None,
                checkpoint=self.checkpoint,
                data_fingerprint=self.data_fingerprint,
                trackers=list(self.trackers.values()),
                **more,
            )

    def _move(self, report: Report) -> None:
        """Follow the run: forward by its steps, and back only where a recovery, which is counted, goes back."""
        if report.kind not in (ReportKind.WARNING, ReportKind.WAITING):
            self.last_move = time.monotonic()  # a warning is not progress
        at = self.last.step if self.last else 0
        if report.kind is ReportKind.RESUMED:
            if report.step >= at or self.recoveries:
                self.last = report
            self.pace.restarted()
            self._resumed(report.step)
            self.waiting = ""  # that of the ranks before
        elif report.kind in MOVING and report.step >= at:
            self.last = report
            if report.step > at:
                self._step_time = now()
                self.pace.moved(self.last_move)
            self._highest = max(self._highest, report.step)
            if report.step > self._furthest:
                self._furthest = report.step
                self._failures_without_step = 0

    def _resumed(self, step: int) -> None:
        if self.recoveries and self._highest:
            self.lost_steps += max(0, self._highest - step)
            self._highest = min(self._highest, step)
        if self.resumed_from_step is None and not self.recoveries and step > 0:
            self.resumed_from_step = step

    def _advance(self, report: Report) -> None:
        if self.state is TrainerState.STOPPING:
            return
        if report.kind in (ReportKind.FIRST_STEP, ReportKind.STEP):
            done = report.total_steps and report.step >= report.total_steps
            self.to(TrainerState.FINISHING if done else TrainerState.TRAINING)
        elif report.kind is ReportKind.DONE:
            self.to(TrainerState.FINISHING)

    def _mark(self, what: str) -> None:
        with self._lock:
            self._times.setdefault(what, now())

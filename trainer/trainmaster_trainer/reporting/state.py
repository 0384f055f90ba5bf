"""The newest values of a run: fed by rank 0's reports, read by the progress push, the display and the exit message."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from trainmaster_api.messages import CheckpointRef, ExitMessage, Outcome, ProgressMessage, TrainerState
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.context import Report, ReportKind

Event = dict[str, Any]


def now() -> str:
    """The time, RFC 3339."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Hub:
    """Thread-safe. Listeners are called in the thread that brings the news and must not block."""

    def __init__(self, job: TrainingJob, attempt: int) -> None:
        self._job = job
        self._lock = threading.RLock()
        self._listeners: list[Callable[[Event], None]] = []
        self._attempt = attempt
        self._began = time.monotonic()
        self.state = TrainerState.STARTING
        self.last: Report | None = None
        self.metrics: dict[str, float] = {}
        self.checkpoint: CheckpointRef | None = None
        self.resumed_from_step: int | None = None
        self.recoveries = 0
        self.lost_steps = 0
        self.stacks: dict[int, list[str]] = {}
        self.mlflow_run = ""
        self.last_move = time.monotonic()
        """When the run last got on, for the stall watch."""
        self._highest = 0
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
        """A transition; the same state again is news if there is something to say."""
        with self._lock:
            if self.state is state and not message:
                return
            self.state = state
            self.last_move = time.monotonic()
        self.emit("state", state=str(state), message=message)

    def ray_ready(self) -> None:
        """All workers have joined."""
        self._mark("ray_ready")
        self.moved()
        self.emit("ray_ready")

    def moved(self) -> None:
        """The run got on."""
        with self._lock:
            self.last_move = time.monotonic()

    def recovering(self, message: str) -> int:
        """Workers were lost and are replaced. Returns how often in a row that was without a new step."""
        with self._lock:
            self.recoveries += 1
            self._failures_without_step += 1
            count = self._failures_without_step
        self.to(TrainerState.RECOVERING, message)
        return count

    def report(self, report: Report) -> None:
        """News of rank 0."""
        with self._lock:
            self.last = report
            self.last_move = time.monotonic()
            finite = {key: value for key, value in report.metrics.items() if math.isfinite(value)}
            self.metrics.update(finite)
            if report.checkpoint is not None:
                self.checkpoint = report.checkpoint
            if report.kind is ReportKind.RESUMED:
                self._resumed(report.step)
            if report.kind is not ReportKind.RESUMED and report.step > self._highest:
                self._highest = report.step
                self._failures_without_step = 0
        if report.kind is ReportKind.LOADED:
            self._mark("loaded")
        if report.kind is ReportKind.FIRST_STEP:
            self._mark("first_step")
        self._advance(report)
        self.emit("report", **report.model_dump(mode="json", by_alias=False))

    def progress(self) -> ProgressMessage:
        """What the operator is told."""
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
                ray_ready_time=self._times.get("ray_ready"),
                loaded_time=self._times.get("loaded"),
                first_step_time=self._times.get("first_step"),
                mlflow_run=self.mlflow_run,
                time=now(),
            )

    def ended(
        self, outcome: Outcome, message: str = "", failure: FailureClass | None = None, **more: Any
    ) -> ExitMessage:
        """The result, with the newest values."""
        with self._lock:
            return ExitMessage(
                outcome=outcome,
                failure_class=failure,
                message=message,
                step=self.last.step if self.last else None,
                checkpoint=self.checkpoint,
                mlflow_run=self.mlflow_run,
                **more,
            )

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

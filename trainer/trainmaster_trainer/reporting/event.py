"""What happens in a run, as the sinks see it: one type, and one place that knows the wire names."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from trainmaster_api.messages import TrainerState

from trainmaster_trainer.context import ReportKind


class EventKind(StrEnum):
    """What an event is about; also the first argument of `emit`."""

    STATE = "state"
    REPORT = "report"
    RAY_READY = "ray_ready"
    LEAVING = "leaving"
    WARNING = "warning"
    TRACKER = "tracker"
    RESULT = "result"
    TRIALS = "trials"
    OTHER = "other"


@dataclass(frozen=True)
class RunEvent:
    """An event with the fields that sinks use; which are set depends on `kind`.

    Attributes:
        kind: What it is about.
        seconds: Since the attempt began.
        report: Kind of a report of rank 0; None for other events.
        state: New state of the trainer.
        message: Message of a state, a warning, or a report of kind Warning.
        step: Optimizer step of a report.
        total_steps: Steps of the whole run.
        epoch: Epoch of that step, from 0.
        eta_seconds: Seconds to the end; None while unknown.
        metrics: Metrics of a report.
        pod: Pod that leaves.
        name: Name of a tracker.
        url: Where a tracker shows the run.
        run_id: What the tracker calls the run.
        total: Trials of a search.
        ended: Those that have ended.
        complete: Those of them that had all their validations.
        pruned: Those that were stopped for their results.
        failed: Those that failed.
        best: Value of the best.
        best_trial: Its number.
        best_values: Its parameters; empty: as in the event before.
        metric: What is optimized.
        is_over: Whether the search has ended.
        running: Trials that run: number, time, value, values of the parameters.
        longest: Validations of a whole trial; None: only the data tells.
        validation: Of a trial: number, step, metrics, values of its parameters, when it began; empty: another event.
        reads: What a program of the user's own has read of its checkpoint.
    """

    kind: EventKind
    seconds: float = 0.0
    report: ReportKind | None = None
    state: TrainerState | None = None
    message: str = ""
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    eta_seconds: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    pod: str = ""
    name: str = ""
    url: str = ""
    run_id: str = ""
    reads: str = ""
    total: int = 0
    ended: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    best: float | None = None
    best_trial: int | None = None
    best_values: dict[str, Any] = field(default_factory=dict)
    metric: str = ""
    is_over: bool = False
    running: list[dict[str, Any]] = field(default_factory=list)
    longest: int | None = None
    validation: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, data: dict[str, Any]) -> RunEvent:
        """Return the event behind what `emit` hands to listeners and writes as a JSON line.

        Fields and kinds that this version doesn't know are passed over: a listener must not fail.
        """
        kind = EventKind(data["event"]) if data["event"] in set(EventKind) else EventKind.OTHER
        if kind is EventKind.RESULT:  # its fields are those of the exit message
            return cls(kind, data.get("seconds", 0.0))
        known = {each.name for each in fields(cls)} - {"kind", "report", "state"}
        found = {name: value for name, value in data.items() if name in known}
        is_report = kind is EventKind.REPORT and data["kind"] in set(ReportKind)
        report = ReportKind(data["kind"]) if is_report else None
        state = TrainerState(data["state"]) if kind is EventKind.STATE else None
        return cls(kind, report=report, state=state, **found)


MOVING = frozenset({ReportKind.FIRST_STEP, ReportKind.STEP, ReportKind.VALIDATION})
"""Reports that bring new metrics."""
MILESTONES = frozenset({ReportKind.RESUMED, ReportKind.DATA, ReportKind.LOADED, ReportKind.FIRST_STEP,
                        ReportKind.CHECKPOINT, ReportKind.DONE})  # fmt: skip
"""Reports that the operator hears of at once and that events.jsonl keeps."""

"""One event, however it travelled."""

from __future__ import annotations

import json
from typing import Any

from trainmaster_api.messages import Outcome, TrackerRef, TrainerState
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.reporting.event import EventKind, RunEvent
from trainmaster_trainer.reporting.state import Event, RunState


def test_event_of_the_run_state_is_read_back(job: TrainingJob) -> None:
    run_state, events = RunState(job, 1), list[Event]()
    run_state.listen(events.append)
    run_state.ray_ready()
    run_state.to(TrainerState.TRAINING, "hello")
    run_state.report(
        Report(kind=ReportKind.STEP, step=5, total_steps=10, epoch=1, eta_seconds=7.0, metrics={"train/loss": 0.5})
    )
    run_state.tracked(TrackerRef(name="mine", url="https://x", run_id="7"))
    run_state.emit("leaving", pod="w-1")
    run_state.emit("warning", message="careful")
    run_state.emit("result", **run_state.ended(Outcome.COMPLETE).wire())
    found = [RunEvent.read(json.loads(json.dumps(event))) for event in events]
    kinds = [event.kind for event in found]
    assert kinds == [
        EventKind.RAY_READY, EventKind.STATE, EventKind.REPORT, EventKind.TRACKER, EventKind.LEAVING,
        EventKind.WARNING, EventKind.RESULT,
    ]  # fmt: skip
    assert (found[1].state, found[1].message) == (TrainerState.TRAINING, "hello")
    report = found[2]
    assert (report.report, report.step, report.total_steps, report.epoch) == (ReportKind.STEP, 5, 10, 1)
    assert (report.eta_seconds, report.metrics) == (7.0, {"train/loss": 0.5})
    assert (found[3].name, found[3].url, found[3].run_id) == ("mine", "https://x", "7")
    assert (found[4].pod, found[5].message) == ("w-1", "careful")


def test_event_of_a_newer_version_is_passed_over() -> None:
    data: dict[str, Any] = {"event": "waiting", "seconds": 3.0, "since": 1, "message": "m"}
    assert RunEvent.read(data) == RunEvent(EventKind.OTHER, seconds=3.0, message="m")

"""The newest values of a run, and what the operator is told of them."""

from __future__ import annotations

import itertools
import math

import pytest
from trainmaster_api.messages import CheckpointRef, Outcome, ProgressMessage, TrainerState
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.reporting import state
from trainmaster_trainer.reporting.state import Event, Hub


@pytest.fixture
def hub(job: TrainingJob) -> Hub:
    return Hub(job, attempt=2)


def report(kind: ReportKind, step: int = 0, **more: object) -> Report:
    return Report(kind=kind, step=step, total_steps=100, epoch=0, **more)  # type: ignore[arg-type]


def test_state_follows_the_reports(hub: Hub) -> None:
    events: list[Event] = []
    hub.listen(events.append)
    for one in (
        report(ReportKind.RESUMED),
        report(ReportKind.LOADED),
        report(ReportKind.FIRST_STEP, 1),
        report(ReportKind.STEP, 50),
        report(ReportKind.STEP, 100),
        report(ReportKind.DONE, 100),
    ):
        hub.report(one)
    assert [e["state"] for e in events if e["event"] == "state"] == ["Training", "Finishing"]


def test_progress_holds_the_newest_of_everything(hub: Hub) -> None:
    checkpoint = CheckpointRef(step=40, attempt=2, uri="x", time="2026-01-01T00:00:00Z")
    hub.ray_ready()
    hub.report(report(ReportKind.RESUMED, 20))
    hub.report(report(ReportKind.LOADED, 20))
    hub.report(report(ReportKind.FIRST_STEP, 21))
    hub.report(report(ReportKind.VALIDATION, 40, metrics={"val/loss": 0.5, "val/f1": math.nan}))
    hub.report(report(ReportKind.CHECKPOINT, 40, checkpoint=checkpoint))
    hub.report(report(ReportKind.STEP, 45, eta_seconds=9.5, metrics={"train/loss": 0.7}))
    found = hub.progress()
    assert ProgressMessage.decode(found.model_dump_json(by_alias=True).encode()) == found
    assert (found.attempt, found.step, found.total_steps, found.eta_seconds) == (2, 45, 100, 9.5)
    assert found.metrics == {"val/loss": 0.5, "train/loss": 0.7}
    assert found.checkpoint == checkpoint
    assert found.resumed_from_step == 20
    times = (found.ray_ready_time, found.loaded_time, found.first_step_time)
    assert all(times)
    assert list(times) == sorted(times)  # type: ignore[type-var]


@pytest.mark.parametrize("eta", [math.inf, math.nan, -1.0, None])
def test_progress_leaves_out_an_unknown_eta(hub: Hub, eta: float | None) -> None:
    hub.report(report(ReportKind.STEP, 1, eta_seconds=eta))
    assert hub.progress().eta_seconds is None


def test_lost_steps_are_those_done_twice(hub: Hub) -> None:
    hub.report(report(ReportKind.RESUMED, 0))
    hub.report(report(ReportKind.STEP, 57))
    assert hub.recovering("gone") == 1
    assert hub.state is TrainerState.RECOVERING
    hub.report(report(ReportKind.RESUMED, 40))
    hub.report(report(ReportKind.FIRST_STEP, 41))
    assert (hub.lost_steps, hub.recoveries, hub.state) == (17, 1, TrainerState.TRAINING)
    assert hub.recovering("gone again") == 1, "a new step in between: the count begins anew"
    hub.report(report(ReportKind.RESUMED, 40))
    assert hub.lost_steps == 18
    assert hub.progress().resumed_from_step is None, "the attempt itself began from the start"


def test_failures_in_a_row_without_a_step(hub: Hub) -> None:
    hub.report(report(ReportKind.STEP, 10))
    assert [hub.recovering("x") for _ in range(3)] == [1, 2, 3]


def test_recovering_twice_without_a_step_is_news_twice(hub: Hub) -> None:
    events: list[Event] = []
    hub.listen(events.append)
    hub.recovering("rank 1 is gone")
    before = hub.last_move = 0.0
    hub.recovering("lost while the ranks started")
    hub.to(TrainerState.RECOVERING)
    assert [e["message"] for e in events] == ["rank 1 is gone", "lost while the ranks started"]
    assert hub.last_move > before, "the new group has its own time to start"


def test_stopping_is_not_undone_by_a_late_report(hub: Hub) -> None:
    hub.report(report(ReportKind.STEP, 10))
    hub.to(TrainerState.STOPPING)
    hub.report(report(ReportKind.STEP, 11))
    assert hub.state is TrainerState.STOPPING


def test_the_end_carries_step_and_checkpoint(hub: Hub) -> None:
    checkpoint = CheckpointRef(step=40, attempt=2, uri="x", time="2026-01-01T00:00:00Z")
    hub.report(report(ReportKind.CHECKPOINT, 40, checkpoint=checkpoint))
    hub.report(report(ReportKind.STEP, 44))
    found = hub.ended(Outcome.FAILED, "why", FailureClass.DATA_ERROR, rank=1)
    assert (found.step, found.checkpoint, found.rank) == (44, checkpoint, 1)


def checkpoint_of(step: int) -> CheckpointRef:
    return CheckpointRef(step=step, attempt=2, uri=f"at {step}", time="2026-01-01T00:00:00Z")


@pytest.mark.parametrize("kind", [ReportKind.CHECKPOINT, ReportKind.WARNING, ReportKind.WAITING])
def test_progress_ignores_the_step_of_an_older_save(hub: Hub, kind: ReportKind) -> None:
    """The best so far is written together with a newer checkpoint, and first."""
    hub.report(report(ReportKind.STEP, 5000, eta_seconds=7.0))
    hub.report(report(kind, 1000, eta_seconds=900.0, checkpoint=checkpoint_of(1000)))
    assert (hub.progress().step, hub.progress().eta_seconds) == (5000, 7.0)
    assert hub.progress().checkpoint == checkpoint_of(1000)
    assert hub.ended(Outcome.FAILED, "why", FailureClass.DATA_ERROR).step == 5000
    assert hub.last is not None
    assert hub.last.step == 5000, "the stall watch names it"


@pytest.mark.parametrize("kind", [ReportKind.STEP, ReportKind.VALIDATION, ReportKind.LOADED, ReportKind.RESUMED])
def test_progress_goes_back_by_a_counted_recovery_only(hub: Hub, kind: ReportKind) -> None:
    hub.report(report(ReportKind.STEP, 50))
    hub.report(report(kind, 40))
    assert hub.progress().step == 50
    hub.recovering("rank 1 is gone")
    hub.report(report(ReportKind.RESUMED, 40))
    assert (hub.progress().step, hub.progress().recoveries, hub.progress().lost_steps) == (40, 1, 10)
    hub.report(report(ReportKind.STEP, 41))
    assert hub.progress().step == 41


def test_step_time_moves_with_steps_only(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(f"2026-01-01T00:00:{second:02}Z" for second in range(60))
    monkeypatch.setattr(state, "now", lambda: next(times))
    assert hub.progress().step_time is None
    hub.report(report(ReportKind.RESUMED, 40))
    hub.report(report(ReportKind.LOADED, 40))
    assert hub.progress().step_time is None, "that it resumed there is no step"
    seen = []
    for kind, step in ((ReportKind.FIRST_STEP, 41), (ReportKind.STEP, 45), (ReportKind.CHECKPOINT, 45),
                       (ReportKind.WARNING, 45), (ReportKind.STEP, 45), (ReportKind.VALIDATION, 46)):  # fmt: skip
        hub.report(report(kind, step))
        seen.append(hub.progress().step_time)
    assert None not in seen
    assert [a != b for a, b in itertools.pairwise(seen)] == [True, False, False, False, True]


def test_progress_names_what_a_save_waits_for(hub: Hub) -> None:
    hub.last_move = 0.0
    hub.report(report(ReportKind.WAITING, 10, message="storage doesn't answer"))
    assert hub.progress().waiting == "storage doesn't answer"
    assert hub.last_move == 0.0, "no sign that the run gets on"
    hub.report(report(ReportKind.STEP, 11))
    assert hub.progress().waiting == "storage doesn't answer"
    hub.report(report(ReportKind.WAITING, 12))
    assert hub.progress().waiting == ""
    hub.report(report(ReportKind.WAITING, 13, message="storage doesn't answer"))
    hub.recovering("rank 0 is gone")
    hub.report(report(ReportKind.RESUMED, 10))
    assert hub.progress().waiting == "", "those ranks wait for nothing any more"

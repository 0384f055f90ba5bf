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
from trainmaster_trainer.reporting.state import Event, RunState
from trainmaster_trainer.storage import waiting


@pytest.fixture
def run_state(job: TrainingJob) -> RunState:
    return RunState(job, attempt=2)


def report(kind: ReportKind, step: int = 0, **more: object) -> Report:
    return Report(kind=kind, step=step, total_steps=100, epoch=0, **more)  # type: ignore[arg-type]


def test_state_follows_the_reports(run_state: RunState) -> None:
    events: list[Event] = []
    run_state.listen(events.append)
    for one in (
        report(ReportKind.RESUMED),
        report(ReportKind.LOADED),
        report(ReportKind.FIRST_STEP, 1),
        report(ReportKind.STEP, 50),
        report(ReportKind.STEP, 100),
        report(ReportKind.DONE, 100),
    ):
        run_state.report(one)
    assert [e["state"] for e in events if e["event"] == "state"] == ["Training", "Finishing"]


def test_progress_holds_the_newest_of_everything(run_state: RunState) -> None:
    checkpoint = CheckpointRef(step=40, attempt=2, uri="x", time="2026-01-01T00:00:00Z")
    run_state.ray_ready()
    run_state.report(report(ReportKind.RESUMED, 20, fingerprint="0123456789ab"))
    run_state.report(report(ReportKind.LOADED, 20))
    run_state.report(report(ReportKind.FIRST_STEP, 21))
    run_state.report(report(ReportKind.VALIDATION, 40, metrics={"val/loss": 0.5, "val/f1": math.nan}))
    run_state.report(report(ReportKind.CHECKPOINT, 40, checkpoint=checkpoint))
    run_state.report(report(ReportKind.STEP, 45, eta_seconds=9.5, metrics={"train/loss": 0.7}))
    found = run_state.progress()
    assert ProgressMessage.decode(found.model_dump_json(by_alias=True).encode()) == found
    assert (found.attempt, found.step, found.total_steps, found.eta_seconds) == (2, 45, 100, 9.5)
    assert found.metrics == {"val/loss": 0.5, "train/loss": 0.7}
    assert found.checkpoint == checkpoint
    assert found.resumed_from_step == 20
    assert found.data_fingerprint == "0123456789ab"
    assert run_state.ended(Outcome.COMPLETE).data_fingerprint == "0123456789ab"
    times = (found.ray_ready_time, found.loaded_time, found.first_step_time)
    assert all(times)
    assert list(times) == sorted(times)  # type: ignore[type-var]


@pytest.mark.parametrize("eta", [math.inf, math.nan, -1.0, None])
def test_progress_leaves_out_an_unknown_eta(run_state: RunState, eta: float | None) -> None:
    run_state.report(report(ReportKind.STEP, 1, eta_seconds=eta))
    assert run_state.progress().eta_seconds is None


def test_lost_steps_are_those_done_twice(run_state: RunState) -> None:
    run_state.report(report(ReportKind.RESUMED, 0))
    run_state.report(report(ReportKind.STEP, 57))
    assert run_state.recovering("gone") == 1
    assert run_state.state is TrainerState.RECOVERING
    run_state.report(report(ReportKind.RESUMED, 40))
    run_state.report(report(ReportKind.FIRST_STEP, 41))
    assert (run_state.lost_steps, run_state.recoveries, run_state.state) == (17, 1, TrainerState.TRAINING)
    assert run_state.recovering("gone again") == 2, "a step that is made again is no new one"
    run_state.report(report(ReportKind.RESUMED, 40))
    assert run_state.lost_steps == 18
    assert run_state.progress().resumed_from_step is None, "the attempt itself began from the start"


def test_failures_in_a_row_without_a_step(run_state: RunState) -> None:
    run_state.report(report(ReportKind.STEP, 10))
    assert [run_state.recovering("x") for _ in range(3)] == [1, 2, 3]


def test_recovering_twice_without_a_step_is_news_twice(run_state: RunState) -> None:
    events: list[Event] = []
    run_state.listen(events.append)
    run_state.recovering("rank 1 is gone")
    before = run_state.last_move = 0.0
    run_state.recovering("lost while the ranks started")
    run_state.to(TrainerState.RECOVERING)
    assert [e["message"] for e in events] == ["rank 1 is gone", "lost while the ranks started"]
    assert run_state.last_move > before, "the new group has its own time to start"


def test_stopping_is_not_undone_by_a_late_report(run_state: RunState) -> None:
    run_state.report(report(ReportKind.STEP, 10))
    run_state.to(TrainerState.STOPPING)
    run_state.report(report(ReportKind.STEP, 11))
    assert run_state.state is TrainerState.STOPPING


def test_the_end_carries_step_and_checkpoint(run_state: RunState) -> None:
    checkpoint = CheckpointRef(step=40, attempt=2, uri="x", time="2026-01-01T00:00:00Z")
    run_state.report(report(ReportKind.CHECKPOINT, 40, checkpoint=checkpoint))
    run_state.report(report(ReportKind.STEP, 44))
    found = run_state.ended(Outcome.FAILED, "why", FailureClass.DATA_ERROR, rank=1)
    assert (found.step, found.checkpoint, found.rank) == (44, checkpoint, 1)


def checkpoint_of(step: int) -> CheckpointRef:
    return CheckpointRef(step=step, attempt=2, uri=f"at {step}", time="2026-01-01T00:00:00Z")


@pytest.mark.parametrize("kind", [ReportKind.CHECKPOINT, ReportKind.WARNING, ReportKind.WAITING])
def test_progress_ignores_the_step_of_an_older_save(run_state: RunState, kind: ReportKind) -> None:
    """The best so far is written together with a newer checkpoint, and first."""
    run_state.report(report(ReportKind.STEP, 5000, eta_seconds=7.0))
    run_state.report(report(kind, 1000, eta_seconds=900.0, checkpoint=checkpoint_of(1000)))
    assert (run_state.progress().step, run_state.progress().eta_seconds) == (5000, 7.0)
    assert run_state.progress().checkpoint == checkpoint_of(1000)
    assert run_state.ended(Outcome.FAILED, "why", FailureClass.DATA_ERROR).step == 5000
    assert run_state.last is not None
    assert run_state.last.step == 5000, "the stall watch names it"


@pytest.mark.parametrize("kind", [ReportKind.STEP, ReportKind.VALIDATION, ReportKind.LOADED, ReportKind.RESUMED])
def test_progress_goes_back_by_a_counted_recovery_only(run_state: RunState, kind: ReportKind) -> None:
    run_state.report(report(ReportKind.STEP, 50))
    run_state.report(report(kind, 40))
    assert run_state.progress().step == 50
    run_state.recovering("rank 1 is gone")
    run_state.report(report(ReportKind.RESUMED, 40))
    assert (run_state.progress().step, run_state.progress().recoveries, run_state.progress().lost_steps) == (40, 1, 10)
    run_state.report(report(ReportKind.STEP, 41))
    assert run_state.progress().step == 41


def test_step_time_moves_with_steps_only(run_state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(f"2026-01-01T00:00:{second:02}Z" for second in range(60))
    monkeypatch.setattr(state, "now", lambda: next(times))
    assert run_state.progress().step_time is None
    run_state.report(report(ReportKind.RESUMED, 40))
    run_state.report(report(ReportKind.LOADED, 40))
    assert run_state.progress().step_time is None, "that it resumed there is no step"
    seen = []
    for kind, step in ((ReportKind.FIRST_STEP, 41), (ReportKind.STEP, 45), (ReportKind.CHECKPOINT, 45),
                       (ReportKind.WARNING, 45), (ReportKind.STEP, 45), (ReportKind.VALIDATION, 46)):  # fmt: skip
        run_state.report(report(kind, step))
        seen.append(run_state.progress().step_time)
    assert None not in seen
    assert [a != b for a, b in itertools.pairwise(seen)] == [True, False, False, False, True]


def test_progress_names_what_a_save_waits_for(run_state: RunState) -> None:
    run_state.last_move = 0.0
    run_state.report(report(ReportKind.WAITING, 10, message="storage doesn't answer"))
    assert run_state.progress().waiting == "storage doesn't answer"
    assert run_state.last_move == 0.0, "no sign that the run gets on"
    run_state.report(report(ReportKind.STEP, 11))
    assert run_state.progress().waiting == "storage doesn't answer"
    run_state.report(report(ReportKind.WAITING, 12))
    assert run_state.progress().waiting == ""
    run_state.report(report(ReportKind.WAITING, 13, message="storage doesn't answer"))
    run_state.recovering("rank 0 is gone")
    run_state.report(report(ReportKind.RESUMED, 10))
    assert run_state.progress().waiting == "", "those ranks wait for nothing any more"


def test_notes_on_the_data_are_news_once(run_state: RunState) -> None:
    """Every group of ranks reads the data again."""
    events: list[Event] = []
    run_state.listen(events.append)
    for message in ("2 hidden files", "2 hidden files", "3 hidden files"):
        run_state.report(report(ReportKind.DATA, message=message))
    assert [event["message"] for event in events] == ["2 hidden files", "3 hidden files"]


def test_progress_names_what_this_process_waits_for(run_state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver reads and writes storage too; what a save waits for comes first."""
    monkeypatch.setattr(waiting.waiting, "__defaults__", (-1.0,))
    with waiting.calling("s3://bucket", "writing events.jsonl"):
        assert "storage s3://bucket has not responded since" in run_state.progress().waiting
        run_state.report(report(ReportKind.WAITING, 10, message="a save waits"))
        assert run_state.progress().waiting == "a save waits"
        run_state.report(report(ReportKind.WAITING, 11))
    assert run_state.progress().waiting == ""


@pytest.mark.parametrize(
    ("began_again", "steps", "in_a_row"),
    [(True, [1, 1, 1], 3), (False, [30, 30, 30], 3), (False, [40, 40, 40], 3), (False, [41, 42, 43], 1)],
)
def test_state_a_program_that_begins_again_makes_no_progress(
    run_state: RunState, began_again: bool, steps: list[int], in_a_row: int
) -> None:
    """Nor does one that resumes, and crashes each time before a step that there hasn't been."""
    run_state.report(report(ReportKind.STEP, 40))
    for step in steps:
        count = run_state.recovering("killed")
        run_state.report(report(ReportKind.RESUMED, 0 if began_again else 20, began_again=began_again))
        run_state.report(report(ReportKind.STEP, step))
    assert count == in_a_row


def test_state_follows_the_pace_of_one_process(run_state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=2)
    monkeypatch.setattr(state.time, "monotonic", lambda: float(next(clock)))
    for step in range(1, 10):
        run_state.report(report(ReportKind.STEP, step))
    usual = run_state.pace.longest
    assert usual > 0
    for _ in range(50):
        next(clock)
    run_state.report(report(ReportKind.RESUMED, 9))
    run_state.report(report(ReportKind.STEP, 10))
    assert run_state.pace.longest == usual

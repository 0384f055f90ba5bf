"""Progress, checkpoints, what was lost, and where the time went."""

from __future__ import annotations

import pytest
from trainmaster_api.messages import Outcome, Resume, TrackerRef, TrainerState, TuningProgress
from trainmaster_api.reasons import FailureClass

from .wrappers import Bench, checkpoint, clock, created, ended, pending, pods, progress, said, swap

LOST = ended(1, said(Outcome.FAILED, FailureClass.HEAD_LOST, step=180))


def second_attempt(bench: Bench | None = None) -> Bench:
    """Attempt 1 got to step 180 with a checkpoint at 100, and failed at second 100; attempt 2 has its pods."""
    bench = bench or Bench().running(step=170, checkpoint=checkpoint(100))
    bench.plan(100, swap(pods(), 0, exit=LOST))
    bench.plan(110)
    assert bench.status["attempt"] == 2
    return bench


def test_progress_is_taken_over() -> None:
    bench = Bench().started()
    metrics = {"val/loss": 0.1234567, "val/accuracy": 0.9814}
    message = progress(
        step=420,
        total_steps=1000,
        epoch=3,
        eta_seconds=200.4,
        metric="val/accuracy",
        metrics=metrics,
        trackers=[TrackerRef(name="mlflow", url="http://mlflow/r1", run_id="r1")],
    )
    bench.plan(10, pods(), progress=message)
    found = bench.status["progress"]
    assert (found["step"], found["totalSteps"], found["epoch"]) == (420, 1000, 3)
    assert (found["percent"], found["eta"], found["etaSeconds"]) == ("42%", "3m20s", 200)
    assert found["metric"] == "val/accuracy=0.9814"
    assert found["metrics"] == metrics
    assert bench.status["trackers"] == [{"name": "mlflow", "url": "http://mlflow/r1"}]
    assert bench.status["runUri"] == "s3://runs/all/team/digits/uid-1"
    assert bench.status["storage"] == {"region": "us-east-1", "credentialsSecret": "minio"}
    assert (bench.status["phase"], bench.status["reason"]) == ("Running", "Training")


def test_progress_without_a_total_is_a_step() -> None:
    bench = Bench().started()
    bench.plan(10, pods(), progress=progress(step=420))
    assert bench.status["progress"]["percent"] == "step 420"


def test_search_says_what_it_has_cost() -> None:
    bench = Bench().started()
    search = TuningProgress(total=16, running=2, complete=3, pruned=9, best=0.981, best_trial=4, metric="val/accuracy",
                            gpu_hours=3.25, gpu_hours_saved=7.125)  # fmt: skip
    bench.plan(10, pods(), progress=progress(tuning=search))
    found = bench.status["tuning"]
    assert (found["gpuHours"], found["gpuHoursSaved"]) == (3.25, 7.125)
    said = "12/16 trials, best val/accuracy=0.981"
    assert found["summary"] == f"{said}, 3.25 GPU-hours, 7.12 saved by pruning"
    without = search.model_copy(update={"gpu_hours": None, "gpu_hours_saved": None})
    bench.plan(20, pods(), progress=progress(tuning=without))
    assert bench.status["tuning"]["summary"] == said
    assert "gpuHours" not in bench.status["tuning"]
    longest = search.model_copy(update={"total": 10_000, "complete": 9_990, "metric": "m" * 64, "gpu_hours": 1e300})
    bench.plan(30, pods(), progress=progress(tuning=longest))
    assert len(bench.status["tuning"]["summary"]) <= 192


def test_resume_says_how_exactly() -> None:
    bench = Bench().started()
    bench.plan(10, pods(), progress=progress(step=1, resume=Resume.SCRIPT))
    assert bench.status["resume"] == "AsTheScript"
    bench.plan(20, pods(), progress=progress(step=2))
    assert bench.status["resume"] == "AsTheScript", "a message that doesn't know it leaves it"


def test_checkpoint_not_read_is_degraded_until_one_is() -> None:
    bench = Bench().started()
    words = "there are checkpoint files (a.pt) and the program read none of them"
    bench.plan(10, pods(), progress=progress(step=1, read=words, began_again=True))
    assert bench.is_true("Degraded")
    assert bench.reason("Degraded") == "CheckpointNotRead"
    assert bench.condition("Degraded")["message"] == f"{words}."
    bench.plan(20, pods(), progress=progress(step=2))
    assert bench.is_true("Degraded"), "a message before the first step says nothing"
    bench.plan(30, pods(), progress=progress(step=20, read="the program read a.pt"))
    assert not bench.is_true("Degraded")
    assert "Resumed: the program read a.pt." in bench.condition("Running")["message"]


def test_tracker_unreached_keeps_its_address() -> None:
    bench = Bench().started()
    first = [TrackerRef(name="mlflow", url="http://mlflow/r1"), TrackerRef(name="Csv", url="file:///x")]
    bench.plan(10, pods(), progress=progress(step=1, trackers=first))
    bench.plan(20, pods(), progress=progress(step=2, trackers=[TrackerRef(name="Csv", url="file:///y")]))
    assert bench.status["trackers"] == [
        {"name": "mlflow", "url": "http://mlflow/r1"},
        {"name": "Csv", "url": "file:///y"},
    ]


def test_data_fingerprint_stays_once_known() -> None:
    bench = Bench().started()
    bench.plan(10, pods(), progress=progress(state=TrainerState.STARTING))
    assert bench.status["dataFingerprint"] == ""
    bench.plan(20, pods(), progress=progress(step=1, data_fingerprint="0123456789ab"))
    assert bench.status["dataFingerprint"] == "0123456789ab"
    second_attempt(bench)  # whose first message knows nothing of the data
    bench.plan(130, pods(2, 110), progress=progress(2, TrainerState.STARTING))
    assert bench.status["dataFingerprint"] == "0123456789ab"


def test_data_fingerprint_of_the_exit_message() -> None:
    """A run may be over before its first progress message."""
    bench = Bench().started()
    result = said(Outcome.COMPLETE, step=10, data_fingerprint="0123456789ab")
    bench.plan(20, swap(pods(), 0, exit=ended(0, result)))
    assert bench.status["dataFingerprint"] == "0123456789ab"


@pytest.mark.parametrize(
    ("state", "running", "phase", "reason"),
    [
        (TrainerState.STARTING, False, "Starting", "Starting"),
        (TrainerState.TRAINING, True, "Running", "Training"),
        (TrainerState.FINISHING, True, "Running", "Training"),
        (TrainerState.RECOVERING, False, "Restarting", "Recovering"),
        (TrainerState.STOPPING, False, "Starting", "Stopped"),
    ],
)
def test_progress_states(state: TrainerState, running: bool, phase: str, reason: str) -> None:
    bench = Bench().started()
    bench.plan(10, pods(), progress=progress(state=state))
    assert bench.is_true("Running") is running
    assert (bench.status["phase"], bench.status["reason"]) == (phase, reason)


@pytest.mark.parametrize("message", [progress(attempt=2, step=7), progress(step=7).model_copy(update={"uid": "other"})])
def test_messages_of_others_are_not_taken(message: object) -> None:
    bench = Bench().started()
    bench.plan(10, pods(), progress=message)
    assert "progress" not in bench.status
    assert not bench.is_true("Running")


def test_restarted_operator_keeps_what_is_written() -> None:
    """The messages were in its memory; the next one comes within seconds."""
    bench = Bench().running(checkpoint=checkpoint(100))
    before = bench.status
    plan = bench.plan(60, pods(), progress=None)
    assert plan.status == before


def test_checkpoint_becomes_a_condition() -> None:
    bench = Bench().started()
    assert bench.reason("Checkpointed") == "NoCheckpoint"
    bench.plan(10, pods(), progress=progress(step=100, checkpoint=checkpoint(100)))
    assert bench.is_true("Checkpointed")
    assert bench.status["lastCheckpoint"] == {
        "step": 100, "attempt": 1, "uri": "s3://runs/a1-step-0000100", "time": clock(100),
    }  # fmt: skip


def test_checkpoint_never_goes_back() -> None:
    bench = Bench().running(checkpoint=checkpoint(100))
    bench.plan(20, pods(), progress=progress(step=120, checkpoint=checkpoint(50)))
    assert bench.status["lastCheckpoint"]["step"] == 100
    second_attempt(bench)
    bench.plan(130, pods(2, 110), progress=progress(2, step=101, checkpoint=checkpoint(90, attempt=2)))
    assert (bench.status["lastCheckpoint"]["attempt"], bench.status["lastCheckpoint"]["step"]) == (2, 90)


# --- lost steps ----------------------------------------------------------------------------------------------------


def test_lost_steps_and_recovery_seconds() -> None:
    bench = second_attempt()
    assert "lostSteps" not in bench.record(2)
    bench.plan(120, pods(2, 110), progress=progress(2, TrainerState.STARTING))
    assert "lostSteps" not in bench.record(2)
    message = progress(2, step=101, resumed_from_step=100, first_step_time=clock(131))
    bench.plan(132, pods(2, 110), progress=message)
    assert bench.record(2)["resumedFromStep"] == 100
    assert bench.record(2)["lostSteps"] == 80, "the failed attempt's last word was step 180"
    assert bench.record(2)["recoverySeconds"] == 31
    bench.plan(500, pods(2, 110), progress=message.model_copy(update={"step": 400}))
    assert bench.record(2)["lostSteps"] == 80
    assert bench.record(2)["recoverySeconds"] == 31
    assert bench.record(2)["lastStep"] == 400


def test_nothing_saved_means_everything_lost() -> None:
    bench = Bench().running(step=170)
    second_attempt(bench)
    bench.plan(132, pods(2, 110), progress=progress(2, step=1, first_step_time=clock(131)))
    assert bench.record(2)["lostSteps"] == 180
    assert "resumedFromStep" not in bench.record(2)


def test_lost_steps_of_an_attempt_that_never_trained() -> None:
    bench = second_attempt()
    bench.plan(200, swap(pods(2, 110), 0, exit=ended(1, said(Outcome.FAILED, FailureClass.HEAD_LOST))))
    bench.plan(230)
    bench.plan(260, pods(3, 230), progress=progress(3, step=101, resumed_from_step=100, first_step_time=clock(255)))
    assert bench.record(3)["lostSteps"] == 80
    assert "lostSteps" not in bench.record(2)


def test_recoveries_within_an_attempt() -> None:
    bench = Bench().running(resumed_from_step=0)
    bench.plan(20, pods(), progress=progress(step=150, recoveries=1, lost_steps=30, first_step_time=clock(5)))
    bench.plan(30, pods(), progress=progress(step=160, recoveries=2, lost_steps=50, first_step_time=clock(5)))
    assert bench.status["restarts"] == {"total": 0, "counted": 0, "recoveries": 2}
    assert bench.record()["lostSteps"] == 50
    # a restarted operator hears the same message again
    bench.plan(90, pods(), progress=progress(step=160, recoveries=2, lost_steps=50, first_step_time=clock(5)))
    assert bench.status["restarts"]["recoveries"] == 2


def test_recoveries_add_up_over_attempts() -> None:
    bench = Bench().running(recoveries=2)
    second_attempt(bench)
    bench.plan(130, pods(2, 110), progress=progress(2, step=101, recoveries=1))
    assert bench.status["restarts"] == {"total": 1, "counted": 1, "recoveries": 3}


# --- startup timings ------------------------------------------------------------------------------------------------


def test_startup_timings_of_an_attempt() -> None:
    bench = Bench().started()
    bench.plan(1, pending())
    assert "startupTimings" not in bench.status
    late = swap(pods(), 2, scheduled_at=clock(4), started_at="", ready=False)
    bench.plan(5, late)
    assert bench.status["startupTimings"] == {"scheduledSeconds": 4.0}
    message = progress(ray_ready_time=clock(9), loaded_time=clock(14), first_step_time=clock(15))
    bench.plan(20, swap(late, 2, started_at=clock(6)), progress=message)
    assert bench.status["startupTimings"] == {
        "scheduledSeconds": 4.0,
        "startedSeconds": 6.0,
        "rayReadySeconds": 9.0,
        "loadedSeconds": 14.0,
        "firstStepSeconds": 15.0,
    }
    replaced = swap(pods(), 1, scheduled_at=clock(300), started_at=clock(302))
    bench.plan(310, replaced, progress=message)
    assert bench.status["startupTimings"]["startedSeconds"] == 6.0


def test_startup_timings_is_in_order_whatever_the_clocks_say() -> None:
    bench = Bench().started()
    message = progress(ray_ready_time=clock(1), loaded_time=clock(0), first_step_time=clock(9))
    bench.plan(20, pods(), progress=message)
    stages = list(bench.status["startupTimings"].values())
    assert stages == sorted(stages) == [1.0, 2.0, 2.0, 2.0, 9.0]


def test_startup_timings_is_of_the_newest_attempt() -> None:
    bench = second_attempt()
    assert "startupTimings" not in bench.status
    bench.plan(120, pods(2, 110))
    assert bench.status["startupTimings"]["scheduledSeconds"] == 1.0
    assert created(bench.plan(121, pods(2, 110))) == []

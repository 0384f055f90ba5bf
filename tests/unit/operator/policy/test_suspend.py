"""run.suspend: save, stop, delete; and back."""

from __future__ import annotations

from typing import Any

from trainmaster_api.messages import ExitCode, Outcome, TrainerState
from trainmaster_api.reasons import FailureClass
from trainmaster_operator.policy.plan import DeletePod

from .wrappers import Bench, checkpoint, clock, created, deleted, ended, pending, pods, progress, said, swap


def suspending(**run: Any) -> Bench:
    bench = Bench(**run).running()
    bench.suspend(True)
    return bench


def stopped(step: int = 140) -> Any:
    return ended(ExitCode.STOPPED, said(Outcome.STOPPED, step=step, checkpoint=checkpoint(step)))


def test_created_suspended_makes_nothing() -> None:
    bench = Bench(suspend=True)
    plan = bench.plan(0)
    assert plan.actions == ()
    assert bench.is_true("Suspended")
    assert bench.status["phase"] == "Suspended"
    assert bench.status["attempt"] == 0
    assert "startTime" not in bench.status
    assert bench.plan(100).requeue_after is None


def test_head_first_with_its_grace_then_the_workers() -> None:
    bench = suspending(stopGraceSeconds=120)
    plan = bench.plan(20, pods(), progress=progress(step=120))
    assert plan.actions == (DeletePod("digits-1-head", "digits-1-head-uid", 135),)
    assert bench.status["phase"] == "Suspending"
    assert not bench.is_true("Suspended")
    going = swap(pods(), 0, deleting=clock(155))
    assert bench.plan(25, going, progress=progress(step=120)).actions == ()
    ended_head = swap(going, 0, exit=stopped())
    assert bench.plan(30, ended_head).actions == ()
    assert bench.record()["result"] == "Suspended"
    assert bench.status["lastCheckpoint"]["step"] == 140
    assert sorted(deleted(bench.plan(31, ended_head))) == ["digits-1-w-0", "digits-1-w-1"]
    assert not bench.is_true("Suspended")
    plan = bench.plan(40)
    assert bench.is_true("Suspended")
    assert "step 140" in bench.message("Suspended")
    assert bench.status["phase"] == "Suspended"
    assert "startTime" not in bench.status
    assert bench.status["dashboard"] == ""
    assert [event.reason for event in plan.events] == ["Suspended"]
    assert bench.plan(999).actions == ()


def test_head_that_vanished_unseen_still_was_our_doing() -> None:
    bench = suspending()
    bench.plan(20, pods(), progress=progress(step=120))
    bench.plan(30, pods()[1:], progress=progress(state=TrainerState.STOPPING, step=140, checkpoint=checkpoint(140)))
    assert bench.record()["result"] == "Suspended"
    assert bench.status["lastCheckpoint"]["step"] == 140
    bench.settle(40)
    assert bench.is_true("Suspended")


def test_resume_goes_on_with_a_new_attempt_and_a_new_clock() -> None:
    bench = suspending()
    bench.plan(20, pods(), progress=progress(step=120))
    bench.plan(30, swap(pods(), 0, exit=stopped()))
    bench.settle(40)
    bench.suspend(False)
    plan = bench.plan(500)
    assert created(plan) == ["digits-2-head", "digits-2-w-0", "digits-2-w-1"], "and no back-off"
    assert bench.status["startTime"] == clock(500)
    assert bench.reason("Suspended") == "Resumed"
    assert bench.status["restarts"] == {"total": 1, "counted": 0, "recoveries": 0}
    assert [event.reason for event in plan.events] == ["Resumed"]
    bench.plan(520, pods(2, 500), progress=progress(2, step=150, resumed_from_step=140, first_step_time=clock(519)))
    assert bench.record(2)["resumedFromStep"] == 140
    assert bench.record(2)["lostSteps"] == 0
    assert "recoverySeconds" not in bench.record(2)


def test_what_has_begun_to_stop_stops() -> None:
    """Unsuspended while the head saves: the job resumes with a new attempt, and nothing is lost."""
    bench = suspending()
    bench.plan(20, pods(), progress=progress(step=120))
    bench.suspend(False)
    going = swap(pods(), 0, deleting=clock(95))
    assert bench.plan(22, going, progress=progress(step=120)).actions == ()
    assert bench.status["phase"] == "Suspending"
    bench.plan(30, swap(going, 0, exit=stopped()))
    assert bench.record()["result"] == "Suspended"
    plan = bench.plan(31, swap(going, 0, exit=stopped()))
    assert sorted(deleted(plan)) == ["digits-1-w-0", "digits-1-w-1"]
    assert created(bench.plan(40)) == ["digits-2-head", "digits-2-w-0", "digits-2-w-1"]
    assert bench.status["restarts"]["counted"] == 0


def test_suspend_while_pending_deletes_the_pods() -> None:
    bench = Bench().started()
    bench.suspend(True)
    assert deleted(bench.plan(5, pending())) == ["digits-1-head"]
    bench.plan(6, pending()[1:])
    assert sorted(deleted(bench.plan(6, pending()[1:]))) == ["digits-1-w-0", "digits-1-w-1"]
    bench.settle(7)
    assert bench.is_true("Suspended")
    assert "not started yet" in bench.message("Suspended")


def test_complete_while_stopping_is_complete() -> None:
    bench = suspending()
    bench.plan(20, pods(), progress=progress(step=120))
    bench.plan(30, swap(pods(), 0, exit=ended(0, said(Outcome.COMPLETE)), deleting=clock(95)))
    assert bench.is_true("Complete")
    bench.settle(40, (swap(pods(), 0, exit=ended(0, said(Outcome.COMPLETE)))[0],))
    assert not bench.is_true("Suspended")
    assert bench.status["phase"] == "Complete"


def test_failure_while_stopping_is_a_failure() -> None:
    bench = suspending()
    bench.plan(20, pods(), progress=progress(step=120))
    broken = ended(1, said(Outcome.FAILED, FailureClass.DATA_ERROR, message="bad row"))
    bench.plan(30, swap(pods(), 0, exit=broken, deleting=clock(95)))
    assert bench.reason("Failed") == "DataError"


def test_suspend_failure_while_stopping() -> None:
    bench = suspending()
    bench.plan(20, pods(), progress=progress(step=120))
    broken = ended(1, said(Outcome.FAILED, FailureClass.STORAGE_UNAVAILABLE, message="no answer"))
    bench.plan(30, swap(pods(), 0, exit=broken, deleting=clock(95)))
    bench.settle(40)
    assert bench.is_true("Suspended")
    bench.suspend(False)
    bench.plan(400)
    assert bench.status["restarts"]["counted"] == 1


def test_lost_workers_are_not_replaced_while_stopping() -> None:
    bench = suspending()
    bench.plan(20, pods(), progress=progress(step=120))
    plan = bench.plan(25, swap(pods(), 0, deleting=clock(95))[:2], progress=progress(step=120))
    assert plan.actions == ()


def test_head_on_a_dead_node_does_not_hold_the_suspension() -> None:
    bench = suspending()
    stuck = swap(pods(), 0, deleting=clock(95))
    bench.plan(20, pods(), progress=progress(step=120))
    plan = bench.plan(100, stuck)
    assert plan.requeue_after == 25
    bench.settle(125, stuck)
    bench.settle(126, stuck[:1])
    assert bench.is_true("Suspended")


def test_suspend_during_back_off() -> None:
    bench = Bench().running()
    lost = swap(pods(), 0, exit=ended(1, said(Outcome.FAILED, FailureClass.HEAD_LOST)))
    bench.plan(100, lost)
    bench.suspend(True)
    bench.settle(105)
    assert bench.is_true("Suspended")
    bench.suspend(False)
    assert created(bench.plan(107)) == [], "the back-off still counts"
    assert len(created(bench.plan(110))) == 3


def test_a_finished_job_can_not_be_suspended() -> None:
    bench = Bench().running()
    done = swap(pods(), 0, exit=ended(0, said(Outcome.COMPLETE)))
    bench.plan(100, done)
    bench.suspend(True)
    bench.settle(101, done[:1])
    assert bench.status["phase"] == "Complete"
    assert not bench.is_true("Suspended")

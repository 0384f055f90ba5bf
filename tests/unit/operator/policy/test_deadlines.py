"""Deadlines and time to live, with the meaning that they have in batch/v1."""

from __future__ import annotations

from trainmaster_api.messages import ExitCode, Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_operator.policy.plan import DeleteJob, DeletePod

from .wrappers import Bench, at, checkpoint, clock, created, deleted, ended, pending, pods, progress, said, swap

MESSAGE = progress(step=100, total_steps=1000)


def test_active_deadline_counts_from_the_start() -> None:
    bench = Bench(activeDeadlineSeconds=600).running()
    plan = bench.plan(500, pods(), progress=MESSAGE, progress_received=at(0))
    assert plan.requeue_after == 100
    bench.plan(600, pods(), progress=MESSAGE)
    assert bench.reason("Failed") == "DeadlineExceeded"
    assert "run.activeDeadlineSeconds = 600" in bench.message("Failed")
    assert bench.record()["failureClass"] == "DeadlineExceeded"


def test_head_saves_with_its_workers_before_they_go() -> None:
    bench = Bench(activeDeadlineSeconds=600).running()
    bench.plan(600, pods(), progress=MESSAGE)
    plan = bench.plan(601, pods(), progress=MESSAGE)
    assert plan.actions == (DeletePod("digits-1-head", "digits-1-head-uid", None),)
    going = swap(pods(), 0, deleting=clock(676))
    assert bench.plan(610, going, progress=progress(step=150, checkpoint=checkpoint(150))).actions == ()
    assert bench.status["lastCheckpoint"]["step"] == 150
    ended_head = swap(going, 0, exit=ended(ExitCode.STOPPED, said(Outcome.STOPPED)))
    assert sorted(deleted(bench.plan(611, ended_head))) == ["digits-1-w-0", "digits-1-w-1"]
    assert bench.reason("Failed") == "DeadlineExceeded"


def test_active_deadline_spans_attempts_and_back_offs() -> None:
    bench = Bench(activeDeadlineSeconds=105).running()
    bench.plan(100, swap(pods(), 0, exit=ended(1, said(Outcome.FAILED, FailureClass.HEAD_LOST))))
    assert bench.plan(102).requeue_after == 3
    bench.plan(105)
    assert bench.reason("Failed") == "DeadlineExceeded"
    assert bench.record()["failureClass"] == "HeadLost"
    assert created(bench.settle(200)) == []


def test_resume_restarts_the_clock() -> None:
    bench = Bench(activeDeadlineSeconds=600).running()
    bench.suspend(True)
    bench.plan(500, pods(), progress=MESSAGE)
    bench.settle(1000, ())
    assert bench.is_true("Suspended")
    assert bench.plan(5000).requeue_after is None
    bench.suspend(False)
    plan = bench.plan(6000)
    assert len(created(plan)) == 3
    assert plan.requeue_after == 600


def test_deadline_does_not_interrupt_a_stop() -> None:
    bench = Bench(activeDeadlineSeconds=600).running()
    bench.suspend(True)
    bench.plan(590, pods(), progress=MESSAGE)
    bench.plan(610, swap(pods(), 0, deleting=clock(665)), progress=MESSAGE)
    assert not bench.is_true("Failed")


def test_pending_deadline_names_what_it_waited_for() -> None:
    bench = Bench(pendingDeadlineSeconds=60).started()
    no_room = pending(unschedulable="0/2 nodes are available: 2 Insufficient cpu.")
    assert bench.plan(10, no_room).requeue_after == 50
    bench.plan(60, no_room)
    assert bench.reason("Failed") == "DeadlineExceeded"
    assert "run.pendingDeadlineSeconds = 60" in bench.message("Failed")
    assert "Insufficient cpu" in bench.message("Failed")
    assert deleted(bench.plan(61, no_room)) == ["digits-1-head"]
    assert deleted(bench.plan(62, no_room[1:])) == ["digits-1-w-0", "digits-1-w-1"]


def test_pending_deadline_ends_with_all_pods() -> None:
    bench = Bench(pendingDeadlineSeconds=60).running()
    assert bench.plan(500, pods(), progress=MESSAGE, progress_received=at(0)).requeue_after is None
    assert not bench.is_true("Failed")


def test_pending_deadline_counts_from_the_loss_of_a_worker() -> None:
    bench = Bench(pendingDeadlineSeconds=60).running()
    assert bench.plan(500, pods()[:2], progress=MESSAGE).requeue_after is not None
    bench.plan(559, pods()[:2], progress=MESSAGE)
    assert not bench.is_true("Failed")
    bench.plan(560, pods()[:2], progress=MESSAGE)
    assert bench.reason("Failed") == "DeadlineExceeded"


def test_pending_deadline_given_later() -> None:
    bench = Bench().started()
    bench.plan(100, pending())
    bench.raw["spec"]["run"]["pendingDeadlineSeconds"] = 1
    bench.plan(101, pending())
    assert bench.reason("Failed") == "DeadlineExceeded"


# --- time to live --------------------------------------------------------------------------------------------------


def finished(ttl: int) -> Bench:
    bench = Bench(ttlSecondsAfterFinished=ttl).running()
    bench.plan(100, HEAD_DONE)
    return bench


HEAD_DONE = swap(pods(), 0, exit=ended(0, said(Outcome.COMPLETE)))[:1]


def test_ttl_counts_from_the_completion() -> None:
    bench = finished(60)
    plan = bench.plan(110, HEAD_DONE)
    assert (plan.actions, plan.requeue_after) == ((), 50)
    assert bench.plan(160, HEAD_DONE).actions == (DeleteJob("uid-1"),)


def test_ttl_zero_waits_for_the_end_to_be_written() -> None:
    bench = finished(0)
    assert bench.last is not None
    assert bench.last.actions == ()
    assert bench.plan(100, HEAD_DONE).actions == (DeleteJob("uid-1"),)


def test_no_ttl_keeps_the_job() -> None:
    bench = Bench().running()
    bench.plan(100, HEAD_DONE)
    assert bench.settle(10**8, HEAD_DONE).requeue_after in (None, 0)
    assert bench.plan(10**8, HEAD_DONE).actions == ()


def test_a_running_job_never_expires() -> None:
    bench = Bench(ttlSecondsAfterFinished=1).running()
    assert bench.plan(10**6, pods(), progress=MESSAGE).actions == ()

"""From an accepted job to an attempt whose pods are all there."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_operator.policy.plan import CreatePod, EnsureSecret, EnsureService
from trainmaster_operator.policy.snapshot import Conflict

from .wrappers import Bench, clock, created, deleted, ended, pending, pod, pods, progress, raw_job, swap

ALL = ["digits-1-head", "digits-1-w-0", "digits-1-w-1"]


def test_everything_in_one_plan_and_in_order() -> None:
    bench = Bench()
    plan = bench.plan(0)
    assert plan.actions == (
        EnsureSecret("digits-run"),
        EnsureService("trainmaster-heads"),
        CreatePod("digits-1-head", "head", 1),
        CreatePod("digits-1-w-0", "worker", 1, 0),
        CreatePod("digits-1-w-1", "worker", 1, 1),
    )
    assert bench.status["attempt"] == 1
    assert bench.status["startTime"] == clock(0)
    assert bench.record() == {"attempt": 1, "startTime": clock(0), "result": "", "message": "", "node": "",
                              "lastLines": [], "recoveries": 0, "duration": "10ep"}  # fmt: skip
    assert bench.status["phase"] == "Starting"
    assert bench.is_true("Accepted")
    assert plan.events == ()


def test_until_provisioned_there_are_two_writes() -> None:
    """Pods that appear one by one change figures, not conditions."""
    bench = Bench().started()
    first = bench.status
    bench.plan(1, pending())
    assert bench.status == first
    bench.plan(4, swap(pending(), 1, ready=True, phase="Running", node="n"))
    assert bench.status["workersReady"] == "1/2"
    assert {k: v for k, v in bench.status.items() if k not in ("workers", "workersReady", "startupTimings")} == {
        k: v for k, v in first.items() if k not in ("workers", "workersReady", "startupTimings")
    }
    plan = bench.plan(5, pods())
    assert bench.is_true("Provisioned")
    assert bench.status["workersReady"] == "2/2"
    assert plan.events == ()
    assert "port-forward pod/digits-1-head 8265" in bench.status["dashboard"]


def test_converged_means_nothing_to_do() -> None:
    bench = Bench().running()
    before = bench.status
    plan = bench.plan(500, pods(), progress=progress(step=100, total_steps=1000))
    # the one reason to come back is that the next message may stay away
    assert (plan.actions, plan.status, plan.requeue_after) == ((), before, 15)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_crash_while_creating_pods(count: int) -> None:
    """The status knows nothing yet; what was created is taken over and the rest is created."""
    bench = Bench()
    bench.service = True
    there = pending()[:count]
    plan = bench.plan(9, there)
    assert created(plan) == ALL[count:]
    assert bench.status["attempt"] == 1
    assert bench.record()["startTime"] == clock(0 if count else 9)
    assert bench.status["restarts"] == {"total": 0, "counted": 0, "recoveries": 0}


def test_crash_between_workers_and_head() -> None:
    plan = Bench().plan(3, pending()[1:])
    assert created(plan) == ["digits-1-head"]


def test_crash_before_the_status_was_written() -> None:
    bench = Bench()
    bench.service = True
    plan = bench.plan(60, pods())
    assert created(plan) == []
    assert bench.record()["startTime"] == clock(0)
    assert bench.is_true("Provisioned")


def test_invalid_spec_makes_nothing_and_says_everything() -> None:
    raw = raw_job()
    raw["spec"]["training"]["model"]["args"] = {"hiden": [1]}
    raw["spec"]["training"]["loop"] = {"duration": "twenty"}
    bench = Bench(raw)
    plan = bench.plan(0)
    assert plan.actions == ()
    assert bench.status["phase"] == "Pending"
    assert bench.status["reason"] == "InvalidSpec"
    assert bench.status["attempt"] == 0
    assert "hidden" in bench.message("Accepted")
    assert "spec.training.loop.duration" in bench.message("Accepted")
    assert [event.reason for event in plan.events] == ["InvalidSpec"]
    assert bench.plan(1).events == ()


def test_invalid_spec_is_corrected() -> None:
    raw = raw_job()
    raw["spec"]["training"]["loop"] = {"duration": "twenty"}
    bench = Bench(raw)
    bench.plan(0)
    raw["spec"]["training"]["loop"] = {"duration": "20ep"}
    assert created(bench.plan(1)) == ALL
    assert bench.is_true("Accepted")


# --- names of others -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"pods": (pod("worker", 1, 1, owner_uid="other"),)}, "Pod digits-1-w-1"),
        ({"pods": (pod("head", 1, owner_uid=""),)}, "Pod digits-1-head"),
        ({"pods": (pod("worker", 7, 0, owner_uid="job-before"),)}, "Pod digits-7-w-0"),
        ({"conflicts": (Conflict("Pod", "digits-1-head"),)}, "Pod digits-1-head"),
        ({"conflicts": (Conflict("Service", "trainmaster-heads"),)}, "Service trainmaster-heads"),
    ],
)
def test_objects_of_others_are_left_alone(fields: dict[str, Any], name: str) -> None:
    bench = Bench()
    plan = bench.plan(0, **fields)
    assert plan.actions == ()
    assert bench.reason("Degraded") == "NameConflict"
    assert bench.is_true("Degraded")
    assert name in bench.message("Degraded")
    assert (bench.status["phase"], bench.status["reason"]) == ("Pending", "NameConflict")
    assert bench.status["attempt"] == 0
    assert plan.requeue_after == 30
    assert [event.reason for event in plan.events] == ["NameConflict"]


def test_conflict_goes_away() -> None:
    bench = Bench()
    bench.plan(0, (pod("head", 1, owner_uid="other"),))
    assert created(bench.plan(30)) == ALL
    assert not bench.is_true("Degraded")


def test_conflict_found_half_way_is_no_lost_head() -> None:
    """The workers were created, the head's name is taken: the attempt isn't written down before it has a head."""
    bench = Bench()
    bench.plan(0, pending()[1:], conflicts=(Conflict("Pod", "digits-1-head"),))
    assert bench.status["attempt"] == 0
    assert created(bench.plan(30, pending()[1:])) == ["digits-1-head"]
    assert bench.status["attempt"] == 1


def test_foreign_pod_with_our_labels_is_ignored_while_running() -> None:
    bench = Bench().running()
    stranger = pod("worker", 9, 9, owner_uid="other")
    plan = bench.plan(20, (*pods(), stranger), progress=progress(step=100, total_steps=1000))
    assert plan.actions == ()
    assert bench.status["phase"] == "Running"


def test_secret_of_a_deleted_job_of_that_name() -> None:
    """It is about to be collected: wait, then take it for our own of before a crash."""
    bench = Bench()
    first = bench.plan(1, secret_existed=True)
    assert first.actions == ()
    assert first.requeue_after == 4
    assert bench.status["attempt"] == 0
    assert created(bench.plan(5, secret_existed=True)) == ALL


# --- workers -------------------------------------------------------------------------------------------------------


def test_lost_worker_is_replaced_in_the_same_attempt() -> None:
    bench = Bench().running()
    message = progress(step=100, total_steps=1000)
    going = swap(pods(), 1, deleting=clock(80))
    assert created(bench.plan(20, going, progress=message)) == []
    assert bench.reason("Provisioned") == "ReplacingWorker"
    plan = bench.plan(30, (going[0], going[2]), progress=message)
    assert created(plan) == ["digits-1-w-0"]
    assert "digits-1-w-0" in bench.message("Provisioned")
    bench.plan(40, pods(), progress=message)
    assert bench.is_true("Provisioned")
    assert bench.status["attempt"] == 1
    assert bench.status["restarts"]["counted"] == 0


def test_evicted_worker_is_deleted_to_make_room() -> None:
    bench = Bench().running()
    evicted = swap(pods(), 2, exit=ended(137), reason="Evicted", message="The node was low on resource: memory.")
    plan = bench.plan(20, evicted, progress=progress(step=100))
    assert deleted(plan) == ["digits-1-w-1"]
    assert bench.record().get("endTime") is None


def test_worker_that_dies_at_birth_is_not_replaced_in_a_loop() -> None:
    bench = Bench().running()
    born = swap(pods(second=100), 1, phase="Failed", reason="OutOfcpu", created=clock(100), exit=None, ready=False)
    plan = bench.plan(101, born, progress=progress(step=100))
    assert deleted(plan) == []
    assert plan.requeue_after == 9
    assert deleted(bench.plan(110, born, progress=progress(step=100))) == ["digits-1-w-0"]


def test_a_ready_that_flickers_changes_no_condition() -> None:
    bench = Bench().running()
    bench.plan(20, swap(pods(), 1, ready=False), progress=progress(step=100, total_steps=1000))
    assert bench.is_true("Provisioned")
    assert bench.status["workersReady"] == "1/2"


def test_deleted_service_is_made_again() -> None:
    bench = Bench().running()
    plan = bench.plan(20, pods(), heads_service=False, progress=progress(step=100, total_steps=1000))
    assert plan.actions == (EnsureService("trainmaster-heads"),)

"""Refused pods: what is waited for, what is given back, and what fails."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_api.messages import TrainerState
from trainmaster_operator.policy.plan import DeletePod, write_delay
from trainmaster_operator.policy.snapshot import Rejection

from .wrappers import Bench, at, clock, created, deleted, pending, pods, progress, raw_job

ALL = ["digits-1-head", "digits-1-w-0", "digits-1-w-1"]
FULL = 'pods "{}" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4'
NO_ACCOUNT = 'pods "{}" is forbidden: error looking up service account team/trainer: serviceaccount "trainer" not found'


def refused(text: str = FULL, name: str = "digits-1-w-1", code: int = 403) -> dict[str, Any]:
    return {"rejections": (Rejection(name, code, text.format(name)),)}


def test_refused_pods_are_tried_again_soon_at_first() -> None:
    bench = Bench()
    plan = bench.plan(0, pending()[:2], **refused())
    assert plan.actions == ()
    assert bench.reason("Provisioned") == "WaitingForQuota"
    assert "exceeded quota: small" in bench.message("Provisioned")
    assert (bench.status["phase"], bench.status["reason"]) == ("Pending", "WaitingForQuota")
    assert bench.is_true("Accepted")
    assert bench.status["waitingSince"] == clock(0)
    assert [event.reason for event in plan.events] == ["WaitingForQuota"]
    assert plan.requeue_after is not None
    assert 0 < plan.requeue_after <= 2
    assert created(bench.plan(2, pending()[:2])) == ["digits-1-w-1"]


def test_attempt_is_in_the_status_when_it_has_all_its_pods() -> None:
    bench = Bench()
    bench.service = True
    bench.plan(0, pending()[:2], **refused())
    assert bench.status["attempt"] == 0
    assert "attempts" not in bench.status or bench.status["attempts"] == []
    bench.plan(2, pending()[:2])
    assert bench.status["attempt"] == 1
    assert "waitingSince" not in bench.status
    assert bench.status["restarts"] == {"total": 0, "counted": 0, "recoveries": 0}


def test_pauses_grow_with_the_wait_and_differ_between_jobs() -> None:
    bench, pauses = Bench(), []
    for second in (0, 10, 100, 1000, 10000):
        plan = bench.plan(second, **refused(NO_ACCOUNT))
        assert plan.requeue_after is not None
        pauses.append(plan.requeue_after)
    assert all(low * 0.5 <= pause <= low * 1.5 for low, pause in zip((1, 5, 50, 60, 60), pauses, strict=True))
    raw = raw_job()
    raw["metadata"]["uid"] = "uid-2"
    other = Bench(raw)
    assert other.plan(0, **refused(NO_ACCOUNT)).requeue_after != pauses[0]


def test_waiting_does_and_writes_nothing() -> None:
    bench = Bench()
    before = bench.plan(0, **refused(NO_ACCOUNT)).status
    assert bench.plan(0.1).status == before
    plan = bench.plan(100, **refused(NO_ACCOUNT))
    assert plan.status == before
    plan = bench.plan(110)
    assert plan.actions == ()
    assert write_delay(before, plan.status, at(0), at(110)) is None


def test_while_pods_are_held_the_status_stays() -> None:
    bench = Bench()
    bench.plan(0, pending()[:2], **refused())
    first = bench.plan(3, pending()[:2], **refused())
    plan = bench.plan(3.5, pending()[:2])
    assert plan.actions == ()
    assert plan.status == first.status
    assert bench.reason("Provisioned") == "WaitingForQuota"


def test_pending_deadline_names_what_held_pods_waited_for() -> None:
    bench = Bench(pendingDeadlineSeconds=5)
    bench.plan(0, pending()[:2], **refused(NO_ACCOUNT))
    bench.plan(5, pending()[:2])
    assert bench.reason("Failed") == "DeadlineExceeded"
    assert "ServiceAccount trainer" in bench.message("Failed")


def test_a_restarted_operator_tries_at_once() -> None:
    bench = Bench()
    bench.plan(0, **refused(NO_ACCOUNT))
    bench.plan(500, **refused(NO_ACCOUNT))
    bench.refused_at = None
    assert created(bench.plan(501)) == ALL


def test_room_that_appears_is_used_at_once() -> None:
    bench = Bench()
    bench.plan(0, **refused())
    bench.plan(5000, **refused())
    assert created(bench.plan(5001)) == []
    assert created(bench.plan(5002, room_at=at(5002))) == ALL


# --- giving back ---------------------------------------------------------------------------------------------------


def released(bench: Bench, second: float = 16) -> Bench:
    """Two of three pods for 16 s, then none."""
    bench.plan(0, pending()[:2], **refused())
    bench.plan(second, pending()[:2], **refused())
    return bench


def test_half_an_attempt_gives_its_pods_back() -> None:
    bench = Bench()
    bench.plan(0, pending()[:2], **refused())
    plan = bench.plan(14, pending()[:2], **refused())
    assert deleted(plan) == []
    plan = bench.plan(16, pending()[:2], **refused())
    assert deleted(plan) == [], "first the status is written"
    assert plan.requeue_after == 0
    assert bench.status["attempt"] == 1
    assert bench.status.get("attempts", []) == []
    plan = bench.plan(16, pending()[:2])
    assert deleted(plan) == ["digits-1-head", "digits-1-w-0"]
    assert bench.reason("Provisioned") == "WaitingForQuota"
    assert bench.status["phase"] == "Pending"


def test_giving_back_costs_no_retry_and_is_no_restart() -> None:
    bench = released(Bench(retries={"max": 0}))
    plan = bench.plan(60)
    assert created(plan) == ["digits-2-head", "digits-2-w-0", "digits-2-w-1"]
    assert bench.status["restarts"] == {"total": 0, "counted": 0, "recoveries": 0}
    assert [record["attempt"] for record in bench.status["attempts"]] == [2]
    assert not bench.is_true("Failed")


def test_the_next_try_waits_until_the_old_pods_are_gone() -> None:
    bench = released(Bench())
    going = pending(deleting=clock(26))[:2]
    assert created(bench.plan(24, going)) == []
    assert len(created(bench.plan(56, going))) == 3, "a dead node is not waited for"


def test_give_back_of_two_jobs_ends_at_different_times() -> None:
    raw = raw_job()
    raw["metadata"]["uid"] = "uid-2"
    one, other = released(Bench()), Bench(raw)
    other.plan(0, **refused())
    other.plan(16, **refused())
    first, second = one.plan(16).requeue_after, other.plan(16).requeue_after
    assert first is not None
    assert second is not None
    assert abs(first - second) > 1


def test_give_back_at_once_of_what_can_never_fit() -> None:
    bench = Bench()
    text = FULL.replace("used: pods=4, limited: pods=4", "used: pods=2, limited: pods=2")
    bench.plan(0, pending()[:2], **refused(text))
    assert "the attempt needs pods=3 of 2 in all" in bench.message("Provisioned")
    assert deleted(bench.plan(1, pending()[:2])) == ["digits-1-head", "digits-1-w-0"]
    assert not bench.is_true("Failed")


def test_history_and_earlier_attempts_survive_giving_back() -> None:
    bench = Bench().running(step=170)
    bench.plan(100, pods()[1:])
    bench.plan(115)
    assert bench.status["restarts"]["total"] == 1
    second = pending(2, 115)[:2]
    bench.raw["status"]["attempts"] = bench.status["attempts"][:1]
    bench.raw["status"]["attempt"] = 1
    bench.raw["status"]["restarts"] = {"total": 0, "counted": 0, "recoveries": 0}
    bench.plan(116, second, **refused(name="digits-2-w-1"))
    bench.plan(140, second, **refused(name="digits-2-w-1"))
    assert bench.status["attempt"] == 2
    assert [record["attempt"] for record in bench.status["attempts"]] == [1]
    bench.plan(300)
    assert [record["attempt"] for record in bench.status["attempts"]] == [1, 3]
    assert bench.status["restarts"] == {"total": 1, "counted": 1, "recoveries": 0}


def test_nodes_without_room_for_all_are_given_back_too() -> None:
    """The same two jobs, with nodes in place of a quota."""
    bench = Bench().started()
    text = "0/2 nodes are available: 2 Insufficient cpu."
    half = (*pods()[:2], pending(unschedulable=text)[2])
    bench.plan(299, half)
    assert bench.reason("Provisioned") == "Unschedulable"
    bench.plan(300, half)
    assert bench.status.get("attempts", []) == []
    assert sorted(deleted(bench.plan(300, half))) == ALL
    assert bench.status["restarts"]["total"] == 0


def test_give_back_leaves_pods_that_hold_nothing() -> None:
    bench = Bench().started()
    bench.plan(4000, pending(unschedulable="0/2 nodes are available: 2 Insufficient cpu."))
    assert bench.status["attempts"][0]["attempt"] == 1
    assert bench.reason("Provisioned") == "Unschedulable"


# --- an attempt that has trained -----------------------------------------------------------------------------------


def lost_worker(bench: Bench, second: float, **fields: Any) -> Any:
    message = progress(state=TrainerState.RECOVERING, step=100, total_steps=1000)
    return bench.plan(second, pods()[:2], progress=message, **fields)


def test_running_attempt_with_an_unfitting_worker() -> None:
    bench = Bench().running()
    lost_worker(bench, 20, **refused())
    assert bench.reason("Provisioned") == "WaitingForQuota"
    assert bench.record().get("endTime") is None
    plan = lost_worker(bench, 200, **refused())
    assert deleted(plan) == []
    assert bench.record().get("endTime") is None
    assert created(lost_worker(bench, 290)) == ["digits-1-w-1"]


def test_idle_ranks_are_not_kept_for_ever() -> None:
    bench = Bench(retries={"max": 0}).running()
    lost_worker(bench, 20, **refused())
    lost_worker(bench, 320, **refused())
    assert bench.record()["failureClass"] == "Preempted"
    assert "could not be replaced" in bench.record()["message"]
    assert not bench.is_true("Failed")
    assert created(bench.plan(340)) == ["digits-2-head", "digits-2-w-0", "digits-2-w-1"]
    assert bench.status["restarts"] == {"total": 1, "counted": 0, "recoveries": 0}


# --- deadlines and wishes ------------------------------------------------------------------------------------------


def test_the_pending_deadline_bounds_the_wait() -> None:
    bench = released(Bench(pendingDeadlineSeconds=60))
    bench.plan(59, **refused(name="digits-2-head"))
    assert not bench.is_true("Failed")
    bench.plan(60)
    assert bench.reason("Failed") == "DeadlineExceeded"
    assert "exceeded quota" in bench.message("Failed")


def test_a_deadline_wakes_a_job_that_waits() -> None:
    bench = Bench(pendingDeadlineSeconds=61)
    bench.plan(0, **refused(NO_ACCOUNT))
    plan = bench.plan(60, **refused(NO_ACCOUNT))
    assert plan.requeue_after == 1


def test_a_job_that_waits_can_be_suspended() -> None:
    bench = Bench()
    bench.plan(0, pending()[:2], **refused())
    bench.suspend(True)
    bench.settle(1, pending()[:2])
    assert not created(bench.plan(2, ()))
    assert bench.is_true("Suspended")
    assert "waitingSince" not in bench.status


def test_final_refusal_fails_the_job_beside_one_that_heals() -> None:
    bench = Bench()
    bad = Rejection("digits-1-w-0", 422, 'Pod "digits-1-w-0" is invalid: spec.containers[0].image: Invalid value: " x"')
    bench.plan(0, rejections=(Rejection("digits-1-head", 403, FULL.format("digits-1-head")), bad))
    assert bench.reason("Failed") == "PodRejected"
    assert "Invalid value" in bench.message("Failed")
    assert bench.record()["failureClass"] == "PodRejected"
    assert bench.status["attempt"] == 1
    plan = bench.plan(1, pending()[:1])
    assert plan.actions == (DeletePod("digits-1-head", "digits-1-head-uid", 10),)


@pytest.mark.parametrize("kind", ["Secret", "Service"])
def test_a_quota_on_other_objects_is_waited_for(kind: str) -> None:
    bench = Bench()
    text = "exceeded quota: objects, requested: count/x=1, used: count/x=1, limited: count/x=1"
    plan = bench.plan(0, rejections=(Rejection("digits-run", 403, text, kind),))
    assert plan.actions == ()
    assert bench.reason("Provisioned") == "WaitingForQuota"
    assert kind in bench.message("Provisioned")
    assert created(bench.plan(2)) == ALL

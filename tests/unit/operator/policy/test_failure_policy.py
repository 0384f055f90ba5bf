"""What ended an attempt, what it costs, and when the next one starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from trainmaster_api.messages import ExitCode, Outcome, TrainerState
from trainmaster_api.reasons import FAILURE_RULES, FailureClass, Retry
from trainmaster_operator.policy.plan import EnsureSecret
from trainmaster_operator.policy.snapshot import PodView

from .wrappers import Bench, at, checkpoint, clock, created, deleted, ended, pending, pods, progress, said, swap

NEW = ["digits-2-head", "digits-2-w-0", "digits-2-w-1"]


def failed(failure: FailureClass, **fields: Any) -> Any:
    return ended(ExitCode.FAILED, said(Outcome.FAILED, failure, message=f"It was {failure.value}.", **fields))


def head_failed(failure: FailureClass, **fields: Any) -> tuple[PodView, ...]:
    return swap(pods(), 0, exit=failed(failure, **fields))


# --- what the classes cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", list(FailureClass))
def test_every_class_does_what_its_rule_says(failure: FailureClass) -> None:
    bench = Bench().running()
    found = head_failed(failure)
    plan = bench.plan(100, found)
    assert deleted(plan) == [], "the proof is deleted only once the result is written"
    assert bench.record()["failureClass"] == failure.value
    assert bench.record()["endTime"] == clock(100)
    plan = bench.plan(101, found)
    retry = FAILURE_RULES[failure].retry
    if retry is Retry.NEVER:
        assert bench.reason("Failed") == failure.value
        assert bench.status["completionTime"] == clock(100)
        assert created(bench.settle(4000, found[:1])) == []
        return
    assert not bench.is_true("Failed")
    assert bench.status["phase"] == "Restarting"
    assert bench.reason("Running") == "BackingOff"
    assert sorted(deleted(plan)) == ["digits-1-head", "digits-1-w-0", "digits-1-w-1"]
    assert created(bench.plan(109)) == []
    plan = bench.plan(110)
    assert created(plan) == NEW
    assert plan.actions[0] == EnsureSecret("digits-run")
    counted = 1 if retry is Retry.COUNTED else 0
    assert bench.status["restarts"] == {"total": 1, "counted": counted, "recoveries": 0}
    assert bench.status["startTime"] == clock(0), "a retry doesn't restart the clock"


def test_failure_tells_all_that_is_known() -> None:
    bench = Bench().running()
    lines = ["ValueError: bad row", "  row 17"]
    bench.plan(100, head_failed(FailureClass.DATA_ERROR, rank=1, pod="digits-1-w-1", step=120, last_lines=lines))
    record = bench.record()
    assert record["rank"] == 1
    assert record["lastLines"] == lines
    assert record["exitCode"] == 1
    assert record["node"] == "node-1"
    assert record["lastStep"] == 120
    assert bench.status["progress"]["step"] == 120
    assert bench.message("Failed") == "It was DataError. To do: fix what the message names."
    assert bench.status["reason"] == "DataError"


def test_retries_are_used_up() -> None:
    bench = Bench(retries={"max": 1}).running()
    bench.plan(100, head_failed(FailureClass.HEAD_LOST))
    bench.plan(120)
    second = swap(pods(2, 120), 0, exit=failed(FailureClass.HEAD_LOST))
    bench.plan(200, second)
    assert bench.reason("Failed") == "HeadLost"
    assert "run.retries.max = 1 was reached with attempt 2" in bench.message("Failed")
    assert bench.status["attempt"] == 2
    assert bench.status["restarts"]["counted"] == 1
    assert created(bench.settle(900)) == []


def test_retries_of_zero() -> None:
    bench = Bench(retries={"max": 0}).running()
    bench.plan(100, head_failed(FailureClass.STALLED))
    assert bench.reason("Failed") == "Stalled"
    assert "run.retries.max = 0" in bench.message("Failed")


def test_raised_budget_is_taken_up_and_lowered_one_too() -> None:
    bench = Bench(retries={"max": 2}).running()
    bench.plan(100, head_failed(FailureClass.HEAD_LOST))
    bench.raw["spec"]["run"]["retries"] = {"max": 0}
    bench.plan(105)
    assert bench.reason("Failed") == "HeadLost"


def test_free_failures_have_no_budget_but_back_off() -> None:
    bench = Bench(retries={"max": 0}).running()
    second = 100.0
    for attempt in range(1, 9):
        bench.plan(second, swap(pods(attempt), 0, exit=failed(FailureClass.NODE_LOST)))
        bench.plan(second + 1)
        wait = min(300, 10 * 2 ** (attempt - 1))
        assert created(bench.plan(second + wait - 1)) == [], f"attempt {attempt + 1} started too early"
        assert created(bench.plan(second + wait)) == [name.replace("-2-", f"-{attempt + 1}-") for name in NEW]
        second += wait + 50
    assert bench.status["restarts"] == {"total": 8, "counted": 0, "recoveries": 0}


def test_back_off_restarts_after_a_new_checkpoint() -> None:
    bench = Bench().running()
    for attempt in (1, 2, 3):
        bench.plan(1000 * attempt, swap(pods(attempt), 0, exit=failed(FailureClass.NODE_LOST)))
        bench.plan(1000 * attempt + 500)
    bench.plan(5000, pods(4), progress=progress(4, checkpoint=checkpoint(300, 4)))
    bench.plan(6000, swap(pods(4), 0, exit=failed(FailureClass.NODE_LOST)))
    assert created(bench.plan(6009)) == []
    assert created(bench.plan(6010)) != []


def test_back_off_wakes_in_time_and_says_so() -> None:
    bench = Bench().running()
    bench.plan(100, head_failed(FailureClass.HEAD_LOST))
    plan = bench.plan(103)
    assert plan.requeue_after == 7
    assert clock(110) in bench.message("Running")
    assert [event.reason for event in plan.events] == ["BackingOff"]
    assert bench.plan(104).events == ()


# --- the old attempt goes first ------------------------------------------------------------------------------------


def test_new_attempt_waits_for_the_old_pods() -> None:
    bench = Bench().running()
    bench.plan(100, head_failed(FailureClass.HEAD_LOST))
    going = tuple(replace(pod, deleting=clock(160)) for pod in head_failed(FailureClass.HEAD_LOST))
    assert created(bench.plan(130, going)) == []
    assert bench.reason("Running") == "WaitingForOldPods"
    assert "digits-1-head" in bench.message("Running")
    plan = bench.plan(150, going[2:])
    assert created(plan) == []
    assert plan.requeue_after == 40


def test_pods_of_a_dead_node_are_not_waited_for() -> None:
    """Thirty seconds past its grace period no kubelet ends the pod; its attempt is fenced off."""
    bench = Bench().running()
    bench.plan(100, head_failed(FailureClass.HEAD_LOST))
    stuck = (replace(pods()[1], deleting=clock(160)),)
    assert created(bench.plan(189, stuck)) == []
    assert created(bench.plan(190, stuck)) == NEW
    plan = bench.plan(200, (*stuck, *pods(2, 190)))
    assert plan.actions == ()


def test_leftover_of_an_old_attempt_is_deleted() -> None:
    bench = Bench().running()
    bench.plan(100, head_failed(FailureClass.HEAD_LOST))
    bench.plan(120)
    plan = bench.plan(130, (*pods(2, 120), pods()[1]))
    assert deleted(plan) == ["digits-1-w-0"]


# --- the head ends without a word ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failure", "words"),
    [
        ({"exit": ended(137, reason="OOMKilled")}, "HostOutOfMemory", "memory limit of 2Gi; raise cluster.head.memory"),
        ({"exit": ended(137, reason="Error")}, "HeadLost", "exit code 137 (killed)"),
        ({"exit": ended(0)}, "HeadLost", "terminated without a result, exit code 0"),
        ({"exit": ended(1, '{"broken')}, "HeadLost", "exit code 1"),
        ({"exit": ended(128, "exec: no such file", "StartError")}, "InvalidConfiguration", "exec: no such file"),
        ({"exit": ended(137), "reason": "Evicted", "message": "low on memory"}, "Preempted", "low on memory"),
        ({"exit": ended(137), "disruption": "PreemptionByScheduler"}, "Preempted", "higher priority"),
        ({"exit": ended(137), "disruption": "DeletionByTaintManager"}, "NodeLost", "node-1"),
        ({"exit": None, "phase": "Failed", "ready": False}, "NodeLost", "node-1"),
        ({"exit": None, "phase": "Failed", "ready": False, "reason": "OutOfmemory"}, "Preempted", "OutOfmemory"),
        (
            {
                "exit": ended(137),
                "reason": "Evicted",
                "message": 'Usage of EmptyDir volume "scratch" exceeds the limit',
            },
            "HeadLost",
            "filled a volume",
        ),
    ],
)
def test_class_from_the_pods_state(change: dict[str, Any], failure: str, words: str) -> None:
    bench = Bench().running()
    bench.plan(100, swap(pods(), 0, **change))
    assert bench.record()["failureClass"] == failure
    assert words in bench.record()["message"]


def test_head_pod_vanished() -> None:
    bench = Bench().running()
    bench.plan(100, pods()[1:])
    assert bench.record()["failureClass"] == "HeadLost"


def test_head_was_seen_going() -> None:
    """Deleted by a user or a drain: it saved, so it is free."""
    bench = Bench().running()
    bench.plan(100, swap(pods(), 0, deleting=clock(175)), progress=progress(step=100))
    assert bench.reason("Running") == "Stopped"
    bench.plan(110, pods()[1:], progress=progress(step=100))
    assert bench.record()["failureClass"] == "Preempted"


def test_head_said_that_it_is_stopping() -> None:
    bench = Bench().running()
    bench.plan(100, pods()[1:], progress=progress(state=TrainerState.STOPPING, step=140))
    assert bench.record()["failureClass"] == "Preempted"


def test_last_view_of_a_head_that_is_gone() -> None:
    bench = Bench().running()
    last = head_failed(FailureClass.DATA_ERROR)[0]
    bench.plan(100, pods()[1:], gone=(last,))
    assert bench.reason("Failed") == "DataError"


def test_stopped_by_a_drain() -> None:
    bench = Bench().running()
    stopped = ended(ExitCode.STOPPED, said(Outcome.STOPPED, step=140, checkpoint=checkpoint(140)))
    bench.plan(100, swap(pods(), 0, exit=stopped, deleting=clock(175)))
    assert bench.record()["failureClass"] == "Preempted"
    assert bench.status["lastCheckpoint"]["step"] == 140


def test_head_on_a_dead_node() -> None:
    bench = Bench().running()
    stuck = swap(pods(), 0, deleting=clock(100), ready=False, disruption="DeletionByTaintManager")
    bench.plan(129, stuck)
    assert bench.record().get("endTime") is None
    bench.plan(130, stuck)
    assert bench.record()["failureClass"] == "NodeLost"


def silent(since: float = 100) -> tuple[PodView, ...]:
    return swap(pods(), 0, ready=False, ready_changed=clock(since))


def test_a_head_that_hangs() -> None:
    """It runs, isn't ready and sends nothing: no process inside is left to report."""
    bench = Bench(stallSeconds=60).running()
    last_word = progress(step=100, time=clock(110))
    plan = bench.plan(130, silent(), progress=last_word, progress_received=at(110))
    assert plan.requeue_after == 40
    bench.plan(169, silent(), progress=last_word, progress_received=at(110))
    assert bench.record().get("endTime") is None
    bench.plan(170, silent(), progress=last_word, progress_received=at(110))
    assert bench.record()["failureClass"] == "Stalled"
    assert "digits-1-head has been NotReady for 60 s" in bench.record()["message"]
    assert sorted(deleted(bench.plan(171, silent()))) == ["digits-1-head", "digits-1-w-0", "digits-1-w-1"]


def test_a_head_that_speaks_does_not_hang() -> None:
    bench = Bench(stallSeconds=60).running()
    bench.plan(300, silent(), progress=progress(step=100, time=clock(295)))
    assert bench.record().get("endTime") is None


def test_what_an_earlier_attempt_said_is_no_sign_of_life() -> None:
    bench = Bench(stallSeconds=60).running()
    bench.plan(300, silent(), progress=progress(2, step=100, time=clock(295)))
    assert bench.record()["failureClass"] == "Stalled"


def test_a_head_that_was_never_ready_is_starting() -> None:
    """Ready has been False since before the container ran; run.pendingDeadlineSeconds is for that."""
    bench = Bench(stallSeconds=60).started()
    bench.plan(1000, swap(pods(), 0, ready=False, ready_changed=clock(1)))
    assert bench.record().get("endTime") is None


def test_a_worker_that_failed_explains_a_silent_head() -> None:
    bench = Bench(stallSeconds=60).running()
    found = swap(silent(), 1, exit=ended(1, said(Outcome.FAILED, FailureClass.HOST_OUT_OF_MEMORY), second=90))
    bench.plan(300, found)
    assert bench.record()["failureClass"] == "HostOutOfMemory"


def test_head_complete_wins_over_its_deletion() -> None:
    bench = Bench().running()
    bench.plan(100, swap(pods(), 0, exit=ended(0, said(Outcome.COMPLETE)), deleting=clock(175)))
    assert bench.is_true("Complete")


# --- a worker ends -------------------------------------------------------------------------------------------------


def test_worker_out_of_memory() -> None:
    bench = Bench().running()
    text = "worker 1 reached its memory limit of 2Gi; raise cluster.workers.memory"
    over = ended(1, said(Outcome.FAILED, FailureClass.HOST_OUT_OF_MEMORY, message=text))
    bench.plan(100, swap(pods(), 2, exit=over))
    assert bench.record()["failureClass"] == "HostOutOfMemory"
    assert text in bench.record()["message"]


def test_worker_killed_for_memory_without_a_word() -> None:
    bench = Bench(retries={"max": 0}).running()
    bench.plan(100, swap(pods(), 2, exit=ended(137, reason="OOMKilled", second=99)))
    assert bench.reason("Failed") == "HostOutOfMemory"
    assert "2Gi" in bench.message("Failed")
    assert "cluster.workers.memory" in bench.message("Failed")


def test_worker_without_a_word_waits_a_moment_for_the_head() -> None:
    bench = Bench().running()
    lost = swap(pods(), 1, exit=ended(139, second=99))
    plan = bench.plan(100, lost)
    assert bench.record().get("endTime") is None
    assert plan.requeue_after == 2
    bench.plan(102, lost)
    assert bench.record()["failureClass"] == "WorkerLost"
    assert "segmentation fault" in bench.record()["message"]


def test_the_heads_word_wins_over_the_workers_end() -> None:
    bench = Bench().running()
    lost = swap(pods(), 1, exit=ended(139, second=99))
    bench.plan(101, swap(lost, 0, exit=failed(FailureClass.USER_CODE_ERROR)))
    assert bench.reason("Failed") == "UserCodeError"


def test_the_worker_knows_why_it_was_lost() -> None:
    bench = Bench().running()
    over = ended(1, said(Outcome.FAILED, FailureClass.HOST_OUT_OF_MEMORY, message="limit"))
    bench.plan(100, swap(swap(pods(), 2, exit=over), 0, exit=failed(FailureClass.WORKER_LOST)))
    assert bench.record()["failureClass"] == "HostOutOfMemory"


@pytest.mark.parametrize("word", [said(Outcome.STOPPED), said(Outcome.FAILED, FailureClass.HEAD_LOST)])
def test_worker_that_saw_the_head_go_is_no_failure(word: str) -> None:
    bench = Bench().running()
    orderly = swap(pods(), 1, exit=ended(75, word, second=99))
    plan = bench.plan(100, orderly)
    assert deleted(plan) == []
    assert plan.requeue_after == 14
    plan = bench.plan(114, orderly)
    assert deleted(plan) == ["digits-1-w-0"], "the head lives on: the worker is replaced"
    assert bench.record().get("endTime") is None


def test_worker_saw_the_head_go_before_we_saw_it_complete() -> None:
    bench = Bench().running()
    gone = swap(pods(), 1, exit=ended(1, said(Outcome.FAILED, FailureClass.HEAD_LOST), second=99))
    bench.plan(100, gone)
    found = swap(gone, 0, exit=ended(0, said(Outcome.COMPLETE)))
    bench.plan(101, found)
    assert bench.is_true("Complete")
    assert "digits-1-w-0" in deleted(bench.plan(102, found)), "it explains nothing"


def test_workers_ends_while_the_head_is_going_say_nothing() -> None:
    bench = Bench().running()
    going = swap(swap(pods(), 0, deleting=clock(175)), 1, exit=ended(137, second=90))
    bench.plan(110, going)
    assert bench.record().get("endTime") is None


def test_worker_with_a_free_class_is_replaced() -> None:
    bench = Bench().running()
    faulty = swap(pods(), 1, exit=failed(FailureClass.GPU_FAULT))
    assert deleted(bench.plan(100, faulty)) == ["digits-1-w-0"]
    assert bench.status["attempt"] == 1


def test_worker_on_a_dead_node_ends_the_attempt() -> None:
    """Its name stays taken, so the same attempt can't replace it."""
    bench = Bench().running()
    stuck = swap(pods(), 1, deleting=clock(100), ready=False)
    plan = bench.plan(110, stuck)
    assert plan.requeue_after == 20
    bench.plan(130, stuck)
    assert bench.record()["failureClass"] == "NodeLost"


# --- while it starts -----------------------------------------------------------------------------------------------


def test_many_pods_that_fail_together_are_one_failure() -> None:
    bench = Bench().running()
    over = ended(137, reason="OOMKilled", second=99)
    both = swap(swap(pods(), 1, exit=over), 2, exit=over)
    bench.plan(100, both)
    bench.plan(101, both)
    bench.plan(130)
    assert bench.status["restarts"]["counted"] == 1
    assert len(bench.status["attempts"]) == 2


def test_the_last_ten_attempts_are_kept() -> None:
    bench = Bench().running()
    for attempt in range(1, 13):
        bench.plan(1000 * attempt, swap(pods(attempt), 0, exit=failed(FailureClass.NODE_LOST)))
        bench.plan(1000 * attempt + 500)
    assert [record["attempt"] for record in bench.status["attempts"]] == list(range(4, 14))


def test_crash_between_pods_and_status_of_a_new_attempt() -> None:
    """The written status still ends with attempt 1; the pods say that attempt 2 began, and it is counted once."""
    bench = Bench().running()
    bench.plan(100, head_failed(FailureClass.HEAD_LOST))
    before = bench.raw["status"]
    bench.plan(120)
    assert bench.status["restarts"]["counted"] == 1
    bench.raw["status"] = before
    plan = bench.plan(150, pending(2, 120)[1:])
    assert created(plan) == ["digits-2-head"]
    assert bench.status["restarts"] == {"total": 1, "counted": 1, "recoveries": 0}
    assert bench.record(2)["startTime"] == clock(120)

"""How the head ends, with or without a result, and which failure that is."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_api.messages import ExitCode, Outcome, TrainerState
from trainmaster_api.reasons import FailureClass
from trainmaster_operator.policy.snapshot import PodView

from .wrappers import Bench, at, checkpoint, clock, deleted, ended, head_failed, pods, progress, said, swap


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

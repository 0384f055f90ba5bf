"""How a worker ends, and whether that ends the attempt."""

from __future__ import annotations

import pytest
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass

from .wrappers import Bench, clock, deleted, ended, failed, pods, said, swap


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

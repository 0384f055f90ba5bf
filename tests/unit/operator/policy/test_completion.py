"""The end of a job, and what stays of it."""

from __future__ import annotations

from trainmaster_api.messages import Outcome, TrackerRef
from trainmaster_api.reasons import FailureClass

from .wrappers import Bench, checkpoint, clock, created, deleted, ended, pod, pods, progress, said, swap


def done() -> str:
    return said(
        Outcome.COMPLETE,
        message="Trained 1000 steps.",
        step=1000,
        checkpoint=checkpoint(1000),
        test_metrics={"test/accuracy": 0.98},
        model_uri="s3://runs/model",
        trackers=[TrackerRef(name="mlflow", url="http://mlflow/r1", run_id="abc")],
    )


def test_complete_takes_over_the_result() -> None:
    bench = Bench().running()
    found = swap(pods(), 0, exit=ended(0, done()))
    plan = bench.plan(100, found, progress=progress(step=990, total_steps=1000, eta_seconds=3))
    assert deleted(plan) == []
    assert [event.reason for event in plan.events] == ["TrainingComplete"]
    status = bench.status
    assert bench.is_true("Complete")
    assert bench.condition("Failed") == {}
    assert (status["phase"], status["reason"]) == ("Complete", "TrainingComplete")
    assert status["completionTime"] == clock(100)
    assert status["progress"]["step"] == 1000
    assert status["progress"]["percent"] == "100%"
    assert status["progress"]["eta"] == ""
    assert status["lastCheckpoint"]["step"] == 1000
    assert status["testMetrics"] == {"test/accuracy": 0.98}
    assert status["modelUri"] == "s3://runs/model"
    assert status["trackers"] == [{"name": "mlflow", "url": "http://mlflow/r1"}]
    assert status["workersReady"] == "0/2"
    assert not bench.is_true("Running")
    assert bench.record()["result"] == "Complete"
    assert "failureClass" not in bench.record()
    plan = bench.plan(101, found)
    assert sorted(deleted(plan)) == ["digits-1-w-0", "digits-1-w-1"]
    assert bench.plan(102, found[:1]).actions == (), "the head keeps the log"
    assert bench.status == status


def test_early_stop_is_complete() -> None:
    bench = Bench().running()
    text = said(Outcome.COMPLETE, step=400)
    bench.plan(100, swap(pods(), 0, exit=ended(0, text)), progress=progress(step=400, total_steps=1000))
    assert bench.status["progress"]["percent"] == "100%"


def test_completion_late_message() -> None:
    bench = Bench().running()
    found = swap(pods(), 0, exit=ended(0, said(Outcome.COMPLETE, step=1000)))
    bench.plan(100, found)
    bench.settle(105, found[:1], progress=progress(step=990, total_steps=1000, checkpoint=checkpoint(1000)))
    assert bench.status["lastCheckpoint"]["step"] == 1000
    assert bench.status["progress"]["step"] == 1000
    assert bench.status["phase"] == "Complete"


def test_after_a_failure_what_explains_it_stays() -> None:
    bench = Bench(retries={"max": 0}).running()
    over = ended(1, said(Outcome.FAILED, FailureClass.HOST_OUT_OF_MEMORY, message="x"))
    found = swap(pods(), 2, exit=over)
    bench.plan(100, found)
    assert bench.is_true("Failed")
    assert sorted(deleted(bench.plan(101, found))) == ["digits-1-head", "digits-1-w-0"]
    assert bench.plan(102, found[2:]).actions == ()


def test_failed_by_the_head() -> None:
    bench = Bench().running()
    broken = swap(pods(), 0, exit=ended(1, said(Outcome.FAILED, FailureClass.USER_CODE_ERROR, message="x")))
    orderly = swap(broken, 1, exit=ended(75, said(Outcome.STOPPED)))
    bench.plan(100, orderly)
    assert sorted(deleted(bench.plan(101, orderly))) == ["digits-1-w-0", "digits-1-w-1"]


def test_the_end_is_final() -> None:
    """Whatever is observed afterwards: neither is taken back, nor does the other come true."""
    bench = Bench().running()
    bench.plan(100, swap(pods(), 0, exit=ended(0, done())))
    final = bench.status
    lost = ended(1, said(Outcome.FAILED, FailureClass.DATA_ERROR))
    for second, found in enumerate([(), pods(), swap(pods(), 0, exit=lost), (pod("worker", 5, 0),)]):
        plan = bench.plan(200 + second, found, progress=progress(2))
        assert created(plan) == []
        assert {k: bench.status[k] for k in ("phase", "completionTime", "attempt")} == {
            k: final[k] for k in ("phase", "completionTime", "attempt")
        }
        assert bench.condition("Failed") == {}


def test_deleted_job_is_left_to_the_garbage_collector() -> None:
    bench = Bench().running()
    before = bench.status
    bench.raw["metadata"]["deletionTimestamp"] = clock(50)
    plan = bench.plan(60, pods()[1:])
    assert (plan.actions, plan.status, plan.events) == ((), before, ())

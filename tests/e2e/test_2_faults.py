"""Kill a process, a worker pod, the head pod, and twice in one run: the weights are those of an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from trainmaster_api.names import worker_pod

from tests.e2e.conftest import Calm, assert_resumed_from_newest, make_fault_job, wait_checkpoint, weights_digest
from tests.e2e.kube import Json, Namespace, progress, status
from tests.factories import CHECKPOINT_EVERY

# A checkpoint is written in the background while training continues, so the next interval has begun before the save is
# committed. A kill therefore costs less than two intervals: the current one and the one whose save was in flight.
MOST_LOST = 2 * CHECKPOINT_EVERY


def attempt(job: Json, number: int) -> Json:
    found: Json = next(a for a in status(job)["attempts"] if a["attempt"] == number)
    return found


def test_sigkill_a_training_process(shared_namespace: Namespace, calm: Calm, s3: Any) -> None:
    ns, name = shared_namespace, "process"
    started = ns.apply(make_fault_job(name))
    wait_checkpoint(s3, started, step=2 * CHECKPOINT_EVERY)
    ns.kill_training_process(name, 1, 1)
    job = ns.complete(name)
    assert status(job)["attempt"] == 1
    assert status(job)["restarts"]["recoveries"] == 1
    assert attempt(job, 1)["lostSteps"] < MOST_LOST
    assert_resumed_from_newest(s3, job, resumes=1)
    assert weights_digest(s3, job) == calm.digest(s3)


def test_delete_a_worker_pod(shared_namespace: Namespace, calm: Calm, s3: Any) -> None:
    ns, name = shared_namespace, "worker"
    started = ns.apply(make_fault_job(name))
    wait_checkpoint(s3, started, step=2 * CHECKPOINT_EVERY)
    pod = worker_pod(name, 1, 0)
    old = ns.delete_pod(pod)
    ns.wait_pods(name, lambda pods: pod in pods and pods[pod].metadata.uid != old, "the worker is replaced")
    job = ns.complete(name)
    assert status(job)["attempt"] == 1
    assert status(job)["restarts"]["recoveries"] >= 1
    assert weights_digest(s3, job) == calm.digest(s3)


def test_delete_the_head_pod(shared_namespace: Namespace, calm: Calm, s3: Any) -> None:
    ns, name = shared_namespace, "head"
    started = ns.apply(make_fault_job(name))
    wait_checkpoint(s3, started, step=2 * CHECKPOINT_EVERY)
    ns.delete_pod(f"{name}-1-head")
    job = ns.complete(name)
    assert status(job)["attempt"] == 2
    assert attempt(job, 2)["resumedFromStep"] >= CHECKPOINT_EVERY
    assert attempt(job, 2)["lostSteps"] == 0, "a pod that is deleted with its grace period saves first"
    assert_resumed_from_newest(s3, job, resumes=1)
    assert attempt(job, 2)["recoverySeconds"] > 0
    assert weights_digest(s3, job) == calm.digest(s3)


def test_a_training_process_that_hangs(shared_namespace: Namespace, calm: Calm, s3: Any) -> None:
    """It is alive and does nothing, so no error is reported: the driver sees that no step is made."""
    ns, name = shared_namespace, "hang"
    started = ns.apply(make_fault_job(name, run__stallSeconds=45))
    wait_checkpoint(s3, started, step=2 * CHECKPOINT_EVERY)
    ns.kill_training_process(name, 1, 1, "SIGSTOP")
    job = ns.complete(name)
    assert attempt(job, 1)["failureClass"] == "Stalled", attempt(job, 1)
    assert "stallSeconds" in attempt(job, 1)["message"]
    assert status(job)["restarts"]["counted"] == 1
    assert attempt(job, 2)["resumedFromStep"] >= CHECKPOINT_EVERY
    assert weights_digest(s3, job) == calm.digest(s3)


def test_a_head_that_hangs(shared_namespace: Namespace, calm: Calm, s3: Any) -> None:
    """Everything in the head pod stands still but its first process, which can't be stopped from inside."""
    ns, name = shared_namespace, "frozen"
    started = ns.apply(make_fault_job(name, run__stallSeconds=45))
    wait_checkpoint(s3, started, step=2 * CHECKPOINT_EVERY)
    ns.freeze(f"{name}-1-head")
    job = ns.complete(name)
    assert attempt(job, 1)["failureClass"] == "Stalled", attempt(job, 1)
    assert "driver unresponsive" in attempt(job, 1)["message"]
    assert attempt(job, 2)["resumedFromStep"] >= CHECKPOINT_EVERY
    assert weights_digest(s3, job) == calm.digest(s3)


def kill_head_hard(ns: Namespace, name: str, number: int) -> None:
    """SIGKILL the head's PID 1 from outside its namespace is the node's matter; grace 0 is what a user can do."""
    ns.cluster.core.delete_namespaced_pod(f"{name}-{number}-head", ns.name, grace_period_seconds=0)


@pytest.mark.parametrize("second", ["process", "head"])
def test_twice_in_one_run(shared_namespace: Namespace, calm: Calm, s3: Any, second: str) -> None:
    ns, name = shared_namespace, f"twice-{second}"
    started = ns.apply(make_fault_job(name))
    wait_checkpoint(s3, started, step=2 * CHECKPOINT_EVERY)
    kill_head_hard(ns, name, 1)
    resumed = wait_checkpoint(s3, started, attempt=2)
    again: dict[str, Callable[[], object]] = {
        "process": lambda: ns.kill_training_process(name, 2, 0),
        "head": lambda: kill_head_hard(ns, name, 2),
    }
    again[second]()
    job = ns.complete(name)
    assert progress(job)["step"] > resumed["step"]
    assert status(job)["attempt"] == (3 if second == "head" else 2)
    assert weights_digest(s3, job) == calm.digest(s3)

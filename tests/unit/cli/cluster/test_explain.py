"""`why`: for each cause the sentence of the lowest layer that knows. The statuses are the real operator's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from trainmaster_api.messages import Outcome, TrainerState
from trainmaster_api.reasons import FailureClass
from trainmaster_cli.cluster.explain import Answer, Kind, explain
from trainmaster_operator.policy.snapshot import Rejection

from tests.unit.operator.policy.wrappers import (
    Bench,
    at,
    checkpoint,
    clock,
    ended,
    head_failed,
    pending,
    pods,
    progress,
    said,
    swap,
)  # fmt: skip

NO_CPU = "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: no victims."
STACK = [
    '  File "/usr/lib/python3.11/threading.py", line 331, in wait',
    '  File "/job/own.py", line 12, in forward',
    "    lock.acquire()",
    '  File "/env/lib/python3.11/site-packages/torch/nn/modules/module.py", line 9, in _call',
]

CRASH = [
    "Fatal Python error: Segmentation fault",
    '  File "/job/own.py", line 12 in forward',
    '  File "/job/own.py", line 40 in <module>',
    '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at',
]


def refused(message: str) -> Bench:
    bench = Bench()
    bench.plan(0, rejections=(Rejection("digits-1-head", 403, message),))
    return bench


def bad_spec(*fields: str) -> Bench:
    bench = Bench()
    bench.raw["spec"] |= dict.fromkeys(fields, 1)
    bench.plan(0)
    return bench


def waits(reason: str, message: str) -> Bench:
    bench = Bench().started()
    bench.plan(5, swap(pending(node="n", scheduled_at="x"), 1, waiting=reason, waiting_message=message))
    return bench


def unschedulable() -> Bench:
    bench = Bench().started()
    bench.plan(5, swap(pods(), 1, ready=False, node="", phase="Pending", unschedulable=NO_CPU))
    return bench


def fails(failure: FailureClass, message: str, retries: int = 3, **fields: Any) -> Bench:
    bench = Bench(retries={"max": retries}).running()
    exit_ = ended(1, said(Outcome.FAILED, failure, message=message, **fields), second=20)
    bench.settle(20, swap(pods(), 0, exit=exit_))
    bench.plan(20)
    return bench


def stale(**fields: Any) -> Bench:
    bench = Bench().running(10, step=100)
    old = progress(step=100, total_steps=1000, step_time=clock(10), time=clock(50), **fields.pop("said", {}))
    bench.plan(50, swap(pods(), 1, **fields) if fields else pods(), progress=old)
    return bench


def preempted() -> Bench:
    bench = Bench().running()
    bench.settle(20, swap(pods(), 0, exit=ended(137, second=20), disruption="PreemptionByScheduler"))
    bench.plan(20)
    return bench


def suspended() -> Bench:
    bench = Bench().running(10, checkpoint=checkpoint(90))
    bench.suspend(True)
    bench.raw["metadata"]["managedFields"] = [
        {"manager": "kubectl-create", "fieldsV1": {"f:spec": {"f:training": {}}}},
        {"manager": "kubectl-edit", "time": clock(15), "fieldsV1": {"f:spec": {"f:run": {"f:suspend": {}}}}},
    ]
    bench.settle(20, pods(), progress=progress(step=100, checkpoint=checkpoint(90)))
    bench.settle(25)
    return bench


def suspending() -> Bench:
    bench = Bench().running()
    bench.suspend(True)
    bench.plan(20, pods())
    return bench


def running(step: int = 120, eta: float | None = 240) -> Bench:
    bench = Bench().started()
    bench.plan(10, pods(), progress=progress(step=step, total_steps=900, eta_seconds=eta, step_time=clock(0)))
    return bench


def starting() -> Bench:
    bench = Bench().started()
    bench.plan(5, pods(), progress=progress(state=TrainerState.STARTING))
    return bench


def complete() -> Bench:
    bench = Bench().running()
    done = ended(0, said(Outcome.COMPLETE, message="trained 900 steps; test/accuracy 0.9800"), second=20)
    bench.settle(20, swap(pods(), 0, exit=done))
    return bench


def answer(bench: Bench, second: float = 25, **fields: Any) -> Answer:
    raw = {**bench.raw, **fields}
    return explain(raw, (), (), at(second))


FINE, FAILED, WAITS = Kind.FINE, Kind.FAILED, Kind.WAITS
QUOTA = "pods is forbidden: exceeded quota: small, requested: pods=1, used: pods=9, limited: pods=9"
LIMIT_RANGE = 'pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi'
USER = "rank 1: ValueError: shapes (3) and (4) differ (own.py:12 in forward)"
DENIED = "http://minio:9000 refused key K while reading LATEST in bucket runs: the key is unknown; correct it"
OOM = "worker 1 reached its memory limit of 2Gi; raise cluster.workers.memory"


@pytest.mark.parametrize(
    ("make", "kind", "parts"),
    [
        (lambda: bad_spec("foo"), FAILED, ["The spec is invalid: spec.foo = 1: unknown field"]),
        (lambda: bad_spec("foo", "bar"), FAILED, ["2 problems:\n", "\n  spec.bar", "\n  spec.foo"]),
        (lambda: refused(QUOTA), WAITS, ["It has been waiting for 25s: The quota of the namespace has no room"]),
        (lambda: refused(LIMIT_RANGE), FAILED, ["PodRejected", "A LimitRange", "change cluster.head.memory"]),
        (unschedulable, WAITS, ["No node fits pod digits-1-w-0", "0/3 nodes are available: 3 Insufficient cpu; lower"]),
        (lambda: waits("ErrImagePull", "no such host"), WAITS, ["can't pull the image trainer:1: no such host"]),
        (
            lambda: waits("CreateContainerConfigError", 'secret "minio" not found'),
            WAITS, ["waiting for the Secret minio (storage.credentialsSecret)", "create it in namespace team"],
        ),
        (
            lambda: stale(ready=False, ready_changed=clock(30)), WAITS,
            ["No step has been completed since", "pod digits-1-w-0 on node node-1 has been NotReady since"],
        ),
        (
            lambda: stale(said={"waiting": "storage has not responded since 2026-01-01T12:00:11Z"}), WAITS,
            ["No step has been completed since 2026-01-01T12:00:10Z (step 100): storage has not responded since"],
        ),
        (
            lambda: fails(FailureClass.STORAGE_DENIED, DENIED), FAILED,
            ["It failed (StorageDenied): http://minio:9000 refused key K", "bucket runs"],
        ),
        (
            lambda: fails(FailureClass.USER_CODE_ERROR, USER), FAILED,
            ["(UserCodeError): own.py:12 in forward: ValueError: shapes (3) and (4) differ (rank 1)", "fix the code"],
        ),
        (
            lambda: fails(FailureClass.HOST_OUT_OF_MEMORY, OOM), WAITS,
            ["Attempt 1 failed (HostOutOfMemory, retry 1 of 3): worker 1 reached", "2Gi; raise", "starts in 5s (at"],
        ),
        (
            lambda: fails(FailureClass.HOST_OUT_OF_MEMORY, OOM, retries=0), FAILED,
            ["It failed (HostOutOfMemory): worker 1 reached its memory limit of 2Gi", "run.retries.max = 0"],
        ),
        (
            lambda: fails(FailureClass.STALLED, "no new step for 600 s after step 7", rank=0, last_lines=STACK), WAITS,
            ["Attempt 1 failed (Stalled, retry 1 of 3): at own.py:12 in forward (rank 0): no new step for 600 s"],
        ),
        (
            lambda: fails(FailureClass.STALLED, "no step: rank 1 is at own.py:12 in forward", rank=1, last_lines=STACK),
            WAITS, ["Attempt 1 failed (Stalled, retry 1 of 3): no step: rank 1 is at own.py:12 in forward"],
        ),
        (
            lambda: fails(FailureClass.NO_PROGRESS, "workers were lost", rank=1, last_lines=CRASH), FAILED,
            ["It failed (NoProgress): at own.py:12 in forward (rank 1): workers were lost"],
        ),
        (preempted, WAITS, ["Attempt 1 failed (Preempted, not counted): Pod digits-1-head was preempted by"]),
        (suspended, FINE, ["It was suspended by kubectl-edit at 2026-01-01T12:00:15Z", "resume from step 90"]),
        (suspending, FINE, ["It is stopping, as asked: A checkpoint is being saved"]),
        (running, FINE, ["Nothing is wrong: step 120 of 900, ETA 4m."]),
        (lambda: running(eta=None), FINE, ["Nothing is wrong: step 120 of 900."]),
        (starting, FINE, ["Nothing is wrong: it is starting (attempt 1, 25s old): The workers are joining"]),
        (complete, FINE, ["Nothing is wrong: it completed 5s ago: trained 900 steps; test/accuracy 0.9800."]),
    ],
)  # fmt: skip
def test_each_cause(make: Callable[[], Bench], kind: Kind, parts: list[str]) -> None:
    found = answer(make())
    assert found.kind is kind, found.text
    for part in parts:
        assert part in found.text


@pytest.mark.parametrize(("second", "kind", "part"), [(3, FINE, "about to start"), (90, WAITS, "1m30s ago: it isn't")])
def test_an_operator_that_has_not_looked(second: float, kind: Kind, part: str) -> None:
    found = answer(Bench(), second)
    assert (found.kind, part in found.text) == (kind, True), found.text


def test_a_job_that_is_deleted() -> None:
    bench = running()
    bench.raw["metadata"]["deletionTimestamp"] = clock(15)
    assert answer(bench).text == "It is being deleted since 10s."


# --- what pods and events say before the operator does -------------------------------------------------------------


def api_pod(name: str = "digits-1-w-0", **status: Any) -> dict[str, Any]:
    labels = {"trainmaster.dev/job": "digits", "trainmaster.dev/attempt": "1"}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": "n7"}, "status": status}


def container(reason: str, message: str) -> dict[str, Any]:
    waiting = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": waiting}]}


def event(reason: str, message: str, second: float = 20, pod: str = "digits-1-w-0") -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"name": pod}, "lastTimestamp": clock(second)}


UNSCHEDULABLE: dict[str, Any] = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_CPU}],
}
NOT_READY: dict[str, Any] = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "Unknown", "lastTransitionTime": clock(5)}],
}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (UNSCHEDULABLE, "No node fits pod digits-1-w-0: 0/3 nodes are available: 3 Insufficient cpu."),
        (NOT_READY, "Node n7 of pod digits-1-w-0 is NotReady since 20s."),
        (container("ImagePullBackOff", "not  found"), "Pod digits-1-w-0 can't pull its image: not found."),
        (
            container("CreateContainerConfigError", 'secret "wandb" not found'),
            "Pod digits-1-w-0 waits for the Secret wandb, which does not exist in its namespace; create it.",
        ),
    ],
)
def test_pods_speak_before_the_operator(status: dict[str, Any], text: str) -> None:
    bench = Bench().started()
    other = api_pod("digits-1-head", phase="Running", conditions=[{"type": "Ready", "status": "True"}])
    found = explain(bench.raw, [other, api_pod(**status)], (), at(25))
    assert (found.kind, found.text) == (WAITS, text)


def test_pods_of_an_attempt_before_say_nothing() -> None:
    bench = Bench().started()
    bench.raw["status"]["attempt"] = 2
    found = explain(bench.raw, [api_pod(**UNSCHEDULABLE)], (), at(25))
    assert found.kind is FINE


@pytest.mark.parametrize(
    ("events", "text"),
    [
        (
            [event("FailedMount", 'MountVolume.SetUp failed for volume "data": lost')],
            'A volume of pod digits-1-w-0 can\'t be mounted: MountVolume.SetUp failed for volume "data": lost.',
        ),
        ([event("NodeNotReady", "Node is not ready")], "The node of pod digits-1-w-0 is NotReady: Node is not ready."),
        ([event("FailedScheduling", NO_CPU, 10), event("Started", "started", 12)], None),
        ([event("FailedMount", "long ago", -600)], None),
    ],
)
def test_events_tell_what_pods_do_not(events: list[dict[str, Any]], text: str | None) -> None:
    bench = Bench().started()
    found = explain(bench.raw, [api_pod(phase="Pending")], events, at(25))
    if text is None:
        assert found.kind is FINE
    else:
        assert (found.kind, found.text) == (WAITS, text)


def test_a_volume_that_is_missing_is_named() -> None:
    bench = Bench().started()
    stuck = swap(pending(node="n", scheduled_at=clock(1)), 1, no_sandbox=True, mounts=("the claim data",))
    bench.plan(30, stuck)
    found = explain(bench.raw, (), [event("FailedMount", 'claim "data" not found')], at(35))
    assert 'A volume of pod digits-1-w-0 can\'t be mounted: claim "data" not found.' in found.text
    assert "It mounts the claim data" in found.text


def test_no_failure_class_is_forgotten() -> None:
    """Each of them ends in a sentence with its name."""
    for failure in FailureClass:
        bench = Bench().running()
        bench.settle(20, head_failed(failure))
        bench.plan(20)
        found = answer(bench)
        assert found.kind in (FAILED, WAITS)
        assert failure.value in found.text

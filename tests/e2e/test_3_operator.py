"""The operator dies mid-run and comes back, or the API server hangs: the job doesn't notice, the status catches up."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.bed import Bed
from tests.e2e.conftest import SYSTEM, make_long_job, s3_client, wait_checkpoint
from tests.e2e.kube import Cluster, Namespace, progress, status

pytestmark = pytest.mark.alone  # the operator is everybody's

DEPLOYMENT = "trainmaster-operator"
HANG_SECONDS = 30  # twice a lease, and longer than any request waits
AWAY_SECONDS = 20  # the figure: long enough that leases and watches run out


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.apps.patch_namespaced_deployment_scale(DEPLOYMENT, SYSTEM, {"spec": {"replicas": replicas}})


def operator_pods(cluster: Cluster) -> list[str]:
    found = cluster.core.list_namespaced_pod(SYSTEM, label_selector="app.kubernetes.io/name=trainmaster").items
    return [pod.metadata.name for pod in found]


@contextlib.contextmanager
def hanging_api_server() -> Iterator[None]:
    """It takes connections and answers nothing, which is worse than being gone."""
    bed = Bed()
    if not bed.exists or str(bed.kubeconfig) != os.environ["KUBECONFIG"]:
        pytest.skip("only on the test bed can a test stop the API server")
    pid = next(process.pid for process in bed.processes() if process.name == "kube-apiserver")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_operator_killed_mid_run(namespace: Namespace) -> None:
    cluster, name = namespace.cluster, "steady"
    namespace.apply(make_long_job(name, 500, checkpoint__every="200step"))
    before = namespace.at_step(name, 200)
    pods = {n: (p.metadata.uid, p.status.container_statuses[0].restart_count) for n, p in namespace.pods(name).items()}
    scale(cluster, 0)
    for pod in operator_pods(cluster):
        cluster.core.delete_namespaced_pod(pod, SYSTEM, grace_period_seconds=0)
    time.sleep(AWAY_SECONDS)  # the fault itself: the operator is away for this long
    frozen = namespace.job(name)
    assert progress(frozen)["step"] <= progress(before)["step"] + 5000
    scale(cluster, 1)
    assert_unnoticed(namespace, name, progress(frozen)["step"], pods)


def direct_s3(cluster: Cluster) -> Any:
    """MinIO by its pod's address: a forwarded port would hang with the API server."""
    return s3_client(f"http://{cluster.core.list_namespaced_pod('minio').items[0].status.pod_ip}:9000")


def test_api_server_hangs_mid_run(namespace: Namespace) -> None:
    """Training goes on meanwhile; the operator, which loses its lease over it, comes back."""
    name, s3 = "deaf", direct_s3(namespace.cluster)
    started = namespace.apply(make_long_job(name, 700, checkpoint__every="200step"))
    namespace.at_step(name, 200)
    pods = {n: (p.metadata.uid, p.status.container_statuses[0].restart_count) for n, p in namespace.pods(name).items()}
    with hanging_api_server():
        before = wait_checkpoint(s3, started)
        time.sleep(HANG_SECONDS)  # the fault itself
        after = wait_checkpoint(s3, started)
    assert after["step"] > before["step"] + 200, "training stood still"
    assert_unnoticed(namespace, name, after["step"], pods)


def assert_unnoticed(namespace: Namespace, name: str, step: int, pods: dict[str, tuple[str, int]]) -> None:
    """The status gets past `step`, and the job completes with the very pods that it had, in one attempt."""
    caught_up = namespace.wait(name, lambda j: progress(j).get("step", 0) > step, "caught up")
    assert status(caught_up)["attempt"] == 1
    job = namespace.complete(name, timeout=600)
    assert status(job)["attempt"] == 1
    assert status(job)["restarts"] == {"total": 0, "counted": 0, "recoveries": 0}
    after = {n: p.metadata.uid for n, p in namespace.pods(name).items()}
    assert after[f"{name}-1-head"] == pods[f"{name}-1-head"][0]
    created = namespace.cluster.core.list_namespaced_event(namespace.name, field_selector="reason=Scheduled").items
    assert sorted(e.involved_object.name for e in created) == sorted(pods), "a pod was made twice"

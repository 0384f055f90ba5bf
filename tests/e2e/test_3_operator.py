"""The operator dies mid-run and comes back, then the API server hangs: the run continues, the status catches up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import ApiException
from trainmaster_api.names import CONTAINER, worker_pod

from testbed.bed import Bed
from tests.e2e.conftest import SYSTEM, make_long_job, s3_client, wait_checkpoint
from tests.e2e.kube import Cluster, Namespace, progress, status

pytestmark = pytest.mark.alone  # the operator is everybody's

DEPLOYMENT = "trainmaster-operator"
HANG_SECONDS = 30  # twice a lease, and longer than any request waits
AWAY_SECONDS = 20  # the figure: long enough that leases and watches run out
CHECKPOINT_EVERY = 50  # steps
EPOCHS = 300  # of 22 cheap steps each, which would be over in 22 s on quick cores; the faults take 80
SLOW, QUICK = "150m", "2"  # CPUs of a worker: 15 to 40 steps a second while the faults last, then all that there is


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


class Steady:
    """One run that lives through all of it."""

    NAME = "steady"

    def __init__(self, namespace: Namespace, s3: Any) -> None:
        self.namespace = namespace
        self.job = namespace.apply(make_long_job(self.NAME, EPOCHS, checkpoint__every=f"{CHECKPOINT_EVERY}step"))
        wait_checkpoint(s3, self.job, step=CHECKPOINT_EVERY)
        self.resize_workers(SLOW)
        namespace.at_step(self.NAME, CHECKPOINT_EVERY)
        self.pods = self.look()

    def resize_workers(self, cpus: str) -> None:
        """Give the worker pods a limit in place, as a vertical autoscaler would."""
        # the request below the limit: a pod may not become Guaranteed by a resize
        resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": cpus}}
        limit = {"spec": {"containers": [{"name": CONTAINER, "resources": resources}]}}
        for pod in (worker_pod(self.NAME, 1, index) for index in range(2)):
            resize = ("patch", "pod", pod, "--subresource=resize", "-p", json.dumps(limit))
            self.namespace.cluster.kubectl(*resize, "-n", self.namespace.name)

    def look(self) -> dict[str, tuple[str, int]]:
        """Its pods: UID and restarts."""
        found = self.namespace.pods(self.NAME).items()
        return {name: (pod.metadata.uid, pod.status.container_statuses[0].restart_count) for name, pod in found}

    def step(self) -> int:
        """As its status has it."""
        step: int = progress(self.namespace.job(self.NAME))["step"]
        return step

    def assert_catches_up(self, step: int) -> None:
        """The status gets past `step`, with the very pods that it had, in one attempt."""
        job = self.namespace.wait(self.NAME, lambda j: progress(j).get("step", 0) > step, "caught up")
        assert status(job)["attempt"] == 1
        assert self.look() == self.pods


@pytest.fixture(scope="module")
def steady(shared_namespace: Namespace, s3: Any) -> Steady:
    server = json.loads(shared_namespace.cluster.kubectl("version", "-o", "json"))["serverVersion"]
    if (int(server["major"]), int(server["minor"].rstrip("+"))) < (1, 33):
        pytest.skip("a run that outlasts the faults is slowed down by resizing its pods, which needs Kubernetes 1.33")
    return Steady(shared_namespace, s3)


def test_operator_killed_mid_run(steady: Steady, s3: Any) -> None:
    cluster = steady.namespace.cluster
    scale(cluster, 0)
    while pods := operator_pods(cluster):  # the old ReplicaSet may make one more before it hears of the scale
        for pod in pods:
            with contextlib.suppress(ApiException):  # deleted meanwhile
                cluster.core.delete_namespaced_pod(pod, SYSTEM, grace_period_seconds=0)
    frozen = steady.step()
    before = wait_checkpoint(s3, steady.job)
    time.sleep(AWAY_SECONDS)  # the fault itself: the operator is away for this long
    assert steady.step() == frozen, "the status moved without an operator"
    assert wait_checkpoint(s3, steady.job)["step"] > before["step"], "training stood still"
    scale(cluster, 1)
    steady.assert_catches_up(frozen)


def direct_s3(cluster: Cluster) -> Any:
    """MinIO by its pod's address: a forwarded port would hang with the API server."""
    return s3_client(f"http://{cluster.core.list_namespaced_pod('minio').items[0].status.pod_ip}:9000")


def test_api_server_hangs_mid_run(steady: Steady) -> None:
    """Training continues meanwhile; the operator, which loses its lease over it, comes back."""
    s3 = direct_s3(steady.namespace.cluster)
    with hanging_api_server():
        before = wait_checkpoint(s3, steady.job)
        time.sleep(HANG_SECONDS)  # the fault itself
        after = wait_checkpoint(s3, steady.job)
    assert after["step"] > before["step"] + CHECKPOINT_EVERY, "training stood still"
    steady.assert_catches_up(after["step"])


def test_the_run_noticed_nothing_of_it(steady: Steady) -> None:
    namespace, name = steady.namespace, steady.NAME
    steady.resize_workers(QUICK)
    job = namespace.complete(name, timeout=600)
    assert status(job)["attempt"] == 1
    assert status(job)["restarts"] == {"total": 0, "counted": 0, "recoveries": 0}
    head = f"{name}-1-head"
    assert namespace.pods(name)[head].metadata.uid == steady.pods[head][0]
    created = namespace.cluster.core.list_namespaced_event(namespace.name, field_selector="reason=Scheduled").items
    assert sorted(e.involved_object.name for e in created) == sorted(steady.pods), "a pod was made twice"

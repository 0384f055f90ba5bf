"""The operator dies mid-run and comes back 20 s later: nobody in the job notices, and the status catches up."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import SYSTEM, make_long_job
from tests.e2e.kube import Cluster, Namespace, progress, status

pytestmark = pytest.mark.alone  # the operator is everybody's

DEPLOYMENT = "trainmaster-operator"
AWAY_SECONDS = 20  # the figure: long enough that leases and watches run out


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.apps.patch_namespaced_deployment_scale(DEPLOYMENT, SYSTEM, {"spec": {"replicas": replicas}})


def operator_pods(cluster: Cluster) -> list[str]:
    found = cluster.core.list_namespaced_pod(SYSTEM, label_selector="app.kubernetes.io/name=trainmaster").items
    return [pod.metadata.name for pod in found]


def test_operator_killed_mid_run(namespace: Namespace) -> None:
    cluster, name = namespace.cluster, "steady"
    namespace.apply(make_long_job(name, 700, checkpoint__every="200step"))
    before = namespace.at_step(name, 200)
    pods = {n: (p.metadata.uid, p.status.container_statuses[0].restart_count) for n, p in namespace.pods(name).items()}
    scale(cluster, 0)
    for pod in operator_pods(cluster):
        cluster.core.delete_namespaced_pod(pod, SYSTEM, grace_period_seconds=0)
    time.sleep(AWAY_SECONDS)  # the fault itself: the operator is away for this long
    frozen = namespace.job(name)
    assert progress(frozen)["step"] <= progress(before)["step"] + 5000
    scale(cluster, 1)
    caught_up = namespace.wait(
        name, lambda j: progress(j).get("step", 0) > progress(frozen)["step"], "caught up after the operator's return"
    )
    assert status(caught_up)["attempt"] == 1
    job = namespace.complete(name, timeout=600)
    assert status(job)["attempt"] == 1
    assert status(job)["restarts"] == {"total": 0, "counted": 0, "recoveries": 0}
    after = {n: p.metadata.uid for n, p in namespace.pods(name).items()}
    assert after[f"{name}-1-head"] == pods[f"{name}-1-head"][0]
    created = cluster.core.list_namespaced_event(namespace.name, field_selector="reason=Scheduled").items
    assert sorted(e.involved_object.name for e in created) == sorted(pods), "a pod was made twice"

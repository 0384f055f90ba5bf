"""What a cluster refuses for now: the job waits, reports what for, and starts as soon as it is available."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from kubernetes import client
from trainmaster_api.names import HEADS_SERVICE, LABEL_JOB

from tests.e2e.conftest import make_job, make_long_job
from tests.e2e.kube import Json, Namespace, condition, holds, progress, status

SMALL = {"cpus": "200m", "memory": "2Gi"}


def cheap_job(name: str, workers: int = 1, **changes: object) -> Json:
    """A training of seconds: iris, 20 epochs of 8 steps."""
    job = make_job(name, cluster__workers={"count": workers, **SMALL}, cluster__head=dict(SMALL), **changes)
    training = job["spec"]["training"]
    training["task"] = {"name": "classification", "numClasses": 3}
    training["data"] = {"source": "sklearn:iris", "batchSize": 16}
    training["model"] = {"name": "mlp", "args": {"hidden": [16]}}
    training["loop"] = {"duration": "20ep", "seed": 1}
    job["spec"].pop("checkpoint", None)
    return job


def set_quota(namespace: Namespace, **hard: str) -> None:
    spec = client.V1ResourceQuotaSpec(hard={name.replace("__", "."): value for name, value in hard.items()})
    quota = client.V1ResourceQuota(metadata=client.V1ObjectMeta(name="tenant"), spec=spec)
    namespace.cluster.core.create_namespaced_resource_quota(namespace.name, quota)


def provisioned(job: Json) -> Json:
    return condition(job, "Provisioned")


def test_c01_a_quota_on_cpu_limits_names_the_field_and_the_field_helps(namespace: Namespace) -> None:
    set_quota(namespace, requests__cpu="4", requests__memory="16Gi", limits__cpu="8", limits__memory="16Gi")
    namespace.apply(cheap_job("iris"))
    failed = namespace.failed("iris")
    message = condition(failed, "Failed")["message"]
    assert condition(failed, "Failed")["reason"] == "PodRejected"
    assert "must specify limits.cpu" in message
    assert "cluster.head.cpuLimit" in message or "cluster.workers.cpuLimit" in message
    job = cheap_job("limited")
    for part in ("workers", "head"):
        job["spec"]["cluster"][part]["cpuLimit"] = "2"
    namespace.apply(job)
    done = namespace.complete("limited")
    pods = namespace.cluster.core.list_namespaced_pod(namespace.name, label_selector=f"{LABEL_JOB}=limited").items
    assert {pod.spec.containers[0].resources.limits["cpu"] for pod in pods} == {"2"}
    assert status(done)["attempt"] == 1


def test_c03_a_service_account_that_comes_three_seconds_later(namespace: Namespace) -> None:
    job = cheap_job("late-sa")
    for part in ("workers", "head"):
        job["spec"]["cluster"][part]["template"] = {"spec": {"serviceAccountName": "trainer"}}
    namespace.apply(job)
    waits = namespace.wait("late-sa", lambda j: provisioned(j).get("reason") == "WaitingForDependency", "waiting")
    assert "ServiceAccount trainer" in provisioned(waits)["message"]
    assert holds(waits, "Accepted")
    assert not holds(waits, "Failed")
    time.sleep(3)  # the situation itself
    account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="trainer"))
    namespace.cluster.core.create_namespaced_service_account(namespace.name, account)
    created = datetime.now(UTC)
    done = namespace.complete("late-sa")
    started = datetime.fromisoformat(status(done)["attempts"][0]["startTime"])
    assert (started - created).total_seconds() < 10
    assert status(done)["attempt"] == 1
    assert status(done)["restarts"]["total"] == 0


def test_c04_two_jobs_of_three_pods_with_room_for_four(namespace: Namespace) -> None:
    """One runs to its end, then the other; neither is charged for it."""
    set_quota(namespace, pods="4")
    for name in ("first", "second"):
        namespace.apply(cheap_job(name, workers=2))
    done = [namespace.complete(name, timeout=600) for name in ("first", "second")]
    for job in done:
        assert status(job)["restarts"]["counted"] == 0
        assert [record["result"] for record in status(job)["attempts"]] == ["Complete"]
    early, late = sorted(done, key=lambda job: status(job)["completionTime"])
    # An attempt holds an incomplete set of pods for some seconds, so it may begin while the other still trains; but it
    # has all its pods only after the other's last step, when the other's workers have finished.
    began = datetime.fromisoformat(status(late)["attempts"][0]["startTime"])
    whole = began + timedelta(seconds=status(late)["startupTimings"]["startedSeconds"] + 1)  # both are whole seconds
    assert whole >= datetime.fromisoformat(progress(early)["stepTime"])


def test_c04_what_can_never_fit_holds_nothing(namespace: Namespace) -> None:
    set_quota(namespace, pods="2")
    namespace.apply(cheap_job("big", workers=2))
    waits = namespace.wait("big", lambda j: "needs pods=3 of 2" in provisioned(j).get("message", ""), "saying so")
    assert provisioned(waits)["reason"] == "WaitingForQuota"
    namespace.wait_no_pods("big")
    namespace.patch("big", {"spec": {"run": {"pendingDeadlineSeconds": 1}}})
    assert "exceeded quota" in condition(namespace.failed("big"), "Failed")["message"]


def test_a_volume_of_something_that_is_missing_is_named(namespace: Namespace) -> None:
    job = cheap_job("volume")
    # the kubelet sets up what is mounted, and ignores a volume that is only listed
    trainer = {"name": "trainer", "volumeMounts": [{"name": "extra", "mountPath": "/extra"}]}
    volumes = [{"name": "extra", "configMap": {"name": "later"}}]
    job["spec"]["cluster"]["workers"]["template"] = {"spec": {"volumes": volumes, "containers": [trainer]}}
    namespace.apply(job)
    waits = namespace.wait("volume", lambda j: provisioned(j).get("reason") == "WaitingForVolumes", "waiting")
    assert "ConfigMap later" in provisioned(waits)["message"]
    meta = client.V1ObjectMeta(name="later")
    namespace.cluster.core.create_namespaced_config_map(namespace.name, client.V1ConfigMap(metadata=meta))
    namespace.complete("volume", timeout=420)


def test_a_secret_without_a_key_is_named_with_the_key(namespace: Namespace) -> None:
    half = client.V1Secret(metadata=client.V1ObjectMeta(name="half"), string_data={"AWS_ACCESS_KEY_ID": "minioadmin"})
    namespace.cluster.core.create_namespaced_secret(namespace.name, half)
    job = cheap_job("half")
    job["spec"]["storage"]["credentialsSecret"] = "half"
    namespace.apply(job)
    waits = namespace.wait("half", lambda j: "AWS_SECRET_ACCESS_KEY" in provisioned(j).get("message", ""), "saying so")
    assert "Secret half" in provisioned(waits)["message"]
    body = {"stringData": {"AWS_SECRET_ACCESS_KEY": "minioadmin-secret"}}
    namespace.cluster.core.patch_namespaced_secret("half", namespace.name, body)
    namespace.complete("half", timeout=420)


def test_one_service_for_all_heads_of_a_namespace(namespace: Namespace) -> None:
    for name in ("one", "two"):
        namespace.apply(cheap_job(name))
    for name in ("one", "two"):
        namespace.complete(name)
    services = namespace.cluster.core.list_namespaced_service(namespace.name).items
    assert [service.metadata.name for service in services] == [HEADS_SERVICE]


def test_a_run_that_stands_still_says_since_when(namespace: Namespace) -> None:
    """A training process that is stopped: no step, no ETA, and the time of the last step."""
    namespace.apply(make_long_job("still", 2000, cluster__workers={"count": 1, "cpus": "250m", "memory": "3Gi"}))
    namespace.at_step("still", 1)
    namespace.kill_training_process("still", 1, 0, "SIGSTOP")
    job = namespace.wait("still", lambda j: condition(j, "Running").get("reason") == "NoRecentStep", "saying so", 90)
    last = progress(job)["stepTime"]
    assert f"No step has been completed since {last}" in condition(job, "Running")["message"]
    assert progress(job).get("eta", "") == ""


def test_a_longer_duration_continues_a_complete_job(namespace: Namespace) -> None:
    namespace.apply(cheap_job("longer"))
    first = namespace.complete("longer")
    steps = progress(first)["totalSteps"]
    namespace.patch("longer", {"spec": {"training": {"loop": {"duration": "40ep"}}}})
    namespace.wait("longer", lambda j: condition(j, "Complete").get("reason") == "DurationExtended", "live again")
    second = namespace.complete("longer")
    assert progress(second)["totalSteps"] == 2 * steps
    assert status(second)["attempts"][-1]["resumedFromStep"] == steps
    assert status(second)["restarts"]["counted"] == 0

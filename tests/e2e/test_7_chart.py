"""The chart on a real cluster: install, test, upgrade, uninstall. It ends with the operator installed, as it began."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from kubernetes import client, watch
from trainmaster_api import GROUP, PLURAL
from trainmaster_api.names import HEADS_SERVICE

from tests.e2e.conftest import RELEASE, ROOT, S3_KEYS, SYSTEM, chart_values, make_job
from tests.e2e.kube import Cluster, Namespace, holds, progress, status

pytestmark = [pytest.mark.cluster, pytest.mark.alone]  # the release is everybody's
CHART = str(ROOT / "charts" / "trainmaster")
CRD = f"{PLURAL}.{GROUP}"


def install(cluster: Cluster, *more: str) -> str:
    """Install or upgrade, and wait until the operator is ready."""
    args = ("-n", SYSTEM, "--wait", "--timeout", "180s", *chart_values(), *more)
    return cluster.helm("upgrade", "--install", RELEASE, CHART, *args)


@pytest.fixture
def restored(cluster: Cluster, operator: str) -> Iterator[None]:
    """Whatever the test does to the release, afterwards it is there with the usual values."""
    yield
    install(cluster)


@pytest.fixture
def restricted(cluster: Cluster, operator: str) -> Iterator[None]:
    """The release's namespace under Pod Security `restricted`, with the S3 keys that the test job needs."""
    label = "pod-security.kubernetes.io/enforce"
    cluster.core.patch_namespace(SYSTEM, {"metadata": {"labels": {label: "restricted"}}})
    keys = client.V1Secret(metadata=client.V1ObjectMeta(name="minio"), string_data=S3_KEYS)
    with contextlib.suppress(client.ApiException):  # it is there from the last time
        cluster.core.create_namespaced_secret(SYSTEM, keys)
    yield
    cluster.core.patch_namespace(SYSTEM, {"metadata": {"labels": {label: None}}})


def test_operator_and_test_job_run_under_restricted(cluster: Cluster, restricted: None) -> None:
    cluster.kubectl("rollout", "restart", "deployment/trainmaster-operator", "-n", SYSTEM)
    cluster.kubectl("rollout", "status", "deployment/trainmaster-operator", "-n", SYSTEM, "--timeout=180s")
    said = cluster.helm("test", RELEASE, "-n", SYSTEM, "--timeout", "660s", "--logs")
    assert "Phase:          Succeeded" in said
    assert "Complete" in said
    left = cluster.custom.list_namespaced_custom_object(GROUP, "v1alpha1", SYSTEM, PLURAL)["items"]
    assert [job["metadata"]["name"] for job in left if job["metadata"]["name"].startswith("smoke-")] == []


def test_notes_name_the_next_command(cluster: Cluster, restored: None) -> None:
    assert "kubectl apply -f examples/digits/trainingjob.yaml" in install(cluster)


def test_upgrade_and_uninstall_leave_jobs_alone(cluster: Cluster, namespace: Namespace, restored: None) -> None:
    namespace.apply(make_job("survivor", training__loop__duration="2000ep"))
    job = namespace.at_step("survivor", 50)
    uids = {name: pod.metadata.uid for name, pod in namespace.pods("survivor").items()}

    install(cluster, "--set", "operator.log.verbose=true")
    assert {name: pod.metadata.uid for name, pod in namespace.pods("survivor").items()} == uids

    cluster.helm("uninstall", RELEASE, "-n", SYSTEM, "--wait", "--timeout", "120s")
    assert (
        cluster.kubectl("get", "crd", CRD, "-o", "name").strip()
        == f"customresourcedefinition.apiextensions.k8s.io/{CRD}"
    )
    for kind in ("deployment", "serviceaccount", "role", "rolebinding"):
        assert RELEASE not in cluster.kubectl("get", kind, "-n", SYSTEM, "-o", "name")
    # `helm test` has run a job here: the Service of its head belongs to the namespace and stays (docs/chart.md)
    services = cluster.kubectl("get", "service", "-n", SYSTEM, "-o", "name").split()
    assert {name for name in services if RELEASE in name} <= {f"service/{HEADS_SERVICE}"}
    for kind in ("clusterrole", "clusterrolebinding"):
        assert f"{RELEASE}-operator" not in cluster.kubectl("get", kind, "-o", "name")
    left = namespace.job("survivor")
    assert left["metadata"]["uid"] == job["metadata"]["uid"]
    assert {name: pod.metadata.uid for name, pod in namespace.pods("survivor").items()} == uids

    install(cluster)
    seen = progress(left).get("step", 0)
    job = namespace.wait("survivor", lambda j: progress(j).get("step", 0) > seen, f"past step {seen}", 120)
    assert status(job)["attempt"] == 1
    assert {name: pod.metadata.uid for name, pod in namespace.pods("survivor").items()} == uids


def test_webhook_answers_over_the_operators_own_certificate(
    cluster: Cluster, namespace: Namespace, restored: None
) -> None:
    # with Fail, a job is created only if the API server trusts the operator's certificate and gets an answer
    install(cluster, "--set", "webhook.enabled=true,webhook.failurePolicy=Fail,webhook.timeoutSeconds=10")
    admission = client.AdmissionregistrationV1Api(cluster.core.api_client)

    events = watch.Watch().stream(admission.list_validating_webhook_configuration, timeout_seconds=60)
    name = f"{RELEASE}-operator"
    filled = (
        e for e in events if e["object"].metadata.name == name and e["object"].webhooks[0].client_config.ca_bundle
    )
    assert next(filled, None), "the operator put no CA into its webhook"
    job = namespace.apply(make_job("asked", run__suspend=True))
    assert job["metadata"]["uid"]
    assert not holds(job, "Failed")

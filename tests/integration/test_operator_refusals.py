"""Pods that a real API server refuses, in its own words: what is waited for, what fails, what is given back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_operator.kube.client import EVENTS, PODS, SERVICES, WEBHOOKS, Resource

from tests.integration.operator_harness import Bed, audit, job, size, writes

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
RANGES = Resource("", "v1", "limitranges", "LimitRange")
ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass")
ALL = {"digits-1-head", "digits-1-w-0", "digits-1-w-1"}


async def quota(here: Bed, **hard: str) -> None:
    """A quota, as soon as it is counted."""
    spec = {"hard": {name.replace("__", "."): value for name, value in hard.items()}}
    await here.client.create(QUOTAS, here.namespace, {"metadata": {"name": "tenant"}, "spec": spec})

    async def counted() -> bool:
        found = await here.client.get(QUOTAS, here.namespace, "tenant")
        return bool((found.get("status") or {}).get("used"))

    await here.until(counted, "a quota that is counted")


def with_template(spec: dict[str, Any]) -> dict[str, Any]:
    body = job()
    body["spec"]["cluster"]["workers"]["template"] = {"spec": spec}
    return body


async def test_a_service_account_that_comes_later_is_waited_for(here: Bed) -> None:
    here.operator()
    await here.submit(with_template({"serviceAccountName": "trainer"}))
    waits = await here.until_condition("Provisioned", "False", reason="WaitingForDependency")
    assert "ServiceAccount trainer" in waits["message"]
    assert "cluster.workers.template.spec.serviceAccountName" in waits["message"]
    assert (await here.condition("Accepted"))["status"] == "True"
    await asyncio.sleep(3)  # the wait is what is tested: the account is late by so much, and still no attempt is lost
    await here.client.create(ACCOUNTS, here.namespace, {"metadata": {"name": "trainer"}})
    started = asyncio.get_running_loop().time()
    await here.until_condition("Provisioned")
    assert asyncio.get_running_loop().time() - started < 8
    assert (await here.get())["status"]["attempt"] == 1


async def test_a_priority_class_that_comes_later_is_waited_for(here: Bed) -> None:
    name = f"class-{here.namespace}"
    here.operator()
    await here.submit(with_template({"priorityClassName": name}))
    waits = await here.until_condition("Provisioned", "False", reason="WaitingForDependency")
    assert f"PriorityClass {name}" in waits["message"]
    await here.client.create(CLASSES, None, {"metadata": {"name": name}, "value": 7})
    await here.until_condition("Provisioned")


async def test_quota_full_releases_a_partial_attempt(here: Bed) -> None:
    await quota(here, pods="2")
    here.operator()
    await here.submit(job())
    waits = await here.until_condition("Provisioned", "False", reason="WaitingForQuota")
    assert "exceeded quota: tenant" in waits["message"]
    assert "the attempt needs pods=3 of 2 in all" in waits["message"]

    async def given_back() -> bool:
        return (await here.get())["status"]["attempt"] >= 1 and not await here.names()

    await here.until(given_back, "no pod that is held for nothing")
    status = (await here.get())["status"]
    assert status["restarts"]["total"] == 0
    await here.client.patch(QUOTAS, here.namespace, "tenant", {"spec": {"hard": {"pods": "9"}}})
    await here.until_condition("Provisioned")
    assert "waitingSince" not in (await here.get())["status"]


async def test_quota_two_jobs_run_one_after_the_other(here: Bed) -> None:
    """Three pods each, and room for four."""
    await quota(here, pods="4")
    here.operator()
    for name in ("first", "second"):
        await here.submit(job(name))

    async def provisioned() -> str:
        for name in ("first", "second"):
            if (await here.condition("Provisioned", name)).get("status") == "True":
                return name
        return ""

    winner = await here.until(provisioned, "one of them with all its pods", 120)
    other = "second" if winner == "first" else "first"
    attempt = (await here.get(winner))["status"]["attempt"]
    message = ExitMessage(outcome=Outcome.COMPLETE, step=9).encode()
    await here.kubelet.set(f"{winner}-{attempt}-head", "Succeeded", exit_code=0, message=message)
    await here.until_condition("Complete", name=winner)
    freed = asyncio.get_running_loop().time()
    await here.until_condition("Provisioned", name=other)
    # it need not wait out its pause: it is woken when pods of the namespace go
    assert asyncio.get_running_loop().time() - freed < 40
    for name in (winner, other):
        assert (await here.get(name))["status"]["restarts"] == {"total": 0, "counted": 0, "recoveries": 0}


async def test_a_quota_on_cpu_limits_names_the_field_that_helps(here: Bed) -> None:
    await quota(here, limits__cpu="8", requests__cpu="8", limits__memory="16Gi", requests__memory="16Gi")
    here.operator()
    await here.submit(job())
    failed = await here.until_condition("Failed")
    assert failed["reason"] == "PodRejected"
    assert "cluster.head.cpuLimit" in failed["message"] or "cluster.workers.cpuLimit" in failed["message"]
    body = job("limited")
    for part in ("workers", "head"):
        body["spec"]["cluster"].setdefault(part, {})["cpuLimit"] = "2"
    await here.submit(body)
    await here.until_condition("Provisioned", name="limited")


async def test_a_limit_range_names_the_field(here: Bed) -> None:
    limits = [{"type": "Container", "max": {"memory": "1Gi"}}]
    await here.client.create(RANGES, here.namespace, {"metadata": {"name": "small"}, "spec": {"limits": limits}})
    here.operator()
    await here.submit(job())
    failed = await here.until_condition("Failed")
    assert failed["reason"] == "PodRejected"
    assert "LimitRange" in failed["message"]
    assert ".memory." in failed["message"]


async def test_a_webhook_that_cannot_be_called_is_waited_for(here: Bed) -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": here.namespace}}
    hook = {
        "name": "gate.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/x"},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        "namespaceSelector": selector,
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    name = f"gate-{here.namespace}"
    made = await here.client.create(WEBHOOKS, None, {"metadata": {"name": name}, "webhooks": [hook]})
    try:
        here.operator()
        await here.submit(job())
        waits = await here.until_condition("Provisioned", "False", reason="WaitingForAdmission")
        assert "gate.example.com" in waits["message"]
    finally:
        await here.client.delete(WEBHOOKS, None, name, uid=made["metadata"]["uid"])
    await here.until_condition("Provisioned")


async def test_a_wait_is_bounded_by_the_pending_deadline(here: Bed) -> None:
    here.operator()
    body = job(pendingDeadlineSeconds=3)
    body["spec"]["cluster"]["workers"]["template"] = {"spec": {"serviceAccountName": "never"}}
    await here.submit(body)
    failed = await here.until_condition("Failed")
    assert failed["reason"] == "DeadlineExceeded"
    assert "ServiceAccount never" in failed["message"]


async def test_a_sidecar_and_claims_of_a_template_reach_the_pod(here: Bed) -> None:
    here.operator()
    spec = {
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "large"}],
        "containers": [
            {"name": "trainer", "resources": {"claims": [{"name": "gpu"}]}, "env": [{"name": "A", "value": "1"}]},
            {"name": "side", "image": "example.com/side:1"},
        ],
    }
    await here.submit(with_template(spec))
    await here.until_names(ALL)
    pod = await here.client.get(PODS, here.namespace, "digits-1-w-0")
    assert [container["name"] for container in pod["spec"]["containers"]] == ["trainer", "side"]
    assert pod["spec"]["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]


async def test_a_host_path_needs_the_flag(here: Bed) -> None:
    here.operator()
    await here.submit(with_template({"volumes": [{"name": "d", "hostPath": {"path": "/d"}}]}))
    refused = await here.until_condition("Accepted", "False")
    assert "spec.cluster.workers.template.spec.volumes[0].hostPath" in refused["message"]


# --- the Service of the namespace's heads --------------------------------------------------------------------------


async def test_one_service_serves_all_jobs_and_outlives_them(here: Bed) -> None:
    here.operator()
    for name in ("one", "two"):
        await here.submit(job(name))
        await here.until_condition("Provisioned", name=name)
    (service,) = await here.list(SERVICES)
    assert service["metadata"]["name"] == "trainmaster-heads"
    assert "ownerReferences" not in service["metadata"]
    for name in ("one", "two"):
        pod = await here.client.get(PODS, here.namespace, f"{name}-1-head")
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == (f"{name}-1-head", "trainmaster-heads")
        await here.delete(name)
    await here.until_names(set())
    assert [s["metadata"]["uid"] for s in await here.list(SERVICES)] == [service["metadata"]["uid"]]


async def test_a_deleted_service_is_made_again(here: Bed) -> None:
    here.operator()
    await here.submit(job())
    await here.until_condition("Provisioned")
    (service,) = await here.list(SERVICES)
    await here.client.delete(SERVICES, here.namespace, "trainmaster-heads", uid=service["metadata"]["uid"])

    async def again() -> bool:
        return [s["metadata"]["uid"] for s in await here.list(SERVICES)] not in ([], [service["metadata"]["uid"]])

    await here.until(again, "another Service")


@pytest.mark.parametrize("labels", [{}, {"app.kubernetes.io/name": "trainmaster-heads"}])
async def test_a_foreign_service_of_the_name_is_left_alone(here: Bed, labels: dict[str, str]) -> None:
    body = {
        "metadata": {"name": "trainmaster-heads", "labels": labels},
        "spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]},
    }
    foreign = await here.client.create(SERVICES, here.namespace, body)
    here.operator()
    await here.submit(job())
    conflict = await here.until_condition("Degraded", reason="NameConflict")
    assert "Service trainmaster-heads" in conflict["message"]
    assert await here.names() == set()
    now = await here.client.get(SERVICES, here.namespace, "trainmaster-heads")
    assert now["metadata"]["resourceVersion"] == foreign["metadata"]["resourceVersion"]


async def test_jobs_that_are_refused_cost_few_requests(here: Bed, audit_log: Path) -> None:
    """A namespace that is full for minutes: no storm of creations."""
    await quota(here, pods="0")
    here.operator()
    await here.submit(job())
    await here.until_condition("Provisioned", "False", reason="WaitingForQuota")

    async def told() -> bool:  # the operator posts the Event after it has written the status
        return [event for event in await here.list(EVENTS) if event["involvedObject"]["kind"] == "TrainingJob"] != []

    await here.until(told, "the Event of the condition")
    version = (await here.get())["metadata"]["resourceVersion"]
    offset = size(audit_log)
    await asyncio.sleep(6)  # a rate is tested, and a rate needs time
    assert (await here.get())["metadata"]["resourceVersion"] == version, "the status says the same all the time"
    asked = writes(audit(audit_log, offset, namespace=here.namespace))
    kinds = [(entry["verb"], entry["resource"], entry["code"]) for entry in asked]
    told_late = ("create", "events", 201)  # the audit log may get the line of the Event after the Event can be read
    assert kinds.count(told_late) <= 1, kinds
    # a try asks for the Secret, which is there, and for the three pods at once
    assert set(kinds) - {told_late} <= {("create", "secrets", 409), ("create", "pods", 403)}
    # pauses of half a second at the least (1 s, jitter 0.5), which grow to a quarter of the time that was waited
    tries = kinds.count(("create", "secrets", 409))
    assert 1 <= tries <= 9, kinds
    assert kinds.count(("create", "pods", 403)) <= 3 * (tries + 1), kinds

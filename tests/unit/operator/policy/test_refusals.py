"""Every refusal in the API server's own words: what it means, and which field helps."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from trainmaster_operator.policy.context import PlanContext
from trainmaster_operator.policy.refusals import Refusal, explain
from trainmaster_operator.policy.snapshot import Rejection

from .wrappers import Bench

POD = 'pods "digits-1-w-0" is forbidden: '


def meaning(message: str, code: int = 403, name: str = "digits-1-w-0", kind: str = "Pod") -> Refusal:
    context = PlanContext.of(Bench().snapshot(), datetime.now(UTC))
    return explain(context, Rejection(name, code, message, kind))


HEALS = [
    (403, POD + 'error looking up service account team/trainer: serviceaccount "trainer" not found',
     "WaitingForDependency", "ServiceAccount trainer, which does not exist: create it in namespace team, or correct "
     "cluster.workers.template.spec.serviceAccountName"),
    (403, POD + "no PriorityClass with name urgent was found", "WaitingForDependency",
     "cluster.workers.template.spec.priorityClassName"),
    (403, POD + 'pod rejected: RuntimeClass "gvisor" not found', "WaitingForDependency", "runtimeClassName"),
    (403, POD + "exceeded quota: q, requested: limits.memory=2Gi, used: limits.memory=15Gi, limited: "
     "limits.memory=16Gi", "WaitingForQuota", "raise the quota or lower cluster.workers.memory"),
    (403, POD + "exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=4, limited: requests.cpu=4",
     "WaitingForQuota", "lower cluster.workers.cpus"),
    (403, POD + "status unknown for quota: q, resources: pods", "WaitingForQuota", "status unknown"),
    (403, POD + "insufficient quota to match these scopes: [{PriorityClass In [high]}]", "WaitingForQuota", "scopes"),
    (500, 'Internal error occurred: failed calling webhook "check.example.com": failed to call webhook: Post '
     '"https://check.x.svc:443/?timeout=10s": dial tcp 10.0.0.9:443: connect: connection refused',
     "WaitingForAdmission", "webhook check.example.com can't be called"),
    (500, 'Internal error occurred: failed calling webhook "w": failed to call webhook: Post "https://w": context '
     "deadline exceeded", "WaitingForAdmission", "deadline exceeded"),
    (500, 'Internal error occurred: failed calling webhook "w": no endpoints available for service "w"',
     "WaitingForAdmission", "no endpoints"),
    (503, "apiserver is shutting down", "WaitingForAdmission", "shutting down"),
    (500, "etcdserver: request timed out", "WaitingForAdmission", "etcdserver"),
    (429, "too many requests", "WaitingForAdmission", "too many requests"),
    (409, 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified', "WaitingForAdmission",
     "has been modified"),
    (403, POD + "unable to create new content in namespace team because it is being terminated",
     "NamespaceTerminating", "team is being deleted"),
    (404, 'namespaces "team" not found', "NamespaceTerminating", "team is being deleted"),
    (403, 'pods is forbidden: User "system:serviceaccount:x:operator" cannot create resource "pods" in API group "" in '
     'the namespace "team"', "WaitingForAdmission", "install the chart's roles"),
]  # fmt: skip

FINAL = [
    (403, POD + "failed quota: q: must specify limits.cpu for: trainer", "set cluster.workers.cpuLimit."),
    (403, POD + "failed quota: q: must specify limits.cpu for: trainer,side; limits.ephemeral-storage for: trainer",
     "set cluster.workers.cpuLimit, cluster.workers.template.spec.containers[name=side].resources.limits.cpu, "
     "cluster.workers.template.spec.containers[name=trainer].resources.limits.ephemeral-storage."),
    (403, POD + "failed quota: q: must specify limits.cpu", "set cluster.workers.cpuLimit."),
    (403, POD + "maximum cpu usage per Container is 1, but limit is 2", "change cluster.workers.cpuLimit."),
    (403, POD + "maximum cpu usage per Container is 1. No limit is specified", "change cluster.workers.cpuLimit."),
    (403, POD + "minimum cpu usage per Container is 500m, but request is 200m", "change cluster.workers.cpus."),
    (403, POD + "[maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Container is 1Gi, but "
     "limit is 2Gi]", "change cluster.workers.memory and cluster.workers.cpuLimit."),
    (403, POD + "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
     "change cluster.workers.cpuLimit and cluster.workers.cpus."),
    (422, 'Pod "digits-1-w-0" is invalid: spec.containers[0].resources.requests: Invalid value: "1": must be less than '
     "or equal to cpu limit of 500m", "The default limit of a LimitRange"),
    (400, 'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.nodeSelctor"',
     "A pod has no field cluster.workers.template.spec.nodeSelctor"),
    (403, POD + 'violates PodSecurity "restricted:latest": unrestricted capabilities',
     "change cluster.workers.template."),
    (403, 'admission webhook "policy.example.com" denied the request: images must be signed',
     "Admission webhook policy.example.com denied pod digits-1-w-0"),
    (400, 'admission webhook "policy.example.com" denied the request: no', "denied"),
    (422, 'Pod "digits-1-w-0" is invalid: spec.containers[1].image: Required value', "cluster.workers.template"),
    (403, POD + "something that no version has said yet", "something that no version has said yet"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "message", "reason", "part"), HEALS)
def test_refusal_ends_when_the_cause_is_gone(code: int, message: str, reason: str, part: str) -> None:
    found = meaning(message, code)
    assert found.heals
    assert found.reason.value == reason
    assert part in found.message
    assert found.message.endswith(".")


@pytest.mark.parametrize(("code", "message", "part"), FINAL)
def test_only_an_edit_heals_and_the_field_is_named(code: int, message: str, part: str) -> None:
    found = meaning(message, code)
    assert not found.heals
    assert found.reason.value == "PodRejected"
    assert part in found.message


def test_the_head_has_fields_of_its_own() -> None:
    found = meaning(POD + "failed quota: q: must specify limits.cpu for: trainer", name="digits-1-head")
    assert "set cluster.head.cpuLimit." in found.message


def test_a_request_above_the_whole_quota_is_said() -> None:
    found = meaning(POD + "exceeded quota: q, requested: requests.memory=2Gi, used: requests.memory=0, limited: "
                    "requests.memory=4Gi")  # fmt: skip
    assert found.hopeless
    assert "the attempt needs requests.memory=6Gi of 4Gi in all" in found.message


@pytest.mark.parametrize("code", [403, 422])
def test_nothing_about_our_own_objects_fails_a_job(code: int) -> None:
    assert meaning("whatever", code, "digits-run", "Secret").heals

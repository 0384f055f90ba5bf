"""The operator's process on a real API server; the kubelet is test code."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.validation.validate import validate
from trainmaster_operator.kube.client import EVENTS, LEASES, PODS, SECRETS, SERVICES, TRAINING_JOBS
from trainmaster_operator.kube.errors import ApiError

from tests.integration.operator_harness import Bed, audit, job, leads, size, writes

PODS_1 = {"digits-1-head", "digits-1-w-0", "digits-1-w-1"}
PODS_2 = {"digits-2-head", "digits-2-w-0", "digits-2-w-1"}


async def test_job_objects_and_status(here: Bed) -> None:
    here.kubelet.start = False
    here.operator()
    uid = (await here.submit(job()))["metadata"]["uid"]
    await here.until_names(PODS_1)
    assert await here.names(SERVICES) == {"trainmaster-heads"}
    for thing in await here.list():
        owner = thing["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("TrainingJob", uid, True)
        assert "finalizers" not in thing["metadata"]
    await here.until_condition("Provisioned", "False")
    here.kubelet.start = True
    await here.until_condition("Provisioned")
    body = await here.get()
    assert body["status"]["workersReady"] == "2/2"
    assert "finalizers" not in body["metadata"]
    assert not [name for name in body["metadata"].get("annotations", {}) if "kopf" in name]


def complete(accuracy: float = 0.98) -> str:
    """Termination message of a head that has finished."""
    return ExitMessage(outcome=Outcome.COMPLETE, step=100, test_metrics={"accuracy": accuracy}).encode()


async def provisioned(here: Bed, body: dict[str, object] | None = None, **flags: str) -> dict[str, str]:
    """Start an operator and a job and wait for its pods to be ready; the pods' UIDs."""
    here.operator(**flags)
    await here.submit(body or job())
    await here.until_condition("Provisioned")
    return await here.pod_uids()


async def test_writes_per_job_and_none_once_converged(here: Bed, audit_log: Path) -> None:
    await provisioned(here, job(workers=3), resync_seconds="0.5")
    await here.until_looked(here.operators[0], 2)
    until_ready = writes(audit(audit_log, namespace=here.namespace))
    made = [entry for entry in until_ready if entry["name"] != "trainmaster-operator-tls" and entry["code"] < 300]
    assert sorted(entry["resource"] for entry in made if entry["verb"] == "create") == ["pods"] * 4 + [
        "secrets",
        "services",
    ]
    # four pods, a Secret, two statuses; beside them the namespace's Service and the operator's own certificate
    assert len(until_ready) - 2 <= 7, until_ready
    offset = size(audit_log)
    await here.until_looked(here.operators[0], 6)
    assert writes(audit(audit_log, offset, namespace=here.namespace)) == []


async def test_restart_writes_nothing(here: Bed, audit_log: Path) -> None:
    uids = await provisioned(here)
    await here.operators[0].end(signal.SIGKILL)
    offset = size(audit_log)
    here.operator("second")
    await here.until(lambda: leads(here.operators[1]), "the second one leads")
    await here.until_rest(here.operators[1])
    assert writes(audit(audit_log, offset, namespace=here.namespace)) == []
    assert await here.pod_uids() == uids


async def test_restart_sees_what_ended_meanwhile(here: Bed) -> None:
    await provisioned(here)
    await here.operators[0].end(signal.SIGKILL)
    await here.kubelet.set("digits-1-head", "Succeeded", exit_code=0, message=complete())
    here.operator("second")
    await here.until_condition("Complete")
    await here.until_names({"digits-1-head"})
    status = (await here.get())["status"]
    assert (status["attempt"], status["phase"], status["testMetrics"]) == (1, "Complete", {"accuracy": 0.98})


async def test_termination_releases_the_lease(here: Bed) -> None:
    await provisioned(here)
    async with asyncio.timeout(10):  # a pod has 30 s to end
        assert await here.operators[0].end() == 0, here.operators[0].log.read_text()
    lease = await here.client.get(LEASES, here.namespace, "trainmaster-operator")
    assert not lease["spec"].get("holderIdentity")


async def test_restart_after_a_delete_frees_the_name(here: Bed) -> None:
    uids = await provisioned(here)
    await here.operators[0].end(signal.SIGKILL)
    await here.delete()
    await here.submit(job())
    here.operator("second")

    async def replaced() -> bool:
        now = await here.pod_uids()
        return set(now) == PODS_1 and not set(now.values()) & set(uids.values())

    await here.until(replaced, "new pods for the new job", 60)
    new = (await here.get())["metadata"]["uid"]
    for thing in await here.list():
        assert thing["metadata"]["ownerReferences"][0]["uid"] == new
    await here.until_condition("Provisioned")
    secret = await here.client.get(SECRETS, here.namespace, "digits-run")
    assert secret["metadata"]["ownerReferences"][0]["uid"] == new


async def test_deleting_a_job_leaves_nothing(here: Bed) -> None:
    await provisioned(here)
    await here.delete()
    await here.until_names(set())
    await here.until_names({"trainmaster-heads"}, SERVICES)  # the namespace's, for the next job
    await here.until_names({"trainmaster-operator-tls"}, SECRETS)


async def test_a_foreign_pod_of_the_name_is_left_alone(here: Bed) -> None:
    foreign = {
        "metadata": {"name": "digits-1-head"},
        "spec": {"containers": [{"name": "x", "image": "example.com/x"}]},
    }
    uid = (await here.client.create(PODS, here.namespace, foreign))["metadata"]["uid"]
    here.operator()
    await here.submit(job())
    conflict = await here.until_condition("Degraded", reason="NameConflict")
    assert "digits-1-head" in conflict["message"]
    assert (await here.client.get(PODS, here.namespace, "digits-1-head"))["metadata"]["uid"] == uid


async def test_suspend_and_resume(here: Bed) -> None:
    await provisioned(here)
    await here.edit({"spec": {"run": {"suspend": True}}})
    await here.until_condition("Suspended")
    await here.until_names(set())
    await here.edit({"spec": {"run": {"suspend": False}}})
    await here.until_names(PODS_2)
    await here.until_condition("Provisioned")
    assert (await here.condition("Suspended"))["status"] == "False"


async def test_a_lost_worker_is_made_again_within_the_attempt(here: Bed) -> None:
    uids = await provisioned(here)
    await here.client.delete(PODS, here.namespace, "digits-1-w-1", uid=uids["digits-1-w-1"])

    async def replaced() -> bool:
        now = await here.pod_uids()
        return set(now) == PODS_1 and now["digits-1-w-1"] != uids["digits-1-w-1"]

    await here.until(replaced, "another worker of the same name")
    await here.until_condition("Provisioned")
    now = await here.pod_uids()
    assert {name: now[name] == uids[name] for name in now} == dict.fromkeys(now, True) | {"digits-1-w-1": False}
    assert (await here.get())["status"]["attempt"] == 1


async def test_a_lost_head_makes_a_new_attempt(here: Bed) -> None:
    await provisioned(here)
    await here.kubelet.set("digits-1-head", "Failed", exit_code=137)
    await here.until_names(PODS_2)

    async def second() -> Any:
        status = (await here.get())["status"]
        return status if status["attempt"] == 2 else None

    status = await here.until(second, "attempt 2 in the status")
    assert status["attempts"][0]["failureClass"] == "HeadLost"


async def test_failure_without_retry_keeps_what_explains_it(here: Bed) -> None:
    await provisioned(here)
    message = ExitMessage(
        outcome=Outcome.FAILED, failure_class=FailureClass.USER_CODE_ERROR, message="KeyError: 'label'", rank=1
    )
    await here.kubelet.set("digits-1-head", "Failed", exit_code=1, message=message.encode())
    failed = await here.until_condition("Failed")
    assert failed["reason"] == "UserCodeError"
    assert "KeyError: 'label'" in failed["message"]
    await here.until_names({"digits-1-head"})


async def test_refused_pod_fails_the_job_with_the_reason(here: Bed) -> None:
    body = job()
    body["spec"]["cluster"]["workers"]["template"] = {"spec": {"nodeSelctor": {"a": "b"}, "dnsPolicy": "Strange"}}
    here.operator()
    await here.submit(body)
    failed = await here.until_condition("Failed")
    assert failed["reason"] == "PodRejected"
    assert "A pod has no field cluster.workers.template.spec.nodeSelctor" in failed["message"]
    await here.edit({"metadata": {"labels": {"a": "b"}}})
    await here.delete()
    body["spec"]["cluster"]["workers"]["template"]["spec"].pop("nodeSelctor")
    await here.until_names(set())
    await here.submit(body)
    failed = await here.until_condition("Failed")
    assert 'dnsPolicy: Unsupported value: "Strange"' in failed["message"]


async def test_a_finished_job_goes_when_its_time_is_over(here: Bed) -> None:
    await provisioned(here, job(ttlSecondsAfterFinished=1))
    await here.kubelet.set("digits-1-head", "Succeeded", exit_code=0, message=complete())
    await here.until_names(set(), TRAINING_JOBS)
    await here.until_names(set())


async def test_the_deadline_counts_from_the_start(here: Bed) -> None:
    await provisioned(here, job(activeDeadlineSeconds=3))
    failed = await here.until_condition("Failed")
    assert failed["reason"] == "DeadlineExceeded"
    await here.until_names(set())


async def test_accepted_false_makes_nothing(here: Bed) -> None:
    here.operator()
    body = job()
    del body["spec"]["storage"]
    await here.submit(body)
    accepted = await here.until_condition("Accepted", "False")
    assert "storage" in accepted["message"]
    assert await here.names() == set()


async def test_accepted_false_has_the_message_of_validate(here: Bed) -> None:
    here.operator()
    body = job()
    body["spec"]["training"]["model"] = {"name": "mlp", "args": {"hiden": [8]}}
    body["spec"]["checkpoint"] = {"metric": "val/acuracy"}
    await here.submit(body)
    accepted = await here.until_condition("Accepted", "False")
    problems = validate({**body, "metadata": {"name": "digits"}})[1]
    assert len(problems) == 2
    for problem in problems:
        assert str(problem) in accepted["message"]
    assert await here.names() == set()
    args = {"hiden": None, "hidden": [8]}
    await here.edit({"spec": {"training": {"model": {"args": args}}, "checkpoint": {"metric": "val/accuracy"}}})
    await here.until_condition("Accepted")
    await here.until_names(PODS_1)
    with pytest.raises(ApiError, match="the best checkpoint so far was selected by it"):
        await here.edit({"spec": {"checkpoint": {"metric": "val/f1"}}})


async def test_events_tell_of_the_end_once(here: Bed) -> None:
    await provisioned(here, resync_seconds="0.5")
    await here.kubelet.set("digits-1-head", "Succeeded", exit_code=0, message=complete())
    await here.until_condition("Complete")

    async def told() -> bool:
        events = [e for e in await here.list(EVENTS) if e["involvedObject"]["kind"] == "TrainingJob"]
        return [event["reason"] for event in events].count("TrainingComplete") == 1

    await here.until(told, "the event")
    await here.until_looked(here.operators[0], 4)
    assert await told()

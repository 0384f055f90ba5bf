"""Sentences for pods that don't start, and when waiting ends."""

from __future__ import annotations

from typing import Any

import pytest

from .wrappers import Bench, clock, created, pending, pods, progress, swap

NO_CPU = (
    "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found "
    "for incoming pod."
)


def waiting(reason: str, message: str = "", index: int = 0) -> Any:
    return swap(pending(node="n", scheduled_at="x"), index, waiting=reason, waiting_message=message)


def test_unschedulable_waits_with_a_sentence() -> None:
    bench = Bench().started()
    bench.raw["spec"]["cluster"]["workers"]["cpus"] = "64"
    plan = bench.plan(5, swap(pods(), 1, ready=False, node="", phase="Pending", unschedulable=NO_CPU))
    assert bench.reason("Provisioned") == "Unschedulable"
    assert bench.message("Provisioned") == (
        "No node fits pod digits-1-w-0 (64 CPUs, 2Gi of memory): 0/2 nodes are available: 2 Insufficient cpu; "
        "lower cluster.workers.cpus, or add nodes."
    )
    assert (bench.status["phase"], bench.status["reason"]) == ("Pending", "Unschedulable")
    assert [event.reason for event in plan.events] == ["Unschedulable"]
    assert not bench.is_true("Failed")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("0/3 nodes are available: 3 Insufficient memory.", "lower cluster.head.memory, or add nodes"),
        ("0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory.", "cluster.head.cpus and cluster.head.m"),
        (
            "0/3 nodes are available: 3 node(s) had untolerated taint {gpu: }.",
            "check cluster.head.template.spec.tolerations",
        ),
        ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.", "template.spec.nodeSelector"),
    ],
)
def test_advice_names_the_field(said: str, advice: str) -> None:
    bench = Bench().started()
    bench.plan(5, pending(unschedulable=said))
    assert advice in bench.message("Provisioned")


def test_the_first_seconds_of_unschedulable_are_not_told() -> None:
    bench = Bench().started()
    plan = bench.plan(1, pending(unschedulable=NO_CPU))
    assert bench.reason("Provisioned") == "PodsCreated"
    assert plan.requeue_after == 2


def test_unschedulable_gets_room() -> None:
    bench = Bench().started()
    bench.plan(5, pending(unschedulable=NO_CPU))
    bench.plan(50, pods())
    assert bench.is_true("Provisioned")
    assert bench.status["phase"] == "Starting"


def test_image_that_cannot_be_pulled_fails_after_a_minute() -> None:
    bench = Bench().started()
    stuck = waiting("ErrImagePull", 'failed to resolve reference "trainer:1": no such host')
    plan = bench.plan(10, stuck)
    assert bench.reason("Provisioned") == "ImagePullFailed"
    assert "trainer:1" in bench.message("Provisioned")
    assert "cluster.image" in bench.message("Provisioned")
    assert plan.requeue_after == 60
    plan = bench.plan(69, waiting("ImagePullBackOff"))
    assert plan.requeue_after == 1
    assert not bench.is_true("Failed")
    bench.plan(70, stuck)
    assert bench.reason("Failed") == "ImagePullFailed"
    assert "no such host" in bench.message("Failed")
    assert bench.record()["failureClass"] == "ImagePullFailed"
    assert created(bench.settle(71, stuck)) == []


def test_image_pull_that_was_transient() -> None:
    bench = Bench().started()
    bench.plan(10, waiting("ErrImagePull"))
    assert bench.is_true("Degraded")
    bench.plan(40, pods())
    assert bench.is_true("Provisioned")
    assert not bench.is_true("Degraded")
    # the minute of a much later worker starts again
    bench.plan(400, waiting("ErrImagePull", index=1))
    assert not bench.is_true("Failed")


def test_registry_outage_in_the_middle_of_a_run_has_longer() -> None:
    bench = Bench().running()
    bench.plan(100, waiting("ErrImagePull", index=1), progress=progress(step=100))
    bench.plan(699, waiting("ErrImagePull", index=1), progress=progress(step=100))
    assert not bench.is_true("Failed")
    bench.plan(700, waiting("ErrImagePull", index=1), progress=progress(step=100))
    assert bench.reason("Failed") == "ImagePullFailed"


@pytest.mark.parametrize(
    ("reason", "word"), [("InvalidImageName", "correct cluster.image"), ("ErrImageNeverPull", "imagePullPolicy")]
)
def test_image_that_never_can_be_pulled_fails_at_once(reason: str, word: str) -> None:
    bench = Bench().started()
    bench.plan(1, waiting(reason))
    assert bench.reason("Failed") == "ImagePullFailed"
    assert word in bench.message("Failed")


def test_missing_credentials_secret_is_waited_for() -> None:
    bench = Bench().started()
    bench.plan(5, waiting("CreateContainerConfigError", 'secret "minio" not found', index=1))
    assert bench.reason("Provisioned") == "InvalidConfiguration"
    assert "storage.credentialsSecret" in bench.message("Provisioned")
    assert "namespace team" in bench.message("Provisioned")
    bench.plan(4000, waiting("CreateContainerConfigError", 'secret "minio" not found', index=1))
    assert not bench.is_true("Failed")


@pytest.mark.parametrize("key", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_secret_that_lacks_a_key_is_named_with_the_key(key: str) -> None:
    bench = Bench().started()
    bench.plan(5, waiting("CreateContainerConfigError", f"couldn't find key {key} in Secret team/minio"))
    assert f"the Secret minio (storage.credentialsSecret) in namespace team has no key {key}" in bench.message(
        "Provisioned"
    )
    assert not bench.is_true("Failed")


def without_sandbox(**fields: Any) -> Any:
    return swap(pending(node="n", scheduled_at=clock(2), waiting="ContainerCreating"), 1, no_sandbox=True, **fields)


def test_waiting_for_volumes_names_what_they_need() -> None:
    bench = Bench().started()
    stuck = without_sandbox(mounts=("Secret digits-run", "ConfigMap settings"))
    plan = bench.plan(10, stuck)
    assert bench.reason("Provisioned") == "PodsCreated"
    assert plan.requeue_after == 12
    bench.plan(22, stuck)
    assert bench.reason("Provisioned") == "WaitingForVolumes"
    assert "digits-1-w-0 has been on node n" in bench.message("Provisioned")
    assert "Secret digits-run, ConfigMap settings: check that each exists in namespace team" in bench.message(
        "Provisioned"
    )
    assert (bench.status["phase"], bench.status["reason"]) == ("Pending", "WaitingForVolumes")
    before = bench.status
    assert bench.plan(4000, stuck).status == before, "the sentence has a time, not a duration"


def test_a_slow_image_is_no_volume() -> None:
    """With a sandbox the pod has its volumes: what takes so long is the image."""
    bench = Bench().started()
    bench.plan(300, pending(node="n", scheduled_at=clock(2), waiting="ContainerCreating"))
    assert bench.reason("Provisioned") == "PodsCreated"


def test_another_missing_object_is_named() -> None:
    bench = Bench().started()
    bench.plan(5, waiting("CreateContainerConfigError", 'configmap "mine" not found', index=1))
    assert 'configmap "mine" not found' in bench.message("Provisioned")
    assert "cluster.workers.template" in bench.message("Provisioned")


def test_waiting_message_is_one_bounded_line() -> None:
    bench = Bench().started()
    bench.plan(5, waiting("ErrImagePull", "line one\nline two\t" + "x" * 2000))
    assert "line one line two" in bench.message("Provisioned")
    assert len(bench.message("Provisioned")) < 700

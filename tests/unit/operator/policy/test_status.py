"""The status as a whole: columns, times, events, and when it is written."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import ConditionType, FailureClass, Phase, Reason
from trainmaster_api.status import Status
from trainmaster_operator.policy.format import eta_text, metric_text, percent_text
from trainmaster_operator.policy.plan import plan, write_delay
from trainmaster_operator.policy.pod_failures import cause_of_exit, disruption_of
from trainmaster_operator.policy.snapshot import Exit, PodView

from .wrappers import UID, Bench, at, checkpoint, clock, ended, pod, pods, progress, said, swap


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (200, "3m20s"),
        (3600, "1h"),
        (7500, "2h5m"),
        (3 * 86400 + 14400, "3d4h"),
    ],
)
def test_status_eta(seconds: int | None, text: str) -> None:
    assert eta_text(seconds) == text


@pytest.mark.parametrize(
    ("step", "total", "text"), [(0, 0, ""), (0, 9, "0%"), (999, 1000, "99%"), (1000, 1000, "100%"), (12, 10, "100%")]
)
def test_status_percent(step: int, total: int, text: str) -> None:
    assert percent_text(step, total) == text


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("val/loss", {"val/loss": 0.12345678}, "val/loss=0.1235"),
        ("val/loss", {}, ""),
        ("val/r2", {"val/r2": -1234567.0}, "val/r2=-1.235e+06"),
    ],
)
def test_status_metric(name: str, values: dict[str, float], text: str) -> None:
    assert metric_text(name, values) == text


# --- conditions ----------------------------------------------------------------------------------------------------


def test_transition_time_moves_only_with_the_status() -> None:
    bench = Bench().running(second=10)
    first = bench.condition("Running")
    bench.plan(50, pods(), progress=progress(step=200))
    assert bench.condition("Running") == first
    bench.plan(100, swap(pods(), 0, exit=ended(1, said(Outcome.FAILED, FailureClass.HEAD_LOST))))
    assert bench.condition("Running")["lastTransitionTime"] == clock(100)
    bench.plan(103)
    assert bench.condition("Running")["lastTransitionTime"] == clock(100)


def test_observed_generation_follows_the_spec() -> None:
    bench = Bench().running()
    bench.raw["metadata"]["generation"] = 4
    bench.plan(20, pods(), progress=progress(step=100))
    assert bench.status["observedGeneration"] == 4
    assert {condition["observedGeneration"] for condition in bench.status["conditions"]} == {4}


def test_status_of_a_finished_job_follows_an_edit() -> None:
    """`kubectl wait --for=condition=Complete` compares the condition's generation with the job's."""
    bench = Bench().running()
    done = swap(pods(), 0, exit=ended(0, said(Outcome.COMPLETE)))[:1]
    bench.plan(100, done)
    bench.raw["metadata"]["generation"] = 2
    bench.plan(200, done)
    assert bench.condition("Complete")["observedGeneration"] == 2
    assert bench.condition("Complete")["lastTransitionTime"] == clock(100)


def test_times_do_not_go_back_with_the_clock() -> None:
    bench = Bench().running(second=600)
    bench.plan(10, swap(pods(), 0, exit=ended(1, said(Outcome.FAILED, FailureClass.HEAD_LOST))))
    assert bench.record()["endTime"] == clock(600)
    assert bench.plan(10).requeue_after == 10


def test_all_words_are_from_the_contract() -> None:
    reasons = {item.value for item in (*Reason, *FailureClass)}
    bench = Bench().running(checkpoint=checkpoint(100))
    bench.plan(100, swap(pods(), 0, exit=ended(1, said(Outcome.FAILED, FailureClass.DATA_ERROR))))
    for condition in bench.status["conditions"]:
        assert condition["type"] in {item.value for item in ConditionType}
        assert condition["reason"] in reasons
    assert bench.status["phase"] in {item.value for item in Phase}
    Status.model_validate(bench.status)


def test_conditions_stand_in_one_order() -> None:
    bench = Bench().running()
    order = [item.value for item in ConditionType]
    types = [condition["type"] for condition in bench.status["conditions"]]
    assert types == sorted(types, key=order.index)


def test_phase_is_never_read() -> None:
    bench = Bench().running()
    expected = bench.plan(20, pods(), progress=progress(step=100))
    bench.raw["status"] = {**bench.status, "phase": "Failed", "reason": "x"}
    assert bench.plan(20, pods(), progress=progress(step=100)) == expected


def test_status_of_a_newer_operator() -> None:
    bench = Bench().running()
    status = copy.deepcopy(bench.status)
    status["phase"] = "Resting"
    status["quota"] = {"some": "thing"}
    status["conditions"].append(
        {"type": "QuotaReserved", "status": "True", "lastTransitionTime": clock(1), "reason": "X"}
    )
    status["attempts"][0]["failureClass"] = "MeteorStrike"
    bench.raw["status"] = status
    found = bench.plan(20, pods(), progress=progress(step=100))
    assert found.actions == ()
    assert bench.status["phase"] == "Running"


# --- writes --------------------------------------------------------------------------------------------------------


def delay(bench: Bench, old: dict[str, Any], last: float | None, now: float) -> float | None:
    return write_delay(old, bench.status, None if last is None else at(last), at(now))


def test_equal_is_never_written() -> None:
    bench = Bench().running()
    assert delay(bench, copy.deepcopy(bench.status), None, 900) is None


def test_figures_wait_their_turn() -> None:
    bench = Bench().running()
    old = bench.status
    bench.plan(15, pods(), progress=progress(step=200, total_steps=1000, eta_seconds=4))
    assert delay(bench, old, 12, 15) == 7
    assert delay(bench, old, 12, 22) == 0
    assert delay(bench, old, None, 15) == 0


def test_counts_of_ready_workers_wait_longer() -> None:
    """So that a start costs two writes even when its pods come one by one."""
    bench = Bench().started()
    old = bench.status
    bench.plan(4, swap(pods(), 1, ready=False))
    assert old["workersReady"] != bench.status["workersReady"]
    assert delay(bench, old, 0, 4) == 26


def test_transitions_are_written_at_once() -> None:
    bench = Bench().running()
    old = bench.status
    bench.plan(15, pods(), progress=progress(step=200, checkpoint=checkpoint(200)))
    assert delay(bench, old, 14, 15) == 0
    old = bench.status
    bench.plan(16, swap(pods(), 0, exit=ended(1, said(Outcome.FAILED, FailureClass.HEAD_LOST))))
    assert delay(bench, old, 15, 16) == 0


def test_status_first_write() -> None:
    bench = Bench()
    bench.plan(0)
    assert delay(bench, {}, None, 0) == 0


# --- views ---------------------------------------------------------------------------------------------------------


def test_view_of_a_pod() -> None:
    served = {
        "metadata": {
            "name": "digits-3-w-7", "uid": "u", "creationTimestamp": clock(0), "deletionTimestamp": clock(90),
            "labels": {"trainmaster.dev/attempt": "3", "trainmaster.dev/role": "worker", "trainmaster.dev/index": "7"},
            "ownerReferences": [{"uid": "friend"}, {"uid": UID, "controller": True}],
        },
        "spec": {"nodeName": "node-2"},
        "status": {
            "phase": "Failed", "reason": "Evicted", "message": "low",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": clock(1)},
                {"type": "Ready", "status": "False", "lastTransitionTime": clock(9)},
                {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"},
            ],
            "containerStatuses": [
                {"name": "sidecar", "imageID": "other@sha256:1", "state": {"running": {"startedAt": clock(2)}}},
                {"name": "trainer", "imageID": "registry/trainer@sha256:2", "state": {"terminated": {
                    "exitCode": 137, "reason": "OOMKilled", "message": "{}",
                    "startedAt": clock(3), "finishedAt": clock(9),
                }}},
            ],
        },
    }  # fmt: skip
    assert PodView.from_pod(served) == PodView(
        uid="u",
        name="digits-3-w-7",
        attempt=3,
        role="worker",
        index=7,
        owner_uid=UID,
        created=clock(0),
        phase="Failed",
        reason="Evicted",
        message="low",
        ready=False,
        ready_changed=clock(9),
        node="node-2",
        scheduled_at=clock(1),
        started_at=clock(3),
        disruption="TerminationByKubelet",
        deleting=clock(90),
        image_id="registry/trainer@sha256:2",
        exit=Exit(137, "OOMKilled", "{}", clock(9)),
    )


def test_view_of_a_pod_that_waits() -> None:
    served = {
        "metadata": {"name": "p", "uid": "u", "labels": {"trainmaster.dev/attempt": "x"}},
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"},
            ],
            "containerStatuses": [
                {"name": "trainer", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}},
            ],
        },
    }  # fmt: skip
    view = PodView.from_pod(served)
    assert (view.attempt, view.index, view.owner_uid) == (0, None, "")
    assert (view.unschedulable, view.waiting, view.waiting_message) == ("0/2 nodes", "ErrImagePull", "no")
    assert not view.ended


def test_view_of_a_pod_whose_volumes_are_missing() -> None:
    sources = [{"secret": {"name": "digits-run"}}, {"configMap": {"name": "maybe", "optional": True}}]
    served = {
        "metadata": {
            "name": "p",
            "uid": "u",
            "annotations": {
                "trainmaster.dev/duration": "10ep",
                "trainmaster.dev/max-trials": "12",
                "trainmaster.dev/max-hours": "1.5",
            },
        },
        "spec": {
            "nodeName": "n",
            "volumes": [
                {"name": "job", "projected": {"sources": sources}},
                {"name": "c", "configMap": {"name": "settings"}},
                {"name": "s", "secret": {"secretName": "pull"}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "e", "emptyDir": {}},
            ],
        },
        "status": {
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": clock(1)},
                {"type": "PodReadyToStartContainers", "status": "False"},
            ],
            "containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}],
        },
    }
    view = PodView.from_pod(served)
    assert view.no_sandbox
    assert view.mounts == ("Secret digits-run", "ConfigMap settings", "Secret pull", "PersistentVolumeClaim data")
    assert (view.duration, view.max_trials, view.max_hours) == ("10ep", 12, 1.5)
    served["status"]["conditions"][1]["status"] = "True"  # type: ignore[index]
    assert not PodView.from_pod(served).no_sandbox


def with_init_container(state: dict[str, Any], phase: str = "Pending") -> PodView:
    return PodView.from_pod(
        {
            "metadata": {"name": "digits-1-head", "uid": "u"},
            "status": {
                "phase": phase,
                "containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}],
                "initContainerStatuses": [{"name": "fetch", "state": state}],
            },
        }
    )


def test_an_image_of_an_init_container_is_seen() -> None:
    assert with_init_container({"waiting": {"reason": "ErrImagePull", "message": "no"}}).waiting == "ErrImagePull"
    assert with_init_container({"running": {}}).waiting == "PodInitializing"


def test_an_init_container_that_fails_is_no_lost_node() -> None:
    view = with_init_container({"terminated": {"exitCode": 3, "finishedAt": clock(9)}}, "Failed")
    assert view.exit == Exit(3, "InitContainerFailed", "init container fetch failed", clock(9))
    assert disruption_of(view) is None
    assert cause_of_exit(view, "2Gi") == (None, "Pod digits-1-head: init container fetch failed with exit code 3.")


def test_view_of_a_pod_just_made() -> None:
    assert PodView.from_pod({"metadata": {"name": "p", "uid": "u"}}).phase == "Pending"


def test_same_snapshot_same_plan() -> None:
    bench = Bench().running()
    snapshot = bench.snapshot((pod("head"),), progress=progress(step=120))
    assert plan(snapshot, at(50)) == plan(snapshot, at(50))

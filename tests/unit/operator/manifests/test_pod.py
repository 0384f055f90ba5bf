"""What a pod must be whatever the golden files say."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_api import names
from trainmaster_operator.manifests.pod import shared_memory

from .test_golden import MANIFESTS

PODS = [name for name in MANIFESTS if name.startswith(("head", "worker"))]


def restricted_problems(pod: dict[str, Any]) -> list[str]:
    """What the Pod Security Standard `restricted` (v1.34) forbids in this pod."""
    spec, found = pod["spec"], []
    if any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("host namespaces")
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume {v['name']}" for v in spec["volumes"] if not allowed & set(v)]
    shared = spec.get("securityContext", {})
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        context = {**shared, **own}
        checks = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "runAsUser": context.get("runAsUser", 1) != 0,
            "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        found += [name for name, fine in checks.items() if not fine]
    return found


@pytest.mark.parametrize("name", PODS)
def test_passes_pod_security_restricted(name: str) -> None:
    assert restricted_problems(MANIFESTS[name]()) == []


def test_the_check_can_fail() -> None:
    pod = MANIFESTS["head"]()
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    pod["spec"]["volumes"].append({"name": "root", "hostPath": {"path": "/"}})
    pod["spec"]["securityContext"]["runAsUser"] = 0
    assert set(restricted_problems(pod)) == {
        "volume root", "privileged", "allowPrivilegeEscalation", "capabilities", "runAsUser",
    }  # fmt: skip


@pytest.mark.parametrize("name", PODS)
def test_root_file_system_is_read_only(name: str) -> None:
    (container,) = MANIFESTS[name]()["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounted = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert {names.SCRATCH_DIR, "/tmp", "/dev/shm"} <= mounted


@pytest.mark.parametrize("name", PODS)
def test_memory_and_gpus_are_limited_and_cpu_is_not(name: str) -> None:
    (container,) = MANIFESTS[name]()["spec"]["containers"]
    requests, limits = (dict(container["resources"][kind]) for kind in ("requests", "limits"))
    assert float(requests.pop("cpu")) > 0
    assert "memory" in limits
    assert requests == limits


@pytest.mark.parametrize("name", PODS)
def test_each_variable_stands_once_and_ours_win(name: str) -> None:
    """Of two entries the kubelet takes the last, and a reader the first."""
    (container,) = MANIFESTS[name]()["spec"]["containers"]
    keys = [item["name"] for item in container["env"]]
    assert len(keys) == len(set(keys))
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert values[names.ENV_ROLE] == name.partition("-")[0]
    assert values[names.ENV_POD_IP] is None


def test_only_the_head_has_a_token_and_only_for_progress() -> None:
    for name in PODS:
        spec = MANIFESTS[name]()["spec"]
        assert spec["automountServiceAccountToken"] is False
        tokens = [source for v in spec["volumes"] for source in v.get("projected", {}).get("sources", [])]
        audiences = [s["serviceAccountToken"]["audience"] for s in tokens if "serviceAccountToken" in s]
        assert audiences == ([names.PROGRESS_AUDIENCE] if name.startswith("head") else [])


def test_template_cannot_take_our_labels() -> None:
    labels = MANIFESTS["worker-shaped"]()["metadata"]["labels"]
    assert labels["team"] == "vision"
    assert labels[names.LABEL_ROLE] == "worker"


def test_workers_find_the_head_of_their_own_attempt() -> None:
    head, worker = MANIFESTS["head-shaped"](), MANIFESTS["worker"]()
    address = f"{head['spec']['hostname']}.{head['spec']['subdomain']}.team.svc"
    assert address == names.attempt_head_address("digits", 2, "team")
    (container,) = worker["spec"]["containers"]
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert values[names.ENV_HEAD_ADDRESS] == "digits-3-head.digits-head.team.svc"


def test_head_has_time_for_the_save_and_what_follows() -> None:
    assert MANIFESTS["head-shaped"]()["spec"]["terminationGracePeriodSeconds"] == 315


@pytest.mark.parametrize(("memory", "expected"), [("2Gi", "512Mi"), ("100Mi", "128Mi"), ("64Gi", "16384Mi")])
def test_shared_memory(memory: str, expected: str) -> None:
    assert shared_memory(memory) == expected

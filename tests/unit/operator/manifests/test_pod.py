"""What a pod must be whatever the golden files say."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from trainmaster_api import names
from trainmaster_api.spec.cluster import PodTemplateSpec
from trainmaster_operator import manifests
from trainmaster_operator.manifests.pod import shared_memory

from .test_golden import MANIFESTS, PLAIN, SETTINGS, SHAPED, resolved

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


def trainer(name: str) -> dict[str, Any]:
    """The training container of a pod."""
    found: dict[str, Any] = MANIFESTS[name]()["spec"]["containers"][0]
    assert found["name"] == names.CONTAINER
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
    container = trainer(name)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounted = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert {names.SCRATCH_DIR, "/tmp", "/dev/shm"} <= mounted


@pytest.mark.parametrize("name", PODS)
def test_memory_and_gpus_are_limited_and_cpu_only_on_request(name: str) -> None:
    container = trainer(name)
    requests, limits = (dict(container["resources"][kind]) for kind in ("requests", "limits"))
    assert float(requests.pop("cpu")) > 0
    assert limits.pop("cpu", None) == ("16" if name == "worker-shaped" else None)
    limits.pop("ephemeral-storage", None)
    assert "memory" in limits
    assert requests == limits


@pytest.mark.parametrize("name", PODS)
def test_each_variable_stands_once_and_ours_win(name: str) -> None:
    """Of two entries the kubelet takes the last, and a reader the first."""
    container = trainer(name)
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


def merged(**template: Any) -> dict[str, Any]:
    """A worker with a template that validation would refuse: the merge must hold by itself."""
    job = resolved(SHAPED)
    workers = job.spec.cluster.workers.model_copy(update={"template": PodTemplateSpec(**template)})
    cluster = job.spec.cluster.model_copy(update={"workers": workers})
    return manifests.worker(job.model_copy(update={"spec": job.spec.model_copy(update={"cluster": cluster})}), 1, 0)


def test_template_cannot_take_our_labels() -> None:
    pod = merged(metadata={"labels": {"team": "vision", names.LABEL_ROLE: "intruder"}})
    assert pod["metadata"]["labels"]["team"] == "vision"
    assert pod["metadata"]["labels"][names.LABEL_ROLE] == "worker"


def test_ours_win_over_a_template_that_was_not_validated() -> None:
    container = {
        "name": "trainer",
        "image": "intruder",
        "command": ["sh"],
        "env": [{"name": names.ENV_ROLE, "value": "intruder"}, {"name": names.ENV_POD_IP, "value": "intruder"}],
        "securityContext": {"allowPrivilegeEscalation": True, "capabilities": {"add": ["SYS_ADMIN"]}},
        "resources": {"limits": {"memory": "1Ti"}},
    }
    spec = {
        "restartPolicy": "Always",
        "automountServiceAccountToken": True,
        "securityContext": {"runAsNonRoot": False},
        "containers": [container, {"name": "other"}],
    }
    pod = merged(spec=spec)
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    ours, other = pod["spec"]["containers"]
    assert other["name"] == "other"
    assert (ours["image"], ours["command"][0]) == ("mine:2", "python")
    assert [item["value"] for item in ours["env"] if item["name"] == names.ENV_ROLE] == ["worker"]
    assert ours["securityContext"]["allowPrivilegeEscalation"] is False
    assert ours["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert ours["resources"]["limits"]["memory"] == "64Gi"


def test_resource_claims_need_no_code_of_ours() -> None:
    spec = MANIFESTS["worker-shaped"]()["spec"]
    assert spec["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "large-gpu"}]
    assert spec["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]


def test_template_adds_containers_volumes_and_placement() -> None:
    spec = MANIFESTS["worker-shaped"]()["spec"]
    assert [container["name"] for container in spec["containers"]] == ["trainer", "logs"]
    assert [container["name"] for container in spec["initContainers"]] == ["fetch"]
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert [volume["name"] for volume in spec["volumes"]] == ["job", "scratch", "tmp", "shm", "data"]
    ours = trainer("worker-shaped")
    assert ours["volumeMounts"][-1] == {"name": "data", "mountPath": "/data"}
    assert ours["envFrom"] == [{"configMapRef": {"name": "settings"}}]
    # a later variable may refer to an earlier one only
    keys = [item["name"] for item in ours["env"]]
    assert keys.index("SELF") > keys.index(names.ENV_POD_IP)


def test_other_containers_restricted_by_default() -> None:
    said = {"runAsUser": 7, "capabilities": {"drop": ["NET_RAW"]}, "readOnlyRootFilesystem": True}
    pod = merged(spec={"containers": [{"name": "a", "securityContext": said}], "initContainers": [{"name": "b"}]})
    first, second = pod["spec"]["containers"][1], pod["spec"]["initContainers"][0]
    assert first["securityContext"] == {"allowPrivilegeEscalation": False, **said}
    assert second["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_a_pod_needs_both_keys_of_the_credentials() -> None:
    refs = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in trainer("worker")["env"]
            if "secretKeyRef" in item.get("valueFrom", {})}  # fmt: skip
    assert refs == {key: {"name": "minio", "key": key} for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}


def test_the_service_is_told_from_others() -> None:
    ours = MANIFESTS["service"]()
    assert manifests.is_heads_service({**ours, "spec": {**ours["spec"], "clusterIPs": ["None"], "type": "ClusterIP"}})
    for change in ({"clusterIP": "10.0.0.1"}, {"selector": {"app": "x"}}, {"publishNotReadyAddresses": False}):
        assert not manifests.is_heads_service({**ours, "spec": {**ours["spec"], **change}})
    assert not manifests.is_heads_service({**ours, "metadata": {"name": "trainmaster-heads"}})


def test_service_selects_the_heads_of_all_jobs() -> None:
    selector = MANIFESTS["service"]()["spec"]["selector"].items()
    chosen = [name for name in PODS if selector <= MANIFESTS[name]()["metadata"]["labels"].items()]
    assert chosen == ["head", "head-shaped"]


def test_workers_find_the_head_of_their_own_attempt() -> None:
    head, worker = MANIFESTS["head-shaped"](), MANIFESTS["worker"]()
    address = f"{head['spec']['hostname']}.{head['spec']['subdomain']}.team.svc"
    assert address == names.attempt_head_address("digits", 2, "team")
    container = worker["spec"]["containers"][0]
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert values[names.ENV_HEAD_ADDRESS] == "digits-3-head.trainmaster-heads.team.svc"


def test_head_has_time_for_the_save_and_what_follows() -> None:
    assert MANIFESTS["head-shaped"]()["spec"]["terminationGracePeriodSeconds"] == 315


@pytest.mark.parametrize(("budget", "expected"), [({"maxTrials": 12}, "12"), ({}, "64"), (None, None)])
def test_pods_say_how_many_trials_they_were_made_for(budget: dict[str, int] | None, expected: str | None) -> None:
    document = copy.deepcopy(PLAIN)
    if budget is not None:
        document["spec"]["tuning"] = {"space": {"optimizer.lr": {"values": [0.1, 0.2]}}, "budget": budget}
    job, problems = manifests.resolve(document, SETTINGS)
    assert job is not None, problems
    assert manifests.head(job, 1)["metadata"]["annotations"].get(names.ANNOTATION_TRIALS) == expected


@pytest.mark.parametrize(("budget", "expected"), [({"maxHours": 1.5}, "1.5"), ({"maxTrials": 2}, None)])
def test_pods_say_how_many_hours_they_were_made_for(budget: dict[str, float], expected: str | None) -> None:
    document = copy.deepcopy(PLAIN)
    document["spec"]["tuning"] = {"space": {"optimizer.lr": {"values": [0.1, 0.2]}}, "budget": budget}
    job, problems = manifests.resolve(document, SETTINGS)
    assert job is not None, problems
    assert manifests.head(job, 1)["metadata"]["annotations"].get(names.ANNOTATION_HOURS) == expected


@pytest.mark.parametrize(("memory", "expected"), [("2Gi", "512Mi"), ("100Mi", "128Mi"), ("64Gi", "16384Mi")])
def test_shared_memory(memory: str, expected: str) -> None:
    assert shared_memory(memory) == expected

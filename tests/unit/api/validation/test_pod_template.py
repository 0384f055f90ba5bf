"""What a pod template must not set, and CPU limits."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_api.validation.pod_template import host_path_findings
from trainmaster_api.validation.validate import validate

from tests.unit.api.samples import job

SPEC = "spec.cluster.workers.template.spec"


def problems(change: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in validate(job(change))[1]]


def of_pod(**spec: Any) -> list[str]:
    return problems({"spec.cluster.workers.template": {"spec": spec}})


def of_trainer(**fields: Any) -> list[str]:
    return of_pod(containers=[{"name": "trainer", **fields}])


@pytest.mark.parametrize("part", ["workers", "head"])
@pytest.mark.parametrize(
    ("limit", "fits"), [("2", True), ("500m", True), (1, True), ("499m", False), ("0.25", False), ("junk", False)]
)
def test_a_cpu_limit_is_at_least_the_request(part: str, limit: Any, fits: bool) -> None:
    found = problems({f"spec.cluster.{part}": {"cpus": "500m", "cpuLimit": limit}})
    assert (found == []) is fits
    if not fits:
        assert found[0].startswith(f"spec.cluster.{part}.cpuLimit = ")
        assert len(found) == 1


def test_the_default_request_counts() -> None:
    assert "must be at least cpus, 1" in problems({"spec.cluster.workers": {"cpuLimit": "500m"}})[0]


USEFUL: dict[str, Any] = {
    "nodeSelector": {"disk": "ssd"},
    "resourceClaims": [{"name": "gpu"}],
    "serviceAccountName": "me",
    "automountServiceAccountToken": False,
    "restartPolicy": "Never",
    "securityContext": {
        "runAsUser": 2000,
        "supplementalGroups": [7],
        "seLinuxOptions": {"level": "s0:c1"},
        "seccompProfile": {"type": "Localhost"},
    },
    "initContainers": [{"name": "fetch", "image": "x", "restartPolicy": "Always"}],
    "volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "vault", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "t"}}]}},
    ],
    "containers": [
        {"name": "logs", "image": "y", "command": ["tail"], "volumeMounts": [{"name": "scratch", "mountPath": "/s"}]},
        {
            "name": "trainer",
            "env": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "RAY_DEDUP_LOGS", "value": "0"}],
            "envFrom": [{"configMapRef": {"name": "c"}}],
            "volumeMounts": [{"name": "data", "mountPath": "/tmp/data"}, {"name": "vault", "mountPath": "/var/run/v"}],
            "resources": {"claims": [{"name": "gpu"}], "limits": {"ephemeral-storage": "1Gi", "nvidia.com/mig": 1}},
            "securityContext": {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
            "ports": [{"containerPort": 9}],
        },
    ],
}


def test_everything_useful_passes() -> None:
    assert of_pod(**USEFUL) == []


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"hostIPC": True}, "hostIPC"),
        ({"restartPolicy": "Always"}, "restartPolicy"),
        ({"restartPolicy": "OnFailure"}, "restartPolicy"),
        ({"automountServiceAccountToken": True}, "automountServiceAccountToken"),
        ({"terminationGracePeriodSeconds": 5}, "terminationGracePeriodSeconds"),
        ({"activeDeadlineSeconds": 5}, "activeDeadlineSeconds"),
        ({"shareProcessNamespace": True}, "shareProcessNamespace"),
        ({"hostname": "x"}, "hostname"),
        ({"subdomain": "x"}, "subdomain"),
        ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser"),
        ({"securityContext": {"runAsNonRoot": False}}, "securityContext.runAsNonRoot"),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "securityContext.seccompProfile.type"),
        ({"securityContext": {"sysctls": [{"name": "x"}]}}, "securityContext.sysctls"),
        ({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, "securityContext.seLinuxOptions"),
        ({"securityContext": {"seLinuxOptions": {"user": "system_u"}}}, "securityContext.seLinuxOptions"),
        ({"volumes": [{"name": "job"}]}, "volumes[0].name"),
        ({"volumes": [{"name": "a"}, {"name": "token"}]}, "volumes[1].name"),
        (
            {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
            "volumes[0].projected.sources[0].serviceAccountToken.audience",
        ),
        ({"containers": [{"name": "trainer"}, {"name": "trainer"}]}, "containers[1].name"),
        ({"initContainers": [{"name": "trainer"}]}, "initContainers[0].name"),
        ({"containers": [{"name": "x", "securityContext": {"privileged": True}}]},
         "containers[0].securityContext.privileged"),
        ({"initContainers": [{"name": "x", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]},
         "initContainers[0].securityContext.capabilities.add"),
        ({"containers": [{"name": "x", "ports": [{"hostPort": 80}]}]}, "containers[0].ports[0].hostPort"),
        ({"containers": [{"name": "x", "volumeMounts": [{"name": "job", "mountPath": "/j"}]}]},
         "containers[0].volumeMounts[0].name"),
    ],
)  # fmt: skip
def test_pod_template_fields_that_break_the_job_are_refused(spec: dict[str, Any], path: str) -> None:
    (found,) = of_pod(**spec)
    assert found.startswith(f"{SPEC}.{path}")


@pytest.mark.parametrize(
    ("fields", "path", "hint"),
    [
        ({"image": "x"}, "image", "set cluster.image instead"),
        ({"command": ["sh"]}, "command", "leave it out"),
        ({"livenessProbe": {}}, "livenessProbe", "leave it out"),
        ({"lifecycle": {"preStop": {}}}, "lifecycle", "leave it out"),
        ({"env": [{"name": "TRAINMASTER_ATTEMPT"}]}, "env[0].name", "leave it out"),
        ({"env": [{"name": "A"}, {"name": "RAY_AUTH_TOKEN"}]}, "env[1].name", "leave it out"),
        ({"env": [{"name": "POD_IP"}]}, "env[0].name", "leave it out"),
        ({"env": [{"name": "AWS_ENDPOINT_URL"}]}, "env[0].name", "set storage.endpoint instead"),
        ({"env": [{"name": "A"}, {"name": "A"}]}, "env[1].name", "remove one of them"),
        ({"resources": {"limits": {"cpu": 2}}}, "resources.limits[cpu]", "set cluster.workers.cpuLimit instead"),
        ({"resources": {"requests": {"memory": 2}}}, "resources.requests[memory]", "set cluster.workers.memory"),
        ({"resources": {"limits": {"nvidia.com/gpu": 2}}}, "resources.limits[nvidia.com/gpu]", "cluster.workers.gpus"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "securityContext.allowPrivilegeEscalation", ""),
        ({"securityContext": {"procMount": "Unmasked"}}, "securityContext.procMount", ""),
        ({"volumeMounts": [{"name": "scratch", "mountPath": "/x"}]}, "volumeMounts[0].name", ""),
    ],
)
def test_fields_of_the_training_container_that_are_ours(fields: dict[str, Any], path: str, hint: str) -> None:
    (found,) = of_trainer(**fields)
    assert found.startswith(f"{SPEC}.containers[0].{path}")
    assert hint in found


@pytest.mark.parametrize(
    "target",
    ["/scratch", "/tmp", "/tmp/", "/dev/shm", "/dev", "/", "/var/run/trainmaster", "/var/run/trainmaster/job",
     "/run/trainmaster/token/x", "/data/../scratch", "/var/run", "scratch"],
)  # fmt: skip
def test_mount_paths_of_ours_are_closed(target: str) -> None:
    (found,) = of_trainer(volumeMounts=[{"name": "data", "mountPath": target}])
    assert found.startswith(f"{SPEC}.containers[0].volumeMounts[0].mountPath")


@pytest.mark.parametrize("target", ["/data", "/tmp/x", "/scratch/x", "/scratchy", "/var/run/mine", "/dev/fuse"])
def test_other_mount_paths_are_open(target: str) -> None:
    assert of_trainer(volumeMounts=[{"name": "data", "mountPath": target}]) == []


def test_labels_of_ours_are_reserved() -> None:
    metadata = {"labels": {"team": "a", "trainmaster.dev/job": "x"}, "annotations": {"trainmaster.dev/x": "y"}}
    found = problems({"spec.cluster.head.template": {"metadata": metadata}})
    path = "spec.cluster.head.template.metadata"
    assert [text.partition(": ")[0] for text in found] == [
        f"{path}.labels[trainmaster.dev/job]",
        f"{path}.annotations[trainmaster.dev/x]",
    ]


def test_all_problems_at_once() -> None:
    assert len(of_pod(hostPID=True, hostIPC=True, containers=[{"name": "trainer", "image": "x", "command": []}])) == 4


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": "x", "volumes": 3, "securityContext": []},
        {"containers": [None, 1, {"name": "trainer", "env": [3], "resources": [], "volumeMounts": {"a": 1}}]},
        {"containers": [{"name": ["trainer"]}, {"name": "trainer", "env": [{}], "securityContext": "x"}]},
        {"volumes": [{"name": {}, "projected": {"sources": [{"serviceAccountToken": 3}]}}]},
    ],
)
def test_pod_template_nonsense_never_raises(spec: dict[str, Any]) -> None:
    """Validation never raises, whatever the template holds."""
    of_pod(**spec)


def test_host_paths_are_found_in_both_parts() -> None:
    volumes = [{"name": "a"}, {"name": "b", "hostPath": {"path": "/"}}]
    template = {"spec": {"volumes": volumes}}
    document = job({"spec.cluster.head.template": template, "spec.cluster.workers.template": template})
    assert validate(document)[1] == [], "another operator may allow them"
    assert [found.path for found in host_path_findings(document)] == [
        f"spec.cluster.{part}.template.spec.volumes[1].hostPath" for part in ("head", "workers")
    ]
    assert host_path_findings(job()) == host_path_findings({}) == []

"""What head and worker pods have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainmaster_api import names
from trainmaster_api.spec.cluster import PodTemplate
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.storage import Storage
from trainmaster_api.types import parse_quantity

from .meta import metadata, resolved

Object = dict[str, Any]

USER = 1000
SCRATCH_LIMIT = "20Gi"
TMP_LIMIT = "2Gi"
# Kubernetes waits 300 s before it gives up the pods of a dead node; a training that stands still is dearer than a
# restart from a checkpoint, and a node that is only slow comes back within seconds.
NODE_PATIENCE_SECONDS = 30
# Without these in a pod the API server puts in its own 300 s.
_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@dataclass(frozen=True)
class Shape:
    """How one pod differs from another.

    Attributes:
        name: of the pod.
        role: `head` or `worker`.
        attempt: from 1.
        index: of a worker; None: the head.
        cpus: request.
        memory: request and limit.
        gpus: as `nvidia.com/gpu`.
        grace: seconds that it may take to stop by itself.
        template: what the platform team sets.
    """

    name: str
    role: str
    attempt: int
    index: int | None
    cpus: str
    memory: str
    gpus: int
    grace: int
    template: PodTemplate


def pod(job: TrainingJob, shape: Shape) -> Object:
    """The pod of one shape; passes Pod Security `restricted`."""
    template = shape.template
    meta = metadata(job, shape.name, shape.attempt, shape.role, shape.index)
    meta["labels"] = {**(template.labels or {}), **meta["labels"]}
    document = resolved(job, whole=shape.role == names.ROLE_HEAD)
    meta["annotations"] = {**(template.annotations or {}), names.ANNOTATION_JOB: document}
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": shape.grace,
        # hundreds of variables, one set per Service in the namespace, that nobody reads
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": _tolerations(template),
        "containers": [_container(job, shape)],
        "volumes": [*_volumes(job, shape), *(template.volumes or ())],
        **_placement(template),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _container(job: TrainingJob, shape: Shape) -> Object:
    limits = {"memory": shape.memory}
    if shape.gpus:
        limits["nvidia.com/gpu"] = str(shape.gpus)
    container: Object = {
        "name": names.CONTAINER,
        "image": job.spec.cluster.image,
        "imagePullPolicy": job.spec.cluster.image_pull_policy,
        "command": ["python", "-m", "trainmaster_trainer.launcher"],
        "env": _environment(job, shape),
        # no limit for CPU: what neighbours leave idle shortens the start, and a throttled rank holds up all others
        "resources": {"requests": {"cpu": shape.cpus, **limits}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        # Ready means that the pod's Ray node is healthy; Ray answers this path without a token. No liveness probe: a
        # busy node that answers late must not be killed, and the launcher ends by itself when its Ray node does.
        "readinessProbe": {
            "httpGet": {"path": "/api/healthz", "port": names.PORT_AGENT_HTTP},
            "initialDelaySeconds": 4,
            "periodSeconds": 3,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "terminationMessagePath": names.TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": [*_mounts(shape), *(shape.template.volume_mounts or ())],
    }
    if job.spec.storage.credentials_secret:
        container["envFrom"] = [{"secretRef": {"name": job.spec.storage.credentials_secret}}]
    return container


def _environment(job: TrainingJob, shape: Shape) -> list[Object]:
    meta = job.metadata
    values = {
        **(shape.template.env or {}),
        "HOME": names.SCRATCH_DIR,
        "TMPDIR": names.SCRATCH_DIR,
        **_storage_environment(job.spec.storage),
        names.ENV_ROLE: shape.role,
        names.ENV_ATTEMPT: str(shape.attempt),
        names.ENV_JOB_UID: meta.uid,
        names.ENV_HEAD_ADDRESS: names.attempt_head_address(meta.name, shape.attempt, meta.namespace),
    }
    if shape.index is not None:
        values[names.ENV_INDEX] = str(shape.index)
    fields = {names.ENV_POD_IP: "status.podIP", names.ENV_POD_NAME: "metadata.name"}
    return [
        *({"name": key, "value": value} for key, value in values.items() if key not in fields),
        *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()),
    ]


def _storage_environment(storage: Storage) -> dict[str, str]:
    """Two spellings of the region, because S3 clients differ in which one they read."""
    found = {"AWS_REGION": storage.region, "AWS_DEFAULT_REGION": storage.region}
    if storage.endpoint:
        found["AWS_ENDPOINT_URL"] = storage.endpoint
    return found


def _volumes(job: TrainingJob, shape: Shape) -> list[Object]:
    found: list[Object] = [
        {"name": "job", "projected": {"sources": _job_sources(job), "defaultMode": 0o440}},
        {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH_LIMIT}},
        {"name": "tmp", "emptyDir": {"sizeLimit": TMP_LIMIT}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory(shape.memory)}},
    ]
    if shape.role == names.ROLE_HEAD:
        token = {"audience": names.PROGRESS_AUDIENCE, "expirationSeconds": 3600, "path": "token"}
        found.append({"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}})
    return found


def _job_sources(job: TrainingJob) -> list[Object]:
    """The Secret's keys and the pod's own annotation, as files of one directory."""
    annotation = {"fieldPath": f"metadata.annotations['{names.ANNOTATION_JOB}']"}
    return [
        {"secret": {"name": names.run_secret(job.metadata.name)}},
        {"downwardAPI": {"items": [{"path": names.KEY_JOB, "fieldRef": annotation}]}},
    ]


def shared_memory(memory: str) -> str:
    """Size of /dev/shm: a quarter of the memory limit, against which it counts, and at least 128 MiB."""
    return f"{max(128, int(parse_quantity(memory) / 4 / 2**20))}Mi"


def _mounts(shape: Shape) -> list[Object]:
    found: list[Object] = [
        {"name": "job", "mountPath": names.RUN_DIR, "readOnly": True},
        {"name": "scratch", "mountPath": names.SCRATCH_DIR},
        {"name": "tmp", "mountPath": "/tmp"},  # code that knows no TMPDIR
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if shape.role == names.ROLE_HEAD:
        found.append({"name": "token", "mountPath": names.TOKEN_DIR, "readOnly": True})
    return found


def _tolerations(template: PodTemplate) -> list[Object]:
    own = list(template.tolerations or ())
    named = {item.get("key") for item in own}
    patience: list[Object] = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_PATIENCE_SECONDS}
        for key in _NODE_TAINTS
        if key not in named
    ]
    return [*own, *patience]


def _placement(template: PodTemplate) -> Object:
    """Fields that are passed on as they are, only where they are set."""
    found: Object = {
        "nodeSelector": template.node_selector,
        "affinity": template.affinity,
        "topologySpreadConstraints": template.topology_spread_constraints,
        "serviceAccountName": template.service_account_name,
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "schedulerName": template.scheduler_name,
        "imagePullSecrets": [{"name": name} for name in template.image_pull_secrets or ()],
    }
    return {key: value for key, value in found.items() if value}

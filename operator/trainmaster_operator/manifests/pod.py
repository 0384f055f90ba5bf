"""What head and worker pods have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainmaster_api import names
from trainmaster_api.spec.cluster import PodTemplateSpec
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.storage import Storage
from trainmaster_api.tuning.plan import asked_trials
from trainmaster_api.types import parse_quantity

from .meta import metadata, resolved
from .template import merge

Object = dict[str, Any]

USER = 1000
SCRATCH_LIMIT = "20Gi"
TMP_LIMIT = "2Gi"
# Kubernetes waits 300 s before it gives up the pods of a dead node; a training that is stuck costs more than a
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
        cpu_limit: limit; None: none.
        memory: request and limit.
        gpus: as `nvidia.com/gpu`.
        grace: seconds that it may take to stop by itself.
        template: what is merged under it.
    """

    name: str
    role: str
    attempt: int
    index: int | None
    cpus: str
    cpu_limit: str | None
    memory: str
    gpus: int
    grace: int
    template: PodTemplateSpec


def pod(job: TrainingJob, shape: Shape) -> Object:
    """Return the pod of one shape; without a template it passes Pod Security `restricted`."""
    meta = metadata(job, shape.name, shape.attempt, shape.role, shape.index)
    meta["annotations"] = {
        names.ANNOTATION_JOB: resolved(job, whole=shape.role == names.ROLE_HEAD),
        names.ANNOTATION_DURATION: job.spec.training.loop.duration,
    }
    trials = asked_trials(job.spec.tuning) if job.spec.tuning is not None else None
    if trials is not None:
        meta["annotations"][names.ANNOTATION_TRIALS] = str(trials)
    hours = job.spec.tuning.budget.max_hours if job.spec.tuning is not None else None
    if hours is not None:
        meta["annotations"][names.ANNOTATION_HOURS] = str(hours)
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": shape.grace,
        # hundreds of variables, one set per Service in the namespace, that nothing reads
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
        "tolerations": _node_patience(),
        "containers": [_container(job, shape)],
        "volumes": _volumes(job, shape),
    }
    return merge({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, shape.template)


def _container(job: TrainingJob, shape: Shape) -> Object:
    requests = {"memory": shape.memory}
    if shape.gpus:
        requests["nvidia.com/gpu"] = str(shape.gpus)
    # by default no limit for CPU: what neighbours leave idle shortens the start, and a throttled rank delays all others
    limits = {"cpu": shape.cpu_limit, **requests} if shape.cpu_limit else requests
    container: Object = {
        "name": names.CONTAINER,
        "image": job.spec.cluster.image,
        "imagePullPolicy": job.spec.cluster.image_pull_policy,
        "command": ["python", "-m", "trainmaster_trainer.launcher"],
        "env": _environment(job, shape),
        "resources": {"requests": {"cpu": shape.cpus, **requests}, "limits": limits},
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
        "volumeMounts": _mounts(shape),
    }
    if job.spec.storage.credentials_secret:
        container["envFrom"] = [{"secretRef": {"name": job.spec.storage.credentials_secret}}]
    return container


def _environment(job: TrainingJob, shape: Shape) -> list[Object]:
    meta = job.metadata
    values = {
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
        *({"name": key, "value": value} for key, value in values.items()),
        *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()),
        *_credentials(job.spec.storage),
    ]


def _credentials(storage: Storage) -> list[Object]:
    """Return the two required S3 keys by name, beside envFrom: the kubelet then reports which one is missing."""
    secret = storage.credentials_secret
    if not secret:
        return []
    return [{"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for key in names.CREDENTIAL_KEYS]


def _storage_environment(storage: Storage) -> dict[str, str]:
    """Return the region under two names, because S3 clients differ in which one they read."""
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
    """Return the Secret's keys and the pod's own annotation as files of one directory."""
    annotation = {"fieldPath": f"metadata.annotations['{names.ANNOTATION_JOB}']"}
    return [
        {"secret": {"name": names.run_secret(job.metadata.name)}},
        {"downwardAPI": {"items": [{"path": names.KEY_JOB, "fieldRef": annotation}]}},
    ]


def shared_memory(memory: str) -> str:
    """Return the size of /dev/shm: a quarter of the memory limit, against which it counts, and at least 128 MiB."""
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


def _node_patience() -> list[Object]:
    return [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_PATIENCE_SECONDS}
        for key in _NODE_TAINTS
    ]

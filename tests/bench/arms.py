"""The arms of the operator benchmark: the bare floor, KubeRay, and Trainmaster; all make a head and three workers."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainmaster_api.names import LABEL_JOB
from trainmaster_api.spec.job import TrainingJob
from trainmaster_operator import manifests
from trainmaster_operator.policy.settings import Settings

from testbed import builds
from testbed.control_plane import ControlPlane, free_port
from testbed.errors import BedError
from testbed.procs import wait_until
from tests.bench.client import Json, Workload
from tests.bench.result import ROOT
from tests.factories import make_job

NAMESPACE = "bench"
OPERATOR = "operator"
# kopf imports the `kubernetes` package where it is installed, 50 MB. The operator's image doesn't have it; the tests'
# environment does.
AS_IN_THE_IMAGE = (
    "import runpy, sys; sys.modules['kubernetes'] = None; "
    "runpy.run_module('trainmaster_operator', run_name='__main__', alter_sys=True)"
)
WORKERS = 3
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
IMAGE = "example.com/trainer:bench"
HEAD = {"cpu": "1", "memory": "2Gi"}
WORKER = {"cpu": "1", "memory": "2Gi"}


@dataclass(frozen=True)
class Arm:
    """One way to get the pods made."""

    name: str
    workload: Workload
    user: str = ""
    """Identity under which its operator works; empty: there is no operator."""
    prepare: Callable[[ControlPlane], None] = lambda plane: None
    """Install its custom resources, before the bed comes to rest."""
    start: Callable[[ControlPlane], None] = lambda plane: None
    """Start its operator and wait until it leads."""


def arms() -> dict[str, Arm]:
    """All of them by name, the floor first."""
    found = [
        Arm("floor", _floor_workload()),
        _kuberay("KubeRay 1.6.0 tuned", "--reconcile-concurrency=10", "--qps=500", "--burst=1000"),
        Arm("Trainmaster", _jobs_workload(), "trainmaster-operator", _trainmaster_crd, _start_trainmaster),
        _kuberay("KubeRay 1.6.0"),
    ]
    return {arm.name: arm for arm in found}


# -- the floor: a plain client makes the pods itself -----------------------------------------------------------------
def _floor_workload() -> Workload:
    def objects(index: int) -> Iterable[tuple[str, Json]]:
        pods = [
            manifests.head(jobs[index], 1),
            *(manifests.worker(jobs[index], 1, worker) for worker in range(WORKERS)),
        ]
        for pod in pods:
            # nobody owns them: there is no TrainingJob
            yield PODS, {**pod, "metadata": {**pod["metadata"], "ownerReferences": []}}

    def ready(pod: Json) -> str | None:
        return pod["metadata"]["labels"][LABEL_JOB] if _holds(pod, "Ready") else None

    jobs = _Resolved()
    return Workload(objects, PODS, ready, "job-{}".format, parts=1 + WORKERS)


class _Resolved(dict[int, TrainingJob]):
    """Jobs as the operator resolves them: the floor makes the very pods that the operator makes."""

    def __missing__(self, index: int) -> TrainingJob:
        job, problems = manifests.resolve(training_job(index), Settings())
        assert job is not None, problems
        return job


# -- KubeRay ---------------------------------------------------------------------------------------------------------
def _kuberay(name: str, *flags: str) -> Arm:
    path = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters"

    def ready(cluster: Json) -> str | None:
        return cluster["metadata"]["name"] if cluster.get("status", {}).get("state") == "ready" else None

    work = Workload(lambda index: [(path, ray_cluster(index))], path, ready, "job-{}".format)
    user = "kuberay-operator"
    return Arm(name, work, user, _kuberay_crds, lambda plane: _start_kuberay(plane, user, flags))


def ray_cluster(index: int) -> Json:
    """A RayCluster of the shape of our job, otherwise as KubeRay's own sample is."""
    workers = {
        "groupName": "workers",
        "replicas": WORKERS,
        "minReplicas": WORKERS,
        "maxReplicas": WORKERS,
        "rayStartParams": {},
        "template": _template("ray-worker", WORKER),
    }
    head = {"rayStartParams": {}, "template": _template("ray-head", HEAD)}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": f"job-{index}", "namespace": NAMESPACE},
        "spec": {"rayVersion": "2.52.0", "headGroupSpec": head, "workerGroupSpecs": [workers]},
    }


def _kuberay_crds(plane: ControlPlane) -> None:
    folder = builds.tool("ray-operator").parent
    _install(plane, *sorted(folder.glob("*.yaml")))


def _start_kuberay(plane: ControlPlane, user: str, flags: tuple[str, ...]) -> None:
    port = free_port()
    argv = [str(builds.tool("ray-operator")), f"--health-probe-bind-address=127.0.0.1:{port}", "--metrics-addr=0"]
    argv += ["--leader-election-namespace=default", *flags]
    env = {"KUBECONFIG": str(plane.client_kubeconfig(OPERATOR, user, "system:masters"))}
    _start(plane, argv, env, f"http://127.0.0.1:{port}/readyz", "ray-operator-leader")


# -- Trainmaster -----------------------------------------------------------------------------------------------------
def _jobs_workload() -> Workload:
    path = f"/apis/trainmaster.dev/v1alpha1/namespaces/{NAMESPACE}/trainingjobs"

    def ready(job: Json) -> str | None:
        return job["metadata"]["name"] if _holds(job, "Provisioned") else None

    return Workload(lambda index: [(path, training_job(index))], path, ready, "job-{}".format)


def training_job(index: int) -> Json:
    """A small TrainingJob of a head and three workers."""
    head = {"cpus": HEAD["cpu"], "memory": HEAD["memory"]}
    workers = {"count": WORKERS, "cpus": WORKER["cpu"], "memory": WORKER["memory"]}
    changes = {
        "metadata.namespace": NAMESPACE,
        "spec.training.data.batchSize": 48,
        "spec.storage": {"uri": "s3://bench/runs", "credentialsSecret": "minio"},
        "spec.cluster": {"image": IMAGE, "head": head, "workers": workers},
    }
    return make_job(changes, name=f"job-{index}")


def _trainmaster_crd(plane: ControlPlane) -> None:
    _install(plane, ROOT / "crds" / "trainingjobs.trainmaster.dev.yaml")


def _start_trainmaster(plane: ControlPlane) -> None:
    http, https = free_port(), free_port()
    argv = [sys.executable, "-c", AS_IN_THE_IMAGE, f"--http-port={http}", f"--https-port={https}"]
    argv += ["--namespace=default", f"--progress-url=https://127.0.0.1:{https}/v1/progress"]
    folders = [str(ROOT / folder) for folder in ("crds", "operator")]
    env = {
        "KUBECONFIG": str(plane.client_kubeconfig(OPERATOR, "trainmaster-operator", "system:masters")),
        "PYTHONPATH": os.pathsep.join(folders),
    }
    _start(plane, argv, env, f"http://127.0.0.1:{http}/readyz", "trainmaster-operator")


# -- shared ----------------------------------------------------------------------------------------------------------
def _template(container: str, size: dict[str, str]) -> Json:
    resources = {"requests": size, "limits": size}
    return {"spec": {"containers": [{"name": container, "image": IMAGE, "resources": resources}]}}


def _holds(found: Json, kind: str) -> bool:
    conditions = found.get("status", {}).get("conditions") or []
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def _install(plane: ControlPlane, *files: Path) -> None:
    for file in files:
        # `create`: these are larger than the annotation that `apply` would write
        plane.kubectl("create", "-f", str(file))
    plane.wait_served()


def _start(plane: ControlPlane, argv: list[str], env: dict[str, str], health: str, lease: str) -> None:
    plane.processes.start(OPERATOR, argv, env=env)
    plane.processes.wait_ready(OPERATOR, lambda: _answers(health), 60)
    if not wait_until(lambda: _leads(plane, lease), 30):
        proc = plane.processes.get(OPERATOR)
        raise BedError(f"{argv[0]} does not lead: no holder of Lease {lease}\n{proc.last_lines() if proc else ''}")


def _answers(url: str) -> bool:
    with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def _leads(plane: ControlPlane, lease: str) -> bool:
    asked = ("get", "lease", lease, "-n", "default", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}")
    return bool(plane.kubectl(*asked).strip())

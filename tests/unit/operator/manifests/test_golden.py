"""Every object that the operator creates, as files that a reviewer can read.

`REGENERATE=1 pytest tests/unit/operator/manifests` writes them again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainmaster_api.spec.tracking import Mlflow, Tracker
from trainmaster_operator import manifests
from trainmaster_operator.policy.settings import Settings

from tests.factories import make_job

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = Settings(
    image="trainer:1",
    storage_uri="s3://runs/all",
    storage_endpoint="http://minio:9000",
    storage_credentials_secret="minio",
    default_tracking=(Tracker(mlflow=Mlflow(uri="http://mlflow:5000")),),
    progress_url="https://operator.system.svc:8443/v1/progress",
    progress_ca="-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n",
)
PLAIN = make_job(
    {
        "metadata.namespace": "team",
        "metadata.uid": "0f3c",
        "spec.tracking": [{"mlflow": {}}],
        "spec.cluster.workers.count": 2,
    },
    name="digits",
)
TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "vision"}, "annotations": {"note": "x"}},
    "spec": {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}],
        "serviceAccountName": "trainer",
        "priorityClassName": "low",
        "imagePullSecrets": [{"name": "pull"}],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "large-gpu"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "initContainers": [{"name": "fetch", "image": "fetch:1"}],
        "containers": [
            {"name": "logs", "image": "logs:1"},
            {
                "name": "trainer",
                "env": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "SELF", "value": "$(POD_IP)"}],
                "envFrom": [{"configMapRef": {"name": "settings"}}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "resources": {"claims": [{"name": "gpu"}], "limits": {"ephemeral-storage": "1Gi"}},
            },
        ],
    },
}
SHAPED: dict[str, Any] = {
    **PLAIN,
    "spec": {
        "training": PLAIN["spec"]["training"],
        "storage": {"uri": "s3://mine/x", "region": "eu-central-1"},
        "cluster": {
            "image": "mine:2",
            "workers": {
                "count": 1,
                "gpus": 2,
                "cpus": "8",
                "cpuLimit": "16",
                "memory": "64Gi",
                "template": TEMPLATE,
            },
            "head": {"memory": "4Gi", "template": {"spec": {"nodeSelector": {"role": "cpu"}}}},
        },
        "run": {"stopGraceSeconds": 300},
    },
}


def resolved(document: dict[str, Any]) -> Any:
    job, problems = manifests.resolve(document, SETTINGS)
    assert problems == ()
    return job


MANIFESTS = {
    "secret": lambda: manifests.secret(resolved(PLAIN), SETTINGS, "key"),
    "service": lambda: manifests.heads_service("team"),
    "head": lambda: manifests.head(resolved(PLAIN), 1),
    "worker": lambda: manifests.worker(resolved(PLAIN), 3, 1),
    "head-shaped": lambda: manifests.head(resolved(SHAPED), 2),
    "worker-shaped": lambda: manifests.worker(resolved(SHAPED), 1, 0),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_is_what_the_file_says(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    found = MANIFESTS[name]()
    if os.environ.get("REGENERATE"):
        path.write_text(yaml.safe_dump(found, sort_keys=False, width=120))
    assert found == yaml.safe_load(path.read_text())


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(MANIFESTS)


@pytest.mark.parametrize("name", [name for name in MANIFESTS if name != "service"])
def test_the_job_owns_it(name: str) -> None:
    (owner,) = MANIFESTS[name]()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("TrainingJob", "digits", "0f3c", True)


def test_builders_share_nothing() -> None:
    """A caller may change what it got."""
    job = resolved(SHAPED)
    first = manifests.worker(job, 1, 0)
    first["spec"]["containers"][0]["env"].clear()
    first["spec"]["tolerations"].clear()
    first["spec"]["volumes"].clear()
    first["spec"]["resourceClaims"].clear()
    first["spec"]["containers"][1]["image"] = "changed"
    first["metadata"]["labels"].clear()
    assert manifests.worker(job, 1, 0) == MANIFESTS["worker-shaped"]()

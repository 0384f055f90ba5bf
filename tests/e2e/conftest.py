"""Fixtures of the end-to-end tests: they run on whatever cluster KUBECONFIG names."""

from __future__ import annotations

import copy
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from kubernetes import client

from tests.e2e.kube import Cluster, Json, Namespace, load_example

ROOT = Path(__file__).parents[2]
RELEASE, SYSTEM = "trainmaster", "trainmaster-system"
BUCKET = "trainmaster"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "minioadmin", "AWS_SECRET_ACCESS_KEY": "minioadmin-secret"}
STORAGE = {"uri": f"s3://{BUCKET}/e2e", "endpoint": "http://minio.minio:9000", "credentialsSecret": "minio"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here but the bed's own test needs a cluster."""
    if os.environ.get("KUBECONFIG"):
        return
    reason = "KUBECONFIG names no cluster: `make cluster-up` prints the line to export"
    for item in items:
        if "tests/e2e" in str(item.path) and "test_testbed" not in item.path.name:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster(os.environ["KUBECONFIG"])


def chart_values() -> list[str]:
    """Values of the release under test: images as built from this checkout, the bed's MinIO and MLflow."""
    return ["-f", str(ROOT / "testbed" / "values.yaml")]


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> str:
    """The operator, installed by its chart; stays after the tests, as a user's would."""
    cluster.helm(
        "upgrade", "--install", RELEASE, str(ROOT / "charts/trainmaster"), "-n", SYSTEM, "--create-namespace",
        "--wait", "--timeout", "180s", *chart_values(),
        # the images' tag stays the same from build to build: a new pod takes the one that is loaded now
        "--set-string", f"operator.podAnnotations.tested={uuid.uuid4().hex}",
    )  # fmt: skip
    return SYSTEM


@pytest.fixture
def namespace(cluster: Cluster, operator: str, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace of its own, under Pod Security `restricted`, with the S3 keys."""
    yield from make_namespace(cluster, request.node.name)


@pytest.fixture(scope="module")
def shared_namespace(cluster: Cluster, operator: str, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """One namespace for the tests of a module that read the same job."""
    yield from make_namespace(cluster, request.module.__name__.rpartition(".")[2])


def make_namespace(cluster: Cluster, label: str) -> Iterator[Namespace]:
    name = "e2e-" + re.sub(r"[^a-z0-9]+", "-", label.lower())[:40].strip("-") + "-" + uuid.uuid4().hex[:6]
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name, labels=labels)))
    cluster.core.create_namespaced_secret(
        name, client.V1Secret(metadata=client.V1ObjectMeta(name="minio"), string_data=S3_KEYS)
    )
    yield Namespace(cluster, name)
    cluster.core.delete_namespace(name)


@pytest.fixture(scope="session")
def s3(cluster: Cluster) -> Iterator[Any]:
    """A boto3 client on the bed's MinIO."""
    with cluster.forwarded("minio", "svc/minio", 9000) as port:
        yield boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
            aws_access_key_id=S3_KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=S3_KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip


@pytest.fixture(scope="session")
def mlflow_url(cluster: Cluster) -> Iterator[str]:
    """The bed's MLflow server."""
    with cluster.forwarded("mlflow", "svc/mlflow", 5000) as port:
        yield f"http://127.0.0.1:{port}"


def make_job(name: str, **changes: Any) -> Json:
    """The digits example as the tests run it: small pods, storage on MinIO, spread over the nodes.

    Keyword arguments are dotted paths under spec with `__` for the dot: run__retries__max=1.
    """
    job = copy.deepcopy(load_example("digits"))
    job["metadata"] = {"name": name}
    spec = job["spec"]
    spec["storage"] = dict(STORAGE)
    pod = {"cpus": "250m", "memory": "3Gi"}
    spec["cluster"] = {"head": dict(pod), "workers": {**pod, "count": 2, "template": spread(name)}}
    for path, value in changes.items():
        keys = path.split("__")
        node = spec
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = value
    return job


def make_long_job(name: str, epochs: int, **changes: Any) -> Json:
    """A run long enough to be hit in the middle: many cheap steps, nothing that ends it early.

    An epoch has 22 steps, a quiet machine does about 300 a second, and the status follows within 10 s.
    """
    job = make_job(name, training__loop__duration=f"{epochs}ep", **changes)
    training = job["spec"]["training"]
    training["model"] = {"name": "mlp", "args": {"hidden": [64], "dropout": 0.2}}
    training["optimizer"] = {"name": "adamw", "lr": 0.002}
    training["loop"].pop("earlyStopping", None)
    return job


def spread(name: str) -> Json:
    """Workers on different nodes, where there are two."""
    selector = {"matchLabels": {"trainmaster.dev/job": name, "trainmaster.dev/role": "worker"}}
    rule = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": selector,
    }
    return {"topologySpreadConstraints": [rule]}


def run_prefix(job: Json) -> str:
    """Key prefix of a job's run in the bucket."""
    meta = job["metadata"]
    return f"e2e/{meta['namespace']}/{meta['name']}/{meta['uid']}/"


def keys(s3: Any, prefix: str) -> list[str]:
    """Every key under a prefix, without it."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"][len(prefix) :] for page in pages for entry in page.get("Contents", [])]


def read(s3: Any, key: str) -> bytes:
    """One object."""
    body: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return body


def weights_digest(s3: Any, job: Json) -> str:
    """SHA-256 of the final model's weights file."""
    prefix = run_prefix(job) + "model/"
    names = [k for k in keys(s3, prefix) if k.endswith((".safetensors", ".pt"))]
    assert len(names) == 1, names
    return hashlib.sha256(read(s3, prefix + names[0])).hexdigest()

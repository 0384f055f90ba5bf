"""Fixtures of the end-to-end tests: they run on whatever cluster KUBECONFIG names.

Most of their time is waiting, so `make test` runs several side by side (pytest-xdist); those that take the operator
away are marked `alone` and run after the others, one after the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from filelock import FileLock
from kubernetes import client
from xdist.scheduler import LoadScopeScheduling

from tests.e2e.kube import Cluster, Json, Namespace
from tests.factories import CHECKPOINT_EVERY, FAULT_EPOCHS, change, load_example, of_cheap_steps

ROOT = Path(__file__).parents[2]
RELEASE, SYSTEM = "trainmaster", "trainmaster-system"
SHARED = "trainmaster.dev/e2e-run"
BUCKET = "trainmaster"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "minioadmin", "AWS_SECRET_ACCESS_KEY": "minioadmin-secret"}
STORAGE = {"uri": f"s3://{BUCKET}/e2e", "endpoint": "http://minio.minio:9000", "credentialsSecret": "minio"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here but the bed's own test needs a cluster; the scheduler knows what takes the operator away."""
    for item in items:
        if item.get_closest_marker("alone") and item.path.name not in ByJob.ALONE:
            raise pytest.UsageError(f"{item.nodeid} is marked `alone`: name its file in ByJob.ALONE")
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


def pytest_configure(config: pytest.Config) -> None:
    """One name for the whole run, known to every process of it."""
    if not hasattr(config, "workerinput") and getattr(config.option, "testrunuid", None) is None:
        config.option.testrunuid = uuid.uuid4().hex


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What the processes shared goes when all have finished."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if kubeconfig and not hasattr(session.config, "workerinput"):
        selector = f"{SHARED}={session.config.option.testrunuid}"
        Cluster(kubeconfig).kubectl("delete", "namespace", "-l", selector, "--wait=false")


class ByJob(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Each test for itself, but those of a file that share one job, one bed or one Ray go to the same process.

    The mark `xdist_group` is for this; pytest-xdist 3.8 loses it under pytest 9.2.
    """

    TOGETHER = ("test_1_digits.py", "test_images.py", "test_testbed.py", "test_attempt.py", "test_laptop.py")
    ALONE = ("test_3_operator.py", "test_7_chart.py")

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        if file.endswith(self.ALONE):
            return "alone"
        return file if file.endswith(self.TOGETHER) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByJob:
    """Which tests may run side by side."""
    return ByJob(config, log)


@pytest.fixture(scope="session")
def run_lock(tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> FileLock:
    """One process of the run at a time."""
    return FileLock(tmp_path_factory.getbasetemp().parent / f"{testrun_uid}.lock")


@pytest.fixture(scope="session")
def operator(cluster: Cluster, run_lock: FileLock, testrun_uid: str) -> str:
    """The operator, installed by its chart, once per run; stays after the tests, as a user's would."""
    installed = Path(run_lock.lock_file).with_suffix(".installed")
    with run_lock:
        if not installed.exists():
            cluster.helm(
                "upgrade", "--install", RELEASE, str(ROOT / "charts/trainmaster"), "-n", SYSTEM, "--create-namespace",
                "--wait", "--timeout", "180s", *chart_values(),
                # the images' tag stays the same from build to build: a new pod takes the one that is loaded now
                "--set-string", f"operator.podAnnotations.tested={testrun_uid}",
            )  # fmt: skip
            installed.touch()
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
    yield create_namespace(cluster, name)
    cluster.core.delete_namespace(name)


def create_namespace(cluster: Cluster, name: str, **labels: str) -> Namespace:
    labels = {"pod-security.kubernetes.io/enforce": "restricted", **labels}
    cluster.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name, labels=labels)))
    cluster.core.create_namespaced_secret(
        name, client.V1Secret(metadata=client.V1ObjectMeta(name="minio"), string_data=S3_KEYS)
    )
    return Namespace(cluster, name)


@pytest.fixture(scope="session")
def calm(cluster: Cluster, operator: str, run_lock: FileLock, testrun_uid: str) -> Calm:
    """The undisturbed twin of every `make_fault_job` of this run: started by the first test that asks for it."""
    name = f"e2e-calm-{testrun_uid[:8]}"
    with run_lock:
        try:
            cluster.core.read_namespace(name)
            return Calm(Namespace(cluster, name))
        except client.ApiException as error:
            assert error.status == 404, error  # noqa: PT017 - not a test's expectation
        namespace = create_namespace(cluster, name, **{SHARED: testrun_uid})
        namespace.apply(make_fault_job(Calm.JOB))
    return Calm(namespace)


class Calm:
    """An undisturbed run."""

    JOB = "calm"

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def digest(self, s3: Any) -> str:
        """Of its final weights, when it has them."""
        return weights_digest(s3, self._namespace.complete(self.JOB))


@pytest.fixture(scope="session")
def s3(cluster: Cluster) -> Iterator[Any]:
    """A boto3 client on the bed's MinIO."""
    with cluster.forwarded("minio", "svc/minio", 9000) as port:
        yield s3_client(f"http://127.0.0.1:{port}")


def s3_client(endpoint: str) -> Any:
    """With the keys that the tests' jobs have."""
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
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
    job = load_example("digits")
    job["metadata"] = {"name": name}
    spec = job["spec"]
    spec["storage"] = dict(STORAGE)
    pod = {"cpus": "250m", "memory": "3Gi"}
    spec["cluster"] = {"head": dict(pod), "workers": {**pod, "count": 2, "template": spread(name)}}
    return change(job, {f"spec.{path.replace('__', '.')}": value for path, value in changes.items()})


def make_fault_job(name: str, **changes: Any) -> Json:
    """Whatever happens to it, its weights are `calm`'s."""
    changes = {"checkpoint__every": f"{CHECKPOINT_EVERY}step", "checkpoint__keep": 2, **changes}
    return make_long_job(name, FAULT_EPOCHS, **changes)


def make_long_job(name: str, epochs: int, **changes: Any) -> Json:
    """A run of many cheap steps."""
    return of_cheap_steps(make_job(name, **changes), epochs)


def spread(name: str) -> Json:
    """Workers on different nodes, where there are two."""
    selector = {"matchLabels": {"trainmaster.dev/job": name, "trainmaster.dev/role": "worker"}}
    rule = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": selector,
    }
    return {"spec": {"topologySpreadConstraints": [rule]}}


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


def wait_checkpoint(
    s3: Any, job: Json, *, step: int = 1, attempt: int = 1, run: str = "", timeout: float = 240
) -> Json:
    """Wait until storage holds a checkpoint of this attempt at or after a step; returns the pointer.

    Another run below the job's is that of a trial, such as `trials/0000/`.

    The status follows within 10 s, which is thousands of steps of these runs: who wants to hit one looks here.
    """
    key = f"{run_prefix(job)}{run}LATEST"
    deadline = time.monotonic() + timeout
    pointer: Json = {}
    while time.monotonic() < deadline:
        with contextlib.suppress(s3.exceptions.NoSuchKey):
            pointer = json.loads(read(s3, key))
            if pointer["attempt"] == attempt and pointer["step"] >= step:
                return pointer
        time.sleep(0.1)  # S3 has nothing to wait on
    raise AssertionError(f"{key}: no checkpoint of attempt {attempt} at step {step} after {timeout:.0f} s: {pointer}")


def events(s3: Any, job: Json) -> list[Json]:
    """What the driver recorded in events.jsonl, in order."""
    return [json.loads(line) for line in read(s3, run_prefix(job) + "events.jsonl").splitlines()]


def assert_resumed_from_newest(s3: Any, job: Json, *, resumes: int) -> None:
    """Every resume went back to the newest checkpoint that was committed until then, and to no other."""
    committed, seen = 0, 0
    for event in events(s3, job):
        if event.get("kind") == "Checkpoint":
            committed = max(committed, event["step"])
        elif event.get("kind") == "Resumed" and event.get("step"):
            seen += 1
            assert event["step"] == committed, f"resumed from step {event['step']}, committed was {committed}"
    assert seen == resumes


def weights_digest(s3: Any, job: Json) -> str:
    """SHA-256 of the final model's weights file."""
    prefix = run_prefix(job) + "model/"
    names = [k for k in keys(s3, prefix) if k.endswith((".safetensors", ".pt"))]
    assert len(names) == 1, names
    return hashlib.sha256(read(s3, prefix + names[0])).hexdigest()

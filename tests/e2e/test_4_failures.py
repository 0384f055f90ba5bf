"""Everything that users get wrong: each ends or waits with a reason and a sentence that says what to change."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from kubernetes import client
from PIL import Image

from tests.e2e.conftest import BUCKET, STORAGE, make_job
from tests.e2e.kube import Json, Namespace, condition, holds, status

ONE = {"count": 1, "cpus": "250m", "memory": "3Gi"}


def explained(ns: Namespace, job: Json, reason: str, *words: str) -> str:
    """The reason and the sentence, as `kubectl get -o wide` and `kubectl describe` show them; no stack trace."""
    name = job["metadata"]["name"]
    wide = ns.cluster.kubectl("get", "tj", name, "-n", ns.name, "-o", "wide")
    assert reason in wide, wide
    described = ns.cluster.kubectl("describe", "tj", name, "-n", ns.name)
    for word in words:
        assert word in described, f"{word!r} is not in:\n{described}"
    message = condition(job, "Failed").get("message") or condition(job, "Provisioned").get("message", "")
    assert "Traceback" not in message
    assert len(message) > 30, message
    return str(message)


def test_data_breaks_mid_run(namespace: Namespace, s3: Any) -> None:
    """A folder of images with one broken file: found when its turn comes, named by its path, not retried."""
    prefix = f"data/{namespace.name}"
    for label in ("cat", "dog"):
        for index in range(40):
            body = io.BytesIO()
            Image.new("L", (16, 16), 255 if label == "cat" else index).save(body, "PNG")
            data = body.getvalue() if (label, index) != ("dog", 17) else body.getvalue()[:40]
            s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{label}/{index:03d}.png", Body=data)
    data = {"source": f"images:s3://{BUCKET}/{prefix}", "imageSize": 16, "channels": 1, "batchSize": 8}
    job = make_job("broken-image", training__data=data, cluster__workers=ONE)
    job["spec"]["training"].update(
        task={"name": "classification", "numClasses": 2}, model={"name": "cnn", "args": {"widths": [4]}}
    )
    namespace.apply(job)
    done = namespace.failed("broken-image")
    explained(namespace, done, "DataError", "dog/017.png")
    assert status(done)["attempt"] == 1


def test_a_missing_column(namespace: Namespace, s3: Any) -> None:
    key = f"data/{namespace.name}/rows.csv"
    rows = "\n".join(f"{i},{i * 2},{i % 2}" for i in range(200))
    s3.put_object(Bucket=BUCKET, Key=key, Body=f"a,b,label\n{rows}\n".encode())
    data = {"source": f"s3://{BUCKET}/{key}", "target": "lable", "batchSize": 8}
    job = make_job("column", training__data=data, cluster__workers=ONE)
    job["spec"]["training"].update(task={"name": "classification", "numClasses": 2}, model={"name": "mlp"})
    namespace.apply(job)
    done = namespace.failed("column")
    explained(namespace, done, "DataError", "lable", "label")
    assert status(done)["attempt"] == 1


def test_worker_runs_out_of_memory(namespace: Namespace) -> None:
    """A model that doesn't fit: the limit is named, and the retries end."""
    job = make_job("oom", run__retries__max=1, cluster__workers={**ONE, "memory": "1Gi"})
    job["spec"]["training"]["model"] = {"name": "mlp", "args": {"hidden": [12000, 12000]}}
    namespace.apply(job)
    done = namespace.failed("oom", timeout=420)
    explained(namespace, done, "HostOutOfMemory", "1Gi", "cluster.workers.memory")
    assert status(done)["attempt"] == 2
    assert status(done)["restarts"]["counted"] == 1


def test_image_does_not_exist(namespace: Namespace) -> None:
    namespace.apply(make_job("image", cluster__image="registry.invalid/no/such:image", cluster__workers=ONE))
    done = namespace.failed("image")
    explained(namespace, done, "ImagePullFailed", "registry.invalid/no/such:image", "cluster.image")
    assert status(done)["attempt"] == 1


def test_more_cpu_than_any_node_has(namespace: Namespace) -> None:
    """It waits, says what for, and takes what it is given; with a deadline it fails."""
    name = "greedy"
    namespace.apply(make_job(name, cluster__workers={"count": 1, "cpus": "640", "memory": "1Gi"}))
    job = namespace.wait(
        name, lambda j: condition(j, "Provisioned").get("reason") == "Unschedulable", "waiting as Unschedulable"
    )
    explained(namespace, job, "Unschedulable", "640", "cluster.workers.cpus")
    assert not holds(job, "Failed")
    namespace.patch(name, {"spec": {"run": {"pendingDeadlineSeconds": 1}}})
    explained(namespace, namespace.failed(name), "DeadlineExceeded", "pendingDeadlineSeconds")


def test_bucket_does_not_exist(namespace: Namespace) -> None:
    job = make_job("bucket", storage={**STORAGE, "uri": "s3://no-such-bucket/x"}, cluster__workers=ONE)
    namespace.apply(job)
    done = namespace.failed("bucket")
    explained(namespace, done, "StorageDenied", "no-such-bucket", "storage.uri")
    assert status(done)["attempt"] == 1


def test_wrong_s3_key(namespace: Namespace) -> None:
    wrong = {"AWS_ACCESS_KEY_ID": "minioadmin", "AWS_SECRET_ACCESS_KEY": "not-the-password"}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in wrong.items()}
    namespace.cluster.core.create_namespaced_secret(
        namespace.name, client.V1Secret(metadata=client.V1ObjectMeta(name="wrong"), data=encoded)
    )
    job = make_job("key", storage={**STORAGE, "credentialsSecret": "wrong"}, cluster__workers=ONE)
    namespace.apply(job)
    done = namespace.failed("key")
    explained(namespace, done, "StorageDenied", "credentialsSecret")
    assert "not-the-password" not in namespace.cluster.kubectl("describe", "tj", "key", "-n", namespace.name)


def test_credentials_secret_does_not_exist(namespace: Namespace) -> None:
    """It waits with a message, and resumes once the Secret exists: nothing is lost."""
    job = make_job("nosecret", storage={**STORAGE, "credentialsSecret": "later"}, cluster__workers=ONE)
    namespace.apply(job)
    waiting = namespace.wait(
        "nosecret", lambda j: "later" in condition(j, "Provisioned").get("message", ""), "waiting for the Secret"
    )
    assert "credentialsSecret" in condition(waiting, "Provisioned")["message"]


@pytest.mark.parametrize(
    ("change", "path"),
    [({"training": {"model": {"name": "vit", "args": {"dpeth": 2}}}}, "dpeth"), ({"tuning": {}}, "tuning")],
)
def test_unknown_field_is_refused_at_apply(namespace: Namespace, change: Json, path: str) -> None:
    job = make_job("typo")
    for key, value in change.items():
        job["spec"][key] = {**job["spec"].get(key, {}), **value}
    with pytest.raises(AssertionError, match=path):
        namespace.apply(job)

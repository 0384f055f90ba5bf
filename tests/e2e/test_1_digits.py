"""The digits example in real pods: two workers, MinIO, MLflow; the same model as on the laptop."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.e2e.conftest import BUCKET, keys, make_job, read, run_prefix
from tests.e2e.kube import Cluster, Json, Namespace, condition, status

NAME = "digits"


@pytest.fixture(scope="module")
def finished(shared_namespace: Namespace) -> Json:
    """The job, applied and complete."""
    shared_namespace.apply(make_job(NAME, tracking=[{"mlflow": {"experiment": "e2e-digits"}}]))
    return shared_namespace.complete(NAME)


def test_kubectl_wait_returns(finished: Json, shared_namespace: Namespace) -> None:
    out = shared_namespace.cluster.kubectl(
        "wait", "--for=condition=Complete", f"tj/{NAME}", "-n", shared_namespace.name, "--timeout=5s"
    )
    assert "condition met" in out


def test_the_pods_of_a_job_are_on_different_nodes(
    finished: Json, shared_namespace: Namespace, cluster: Cluster
) -> None:
    """Workers are gone by now; the operator's status and the events still tell where they were."""
    if len(cluster.core.list_node().items) < 2:
        pytest.skip("the cluster has one node")
    events = cluster.core.list_namespaced_event(shared_namespace.name, field_selector="reason=Scheduled").items
    nodes = {e.message.rsplit(" ", 1)[-1] for e in events if "-w-" in e.involved_object.name}
    assert len(nodes) == 2, [e.message for e in events]


def test_status_is_true_at_the_end(finished: Json) -> None:
    found = status(finished)
    assert found["phase"] == "Complete"
    assert found["attempt"] == 1
    assert found["restarts"]["total"] == 0
    assert found["progress"]["percent"] == "100%"
    assert found["progress"]["step"] == found["progress"]["totalSteps"] > 0
    assert condition(finished, "Failed").get("status") != "True"
    assert condition(finished, "Running")["status"] == "False"
    assert found["lastCheckpoint"]["step"] == found["progress"]["step"]
    timings = found["startupTimings"]
    order = [
        timings[k]
        for k in ("scheduledSeconds", "startedSeconds", "rayReadySeconds", "loadedSeconds", "firstStepSeconds")
    ]
    assert order == sorted(order), timings


def test_test_accuracy(finished: Json) -> None:
    assert status(finished)["testMetrics"]["test/accuracy"] >= 0.97


def test_same_accuracy_as_on_the_laptop(finished: Json, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(make_job(NAME)))
    done = subprocess.run(
        [sys.executable, "-m", "trainmaster_cli.main", "run", str(path), "--plain",
         "--storage", str(tmp_path / "runs"), "--mlflow", "off"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = tmp_path.glob("runs/**/report/test-metrics.json")
    laptop = json.loads(report.read_text())
    laptop = laptop.get("metrics", laptop)
    assert abs(laptop["test/accuracy"] - status(finished)["testMetrics"]["test/accuracy"]) <= 0.005


def test_minio_holds_the_layout(finished: Json, s3: Any) -> None:
    prefix = run_prefix(finished)
    found = keys(s3, prefix)
    for name in ("spec.json", "LATEST", "BEST", "metrics.jsonl", "events.jsonl", "report/test-metrics.json"):
        assert name in found, found
    pointer = json.loads(read(s3, prefix + "LATEST"))
    checkpoint = f"checkpoints/a{pointer['attempt']}-step-{pointer['step']:07d}"
    manifest = json.loads(read(s3, f"{prefix}{checkpoint}/manifest.json"))
    assert manifest["step"] == status(finished)["progress"]["step"]
    assert {f"{checkpoint}/{f['path']}" for f in manifest["files"]} <= set(found)
    assert any(k.startswith("model/") for k in found)
    assert any(k.startswith("logs/a1/") for k in found)
    assert status(finished)["runUri"] == f"s3://{BUCKET}/{prefix}".rstrip("/")


def test_mlflow_holds_params_metrics_and_the_model(finished: Json, mlflow_url: str) -> None:
    (tracker,) = status(finished)["trackers"]
    assert tracker["name"] == "mlflow"
    run_id = tracker["url"].rpartition("/")[2]
    run = requests.get(f"{mlflow_url}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=30).json()["run"]
    params = {p["key"]: p["value"] for p in run["data"]["params"]}
    metrics = {m["key"]: m["value"] for m in run["data"]["metrics"]}
    assert any("lr" in key for key in params), params
    assert metrics["test/accuracy"] == pytest.approx(status(finished)["testMetrics"]["test/accuracy"])
    assert "val/loss" in metrics
    assert run["info"]["status"] == "FINISHED"
    listing = requests.get(f"{mlflow_url}/api/2.0/mlflow/artifacts/list", params={"run_id": run_id}, timeout=30).json()
    assert listing.get("files"), listing


def test_printed_columns(finished: Json, shared_namespace: Namespace) -> None:
    out = shared_namespace.cluster.kubectl("get", "tj", "-n", shared_namespace.name)
    header, row = out.splitlines()[:2]
    assert header.split() == ["NAME", "PHASE", "WORKERS", "PROGRESS", "ETA", "METRIC", "RESTARTS", "CHECKPOINT", "AGE"]
    assert row.split()[:2] == [NAME, "Complete"]
    assert "100%" in row


def test_what_stays_after_the_end(finished: Json, shared_namespace: Namespace) -> None:
    """Workers are gone; the head stays terminated, so `kubectl logs` still works."""
    shared_namespace.wait_pods(NAME, lambda pods: set(pods) == {f"{NAME}-1-head"}, "only the head is left")
    logs = shared_namespace.cluster.kubectl("logs", f"{NAME}-1-head", "-n", shared_namespace.name)
    assert "Complete" in logs or "complete" in logs


def test_times_are_ordered(finished: Json) -> None:
    parse = lambda text: datetime.fromisoformat(text.replace("Z", "+00:00"))  # noqa: E731
    found = status(finished)
    assert parse(found["startTime"]) <= parse(found["lastCheckpoint"]["time"]) <= parse(found["completionTime"])


def test_delete_leaves_nothing_but_storage(finished: Json, shared_namespace: Namespace, s3: Any) -> None:
    """Runs last in this module."""
    cluster = shared_namespace.cluster
    cluster.kubectl("delete", "tj", NAME, "-n", shared_namespace.name, "--wait=true")
    shared_namespace.wait_no_pods(NAME)
    left = cluster.kubectl(
        "get", "pods,services,secrets", "-n", shared_namespace.name, "-l", f"trainmaster.dev/job={NAME}"
    )
    assert "No resources found" in left, left
    assert "spec.json" in keys(s3, run_prefix(finished))

"""The commands on a real API server: its words, its watch, its rights. No kubelet: a test writes the status."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.control_plane import ControlPlane
from tests.factories import load_example


@dataclass
class Place:
    """A namespace, and the command line in it."""

    plane: ControlPlane
    namespace: str
    kubeconfig: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "trainmaster_cli.main", *arguments]

    def environment(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig), "PYTHONPATH": ":".join(sys.path), "PATH": "/nowhere"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment(), capture_output=True, text=True, timeout=60
        )

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.plane.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def create(self, name: str = "digits") -> dict[str, Any]:
        body = load_example("digits", {"metadata.name": name})
        found: dict[str, Any] = json.loads(self.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(body)))
        return found

    def write_status(self, name: str, status: dict[str, Any]) -> None:
        self.kubectl("patch", "tj", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    time = "2026-01-01T12:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time}


TRAINS = {
    "phase": "Running",
    "attempt": 1,
    "workersReady": "2/2",
    "progress": {"step": 120, "totalSteps": 900, "percent": "13%", "eta": "4m", "etaSeconds": 240},
    "conditions": [
        condition("Accepted", "True", "SpecValid"),
        condition("Provisioned", "True", "PodsReady"),
        condition("Running", "True", "Training", "Training."),
    ],
}


@pytest.fixture
def place(crd_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    namespace = f"cli-{uuid.uuid4().hex[:8]}"
    crd_plane.kubectl("create", "namespace", namespace)
    config = yaml.safe_load(Path(crd_plane.kubeconfig).read_text())
    config["contexts"][0]["context"]["namespace"] = namespace
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    yield Place(crd_plane, namespace, file)
    crd_plane.kubectl("delete", "namespace", namespace, "--wait=false")


def test_the_context_s_namespace_is_the_default(place: Place) -> None:
    place.create()
    place.write_status("digits", TRAINS)
    done = place.run("ls")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:5] == ["digits", "Running", "2/2", "13%", "4m"]
    assert place.run("ls", "-n", "default").stderr == "no TrainingJobs in namespace default\n"
    assert f"{place.namespace}   digits" in place.run("ls", "-A").stdout
    assert place.run("why", "digits").stdout == "Nothing is wrong: step 120 of 900, ETA 4m.\n"
    assert place.run("status", "digits").stdout.startswith(f"{place.namespace}/digits  Running")


def test_what_the_api_server_refuses_is_a_sentence(place: Place) -> None:
    place.create()
    assert place.run("status", "digit").stderr == (
        f"trainmaster: no TrainingJob digit in namespace {place.namespace}; did you mean `digits`?\n"
    )
    assert "the kubeconfig has no context prod; it has " in place.run("ls", "--context", "prod").stderr
    config = yaml.safe_load(place.kubeconfig.read_text())
    whole = place.kubeconfig.read_text()
    config["users"][0]["user"] = {"token": "wrong"}
    place.kubeconfig.write_text(yaml.safe_dump(config))
    assert "the API server refuses your credentials" in place.run("ls").stderr
    config["clusters"][0]["cluster"] = {"server": "https://127.0.0.1:1"}
    place.kubeconfig.write_text(yaml.safe_dump(config))
    done = place.run("ls")
    assert done.returncode == 2
    assert done.stderr.startswith("trainmaster: the API server at https://127.0.0.1:1 can't be reached: connection ref")
    place.kubeconfig.write_text("")
    assert "no kubeconfig" in place.run("ls").stderr
    place.kubeconfig.write_text(whole)
    assert place.run("ls").returncode == 0


def test_a_right_that_is_missing_is_named(place: Place) -> None:
    place.create()
    place.kubectl("create", "serviceaccount", "reader")
    rules = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": ["trainmaster.dev"], "resources": ["trainingjobs"], "verbs": ["get"]}],
    }  # fmt: skip
    place.kubectl("create", "-f", "-", stdin=json.dumps(rules))
    place.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={place.namespace}:reader")
    config = yaml.safe_load(place.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": place.kubectl("create", "token", "reader").strip()}
    place.kubeconfig.write_text(yaml.safe_dump(config))
    assert place.run("status", "digits").returncode == 0
    done = place.run("ls")
    assert done.returncode == 2
    assert f"you have no right to list trainingjobs in namespace {place.namespace}; the role `view`" in done.stderr
    done = place.run("stop", "digits")
    assert f"you have no right to patch trainingjobs in namespace {place.namespace}; the role `edit`" in done.stderr


def test_stop_waits_by_a_watch_and_why_knows_who(place: Place) -> None:
    place.create()
    place.write_status("digits", TRAINS)
    with subprocess.Popen(
        place.command("stop", "digits", "--wait"), env=place.environment(), stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "digits will save a checkpoint and stop\n"
        assert place.kubectl("get", "tj", "digits", "-o", "jsonpath={.spec.run.suspend}") == "true"
        saved = {"step": 140, "attempt": 1, "uri": "s3://x", "time": "2026-01-01T12:00:00Z"}
        stopping = condition("Suspended", "False", "Suspending", "A checkpoint is being saved.")
        place.write_status("digits", {**TRAINS, "conditions": [*TRAINS["conditions"], stopping]})  # type: ignore[misc]
        assert child.stdout.readline() == "A checkpoint is being saved.\n"
        done = condition("Suspended", "True", "Suspended", "Will resume from step 140.")
        place.write_status("digits", {"phase": "Suspended", "lastCheckpoint": saved, "conditions": [done]})
        assert child.stdout.readline().startswith("digits is suspended, saved at step 140; next: ")
        assert child.wait(20) == 0
    assert place.run("why", "digits").stdout.startswith("It was suspended by trainmaster-cli at ")
    assert place.run("resume", "digits").stdout.startswith("digits continues from step 140")


def test_watch_sees_the_end_and_a_job_of_the_same_name(place: Place) -> None:
    place.create()
    place.write_status("digits", TRAINS)
    with subprocess.Popen(
        place.command("status", "digits", "--watch"), env=place.environment(), stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().split()[:4] == ["digits", "Running", "2/2", "13%"]
        place.write_status("digits", {"progress": {"percent": "50%"}})
        assert child.stdout.readline().split()[3] == "50%"
        place.kubectl("delete", "tj", "digits")
        assert child.wait(20) == 0


def test_a_pod_without_a_log_is_no_error(place: Place) -> None:
    place.create()
    place.write_status("digits", TRAINS)
    labels = {"trainmaster.dev/job": "digits", "trainmaster.dev/attempt": "1", "trainmaster.dev/role": "head"}
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "digits-1-head", "labels": labels},
        "spec": {"containers": [{"name": "trainer", "image": "x"}], "automountServiceAccountToken": False},
    }  # fmt: skip
    place.kubectl("create", "serviceaccount", "default")
    place.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    done = place.run("logs", "digits")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "digits has no storage yet (status.runUri)" in done.stderr


def test_storage_that_only_the_cluster_reaches_is_forwarded(place: Place) -> None:
    """Up to the node, which this control plane hasn't got."""
    place.create()
    storage = {"endpoint": f"http://minio.{place.namespace}.svc:9000", "region": "us-east-1"}
    place.write_status("digits", {**TRAINS, "runUri": "s3://runs/x", "storage": storage})
    missing = place.run("logs", "digits")
    assert f"the storage minio.{place.namespace}.svc can't be reached from here, and is no Service" in missing.stderr
    labels = {"app": "minio"}
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "minio"},
        "spec": {"selector": labels, "ports": [{"port": 9000}]},
    }  # fmt: skip
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "minio-0", "labels": labels},
        "spec": {"containers": [{"name": "minio", "image": "x"}], "automountServiceAccountToken": False},
    }  # fmt: skip
    place.kubectl("create", "serviceaccount", "default")
    for each in (service, pod):
        place.kubectl("create", "-f", "-", stdin=json.dumps(each))
    assert "the Service minio has no running pod" in place.run("logs", "digits").stderr
    phase = json.dumps({"status": {"phase": "Running"}})
    place.kubectl("patch", "pod", "minio-0", "--subresource=status", "--type=merge", "-p", phase)
    done = place.run("logs", "digits")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (
        f"the storage minio.{place.namespace}.svc can't be reached through the API server: pod minio-0 does not have a "
        "host assigned"
    ) in done.stderr


def test_a_cluster_without_the_crd(control_plane: ControlPlane, tmp_path: Path) -> None:
    """A group that isn't served answers as this one does before the chart is installed."""
    code = (
        "import trainmaster_api\ntrainmaster_api.GROUP = 'none.trainmaster.dev'\n"
        "from trainmaster_cli.main import main\nraise SystemExit(main(['ls']))"
    )
    environment = {"KUBECONFIG": str(control_plane.kubeconfig), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert (
        "this cluster has no TrainingJobs (the CRD trainingjobs.none.trainmaster.dev is not installed)" in done.stderr
    )

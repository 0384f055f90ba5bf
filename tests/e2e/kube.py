"""What the end-to-end tests do with a cluster: apply, watch, kill, read. Everything goes through the public API.

Waiting is always a watch for a condition, never a sleep; a wait that runs out shows what it last saw.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from kubernetes import client, config, watch
from kubernetes.stream import stream
from trainmaster_api import GROUP, PLURAL, VERSION
from trainmaster_api.names import CONTAINER, LABEL_JOB, worker_pod

from testbed import builds
from testbed.errors import BedError

Json = dict[str, Any]


class Cluster:
    """A Kubernetes cluster given by a kubeconfig."""

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig
        api = config.new_client_from_config(kubeconfig)
        self.core = client.CoreV1Api(api)
        self.custom = client.CustomObjectsApi(api)
        self.apps = client.AppsV1Api(api)

    def kubectl(self, *args: str, check: bool = True, stdin: str | None = None) -> str:
        """What kubectl prints; the tests read it as a user would."""
        done = subprocess.run(
            [tool("kubectl"), "--kubeconfig", self.kubeconfig, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def helm(self, *args: str) -> str:
        """What helm prints."""
        done = subprocess.run(
            [tool("helm"), "--kubeconfig", self.kubeconfig, *args], capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"helm {' '.join(args)}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def forwarded(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """A local port that leads to a Service; works on any cluster."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            local = int(probe.getsockname()[1])
        command = [tool("kubectl"), "--kubeconfig", self.kubeconfig, "-n", namespace, "port-forward", target]
        process = subprocess.Popen(
            [*command, f"{local}:{port}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert "Forwarding" in first, first + (process.stdout.read() if process.poll() is not None else "")
            yield local
        finally:
            process.terminate()
            process.wait(10)


def tool(name: str) -> str:
    """kubectl or helm: the test bed's own build, else the machine's."""
    with contextlib.suppress(BedError):
        return str(builds.tool(name))
    machine = shutil.which(name)
    assert machine, f"{name} is neither in the test bed's cache nor on PATH"
    return machine


class Namespace:
    """One namespace of one test, with its jobs."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    # -- jobs ---------------------------------------------------------------------------------------------------
    def apply(self, job: Json) -> Json:
        """Apply as a user would."""
        self.cluster.kubectl("apply", "-n", self.name, "-f", "-", stdin=yaml.safe_dump(job))
        return self.job(job["metadata"]["name"])

    def patch(self, name: str, body: Json) -> None:
        """Merge-patch a job."""
        self.cluster.custom.patch_namespaced_custom_object(GROUP, VERSION, self.name, PLURAL, name, body)

    def job(self, name: str) -> Json:
        """The job as it stands."""
        found: Json = self.cluster.custom.get_namespaced_custom_object(GROUP, VERSION, self.name, PLURAL, name)
        return found

    def wait(self, name: str, until: Callable[[Json], object], what: str, timeout: float = 240) -> Json:
        """Watch the job until the predicate holds."""
        deadline = time.monotonic() + timeout
        last = self.job(name)
        while not until(last):
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"{self.name}/{name}: not {what} after {timeout:.0f} s\n{self.explain(name)}")
            with contextlib.suppress(client.ApiException):  # 410: the watch starts again from a fresh read
                events = watch.Watch().stream(
                    self.cluster.custom.list_namespaced_custom_object,
                    GROUP, VERSION, self.name, PLURAL,
                    field_selector=f"metadata.name={name}",
                    resource_version=last["metadata"]["resourceVersion"],
                    timeout_seconds=max(1, int(min(left, 30))),
                )  # fmt: skip
                for event in events:
                    last = event["object"]
                    if until(last) or time.monotonic() > deadline:
                        break
            last = self.job(name)
        return last

    def complete(self, name: str, timeout: float = 300) -> Json:
        """Wait for Complete; a Failed job ends the wait at once."""
        job = self.wait(name, lambda j: holds(j, "Complete") or holds(j, "Failed"), "finished", timeout)
        assert holds(job, "Complete"), self.explain(name)
        return job

    def failed(self, name: str, timeout: float = 240) -> Json:
        """Wait for Failed."""
        job = self.wait(name, lambda j: holds(j, "Complete") or holds(j, "Failed"), "finished", timeout)
        assert holds(job, "Failed"), self.explain(name)
        return job

    def at_step(self, name: str, step: int, timeout: float = 240) -> Json:
        """Wait until the run has passed a step and has a checkpoint."""
        return self.wait(
            name,
            lambda j: progress(j).get("step", 0) >= step and status(j).get("lastCheckpoint"),
            f"at step {step} with a checkpoint",
            timeout,
        )

    # -- pods ---------------------------------------------------------------------------------------------------
    def pods(self, job: str) -> dict[str, Any]:
        """Pods of a job by name."""
        found = self.cluster.core.list_namespaced_pod(self.name, label_selector=f"{LABEL_JOB}={job}")
        return {pod.metadata.name: pod for pod in found.items}

    def wait_no_pods(self, job: str, timeout: float = 120) -> None:
        """Wait until the job has no pod."""
        self.wait_pods(job, lambda pods: not pods, "no pods", timeout)

    def wait_pods(self, job: str, until: Callable[[dict[str, Any]], object], what: str, timeout: float = 120) -> None:
        """Watch the job's pods until the predicate holds."""
        deadline = time.monotonic() + timeout
        selector = f"{LABEL_JOB}={job}"
        while not until(self.pods(job)):
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(
                    f"{self.name}/{job}: {what}? {self.cluster.kubectl('get', 'pods', '-n', self.name)}"
                )
            for _ in watch.Watch().stream(
                self.cluster.core.list_namespaced_pod,
                self.name,
                label_selector=selector,
                timeout_seconds=max(1, int(min(left, 5))),
            ):
                if until(self.pods(job)):
                    return

    def delete_pod(self, name: str) -> str:
        """Delete a pod as `kubectl delete pod` does; returns its UID."""
        uid: str = self.cluster.core.read_namespaced_pod(name, self.name).metadata.uid
        self.cluster.core.delete_namespaced_pod(name, self.name)
        return uid

    def execute(self, pod: str, *command: str) -> str:
        """Run a command in the pod's container."""
        out: str = stream(
            self.cluster.core.connect_get_namespaced_pod_exec,
            pod, self.name, container=CONTAINER, command=list(command),
            stdout=True, stderr=True, stdin=False, tty=False,
        )  # fmt: skip
        return out

    def kill_training_process(self, job: str, attempt: int, worker: int, signal: str = "SIGKILL") -> str:
        """Send a signal to the process that trains in a worker pod; its pod stays."""
        code = (
            "import os,signal\n"
            "for p in filter(str.isdigit, os.listdir('/proc')):\n"
            "    try: name = open(f'/proc/{p}/comm').read()\n"
            "    except OSError: continue\n"
            "    if name.startswith('rank '):\n"
            f"        os.kill(int(p), signal.{signal}); print('killed', p, name)\n"
        )
        out = self.execute(worker_pod(job, attempt, worker), "python", "-c", code)
        assert "killed" in out, out
        return out

    def freeze(self, pod: str) -> str:
        """Stop every process in the pod's container but its first, and but this one."""
        code = (
            "import os,signal\n"
            "for p in filter(str.isdigit, os.listdir('/proc')):\n"
            "    if int(p) not in (1, os.getpid()):\n"
            "        os.kill(int(p), signal.SIGSTOP); print('stopped', p)\n"
        )
        out = self.execute(pod, "python", "-c", code)
        assert "stopped" in out, out
        return out

    def explain(self, job: str) -> str:
        """Everything that tells why a job is where it is: for the message of a failing test."""
        parts = [
            self.cluster.kubectl("describe", "tj", job, "-n", self.name, check=False),
            self.cluster.kubectl("get", "pods", "-n", self.name, "-o", "wide", check=False),
        ]
        for pod in self.pods(job):
            parts.append(f"--- {pod}\n" + self.cluster.kubectl("logs", pod, "-n", self.name, "--tail=40", check=False))
        return "\n".join(parts)


def status(job: Json) -> Json:
    """The job's status, empty before the operator has seen it."""
    found: Json = job.get("status") or {}
    return found


def progress(job: Json) -> Json:
    """The job's progress."""
    found: Json = status(job).get("progress") or {}
    return found


def condition(job: Json, kind: str) -> Json:
    """One condition, or an empty one."""
    return next((c for c in status(job).get("conditions", []) if c["type"] == kind), {})


def holds(job: Json, kind: str) -> bool:
    """Whether a condition is True."""
    return condition(job, kind).get("status") == "True"


def dump(value: object) -> str:
    """Readable JSON for messages."""
    return json.dumps(value, indent=1, default=str)

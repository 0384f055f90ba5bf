"""A worker's launcher: supervises a Ray node, and lets the driver save before the pod ends."""

from __future__ import annotations

import contextlib
import socket
import time

from trainmaster_api import names
from trainmaster_api.layout import log_path, run_uri
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass

from trainmaster_trainer.cluster import commands
from trainmaster_trainer.ipc.link import ask
from trainmaster_trainer.ipc.messages import Leaving, Left
from trainmaster_trainer.logs.settings import CollectorProcess
from trainmaster_trainer.oom import OomWatch
from trainmaster_trainer.processes import Children

from .ending import failed
from .identity import Pod
from .ray_node import RayNode

HEAD_GONE_SECONDS = 10.0
_TICK = 0.25
_UNREGISTER_SECONDS = 3.0


class Worker:
    """Joins the head and runs until it is told to end, the head is lost, or memory runs out."""

    def __init__(self, pod: Pod, children: Children) -> None:
        self.pod = pod
        self.children = children
        self.oom = OomWatch()
        self.ray_log = pod.scratch / "ray-start.log"
        self._head_listens = False
        self._logs: CollectorProcess | None = None
        self.head = pod.environment.get(names.ENV_HEAD_ADDRESS) or names.attempt_head_address(
            pod.job.metadata.name, pod.attempt, pod.job.metadata.namespace
        )

    def run(self) -> ExitMessage:
        """Run until the attempt ends; return the exit message."""
        environment = self.pod.child_environment()
        self._logs = self._collect_logs(environment)
        self.children.spared = frozenset({self._logs.pid})
        environment |= self._logs.environment()
        ray = RayNode(
            self.children,
            commands.worker_command(self.pod.ip, self.pod.scratch, self.pod.job, self.head),
            environment,
            self.ray_log,
            parts=("raylet",),
        )
        head_ip = self._wait_for_head()
        if head_ip is None:
            ray.end(0)
            return ExitMessage(outcome=Outcome.STOPPED, message="stopped before the head was reachable")
        message = self._stay(ray, head_ip)
        # the head learns of an unregistered node at once, and of a killed one only after many seconds
        ray.end(_UNREGISTER_SECONDS if self._head_listens else 0)
        return message

    def _collect_logs(self, environment: dict[str, str]) -> CollectorProcess:
        """Start what reads the output of this pod's ranks; they are started by Ray, far below."""
        meta, storage = self.pod.job.metadata, self.pod.job.spec.storage
        return CollectorProcess(
            self.pod.scratch,
            environment,
            storage_uri=run_uri(storage.uri or "", meta.namespace, meta.name, meta.uid),
            path=log_path(self.pod.attempt, self.pod.name),
            endpoint=storage.endpoint,
            region=storage.region,
        )

    def close(self) -> None:
        """Have the rest of the log uploaded. Comes after the termination message: this pod may be killed meanwhile."""
        if self._logs is not None:
            self._logs.end()

    def _wait_for_head(self) -> str | None:
        """Wait until the head listens; return its address, None if this pod is told to end first."""
        while True:
            with contextlib.suppress(OSError):
                ip = socket.getaddrinfo(self.head, None, socket.AF_INET)[0][4][0]
                if isinstance(ip, str) and commands.is_listening(ip, names.PORT_GCS):
                    return ip
            if self.children.wait(_TICK):
                return None

    def _stay(self, ray: RayNode, head_ip: str) -> ExitMessage:
        seen = time.monotonic()
        while True:
            if self.children.wait(_TICK):
                return self._leave(head_ip)
            if self.oom.happened():
                return self._out_of_memory()
            now = time.monotonic()
            alive = commands.is_listening(head_ip, names.PORT_GCS) if now - seen > 1 else True
            if alive and now - seen > 1:
                seen = now
            if now - seen > HEAD_GONE_SECONDS:
                return failed(FailureClass.HEAD_LOST, f"the head at {self.head} is gone")
            trouble = ray.trouble()
            if trouble is None or not alive:
                continue
            if self.children.wait(1.0):
                return self._leave(head_ip)
            if not ray.runs and not ray.may_start_again:
                return failed(FailureClass.WORKER_LOST, trouble, self.pod.name, ray.last_lines())
            print(f"{trouble}; rejoining:", *ray.last_lines(), sep="\n  ", flush=True)
            ray.end(0)
            ray.start()

    def _leave(self, head_ip: str) -> ExitMessage:
        """Have the driver save, if it is still reachable; then end."""
        if self._logs is not None:
            self._logs.soon()
        message = Leaving(pod=self.pod.name, ip=self.pod.ip)
        grace = float(self.pod.job.spec.run.stop_grace_seconds)
        answer = ask((head_ip, names.PORT_CONTROL), self.pod.token, message, grace)
        self._head_listens = answer is not None
        saved = "after a checkpoint" if isinstance(answer, Left) and answer.saved else "without a checkpoint"
        return ExitMessage(outcome=Outcome.STOPPED, message=f"stopped {saved}", pod=self.pod.name)

    def _out_of_memory(self) -> ExitMessage:
        limit = self.pod.job.spec.cluster.workers.memory
        return failed(
            FailureClass.HOST_OUT_OF_MEMORY,
            f"worker {self.pod.index} reached its memory limit of {limit}; raise cluster.workers.memory",
            pod=self.pod.name,
        )

"""The head's launcher: supervises Ray's head and the driver."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from trainmaster_api import names
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.types import parse_quantity

from trainmaster_trainer.cluster import commands
from trainmaster_trainer.ipc.heartbeat import silence
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.oom import OomWatch
from trainmaster_trainer.processes import Children

from .ending import failed, tail
from .identity import Pod
from .ray_node import RayNode

_TICK = 0.25


class Head:
    """Starts Ray's head and the driver, and ends with the driver's result."""

    def __init__(self, pod: Pod, children: Children) -> None:
        self.pod = pod
        self.children = children
        self.oom = OomWatch()
        self.result_file = pod.scratch / "result.json"
        self.heartbeat = pod.scratch / "heartbeat"
        self.log_file = pod.scratch / "driver.log"
        self.ray_log = pod.scratch / "ray-start.log"
        self.settings_file = pod.scratch / "driver.json"

    def run(self) -> ExitMessage:
        """Run until the driver or Ray's head has ended; return the result."""
        pod, children = self.pod, self.children
        environment = pod.child_environment()
        for left in (self.result_file, self.heartbeat):
            left.unlink(missing_ok=True)
        self.driver_settings().write(self.settings_file)
        self.ray_log.unlink(missing_ok=True)
        ray = RayNode(
            children,
            commands.head_command(pod.ip, pod.scratch, pod.job),
            environment,
            self.ray_log,
            parts=("gcs_server", "raylet"),
        )
        with self.log_file.open("wb"):
            pass
        driver = self._start_driver()
        with self.log_file.open("rb") as self._log:
            message = self._watch(ray, driver)
            children.end(driver, 0)
            ray.end(0)
            self._pass_on()
        return message

    def _start_driver(self) -> int:
        command = [sys.executable, "-m", "trainmaster_trainer.driver.attempt", str(self.settings_file)]
        with self.log_file.open("ab") as log:
            return self.children.start(command, self.pod.child_environment(), log)

    def _pass_on(self) -> None:
        """Copy what the driver printed to our own output; the driver uploads the file to storage."""
        sys.stdout.buffer.write(self._log.read())
        sys.stdout.buffer.flush()

    def driver_settings(self) -> DriverSettings:
        """Return the settings of the driver."""
        pod, spec = self.pod, self.pod.job.spec
        code = spec.training.code
        url = (pod.run_dir / names.KEY_PROGRESS_URL).read_text().strip() if self._has(names.KEY_PROGRESS_URL) else ""
        return DriverSettings(
            job_file=str(pod.run_dir / names.KEY_JOB),
            attempt=pod.attempt,
            storage_uri=spec.storage.uri or "",
            base_dir=str(Path.cwd()),
            code_dir=pod.code_dir,
            work_dir=str(pod.scratch / "work") if pod.code_dir else "",
            worker_cpus=float(parse_quantity(spec.cluster.workers.cpus)),
            code_sha256=code.archive_sha256 if code is not None else "",
            code_file=str(pod.run_dir / names.KEY_CODE) if self._has(names.KEY_CODE) else "",
            git_file=str(pod.run_dir / names.KEY_GIT) if self._has(names.KEY_GIT) else "",
            scratch=str(pod.scratch),
            result_file=str(self.result_file),
            token_file=str(pod.token_file),
            host=pod.ip,
            control_port=names.PORT_CONTROL,
            ray_address=f"{pod.ip}:{names.PORT_GCS}",
            pod=pod.name,
            heartbeat_file=str(self.heartbeat),
            log_file=str(self.log_file),
            tracking=tuple(entry.wire() for entry in spec.tracking),
            progress_url=url,
            progress_ca=str(pod.run_dir / names.KEY_PROGRESS_CA) if self._has(names.KEY_PROGRESS_CA) else "",
            progress_token=pod.environment.get("TRAINMASTER_TOKEN_FILE", f"{names.TOKEN_DIR}/token"),
        )

    def _has(self, key: str) -> bool:
        path = self.pod.run_dir / key
        return path.is_file() and path.stat().st_size > 0

    def _watch(self, ray: RayNode, driver: int) -> ExitMessage:
        stopping: float | None = None
        patience = self.pod.job.spec.run.stall_seconds
        while True:
            self._pass_on()
            if self.children.wait(_TICK) and stopping is None:
                stopping = time.monotonic() + self.pod.job.spec.run.stop_grace_seconds + 5
                self.children.signal(driver, signal.SIGTERM)
            code = self.children.exit_of(driver)
            if code is not None:
                return self._result(code, stopping is not None, ray.trouble())
            if stopping is not None and time.monotonic() > stopping:
                return ExitMessage(outcome=Outcome.STOPPED, message="stopped without a new checkpoint: no time left")
            trouble = ray.trouble()
            if trouble is not None and not ray.runs and ray.may_start_again and stopping is None:
                print(f"{trouble}; restarting it:", *ray.last_lines(), sep="\n  ", flush=True)
                ray.end(0)  # ends the driver too: it may have joined the node that has ended
                ray.start()
                driver = self._start_driver()
            elif trouble is not None:
                # the driver loses its cluster at the same time and may not be able to report it
                return failed(FailureClass.HEAD_LOST, trouble, last_lines=ray.last_lines())
            if stopping is None and silence(self.heartbeat) > patience:
                return failed(
                    FailureClass.STALLED,
                    f"driver unresponsive: no heartbeat for {patience} s",
                    last_lines=tail(self.log_file),
                )

    def _result(self, code: int, stopping: bool, trouble: str | None) -> ExitMessage:
        text = self.result_file.read_text() if self.result_file.exists() else ""
        message = ExitMessage.decode(text) if text else None
        if message is not None:
            return message
        if stopping:
            return ExitMessage(outcome=Outcome.STOPPED, message="stopped before training began")
        if self.oom.happened():
            limit = self.pod.job.spec.cluster.head.memory
            return failed(
                FailureClass.HOST_OUT_OF_MEMORY,
                f"the head reached its memory limit of {limit}; raise cluster.head.memory",
            )
        if trouble is not None:  # Ray's library ends the driver whose cluster is gone
            return failed(FailureClass.HEAD_LOST, trouble)
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return failed(FailureClass.INTERNAL_ERROR, f"the driver ended with {how} and without a result")

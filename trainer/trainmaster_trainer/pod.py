"""What a launcher does in its pod, as head or as worker. See docs/contract.md for what it promises.

Nothing heavy is imported, so that Ray starts at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from trainmaster_api import names
from trainmaster_api.messages import ExitCode, ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.trainingjob import TrainingJob

from . import raycluster
from .children import Children
from .control import ask
from .heartbeat import silence
from .memory import OomWatch
from .settings import DriverSettings

HEAD_GONE_SECONDS = 10.0
_TICK = 0.25
_LAST_LINES = 12
_GOODBYE_SECONDS = 3.0
_CODES = {
    Outcome.COMPLETE: ExitCode.COMPLETE,
    Outcome.STOPPED: ExitCode.STOPPED,
    Outcome.FAILED: ExitCode.FAILED,
}


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """The container's input can't be carried out; the message is a sentence."""


@dataclass(frozen=True)
class Pod:
    """What a launcher knows of its pod.

    The three directories can be moved by TRAINMASTER_RUN_DIR, TRAINMASTER_SCRATCH and TRAINMASTER_TERMINATION, so that
    a head and its workers can run on one machine without containers.
    """

    job: TrainingJob
    role: str
    attempt: int
    index: int
    ip: str
    name: str
    token: str
    run_dir: Path
    scratch: Path
    termination: Path
    environment: Mapping[str, str]

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Pod:
        """From the environment and the mounted Secret.

        Raises:
            Refused: Something is missing, or the Secret belongs to another job.
        """
        run_dir = Path(environment.get("TRAINMASTER_RUN_DIR", names.RUN_DIR))
        needed = (names.ENV_ROLE, names.ENV_ATTEMPT, names.ENV_JOB_UID, names.ENV_POD_IP, names.ENV_POD_NAME)
        missing = [key for key in needed if not environment.get(key)]
        if missing:
            raise Refused(f"the environment lacks {', '.join(missing)}; only the operator starts this container")
        try:
            job = TrainingJob.model_validate_json((run_dir / names.KEY_JOB).read_bytes())
            key = (run_dir / names.KEY_RAY).read_text().strip()
            owner = (run_dir / names.KEY_OWNER).read_text().strip()
        except OSError as error:
            raise Refused(f"{error.filename} can't be read ({error.strerror}): the Secret isn't mounted") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Refused(f"annotation {names.ANNOTATION_JOB} is no TrainingJob: {where}: {first['msg']}") from None
        if owner != environment[names.ENV_JOB_UID]:
            raise Refused(
                f"the Secret {names.run_secret(job.metadata.name)} belongs to another TrainingJob (uid "
                f"{owner}, expected {environment[names.ENV_JOB_UID]}); delete that Secret"
            )
        attempt = int(environment[names.ENV_ATTEMPT])
        return cls(
            job=job,
            role=environment[names.ENV_ROLE],
            attempt=attempt,
            index=int(environment.get(names.ENV_INDEX, "0")),
            ip=environment[names.ENV_POD_IP],
            name=environment[names.ENV_POD_NAME],
            token=names.ray_token(key, attempt),
            run_dir=run_dir,
            scratch=Path(environment.get("TRAINMASTER_SCRATCH", names.SCRATCH_DIR)),
            termination=termination_path(environment),
            environment=environment,
        )

    @property
    def token_file(self) -> Path:
        """File with the attempt's token."""
        return self.scratch / "ray-token"

    def ray_environment(self) -> dict[str, str]:
        """Environment of everything that this launcher starts."""
        return raycluster.ray_environment(self.token_file, self.scratch, self.ip, self.environment)


def termination_path(environment: Mapping[str, str]) -> Path:
    """File that the kubelet reads the termination message from."""
    return Path(environment.get("TRAINMASTER_TERMINATION", names.TERMINATION_MESSAGE_PATH))


def run() -> int:
    """Run the pod's role to its end. Returns the exit code; the termination message says the rest."""
    try:
        pod = Pod.read(os.environ)
    except Refused as refusal:
        message = _failed(FailureClass.INVALID_CONFIGURATION, str(refusal))
        return end(message, termination_path(os.environ))
    raycluster.write_token(pod.token_file, pod.token)
    children = Children()
    message = Head(pod, children).run() if pod.role == names.ROLE_HEAD else Worker(pod, children).run()
    return end(message, pod.termination)


def end(message: ExitMessage, termination: Path) -> int:
    """Leave the termination message, print its sentence, return the exit code."""
    with contextlib.suppress(OSError):  # without a kubelet there is nobody to read it
        termination.write_text(message.encode())
    what = f"{message.outcome} ({message.failure_class})" if message.failure_class else str(message.outcome)
    print(f"{what}: {message.message}" if message.message else what, flush=True)
    return _CODES[message.outcome]


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

    def run(self) -> ExitMessage:
        """Until the driver has ended, or Ray's head has."""
        pod, children = self.pod, self.children
        environment = pod.ray_environment()
        for left in (self.result_file, self.heartbeat):
            left.unlink(missing_ok=True)
        with self.ray_log.open("wb") as log:
            ray = children.start(raycluster.head_command(pod.ip, pod.scratch, pod.job), environment, log)
        settings = pod.scratch / "driver.json"
        self.driver_settings().write(settings)
        command = [sys.executable, "-m", "trainmaster_trainer.driver", str(settings)]
        with self.log_file.open("wb") as log:
            driver = children.start(command, environment, log)
        with self.log_file.open("rb") as self._log:
            message = self._watch(ray, driver)
            children.end(driver, 0)
            children.end(ray, 0)
            self._pass_on()
        return message

    def _pass_on(self) -> None:
        """What the driver printed goes to our own output; the file is what the driver keeps in storage."""
        sys.stdout.buffer.write(self._log.read())
        sys.stdout.buffer.flush()

    def driver_settings(self) -> DriverSettings:
        """What the driver is told."""
        pod, spec = self.pod, self.pod.job.spec
        mlflow = spec.tracking.mlflow
        url = (pod.run_dir / names.KEY_PROGRESS_URL).read_text().strip() if self._has(names.KEY_PROGRESS_URL) else ""
        return DriverSettings(
            job_file=str(pod.run_dir / names.KEY_JOB),
            attempt=pod.attempt,
            workers=spec.cluster.workers.count,
            storage_uri=spec.storage.uri or "",
            base_dir=str(Path.cwd()),
            scratch=str(pod.scratch),
            result_file=str(self.result_file),
            token_file=str(pod.token_file),
            host=pod.ip,
            control_port=names.PORT_CONTROL,
            ray_address=f"{pod.ip}:{names.PORT_GCS}",
            pod=pod.name,
            heartbeat_file=str(self.heartbeat),
            log_file=str(self.log_file),
            mlflow_uri=(mlflow.uri or "") if mlflow else "",
            mlflow_experiment=(mlflow.experiment or "") if mlflow else "",
            progress_url=url,
            progress_ca=str(pod.run_dir / names.KEY_PROGRESS_CA) if self._has(names.KEY_PROGRESS_CA) else "",
            progress_token=pod.environment.get("TRAINMASTER_TOKEN_FILE", f"{names.TOKEN_DIR}/token"),
            grace_seconds=spec.run.stop_grace_seconds,
        )

    def _has(self, key: str) -> bool:
        path = self.pod.run_dir / key
        return path.is_file() and path.stat().st_size > 0

    def _watch(self, ray: int, driver: int) -> ExitMessage:
        stopping: float | None = None
        patience = self.pod.job.spec.run.stall_seconds
        while True:
            self._pass_on()
            if self.children.wait(_TICK) and stopping is None:
                stopping = time.monotonic() + self.pod.job.spec.run.stop_grace_seconds + 5
                self.children.signal(driver, signal.SIGTERM)
            code = self.children.exit_of(driver)
            if code is not None:
                return self._result(code, stopping is not None)
            if stopping is not None and time.monotonic() > stopping:
                return ExitMessage(outcome=Outcome.STOPPED, message="stopped without a new checkpoint: no time left")
            if self.children.exit_of(ray) is not None:
                # the driver loses its cluster with it and can't say so
                return _failed(
                    FailureClass.HEAD_LOST,
                    f"Ray's head ended with status {self.children.exit_of(ray)}",
                    last_lines=_tail(self.ray_log),
                )
            if stopping is None and silence(self.heartbeat) > patience:
                return _failed(
                    FailureClass.STALLED,
                    f"the driver hangs: no sign of life for {patience} s",
                    last_lines=_tail(self.log_file),
                )

    def _result(self, code: int, stopping: bool) -> ExitMessage:
        text = self.result_file.read_text() if self.result_file.exists() else ""
        message = ExitMessage.decode(text) if text else None
        if message is not None:
            return message
        if stopping:
            return ExitMessage(outcome=Outcome.STOPPED, message="stopped before training began")
        if self.oom.happened():
            limit = self.pod.job.spec.cluster.head.memory
            return _failed(
                FailureClass.HOST_OUT_OF_MEMORY,
                f"the head reached its memory limit of {limit}; raise cluster.head.memory",
            )
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return _failed(FailureClass.INTERNAL_ERROR, f"the driver ended with {how} and without a result")


class Worker:
    """Joins the head and stays until it is told to end, the head is gone, or memory ran out."""

    def __init__(self, pod: Pod, children: Children) -> None:
        self.pod = pod
        self.children = children
        self.oom = OomWatch()
        self.ray_log = pod.scratch / "ray-start.log"
        self._head_listens = False
        self.head = pod.environment.get(names.ENV_HEAD_ADDRESS) or names.attempt_head_address(
            pod.job.metadata.name, pod.attempt, pod.job.metadata.namespace
        )

    def run(self) -> ExitMessage:
        """Until the end of the attempt."""
        while True:
            head_ip = self._wait_for_head()
            if head_ip is None:
                return ExitMessage(outcome=Outcome.STOPPED, message="told to end before the head was there")
            with self.ray_log.open("ab") as log:
                command = raycluster.worker_command(self.pod.ip, self.pod.scratch, self.pod.job, head_ip)
                ray = self.children.start(command, self.pod.ray_environment(), log)
            message = self._stay(ray, head_ip)
            # the head hears at once of a node that says goodbye, and only after many seconds of one that is killed
            self.children.end(ray, _GOODBYE_SECONDS if self._head_listens else 0)
            if message is not None:
                return message

    def _wait_for_head(self) -> str | None:
        """Address of the head once it listens; None: told to end."""
        while True:
            with contextlib.suppress(OSError):
                ip = socket.getaddrinfo(self.head, None, socket.AF_INET)[0][4][0]
                if isinstance(ip, str) and raycluster.is_listening(ip, names.PORT_GCS):
                    return ip
            if self.children.wait(_TICK):
                return None

    def _stay(self, ray: int, head_ip: str) -> ExitMessage | None:
        """None: Ray couldn't join and is to be started again."""
        seen = time.monotonic()
        while True:
            if self.children.wait(_TICK):
                return self._leave(head_ip)
            if self.oom.happened():
                return self._out_of_memory()
            now = time.monotonic()
            alive = raycluster.is_listening(head_ip, names.PORT_GCS) if now - seen > 1 else True
            if alive and now - seen > 1:
                seen = now
            if now - seen > HEAD_GONE_SECONDS:
                return _failed(FailureClass.HEAD_LOST, f"the head at {self.head} is gone")
            if self.children.exit_of(ray) is not None and alive:
                print("Ray ended; joining again:", *_tail(self.ray_log), sep="\n  ", flush=True)
                return self._leave(head_ip) if self.children.wait(1.0) else None

    def _leave(self, head_ip: str) -> ExitMessage:
        """The driver saves first, if it is still there; then there is nothing here worth waiting for."""
        message = {"type": "leaving", "pod": self.pod.name, "ip": self.pod.ip}
        grace = float(self.pod.job.spec.run.stop_grace_seconds)
        answer = ask((head_ip, names.PORT_CONTROL), self.pod.token, "launcher", message, grace)
        self._head_listens = answer is not None
        saved = "after a checkpoint" if answer and answer.get("saved") else "without a checkpoint"
        return ExitMessage(outcome=Outcome.STOPPED, message=f"told to end; left {saved}", pod=self.pod.name)

    def _out_of_memory(self) -> ExitMessage:
        limit = self.pod.job.spec.cluster.workers.memory
        return _failed(
            FailureClass.HOST_OUT_OF_MEMORY,
            f"worker {self.pod.index} reached its memory limit of {limit}; raise cluster.workers.memory",
            pod=self.pod.name,
        )


def _failed(
    failure_class: FailureClass, message: str, pod: str | None = None, last_lines: list[str] | None = None
) -> ExitMessage:
    return ExitMessage(
        outcome=Outcome.FAILED, failure_class=failure_class, message=message, pod=pod, last_lines=last_lines or []
    )


def _tail(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    except OSError:
        return []

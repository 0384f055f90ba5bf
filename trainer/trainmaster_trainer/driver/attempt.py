"""Leads an attempt: starts Ray Train, watches it, stops it, and writes the result. `python -m ...driver SETTINGS`.

The same program runs in the head pod and behind `trainmaster run`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from trainmaster_api.layout import run_path
from trainmaster_api.messages import ExitCode, ExitMessage, Outcome, TrainerState
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.context import Result
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.failures import Failure
from trainmaster_trainer.ipc.channel import ControlServer, Message, Peer
from trainmaster_trainer.ipc.codec import report_from_wire, result_from_wire
from trainmaster_trainer.ipc.heartbeat import beat
from trainmaster_trainer.ipc.rendezvous import Meeting
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.reporting.sinks import Outlets
from trainmaster_trainer.reporting.state import Hub
from trainmaster_trainer.storage.store import Store, open_store

_TICK = 0.1
_MAX_FAILURES_IN_A_ROW = 3
_DUMP_SECONDS = 3.0
_GONE_SECONDS = 20.0
_PREPARING_SECONDS = 600


class Driver:
    """One attempt, from the start of its workers to its result."""

    def __init__(self, settings: DriverSettings) -> None:
        self.settings = settings
        self.job = TrainingJob.model_validate_json(Path(settings.job_file).read_bytes())
        self.token = Path(settings.token_file).read_text()
        self.hub = Hub(self.job, settings.attempt)
        self.run = self._open_run()
        self._stop_asked = threading.Event()
        self.outlets = Outlets(settings, self.job, self.hub, self.run, nobody_watches=self._stop_asked.set)
        self._meeting = Meeting()
        self.control = ControlServer(
            settings.host if settings.ray_address else "127.0.0.1", settings.control_port, self.token, self._on_message
        )
        self._stop_seen: float | None = None
        self._failure: Failure | None = None
        self._leaving_ip = ""
        self._interrupted = threading.Condition()
        self._connected = threading.Event()
        self._outcome: ExitMessage | None = None

    def lead(self) -> ExitMessage:
        """Until the attempt is over. Never raises for what happens to the training."""
        self._handle_signals()
        training = threading.Thread(target=self._train, name="train", daemon=True)
        training.start()
        while self._outcome is None:
            training.join(_TICK)
            if self._connected.is_set():
                self._connected.clear()
                self._handle_signals()  # Ray has put a handler of its own there, which prints a stack
            if self._stop_asked.is_set():
                self._stop()
            self._watch_for_stall()
        return self._outcome

    def _handle_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGINT, self._ask_to_stop)

    # -- the training thread ------------------------------------------------------------------------------------
    def _train(self) -> None:
        try:
            self.run.check()  # a wrong key shows now, not when every worker is there
            outcome = self._fit()
        except TrainingError as error:
            outcome = self.hub.ended(Outcome.FAILED, error.message, error.failure_class)
        except Exception as error:  # noqa: BLE001 - Ray's errors have no common base; whatever it is, it has to be told
            outcome = self._ended_by(error)
        self._outcome = self._outcome or outcome

    def _fit(self) -> ExitMessage:
        from trainmaster_trainer.cluster.train import connect, fit

        connect(self.settings, self.token)
        self._connected.set()
        self.hub.ray_ready()
        config = {
            "job": self.job.wire(),
            "attempt": self.settings.attempt,
            "storage_uri": self.settings.storage_uri,
            "base_dir": self.settings.base_dir,
            "control": [self.settings.host, self.control.port],
            "token_file": self.settings.token_file,
            "in_cluster": bool(self.settings.ray_address),
        }
        result = result_from_wire(fit(self.settings, self.job, config, self._may_recover))
        return self._finished(result)

    def _finished(self, result: Result) -> ExitMessage:
        with_result: dict[str, Any] = {"test_metrics": result.test_metrics, "model_uri": result.model_uri}
        if result.checkpoint is not None:
            self.hub.checkpoint = result.checkpoint
        if result.outcome is Outcome.COMPLETE:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in sorted(result.test_metrics.items()))
            return self.hub.ended(Outcome.COMPLETE, f"trained {result.step} steps; {shown}", **with_result)
        return self.hub.ended(Outcome.STOPPED, f"saved at step {result.step} and stopped")

    def _ended_by(self, error: Exception) -> ExitMessage:
        """The failure that Ray Train asked about is the cause; what `fit` raised only follows from it."""
        failure = self._failure
        if failure is None:
            lines = str(error).strip().splitlines()
            message = f"{type(error).__name__}: {lines[0] if lines else ''}"
            return self.hub.ended(Outcome.FAILED, message, FailureClass.INTERNAL_ERROR, last_lines=lines[-12:])
        if self._stop_asked.is_set() and failure.recoverable:
            return self._stopped_without_save()
        return self.hub.ended(
            Outcome.FAILED,
            failure.message,
            FailureClass.WORKER_LOST if failure.recoverable else failure.failure_class,
            rank=failure.rank,
            pod=failure.pod,
            last_lines=failure.last_lines,
        )

    # -- messages -----------------------------------------------------------------------------------------------
    def _on_message(self, peer: Peer, message: Message) -> Message | None:
        kind = message["type"]
        if peer.role == "rank" and kind == "report":
            self.hub.report(report_from_wire(message))
        elif peer.role == "rank" and kind == "meet":
            return self._meeting.on_message(peer, message)
        elif peer.role == "rank" and kind == "stacks":
            self.hub.stacks[int(message["rank"])] = [str(line) for line in message["lines"]]
        elif peer.role == "launcher" and kind == "leaving":
            return {"type": "left", "saved": self._save_before_leaving(message)}
        return None

    def _may_recover(self, failure: Failure) -> bool:
        """Whether Ray Train starts another group of workers."""
        self._failure = failure
        with self._interrupted:
            self._interrupted.notify_all()
        if not failure.recoverable or self._stop_asked.is_set():
            return False
        planned = failure.failure_class is FailureClass.PREEMPTED
        in_a_row = self.hub.recovering(failure.message)
        self.control.go_on()
        if planned and self._leaving_ip:
            from trainmaster_trainer.cluster.train import wait_until_gone

            wait_until_gone(self._leaving_ip, _GONE_SECONDS)  # or Ray would place the next group there once more
            self._leaving_ip = ""
        if in_a_row > _MAX_FAILURES_IN_A_ROW and not planned:
            self._failure = Failure(
                FailureClass.WORKER_LOST,
                f"workers were lost {in_a_row} times in a row without a new step; last: {failure.message}",
                failure.rank,
                failure.pod,
                failure.last_lines,
            )
            return False
        return True

    def _save_before_leaving(self, message: Message) -> bool:
        """A pod is told to end: save now. Returns once that is done, or can't be."""
        if self.hub.state is not TrainerState.TRAINING:
            return False
        self.hub.emit("leaving", pod=str(message["pod"]))
        self._leaving_ip = str(message["ip"])
        with self._interrupted:
            self.control.stop(leaving=True)
            self._interrupted.wait(timeout=self.settings.grace_seconds)
        return self._failure is not None and self._failure.failure_class is FailureClass.PREEMPTED

    # -- stopping -----------------------------------------------------------------------------------------------
    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_asked.set()

    def _stop(self) -> None:
        if self._stop_seen is None:
            self._stop_seen = time.monotonic()
            training = self.hub.state in (TrainerState.TRAINING, TrainerState.FINISHING)
            self.hub.to(TrainerState.STOPPING)
            if not training:  # nothing is in memory that isn't in the newest checkpoint
                self._outcome = self._outcome or self._stopped_without_save()
            self.control.stop()
        elif time.monotonic() - self._stop_seen > self.settings.grace_seconds:
            self._outcome = self._outcome or self._stopped_without_save()

    def _stopped_without_save(self) -> ExitMessage:
        step = self.hub.checkpoint.step if self.hub.checkpoint else self.hub.resumed_from_step or 0
        return self.hub.ended(Outcome.STOPPED, f"stopped; goes on from step {step}")

    def _watch_for_stall(self) -> None:
        limit = self._patience()
        if self._outcome is not None or self.control.ranks() == 0 or time.monotonic() - self.hub.last_move < limit:
            return
        self.control.dump()
        deadline = time.monotonic() + _DUMP_SECONDS
        while time.monotonic() < deadline and len(self.hub.stacks) < self.settings.workers:
            time.sleep(_TICK)  # a rank that hangs without Python can't answer, hence the deadline
        rank, lines = min(self.hub.stacks.items(), default=(None, []))
        step = self.hub.last.step if self.hub.last else 0
        self._outcome = self._outcome or self.hub.ended(
            Outcome.FAILED,
            f"no new step for {limit} s after step {step}; look for a deadlock, or raise run.stallSeconds",
            FailureClass.STALLED,
            rank=rank,
            last_lines=lines[-20:],
        )

    def _patience(self) -> int:
        """Seconds without news that are a stall: loading and packaging make no steps and may take longer than one."""
        limit = self.job.spec.run.stall_seconds
        return limit if self.hub.state is TrainerState.TRAINING else max(limit, _PREPARING_SECONDS)

    # -- storage ------------------------------------------------------------------------------------------------
    def _open_run(self) -> Store:
        storage, meta = self.job.spec.storage, self.job.metadata
        store = open_store(self.settings.storage_uri, storage.endpoint, storage.region, os.environ)
        return store.under(run_path(meta.namespace, meta.name, meta.uid))


_CODES = {Outcome.COMPLETE: ExitCode.COMPLETE, Outcome.STOPPED: ExitCode.STOPPED, Outcome.FAILED: ExitCode.FAILED}


def main(arguments: list[str]) -> int:
    """Lead the attempt that a settings file describes. Returns the exit code."""
    settings = DriverSettings.read(Path(arguments[0]))
    if settings.heartbeat_file:
        beat(Path(settings.heartbeat_file))
    driver = Driver(settings)
    message = driver.lead()
    message = driver.outlets.finish(message)
    result = Path(settings.result_file)
    result.with_suffix(".tmp").write_text(message.encode())
    result.with_suffix(".tmp").rename(result)
    sys.stdout.flush()
    # Nothing that matters is left to do. `ray.shutdown` would take 15 s, and threads may hang in a cluster that is
    # gone; whoever started us ends what is left below.
    os._exit(_CODES[message.outcome])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

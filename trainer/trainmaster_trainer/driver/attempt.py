"""Runs an attempt to its result, in a head pod and on a laptop: `python -m trainmaster_trainer.driver.attempt FILE`.

Events arrive in one queue, `Group` decides, and the main thread executes its commands. Ray runs in threads of its own.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from trainmaster_api.messages import CheckpointRef, ExitMessage, Outcome, TrainerState
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.training import OWN_PROGRAMS

from trainmaster_trainer.context import TRAINS, ReportKind, Result
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.failures import Failure
from trainmaster_trainer.ipc.channel import Channel, Peer
from trainmaster_trainer.ipc.heartbeat import beat
from trainmaster_trainer.ipc.messages import (
    Dump,
    Exited,
    Failed,
    Finished,
    Leaving,
    Left,
    Message,
    Parts,
    Progress,
    Retire,
    Stacks,
    Start,
    Started,
    Stop,
    Surroundings,
    Warm,
)
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.reporting.event import EventKind
from trainmaster_trainer.reporting.sinks import Sinks
from trainmaster_trainer.reporting.state import RunState
from trainmaster_trainer.storage.runs import open_run, run_address

from . import endings, own_code
from .environment import Environment
from .group import Agent, AnswerLaunchers, Command, Fail, Group, Phase, RetireAgents, StartRanks, StopRanks, Succeed
from .inbox import Inbox
from .rendezvous import free_port, port_in_pod
from .search import Search, executor
from .sets import Sets

_DUMP_SECONDS = 3.0
_NODES_SECONDS = 5.0


class Driver:
    """One attempt, from the start of its workers to its result."""

    def __init__(self, settings: DriverSettings) -> None:
        self.settings = settings
        self.job = TrainingJob.model_validate_json(Path(settings.job_file).read_bytes())
        self.run_state = RunState(self.job, settings.attempt)
        self.run = open_run(self.job, settings.storage_uri)
        self._stop_asked = threading.Event()
        self.environment = environment = Environment(settings, self.job, self.run, self._warn)
        self.sinks = Sinks(settings, self.job, self.run_state, self.run, self._stop_asked.set, environment.take_images)
        self.search = Search(settings, self.job, self.run, self.run_state) if self.job.spec.tuning is not None else None
        self.workers = self.job.spec.cluster.workers.count
        is_own = self.job.spec.training.backend in OWN_PROGRAMS
        self.group = Group(self.workers, self.run_state.recovering, is_own_program=is_own)
        self.sets = self._sets() if is_own else None
        self.inbox = Inbox(self._on_join, self._on_leave, self._on_message)
        self._stop_seen: float | None = None
        self._stacks: dict[int, Stacks] = {}
        self._outcome: ExitMessage | None = None
        self._is_warm = False
        self._has_workers = False
        host = settings.host if settings.ray_address else "127.0.0.1"
        self.channel = Channel(host, settings.control_port, Path(settings.token_file).read_text(), self.inbox)

    def lead(self) -> ExitMessage:
        """Run until the attempt is over; return its result. A failed training is a result, not an exception."""
        self._handle_signals()
        threading.Thread(target=self._run_ray, name="ray", daemon=True).start()
        while self._outcome is None:
            self._carry_out(self.inbox.turn())
            self._carry_out(self.group.on_time(time.monotonic()))
            if self._stop_asked.is_set():
                self._stop()
            self._watch_for_stall()
        self.environment.finish()
        return self._outcome

    def _warn(self, sentence: str) -> None:
        self.run_state.emit(EventKind.WARNING, message=sentence)

    def _handle_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGINT, self._ask_to_stop)

    def _end(self, outcome: ExitMessage) -> None:
        """Keep the first outcome; later ones are only its consequences."""
        self._outcome = self._outcome or outcome

    # -- Ray's threads ------------------------------------------------------------------------------------------
    def _run_ray(self) -> None:
        processes: Any = None
        try:
            self._claim()
            from trainmaster_trainer.cluster import train

            train.connect(self.settings, self.job)
            self.inbox.post(self._handle_signals)  # Ray has installed its own handler, which prints a stack
            processes = train.Processes()
            threading.Thread(target=self._watch_ray, args=[processes], name="watch-ray", daemon=True).start()
            job = self._searched() if self.search is not None else self.job
            while job is not None:
                try:
                    train.run_agents(self.settings, job, self.channel.port)
                except train.ControllerLost as error:
                    self.inbox.post(functools.partial(self.group.on_ray_ended, str(error)))
        except TrainingError as error:
            self._end_with(error.failure_class, error.message)
        except Exception as error:  # noqa: BLE001 - Ray's errors have no common base, and each must be reported
            part = processes.missing() if processes is not None else None
            if part is not None:
                self._end_without(part)
            else:
                lines = str(error).strip().splitlines()
                text = f"{type(error).__name__}: {lines[0] if lines else ''}"
                self._end_with(FailureClass.INTERNAL_ERROR, text, lines[-12:])

    def _searched(self) -> TrainingJob | None:
        """Run the search; return the job of its winner, None where the attempt is over with it."""
        assert self.search is not None
        self.inbox.post(lambda: self.run_state.to(TrainerState.TRAINING))
        found = self.search.lead(executor(self.settings, self.channel.port))
        if isinstance(found, TrainingJob):
            self.inbox.post(lambda: self.run_state.to(TrainerState.STARTING))
            return found
        outcome, text = found
        self.inbox.post(lambda: self._end(self.run_state.ended(outcome, text)))
        return None

    def _claim(self) -> None:
        """Take the run's storage: what can be wrong with it shows now, and not when every worker has joined."""
        self.run.check()
        self.environment.begin()
        own_code.keep_inline(self.run, self.job, self.settings.code_file)
        if self.sets is not None:
            self.sets.claim()

    def _watch_ray(self, processes: Any) -> None:
        from trainmaster_trainer.cluster import train

        train.wait_for_workers(self.settings, self.job)
        self.inbox.post(self.run_state.ray_ready)
        while self.settings.ray_address:  # in a pod the launcher watches Ray's processes
            self._has_workers = train.has_all_workers(self.settings, self.job)
            time.sleep(_NODES_SECONDS)
        self._has_workers = True
        self._end_without(processes.watch())

    def _end_without(self, part: str) -> None:
        text = f"{part} was killed, or this machine ran out of memory"
        self._end_with(FailureClass.HEAD_LOST, text)

    def _end_with(self, failure_class: FailureClass, text: str, last_lines: Sequence[str] = ()) -> None:
        """Have the main thread end the attempt."""
        failed = self.run_state.ended(Outcome.FAILED, text, failure_class, last_lines=list(last_lines))
        self.inbox.post(lambda: self._end(failed))

    # -- events -------------------------------------------------------------------------------------------------
    def _on_join(self, peer: Peer) -> list[Command]:
        hello = peer.hello
        if hello.role == "trial" and self.search is not None:
            self.search.on_join(peer)
        if hello.role != "agent":
            return []
        agent = Agent(peer.number, hello.rank, hello.group, hello.pod, hello.host)
        return self.group.on_agent(agent, time.monotonic())

    def _on_leave(self, peer: Peer) -> list[Command]:
        if self.search is not None:
            self.search.on_leave(peer)
        return self.group.on_agent_lost(peer.number, time.monotonic())

    def _on_message(self, peer: Peer, message: Message) -> list[Command]:
        if peer.hello.role == "trial":
            if self.search is not None:
                self.search.on_message(peer, message)
            return []
        if isinstance(message, Failed | Exited | Finished):
            return self.group.on_rank(peer.number, message, time.monotonic())
        if isinstance(message, Parts) and message.generation == self.group.generation:
            if self.sets is not None:
                self.sets.take(message.part)
        elif isinstance(message, Progress) and message.generation == self.group.generation:
            self.run_state.report(message.report)
            self._warm(message.report.kind)
        elif isinstance(message, Surroundings):
            self.environment.take(peer.hello.rank, message)
        elif isinstance(message, Stacks):
            self._stacks[peer.hello.rank] = message
        elif isinstance(message, Started):
            how = "from the spare" if message.was_warm else "without a spare"
            print(f"rank {peer.hello.rank} runs in process {message.pid}, started {how}", flush=True)
        elif isinstance(message, Leaving) and self.search is not None and self.search.is_active:
            self.run_state.emit("leaving", pod=message.pod)
            self.search.on_leaving(peer, message)
        elif isinstance(message, Leaving):
            commands = self.group.on_leaving(peer.number, self.run_state.state is TrainerState.TRAINING)
            if any(isinstance(command, StopRanks) for command in commands):
                self.run_state.emit("leaving", pod=message.pod)
            return commands
        return []

    def _warm(self, kind: ReportKind) -> None:
        """Let agents start a spare, once training runs and the spare can't slow down the start."""
        if kind in TRAINS and not self._is_warm:
            self._is_warm = True
            self.inbox.send(self.group.agents, Warm())

    # -- commands -----------------------------------------------------------------------------------------------
    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, StartRanks):
                self._start_ranks(command)
            elif isinstance(command, StopRanks):
                self.inbox.send(command.agents, Stop())
            elif isinstance(command, RetireAgents):
                self.inbox.send(command.agents, Retire())
            elif isinstance(command, AnswerLaunchers):
                self.inbox.send_to(command.peers, Left(saved=command.saved))
            elif isinstance(command, Succeed):
                self._end(self._finished(command.result))
            elif isinstance(command, Fail):
                self._end(self._failed(command.failure))

    def _start_ranks(self, command: StartRanks) -> None:
        self._is_warm = False
        self.run_state.moved()
        if self.sets is not None:
            self.sets.begin(len({agent.host for agent in command.agents}))
        in_pod = bool(self.settings.ray_address)
        port = port_in_pod(command.generation) if in_pod else free_port("127.0.0.1")
        start = Start(generation=command.generation, master_address=command.master, master_port=port)
        self.inbox.send(command.agents, start)

    def _finished(self, result: Result) -> ExitMessage:
        model = result.model_uri
        if self.sets is not None:
            try:
                model = self.sets.finish(is_complete=result.outcome is Outcome.COMPLETE)
            except TrainingError as error:
                return self.run_state.ended(Outcome.FAILED, error.message, error.failure_class)
        return endings.finished(self.run_state, result, model)

    def _failed(self, failure: Failure) -> ExitMessage:
        if self._stop_asked.is_set() and failure.recoverable:
            return endings.stopped_without_save(self.run_state)
        return endings.failed(self.run_state, failure)

    # -- stopping -----------------------------------------------------------------------------------------------
    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_asked.set()

    def _stop(self) -> None:
        if self._stop_seen is None:
            self._stop_seen = time.monotonic()
            if self.search is not None and self.search.is_active:
                self.run_state.to(TrainerState.STOPPING)
                self.search.stop()
                return
            training = self.run_state.state in (TrainerState.TRAINING, TrainerState.FINISHING)
            self.run_state.to(TrainerState.STOPPING)
            if not training:  # nothing is in memory that isn't in the newest checkpoint
                self._end(endings.stopped_without_save(self.run_state))
            self._carry_out(self.group.on_stop())
        elif time.monotonic() - self._stop_seen > self.job.spec.run.stop_grace_seconds:
            self._end(endings.stopped_without_save(self.run_state))

    def _watch_for_stall(self) -> None:
        limit = self._patience()
        if self._outcome is not None or time.monotonic() - self.run_state.last_move < limit:
            return
        if self.search is not None and self.search.is_active:
            if self.sets is not None and self.search.has_actors:
                return  # its actors watch their programs
            self._end(endings.stalled_search(self.run_state, limit, self.search.open_trials))
            return
        if not self.group.has_ranks:
            # the operator waits for missing pods; agents that are missing although their pods run are a stall
            if self._has_workers and self.group.phase is Phase.GATHERING:
                self._end(endings.no_agents(self.run_state, limit))
            return
        self.inbox.send(self.group.agents, Dump())
        deadline = time.monotonic() + _DUMP_SECONDS
        while time.monotonic() < deadline and len(self._stacks) < self.workers:
            self._carry_out(self.inbox.turn())  # a rank that hangs without Python can't answer, hence the deadline
        self._end(endings.stalled(self.run_state, limit, self._stacks, self.workers))

    def _patience(self) -> int:
        """Return the seconds without progress that count as a stall.

        Loading and packaging make no steps and may take longer than a step.
        """
        longest = self.run_state.pace.longest if self.group.is_own_program else 0.0
        return endings.patience(self.job.spec.run.stall_seconds, self.run_state.state, longest)

    # -- storage ------------------------------------------------------------------------------------------------
    def _sets(self) -> Sets:
        """Return what commits the files of a program of the user's own."""

        def committed(found: CheckpointRef) -> None:
            self.inbox.post(lambda: self.run_state.committed(found))

        def failed(error: BaseException) -> None:
            if isinstance(error, TrainingError):
                self._end_with(error.failure_class, error.message)

        uri = run_address(self.job, self.settings.storage_uri)
        keep = self.job.spec.checkpoint.keep
        return Sets(self.run, uri, self.settings.attempt, self.workers, keep, committed, failed)


def main(arguments: list[str]) -> int:
    """Run the attempt that a settings file describes. Ends the process with the exit code."""
    settings = DriverSettings.read(Path(arguments[0]))
    if settings.heartbeat_file:
        beat(Path(settings.heartbeat_file))
    driver = Driver(settings)
    message = driver.lead()
    message = driver.sinks.finish(message)
    result = Path(settings.result_file)
    result.with_suffix(".tmp").write_text(message.encode())
    result.with_suffix(".tmp").rename(result)
    sys.stdout.flush()
    # Nothing is left to do. `ray.shutdown` would take 15 s, and threads may hang in a cluster that has ended. The
    # parent process ends our children.
    os._exit(message.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

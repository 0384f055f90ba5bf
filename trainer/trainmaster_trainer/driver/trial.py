"""Runs one trial after another on the same agents: a small driver, in an actor of Ray Tune's.

`step` handles events until there is a validation to decide about or the trial has ended; in between, the rank waits.
Agents and ranks are those of any run, and `Group` decides about them too.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from trainmaster_api import names
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.training import OWN_PROGRAMS
from trainmaster_api.tuning.space import axes_of, trial_document
from trainmaster_api.validation.validate import format_problems

from trainmaster_trainer.context import Report, Result, Segment, Verdict
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.failures import Failure
from trainmaster_trainer.ipc import auth
from trainmaster_trainer.ipc.channel import Channel, Peer
from trainmaster_trainer.ipc.link import Talk
from trainmaster_trainer.ipc.messages import (
    Answered,
    Asked,
    Exited,
    Failed,
    Finished,
    Hello,
    Leaving,
    Left,
    Message,
    Parts,
    Progress,
    Retire,
    Returned,
    Start,
    Stop,
    Wake,
    Warm,
)
from trainmaster_trainer.tuning.trials import (
    METRICS,
    NUMBER,
    REASON,
    RUN,
    SEGMENT,
    STATE,
    STEP,
    TIME,
    VALUES,
    WAITS,
    TrialEnd,
    run_of,
)

from .group import Agent, Command, Fail, Group, Phase, RetireAgents, StartRanks, StopRanks, Succeed
from .host_settings import HostSettings
from .inbox import Inbox
from .leaving import Departures
from .own_trials import OwnTrials
from .rendezvous import free_port
from .trial_job import job_of

_PROGRAM_SECONDS = 5.0
"""How long a program of the user's own may take to end when it is pruned; then it is killed."""
_RESULTS = {
    FailureClass.NON_FINITE_LOSS: TrialEnd.DIVERGED,
    FailureClass.HOST_OUT_OF_MEMORY: TrialEnd.OUT_OF_MEMORY,
    FailureClass.GPU_OUT_OF_MEMORY: TrialEnd.OUT_OF_MEMORY,
}
"""Failures that are results of a trial: the same values would give the same again."""


class TrialLost(Exception):  # noqa: N818 - an event more than an error
    """The trial's processes were lost too often; another actor may do."""


class _Kind(StrEnum):
    ASKED = "asked"
    ENDED = "ended"
    FAILED = "failed"


class TrialHost:
    """The trials of one actor."""

    def __init__(self, settings: HostSettings) -> None:
        """Listen for agents and have them started."""
        self.job = TrainingJob.model_validate(settings.job)
        self._axes = axes_of(self.job.spec)
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
        tuning = self.job.spec.tuning
        self._workers = tuning.trial.workers if tuning is not None else 1
        self._inbox = Inbox(self._on_join, self._on_leave, self._on_message)
        self._known: list[Agent] = []
        self._trial: dict[str, Any] = {}
        self._trial_job = self.job
        self._objectives = tuple(each.metric for each in tuning.objectives) if tuning is not None else ()
        is_own = self.job.spec.training.backend in OWN_PROGRAMS
        self._program = (
            OwnTrials(self.job, settings.storage_uri, settings.attempt, self._workers, self._on_storage)
            if is_own
            else None
        )
        self._group = self._new_group()
        self._recoveries = self._highest = 0
        self._found: tuple[_Kind, Any] | None = None
        self._waits = False  # rank 0, for a verdict
        self._is_kept = False  # the ranks of the last trial can train another one
        self._is_reused = False  # those of this trial have trained another one
        self._is_stopping = False
        self._has_moved = False  # since the ranks were started
        self._woken = 0
        self._waking = threading.Condition()
        host, agents = settings.agents(self.job)
        self.channel = Channel(host, 0, token, self._inbox)
        self._agents = agents(self.channel.port, token)
        self._agents.start()
        self._driver = Talk(auth.connect(settings.control, token), self._on_driver, on_end=_end_at_once)
        self._departures = Departures(self._driver.send)
        self._driver.send(Hello(role="trial", pid=os.getpid()))
        self._driver.begin()

    # -- what Tune calls ------------------------------------------------------------------------------------------
    def begin(self, config: Mapping[str, Any]) -> bool:
        """Begin a trial, once the former one has ended; or begin to wait until there may be one."""
        if self._waits:
            self._group.is_stopping = True  # ranks that are lost from now on aren't replaced
            self._answer(Verdict.STOP)
            self._until_over()
            self._driver.send(Returned(trial=self._trial[NUMBER]))
        if self._program is not None:
            self._program.leave()
        self._departures.let_go()
        self._trial = dict(config)
        self._found, self._waits, self._recoveries, self._highest = None, False, 0, 0
        if WAITS in config:
            return True
        document = trial_document(self.job, self._axes, config[VALUES])
        job, problems = job_of(document)
        if job is None:
            self._found = _Kind.FAILED, Failure(FailureClass.INVALID_CONFIGURATION, format_problems(problems))
            return True
        self._trial_job = job
        if not self._departures.begin():
            self._found = _Kind.FAILED, Failure(FailureClass.WORKER_LOST, "a pod of its ranks ends", recoverable=True)
            return True
        try:
            if self._program is not None:
                self._program.begin(job, self._trial[NUMBER])
        except TrainingError as error:
            self._found = _Kind.FAILED, Failure(error.failure_class, error.message)
            return True
        self._start_with_known()
        return True

    def _new_group(self, generation: int = 0) -> Group:
        is_own = self._program is not None
        return Group(self._workers, self._on_recovery, is_own_program=is_own, generation=generation)

    def _start_with_known(self) -> None:
        """Start the ranks of the trial, as soon as all agents are there."""
        self._group = self._new_group(self._group.generation)
        for agent in self._known:
            self._carry_out(self._group.on_agent(agent, time.monotonic()))

    def step(self) -> dict[str, Any]:
        """Return the next validation or the end of the trial."""
        if WAITS in self._trial:
            return self._rest()
        if self._waits:
            self._answer(Verdict.CONTINUE)
        while self._found is None:
            self._turn()
        (kind, what), self._found = self._found, None
        result = {NUMBER: self._trial[NUMBER]}
        if kind is _Kind.ASKED:
            self._waits = True
            found = {TIME: what.time, STEP: what.report.step, METRICS: json.dumps(what.report.metrics)}
            return {**result, **found, "done": False}
        if kind is _Kind.ENDED and self._program is not None:
            kind, what = self._finished(self._program, what)
        self._departures.over(saved=kind is _Kind.ENDED)
        if kind is _Kind.ENDED:
            state = TrialEnd.STOPPED if what.outcome is Outcome.STOPPED else TrialEnd.COMPLETE
            return {**result, STATE: str(TrialEnd.PAUSED if what.is_paused else state), "done": True}
        return {**result, **self._failed(what), "done": True}

    def _finished(self, program: OwnTrials, result: Result) -> tuple[_Kind, Any]:
        """Wait until the files of a trial are kept; return how it has ended."""
        try:
            program.finish()
        except TrainingError as error:
            return _Kind.FAILED, Failure(error.failure_class, error.message)
        return _Kind.ENDED, result

    def _rest(self) -> dict[str, Any]:
        """Wait until there may be a trial, with ranks that stay warm; what happens to them is heard by the next one."""
        with self._waking:
            self._waking.wait_for(lambda: self._is_stopping or self._woken >= self._trial[WAITS])
        return {NUMBER: self._trial[NUMBER], "done": True}

    def close(self) -> None:
        """End the agents and with them their ranks."""
        self._agents.close()
        self._inbox.send_to_all(Retire())
        self.channel.close()

    def _failed(self, failure: Failure) -> dict[str, Any]:
        state = _RESULTS.get(failure.failure_class)
        if state is None and failure.recoverable:
            raise TrialLost(failure.message)
        return {STATE: str(state or TrialEnd.FAILED), REASON: f"{failure.failure_class}: {failure.message}"}

    # -- events ---------------------------------------------------------------------------------------------------
    def _turn(self) -> None:
        self._carry_out(self._inbox.turn())
        self._carry_out(self._group.on_time(time.monotonic()))
        stalled = self._program.stalled(time.monotonic()) if self._program is not None and not self._is_stopping else ""
        if stalled and self._found is None:
            self._carry_out([RetireAgents(tuple(self._known))])
            self._found = _Kind.FAILED, Failure(FailureClass.STALLED, stalled)

    def _until_over(self) -> None:
        """Wait until the ranks of a trial that was stopped have returned, or are lost.

        Those of a program of the user's own aren't waited for: they are killed when others start in their place.
        """
        until = time.monotonic() + _PROGRAM_SECONDS if self._program is not None else math.inf
        while self._found is None and time.monotonic() < until:
            self._turn()

    def _on_join(self, peer: Peer) -> list[Command]:
        hello = peer.hello
        agent = Agent(peer.number, hello.rank, hello.group, hello.pod, hello.host)
        self._known = [each for each in self._known if each.group == agent.group and each.rank != agent.rank]
        self._known.append(agent)
        self._is_kept = False
        return self._group.on_agent(agent, time.monotonic())

    def _on_leave(self, peer: Peer) -> list[Command]:
        self._known = [each for each in self._known if each.peer != peer.number]
        return self._group.on_agent_lost(peer.number, time.monotonic())

    def _on_message(self, peer: Peer, message: Message) -> list[Command]:
        if isinstance(message, Failed | Exited | Finished):
            if isinstance(message, Finished):
                self._is_kept = self._is_kept and message.reusable
            return self._group.on_rank(peer.number, message, time.monotonic())
        if isinstance(message, Asked) and message.generation == self._group.generation:
            self._found = _Kind.ASKED, message
            self._moved(message.report)
        elif isinstance(message, Progress) and message.generation == self._group.generation:
            self._moved(message.report)
            self._driver.send(Progress(generation=self._trial[NUMBER], report=message.report))
        elif isinstance(message, Parts) and message.generation == self._group.generation and self._program is not None:
            self._has_moved = True
            self._program.take(message.part)
        return []

    def _on_storage(self, number: int, error: TrainingError) -> None:
        """Take the failure of a trial whose files couldn't be stored; in any thread."""

        def fail() -> list[Command]:
            is_over = self._trial.get(NUMBER) != number
            return [] if is_over else [Fail(Failure(error.failure_class, error.message))]

        self._inbox.post(fail)

    def _moved(self, report: Report) -> None:
        self._has_moved = True
        if self._program is not None and self._program.moved(report, time.monotonic()):
            self._inbox.send(tuple(self._known), Warm())
        if report.step > self._highest:
            self._highest, self._recoveries = report.step, 0

    def _on_recovery(self, sentence: str) -> int:
        self._recoveries += 1
        self._is_kept = False
        print(f"trial {self._trial.get(NUMBER)}: {sentence}; it continues from its checkpoint", flush=True)
        return self._recoveries

    def _on_driver(self, message: Message) -> None:
        with self._waking:
            if isinstance(message, Stop):
                self._is_stopping = True
                self._inbox.post(self._stop)
            elif isinstance(message, Wake):
                self._woken = max(self._woken, message.count)
            elif isinstance(message, Leaving):
                self._on_leaving(message)
            self._waking.notify_all()

    def _on_leaving(self, message: Leaving) -> None:
        """Have the trial save before a pod ends that has ranks of it; in the thread that hears the driver."""
        pods = {os.environ.get(names.ENV_POD_NAME), *(agent.pod for agent in list(self._known))}
        if message.pod not in pods:
            self._driver.send(Left(saved=False, pod=message.pod))
        elif self._departures.leaving(message.pod, is_open=self._trial.get(NUMBER) in message.trials):
            self._inbox.post(self._leave)

    def _leave(self) -> list[Command]:
        """Have the trial save and end; it continues in another actor."""
        if self._group.phase is Phase.RUNNING and self._has_moved:
            return self._group.on_stop()
        self._departures.let_go()
        return []

    def _stop(self) -> list[Command]:
        """Have the trial save and end, because the whole search does."""
        self._is_stopping = True
        if self._waits:
            self._answer(Verdict.CONTINUE)  # it stops at its next control point, where it saves
        return self._group.on_stop()

    # -- commands -------------------------------------------------------------------------------------------------
    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, StartRanks):
                self._start(command)
            elif isinstance(command, StopRanks):
                self._inbox.send(command.agents, Stop())
            elif isinstance(command, RetireAgents):
                for agent in command.agents:
                    self._known = [each for each in self._known if each.peer != agent.peer]
                self._inbox.send(command.agents, Retire())
            elif isinstance(command, Succeed):
                self._found = _Kind.ENDED, command.result
            elif isinstance(command, Fail):
                self._on_failure(command.failure)

    def _on_failure(self, failure: Failure) -> None:
        """Take a failure for the trial's result, if its processes had trained no other trial before.

        What a former trial has left in a process may be why this one fails: memory, or what code of the user's can do
        once in a process only.
        """
        was_reused, self._is_reused, self._is_kept = self._is_reused, False, False
        if len(self._known) < self._workers:  # agents are replaced as a group
            self._carry_out([RetireAgents(tuple(self._known))])
        is_due = failure.failure_class is FailureClass.NON_FINITE_LOSS  # whatever the process
        if was_reused and not is_due and not self._group.is_stopping:
            print(f"trial {self._trial[NUMBER]}: {failure.message}; it is tried again in new processes", flush=True)
            self._start_with_known()
        else:
            self._found = _Kind.FAILED, failure

    def _start(self, command: StartRanks) -> None:
        self._is_reused, self._is_kept, self._has_moved = self._is_kept, self._program is None, False
        if self._program is not None:
            self._program.started(len({agent.host for agent in command.agents}), time.monotonic())
        start = Start(
            generation=command.generation,
            master_address=command.master,
            master_port=free_port(command.master),
            job=self._trial_job,
            run=self._trial.get(RUN) or run_of(self._trial[NUMBER]),
            segment=Segment(**self._trial[SEGMENT]) if SEGMENT in self._trial else None,
            reuse=self._is_reused,
            objectives=self._objectives,
        )
        self._inbox.send(command.agents, start)
        if self._is_stopping:  # it was said between two trials, or while the agents were missing
            self._group.is_stopping = True
            self._inbox.send(command.agents, Stop())

    def _answer(self, verdict: Verdict) -> None:
        self._waits = False
        if self._program is not None:
            self._program.answered(time.monotonic())
        first = [agent for agent in self._known if agent.rank == 0]
        self._inbox.send(tuple(first), Answered(generation=self._group.generation, verdict=verdict))


def _end_at_once() -> None:
    os._exit(1)  # without the driver its result goes nowhere

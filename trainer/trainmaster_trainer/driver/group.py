"""The driver's decisions about its agents and ranks: a state machine without clocks, threads or sockets.

    GATHERING --all agents joined-----> RUNNING --a rank or an agent is lost--> SETTLING --cause found--> RUNNING,
        ^                                  |                                        |                    or the end
        |                                  +--a pod leaves, all have saved--> IDLE--+
        +-------an agent was lost: Ray Train replaces the whole group---------------+

An event and the time go in, commands come out. Ranks are always started and ended together, and every group of ranks
has a number (generation), so that messages of an older one are recognized as stale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass

from trainmaster_trainer.context import Result
from trainmaster_trainer.failures import Failure
from trainmaster_trainer.ipc.messages import Exited, Failed, Finished

from .cause import Evidence, ended_early, find_cause, stopped_with

SETTLE_SECONDS = 2.0
"""How long the other ranks may take to report: a cause may arrive after its consequences."""
IDLE_SECONDS = 20.0
"""How long a pod that was told to end may take to end."""
MOST_FAILURES_IN_A_ROW = 3
"""Without a new step in between."""


class Phase(Enum):
    """Where a group is."""

    GATHERING = "gathering"  # agents are missing
    RUNNING = "running"
    SETTLING = "settling"  # something ended, the cause isn't known yet
    IDLE = "idle"  # all have saved, because a pod leaves
    OVER = "over"


@dataclass(frozen=True)
class Agent:
    """A connected agent.

    Attributes:
        peer: Number of its connection.
        rank: The rank that it starts.
        group: Name of the group in which Ray Train started it.
        pod: Its pod; empty on a laptop.
        host: Its address.
    """

    peer: int
    rank: int
    group: str = ""
    pod: str = ""
    host: str = ""


# -- commands ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class StartRanks:
    """Start every rank of a generation."""

    generation: int
    master: str
    agents: tuple[Agent, ...]


@dataclass(frozen=True)
class StopRanks:
    """Have every rank save and stop."""

    agents: tuple[Agent, ...]


@dataclass(frozen=True)
class RetireAgents:
    """Have agents kill their ranks and end."""

    agents: tuple[Agent, ...]


@dataclass(frozen=True)
class AnswerLaunchers:
    """Tell pods that were told to end that they needn't wait any longer."""

    peers: tuple[int, ...]
    saved: bool


@dataclass(frozen=True)
class Succeed:
    """The attempt has its result."""

    result: Result


@dataclass(frozen=True)
class Fail:
    """The attempt ends with a failure."""

    failure: Failure


Command = StartRanks | StopRanks | RetireAgents | AnswerLaunchers | Succeed | Fail


@dataclass
class Group:
    """The agents and ranks of an attempt.

    Attributes:
        world_size: Number of ranks.
        on_recovery: Called at every recovery; returns the number of recoveries in a row without a new step.
    """

    world_size: int
    on_recovery: Callable[[str], int]
    is_own_program: bool = False
    """Whether the ranks run a program of the user's own, whose restarts may lead nowhere."""
    phase: Phase = Phase.GATHERING
    generation: int = 0
    is_stopping: bool = False
    _agents: dict[int, Agent] = field(default_factory=dict)
    _ends: dict[int, Evidence] = field(default_factory=dict)
    _results: dict[int, Result] = field(default_factory=dict)
    _leaving: set[int] = field(default_factory=set)
    _deadline: float | None = None
    _found: Failure | None = None

    @property
    def agents(self) -> tuple[Agent, ...]:
        """Connected agents of the current group, by rank."""
        return tuple(self._agents[rank] for rank in sorted(self._agents))

    @property
    def has_ranks(self) -> bool:
        """Whether ranks run, as far as is known."""
        return self.phase in (Phase.RUNNING, Phase.SETTLING)

    # -- events -------------------------------------------------------------------------------------------------
    def on_agent(self, agent: Agent, now: float) -> list[Command]:
        """Handle an agent that has connected; those of another group are stale, even if still connected."""
        commands: list[Command] = []
        stale = [one for one in self.agents if one.group != agent.group or one.rank == agent.rank]
        for one in stale:
            commands += self.on_agent_lost(one.peer, now)
        if self.phase is Phase.SETTLING and stale:
            commands += self._settle(now)
        if self.phase is Phase.OVER:
            return commands
        self._agents[agent.rank] = agent
        if len(self._agents) == self.world_size:
            commands.append(self._start())
        return commands

    def on_agent_lost(self, peer: int, now: float) -> list[Command]:
        """Handle the closed connection of an agent."""
        agent = next((one for one in self._agents.values() if one.peer == peer), None)
        if agent is None or self.phase is Phase.OVER:
            return []
        if self.phase is Phase.GATHERING:
            del self._agents[agent.rank]
            return []
        if self.phase is Phase.IDLE:
            del self._agents[agent.rank]
            return self._regroup()
        self._evidence(agent.rank).agent_lost = True
        return self._begin_to_settle(now)

    def on_rank(self, peer: int, message: Failed | Exited | Finished, now: float) -> list[Command]:
        """Handle the end of a rank, as the rank or its agent reports it."""
        agent = next((one for one in self._agents.values() if one.peer == peer), None)
        if agent is not None and self.phase is Phase.GATHERING and isinstance(message, Failed):
            # an agent of a group that hasn't started yet couldn't even prepare a process
            evidence = Evidence(agent.pod, failed=message)
            return self._recover(find_cause({agent.rank: evidence}), all_agents_live=False)
        if agent is None or message.generation != self.generation:
            return []
        if self.phase not in (Phase.RUNNING, Phase.SETTLING):
            return []
        if isinstance(message, Finished):
            self._results[agent.rank] = message.result
            return self._all_finished(now) if len(self._results) == self.world_size else []
        if isinstance(message, Exited) and agent.rank in self._results:
            return []  # it had already finished
        evidence = self._evidence(agent.rank)
        if isinstance(message, Failed):
            evidence.failed = message
        else:
            evidence.exited = message
        return self._begin_to_settle(now)

    def on_leaving(self, launcher: int, is_training: bool) -> list[Command]:
        """Handle a pod that was told to end; it waits for the answer that all have saved or that none can."""
        if self.phase is Phase.IDLE:  # another one was quicker
            return [AnswerLaunchers((launcher,), saved=True)]
        # a job that is deleted ends all of its pods at once, and the head may have been told first
        if self.phase is not Phase.RUNNING or not (is_training or self.is_stopping):
            return [AnswerLaunchers((launcher,), saved=False)]
        is_first = not self._leaving and not self.is_stopping
        self._leaving.add(launcher)
        return [StopRanks(self.agents)] if is_first else []

    def on_stop(self) -> list[Command]:
        """Have the whole attempt save and end."""
        self.is_stopping = True
        return [StopRanks(self.agents)]

    def on_time(self, now: float) -> list[Command]:
        """Handle a deadline that has passed."""
        if self._deadline is None or now < self._deadline:
            return []
        if self.phase is Phase.SETTLING:
            return self._settle(now)
        if self.phase is Phase.IDLE:  # the pod didn't end after all
            return [self._start()]
        return []

    def on_ray_ended(self, sentence: str) -> list[Command]:
        """Handle the end of Ray Train or its controller, which ends all of its agents."""
        if self.phase is Phase.OVER:
            return []
        failure = self._found or Failure(FailureClass.WORKER_LOST, sentence, recoverable=True)
        return self._recover(failure, all_agents_live=False)

    # -- decisions ----------------------------------------------------------------------------------------------
    def _start(self) -> Command:
        self.generation += 1
        self.phase, self._deadline, self._found = Phase.RUNNING, None, None
        self._ends.clear()
        self._results.clear()
        return StartRanks(self.generation, self._agents[0].host, self.agents)

    def _evidence(self, rank: int) -> Evidence:
        return self._ends.setdefault(rank, Evidence(self._agents[rank].pod))

    def _begin_to_settle(self, now: float) -> list[Command]:
        if self.phase is Phase.RUNNING:
            self.phase, self._deadline = Phase.SETTLING, now + SETTLE_SECONDS
        own = any(one.failed is not None and not one.failed.peer for one in self._ends.values())
        # nothing can come before a rank's own error, and nothing is missing when all have ended
        complete = all(
            rank in self._results
            or ((one := self._ends.get(rank)) is not None and (one.agent_lost or one.exited is not None))
            for rank in range(self.world_size)
        )
        return self._settle(now) if own or complete else []

    def _settle(self, now: float) -> list[Command]:
        if self.is_own_program and stopped_with(self._results, self._ends):
            self._results |= dict.fromkeys(range(self.world_size), self._results[min(self._results)])
            return self._all_finished(now)
        lost = [rank for rank, one in self._ends.items() if one.agent_lost]
        failure = find_cause(self._ends, is_own_program=self.is_own_program)
        if self.is_own_program and self._results:
            failure = ended_early(self._results, self._ends) or failure
        for rank in lost:
            self._agents.pop(rank, None)
        return self._recover(failure, all_agents_live=not lost)

    def _recover(self, failure: Failure, *, all_agents_live: bool) -> list[Command]:
        """Resume from the newest checkpoint, unless the attempt has to end."""
        launchers = self._let_go(saved=False)
        if not failure.recoverable or self.is_stopping:
            return [*launchers, *self._end(failure)]
        in_a_row = self.on_recovery(failure.message)
        if in_a_row > MOST_FAILURES_IN_A_ROW:
            text = f"workers were lost {in_a_row} times in a row without a new step; last: {failure.message}"
            failure_class = FailureClass.NO_PROGRESS if self.is_own_program else FailureClass.WORKER_LOST
            over = Failure(failure_class, text, failure.rank, failure.pod, failure.last_lines, True)
            return [*launchers, *self._end(over)]
        if not all_agents_live:
            return [*launchers, *self._regroup()]
        return [*launchers, self._start()]

    def _regroup(self) -> list[Command]:
        """Retire the remaining agents: Ray Train replaces the whole group, and sooner if they end by themselves."""
        survivors = self.agents
        self._agents.clear()
        self.phase, self._deadline = Phase.GATHERING, None
        self._ends.clear()
        self._results.clear()
        return [RetireAgents(survivors)] if survivors else []

    def _all_finished(self, now: float) -> list[Command]:
        result = self._results[0]
        if result.outcome is Outcome.STOPPED and self._leaving and not self.is_stopping:
            self.on_recovery("a pod of the attempt is leaving; its replacement resumes from the checkpoint")
            self.phase, self._deadline = Phase.IDLE, now + IDLE_SECONDS
            return self._let_go(saved=True)
        self.phase = Phase.OVER
        return [*self._let_go(saved=True), Succeed(result)]

    def _end(self, failure: Failure) -> list[Command]:
        self.phase = Phase.OVER
        return [Fail(failure)]

    def _let_go(self, *, saved: bool) -> list[Command]:
        waiting = tuple(sorted(self._leaving))
        self._leaving.clear()
        return [AnswerLaunchers(waiting, saved)] if waiting else []

"""What the driver decides about its agents and ranks: events in, commands out, with a fake group."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.context import Result
from trainmaster_trainer.driver.group import (
    IDLE_SECONDS,
    MOST_FAILURES_IN_A_ROW,
    SETTLE_SECONDS,
    Agent,
    AnswerLaunchers,
    Command,
    Fail,
    Group,
    Phase,
    RetireAgents,
    StartRanks,
    StopRanks,
    Succeed,
)
from trainmaster_trainer.ipc.messages import Exited, Failed, Finished


class World:
    """Two agents by default, whose connections are numbered 10 x generation of the agents + rank."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.now = 100.0
        self.recoveries: list[str] = []
        self.in_a_row = 0
        self.group = Group(size, self._recovering)
        self.agents = 0

    def _recovering(self, message: str) -> int:
        self.recoveries.append(message)
        self.in_a_row += 1
        return self.in_a_row

    def agent(self, rank: int) -> Agent:
        return Agent(10 * self.agents + rank, rank, f"pg{self.agents}", f"w-{rank}", f"10.0.0.{rank}")

    def gather(self) -> list[Command]:
        """A new group of agents connects."""
        self.agents += 1
        return [c for rank in range(self.size) for c in self.group.on_agent(self.agent(rank), self.now)]

    def peer(self, rank: int) -> int:
        return 10 * self.agents + rank

    def exits(self, rank: int, code: int = -9, *, oom: bool = False, generation: int | None = None) -> list[Command]:
        number = self.group.generation if generation is None else generation
        exited = Exited(generation=number, code=code, out_of_memory=oom)
        return self.group.on_rank(self.peer(rank), exited, self.now)

    def fails(self, rank: int, failure: FailureClass = FailureClass.DATA_ERROR, *, peer: bool = False) -> list[Command]:
        failed = Failed(
            generation=self.group.generation, failure_class=failure, message=f"rank {rank}: {failure}", peer=peer
        )
        return self.group.on_rank(self.peer(rank), failed, self.now)

    def finishes(self, rank: int, outcome: Outcome = Outcome.COMPLETE) -> list[Command]:
        result = Result(outcome=outcome, step=7, total_steps=7, model_uri="m" if rank == 0 else "")
        return self.group.on_rank(self.peer(rank), Finished(generation=self.group.generation, result=result), self.now)

    def after(self, seconds: float) -> list[Command]:
        self.now += seconds
        return self.group.on_time(self.now)


@pytest.fixture
def world() -> World:
    world = World()
    world.gather()
    return world


def kinds(commands: list[Command]) -> list[type]:
    return [type(command) for command in commands]


def failure(commands: list[Command]) -> tuple[FailureClass, int | None, bool]:
    (fail,) = (command for command in commands if isinstance(command, Fail))
    return fail.failure.failure_class, fail.failure.rank, fail.failure.recoverable


def test_ranks_start_when_every_agent_is_there() -> None:
    world = World(3)
    world.agents = 1
    assert world.group.on_agent(world.agent(0), 0) == []
    assert world.group.on_agent(world.agent(2), 0) == []
    (start,) = world.group.on_agent(world.agent(1), 0)
    assert start == StartRanks(1, "10.0.0.0", (world.agent(0), world.agent(1), world.agent(2)))


def test_a_dead_rank_is_replaced_without_ray(world: World) -> None:
    """All ranks together, by the connected agents, with a new generation."""
    assert world.exits(1) == [], "the other rank may have more to say"
    world.now += 0.1
    (start,) = world.exits(0, 1)
    assert isinstance(start, StartRanks)
    assert (start.generation, start.agents) == (2, (world.agent(0), world.agent(1)))
    assert world.recoveries == ["the process of rank 1 is gone: it was killed by SIGKILL"]


def test_a_rank_that_hangs_is_not_waited_for(world: World) -> None:
    world.exits(1)
    assert world.after(SETTLE_SECONDS / 2) == []
    assert kinds(world.after(SETTLE_SECONDS)) == [StartRanks]


def test_the_own_error_of_a_rank_ends_the_run_at_once(world: World) -> None:
    assert failure(world.fails(1)) == (FailureClass.DATA_ERROR, 1, False)
    assert world.recoveries == []


def test_the_cause_may_be_heard_after_its_consequences(world: World) -> None:
    world.fails(0, FailureClass.WORKER_LOST, peer=True)
    world.exits(0, 1)
    assert failure(world.fails(1)) == (FailureClass.DATA_ERROR, 1, False)


def test_a_dead_process_comes_before_lost_peers(world: World) -> None:
    world.fails(0, FailureClass.WORKER_LOST, peer=True)
    world.exits(0, 1)
    assert kinds(world.exits(1, -11)) == [StartRanks]
    assert world.recoveries == ["the process of rank 1 crashed with SIGSEGV"]


def test_only_lost_peers_are_recoverable(world: World) -> None:
    for rank in (0, 1):
        world.fails(rank, FailureClass.WORKER_LOST, peer=True)
    world.exits(0, 1)
    assert kinds(world.exits(1, 1)) == [StartRanks]
    assert world.recoveries == ["rank 0: WorkerLost"]


def test_memory_that_ran_out_is_not_tried_again(world: World) -> None:
    world.exits(0)
    assert failure(world.exits(1, oom=True)) == (FailureClass.HOST_OUT_OF_MEMORY, 1, False)


def test_losses_in_a_row_have_a_limit(world: World) -> None:
    for _ in range(MOST_FAILURES_IN_A_ROW):
        world.exits(0)
        assert kinds(world.exits(1)) == [StartRanks]
    world.exits(0)
    found = world.exits(1)
    assert failure(found)[:2] == (FailureClass.WORKER_LOST, 0)
    (fail,) = (command for command in found if isinstance(command, Fail))
    assert "4 times in a row without a new step; last: the process of rank 0" in fail.failure.message


def test_new_steps_start_the_count_again(world: World) -> None:
    for _ in range(3 * MOST_FAILURES_IN_A_ROW):
        world.in_a_row = 0
        world.exits(0)
        assert kinds(world.exits(1)) == [StartRanks]


def test_events_of_an_older_group_are_stale(world: World) -> None:
    world.exits(0)
    world.exits(1)
    assert world.group.generation == 2
    assert world.exits(0, generation=1) == []
    assert world.group.phase is Phase.RUNNING


# --- agents and pods --------------------------------------------------------------------------------------------------


def test_a_lost_agent_is_ray_train_s_to_replace(world: World) -> None:
    assert world.group.on_agent_lost(world.peer(1), world.now) == []
    survivor = world.agent(0)
    assert world.after(SETTLE_SECONDS) == [RetireAgents((survivor,))]
    assert world.recoveries == ["rank 1 is gone: its pod w-1 was lost"]
    assert world.group.on_agent_lost(survivor.peer, world.now) == []
    (start,) = world.gather()
    assert isinstance(start, StartRanks)
    assert start.generation == 2


def test_agents_of_two_groups_are_never_mixed(world: World) -> None:
    """A host that vanished closes nothing: its agent is still connected when Ray's next group comes."""
    world.agents = 2
    first = world.group.on_agent(world.agent(0), world.now)
    assert kinds(first) == [RetireAgents] or first == []
    (start,) = world.group.on_agent(world.agent(1), world.now)
    assert isinstance(start, StartRanks)
    assert {agent.group for agent in start.agents} == {"pg2"}
    assert len(world.recoveries) == 1


def test_a_group_that_never_gathered_leaves_nothing_behind() -> None:
    world = World(3)
    world.agents = 1
    world.group.on_agent(world.agent(0), 0)
    world.group.on_agent(world.agent(1), 0)
    (start,) = world.gather()
    assert isinstance(start, StartRanks)
    assert {agent.group for agent in start.agents} == {"pg2"}


def test_two_pods_leave_together(world: World) -> None:
    """Both get their answer, and neither address replaces the other's."""
    assert kinds(world.group.on_leaving(91, True)) == [StopRanks]
    assert world.group.on_leaving(92, True) == [], "the ranks are saving already"
    world.finishes(0, Outcome.STOPPED)
    assert world.finishes(1, Outcome.STOPPED) == [AnswerLaunchers((91, 92), saved=True)]
    assert world.group.on_leaving(93, True) == [AnswerLaunchers((93,), saved=True)]
    assert world.exits(0, 0) == []
    assert world.group.on_agent_lost(world.peer(0), world.now) == [RetireAgents((world.agent(1),))]
    assert kinds(world.gather()) == [StartRanks]
    assert len(world.recoveries) == 1, "one interruption, however many pods"


def test_pods_of_a_job_that_is_deleted(world: World) -> None:
    """All are told at once; a worker that is told after the head waits for the ranks too."""
    world.group.on_stop()
    assert world.group.on_leaving(91, False) == [], "the ranks are saving already"
    world.finishes(0, Outcome.STOPPED)
    answer, end = world.finishes(1, Outcome.STOPPED)
    assert answer == AnswerLaunchers((91,), saved=True)
    assert isinstance(end, Succeed)


def test_leave_of_a_pod_that_stays_after_all(world: World) -> None:
    world.group.on_leaving(91, True)
    world.finishes(0, Outcome.STOPPED)
    world.finishes(1, Outcome.STOPPED)
    assert world.after(IDLE_SECONDS - 1) == []
    assert kinds(world.after(2)) == [StartRanks]


def test_leave_before_training_has_nothing_to_save(world: World) -> None:
    assert world.group.on_leaving(91, False) == [AnswerLaunchers((91,), saved=False)]
    assert World().group.on_leaving(91, True) == [AnswerLaunchers((91,), saved=False)]


def test_a_loss_while_saving_lets_the_pod_go(world: World) -> None:
    world.group.on_leaving(91, True)
    world.exits(0)
    assert kinds(world.exits(1)) == [AnswerLaunchers, StartRanks]


def test_planned_leaves_are_not_limited(world: World) -> None:
    for leave in range(3 * MOST_FAILURES_IN_A_ROW):
        world.group.on_leaving(91, True)
        world.finishes(0, Outcome.STOPPED)
        assert kinds(world.finishes(1, Outcome.STOPPED)) == [AnswerLaunchers], leave
        world.group.on_agent_lost(world.peer(1), world.now)
        assert kinds(world.gather()) == [StartRanks]


def test_ray_train_ends(world: World) -> None:
    """Its controller was killed, for one: the agents are gone with it."""
    assert kinds(world.group.on_ray_ended("Ray Train ended")) == [RetireAgents]
    assert world.recoveries == ["Ray Train ended"]
    assert kinds(world.gather()) == [StartRanks]


# --- the end ----------------------------------------------------------------------------------------------------------


def test_the_result_is_rank_zero_s(world: World) -> None:
    assert world.finishes(1) == []
    (end,) = world.finishes(0)
    assert isinstance(end, Succeed)
    assert end.result.model_uri == "m"
    assert world.exits(0) == []


def test_a_rank_may_end_when_it_has_finished(world: World) -> None:
    world.finishes(0)
    assert world.exits(0, 0) == []
    assert world.group.phase is Phase.RUNNING
    assert kinds(world.finishes(1)) == [Succeed]


def test_a_loss_among_finished_ranks_is_a_loss(world: World) -> None:
    world.finishes(0)
    assert kinds(world.exits(1)) == [StartRanks]


def test_a_stop_is_for_all(world: World) -> None:
    assert world.group.on_stop() == [StopRanks((world.agent(0), world.agent(1)))]
    world.finishes(0, Outcome.STOPPED)
    (end,) = world.finishes(1, Outcome.STOPPED)
    assert isinstance(end, Succeed)


def test_a_stop_goes_before_a_leave(world: World) -> None:
    world.group.on_leaving(91, True)
    world.group.on_stop()
    world.finishes(0, Outcome.STOPPED)
    assert kinds(world.finishes(1, Outcome.STOPPED)) == [AnswerLaunchers, Succeed]


def test_nothing_is_replaced_while_the_attempt_stops(world: World) -> None:
    world.group.on_stop()
    world.exits(0)
    assert kinds(world.exits(1)) == [Fail]
    assert world.recoveries == []


EVENTS: list[Callable[[World, int], list[Command]]] = [
    lambda w, r: w.exits(r),
    lambda w, r: w.exits(r, 1),
    lambda w, r: w.fails(r, FailureClass.WORKER_LOST, peer=True),
    lambda w, r: w.finishes(r),
    lambda w, r: w.finishes(r, Outcome.STOPPED),
    lambda w, r: w.group.on_agent_lost(w.peer(r), w.now),
    lambda w, r: w.group.on_leaving(90 + r, True),
    lambda w, r: w.group.on_ray_ended("Ray Train ended"),
    lambda w, r: w.group.on_stop(),
    lambda w, r: w.gather(),
    lambda w, r: w.after(1.0),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 2)), max_size=30))
def test_group_ends_or_goes_on_whatever_happens(steps: list[tuple[Callable[[World, int], list[Command]], int]]) -> None:
    """A launcher is answered once, a group is whole, a number is used once, and nothing is said after the end."""
    world = World(3)
    commands: list[Command] = []
    for event, rank in steps:
        was_over = world.group.phase is Phase.OVER
        world.in_a_row = 0
        found = event(world, rank)
        assert not was_over or not [c for c in found if isinstance(c, StartRanks | Succeed | Fail | RetireAgents)]
        commands += found
    commands += world.after(SETTLE_SECONDS + IDLE_SECONDS)
    if world.group.phase is not Phase.OVER:  # it can always continue
        commands += world.gather()
        commands += world.after(SETTLE_SECONDS)
        if world.group.phase is not Phase.OVER:
            assert world.group.phase is Phase.RUNNING
    starts = [command for command in commands if isinstance(command, StartRanks)]
    assert [start.generation for start in starts] == list(range(1, len(starts) + 1))
    for start in starts:
        assert [agent.rank for agent in start.agents] == [0, 1, 2]
        assert len({agent.group for agent in start.agents}) == 1
    assert len([command for command in commands if isinstance(command, Succeed | Fail)]) <= 1


def test_an_agent_that_can_t_prepare_a_process_ends_its_group() -> None:
    """Before any rank was started: a lack that passes is retried with other agents, anything else ends the attempt."""
    world = World()
    world.agents += 1
    world.group.on_agent(world.agent(0), world.now)
    passing = Failed(failure_class=FailureClass.WORKER_LOST, message="no processes left", peer=True)
    (retire,) = world.group.on_rank(world.peer(0), passing, world.now)
    assert isinstance(retire, RetireAgents)
    assert world.recoveries == ["no processes left"]
    assert world.group.phase is Phase.GATHERING
    assert any(isinstance(command, StartRanks) for command in world.gather())

    world = World()
    world.agents += 1
    world.group.on_agent(world.agent(1), world.now)
    lasting = Failed(failure_class=FailureClass.INTERNAL_ERROR, message="a bug")
    (fail,) = world.group.on_rank(world.peer(1), lasting, world.now)
    assert isinstance(fail, Fail)
    assert (fail.failure.failure_class, fail.failure.rank) == (FailureClass.INTERNAL_ERROR, 1)

"""SIGKILL, SIGSEGV, memory, an exit code and a lost pod are told apart."""

from __future__ import annotations

import pytest
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.context import Result
from trainmaster_trainer.driver.cause import Evidence, ended_early, find_cause, stopped_with
from trainmaster_trainer.driver.group import Agent, AnswerLaunchers, Group, Phase
from trainmaster_trainer.ipc.messages import Exited, Failed, Finished


def failed(failure_class: FailureClass, message: str, *, peer: bool = False) -> Failed:
    return Failed(failure_class=failure_class, message=message, peer=peer, last_lines=["line"])


GLOO = failed(FailureClass.WORKER_LOST, "lost its connection", peer=True)


@pytest.mark.parametrize(
    ("exited", "failure_class", "says", "recoverable"),
    [
        ((-9, False), FailureClass.WORKER_LOST, "is gone: it was killed by SIGKILL", True),
        ((-15, False), FailureClass.WORKER_LOST, "is gone: it was killed by SIGTERM", True),
        ((-11, False), FailureClass.WORKER_LOST, "crashed with SIGSEGV", True),
        ((-6, False), FailureClass.WORKER_LOST, "crashed with SIGABRT", True),
        ((-7, False), FailureClass.WORKER_LOST, "crashed with SIGBUS", True),
        ((-40, False), FailureClass.WORKER_LOST, "killed by signal 40", True),
        ((-9, True), FailureClass.HOST_OUT_OF_MEMORY, "raise cluster.workers.memory", False),
        ((3, False), FailureClass.WORKER_LOST, "exited with code 3", True),
        ((0, False), FailureClass.WORKER_LOST, "exited with code 0", True),
    ],
)
def test_cause_of_an_exit(exited: tuple[int, bool], failure_class: FailureClass, says: str, recoverable: bool) -> None:
    code, oom = exited
    ended = Exited(generation=1, code=code, out_of_memory=oom, last_lines=["in kernel"])
    found = find_cause({2: Evidence("job-1-w-2", exited=ended)})
    assert (found.failure_class, found.rank, found.pod, found.recoverable) == (
        failure_class, 2, "job-1-w-2", recoverable,
    )  # fmt: skip
    assert "rank 2" in found.message
    assert says in found.message
    assert found.last_lines == ([] if oom else ["in kernel"])


def test_cause_own_error_goes_before_all() -> None:
    own = failed(FailureClass.DATA_ERROR, "dog/017.png is broken")
    found = find_cause({
        0: Evidence(failed=GLOO, exited=Exited(generation=1, code=1)),
        1: Evidence(exited=Exited(generation=1, code=-9)),
        2: Evidence("job-1-w-2", failed=own, exited=Exited(generation=1, code=1)),
    })  # fmt: skip
    assert (found.failure_class, found.rank, found.pod, found.recoverable) == (
        FailureClass.DATA_ERROR, 2, "job-1-w-2", False,
    )  # fmt: skip
    assert found.last_lines == ["line"]


def test_a_dead_process_goes_before_lost_peers() -> None:
    found = find_cause({0: Evidence(failed=GLOO), 1: Evidence(exited=Exited(generation=1, code=-9))})
    assert (found.failure_class, found.rank, found.recoverable) == (FailureClass.WORKER_LOST, 1, True)


def test_memory_goes_before_other_deaths() -> None:
    found = find_cause({
        0: Evidence(exited=Exited(generation=1, code=-9)),
        1: Evidence(exited=Exited(generation=1, code=-9, out_of_memory=True)),
    })  # fmt: skip
    assert (found.failure_class, found.rank) == (FailureClass.HOST_OUT_OF_MEMORY, 1)


@pytest.mark.parametrize(("pod", "says"), [("job-1-w-0", "its pod job-1-w-0 was lost"), ("", "its agent was lost")])
def test_cause_lost_agent(pod: str, says: str) -> None:
    found = find_cause({0: Evidence(pod, agent_lost=True), 1: Evidence(failed=GLOO)})
    assert (found.failure_class, found.rank, found.recoverable) == (FailureClass.WORKER_LOST, 0, True)
    assert says in found.message


def test_only_lost_peers_are_recoverable() -> None:
    found = find_cause({rank: Evidence(failed=GLOO) for rank in (0, 1)})
    assert (found.rank, found.recoverable, found.message) == (0, True, "lost its connection")


# -- programs of the user's own ----------------------------------------------------------------------------------------
DONE = Result(outcome=Outcome.COMPLETE, step=5, total_steps=5)


def test_program_ended_early_on_some_ranks() -> None:
    found = ended_early({2: DONE, 1: DONE}, {0: Evidence(failed=GLOO), 3: Evidence(failed=GLOO)})
    assert found is not None
    assert (found.failure_class, found.rank, found.recoverable) == (FailureClass.USER_CODE_ERROR, 1, False)
    assert found.message == (
        "rank 1 ended its program with success after step 5 while rank 0, 3 still trained with it: every rank must "
        "make the same number of steps"
    )


@pytest.mark.parametrize(
    "other",
    [
        Evidence(exited=Exited(generation=1, code=-9)),
        Evidence(agent_lost=True),
        Evidence(failed=failed(FailureClass.USER_CODE_ERROR, "boom")),
    ],
)
def test_program_with_another_cause_did_not_end_early(other: Evidence) -> None:
    assert ended_early({1: DONE}, {0: other, 2: Evidence(failed=GLOO)}) is None


def test_program_that_all_ranks_ended_did_not_end_early() -> None:
    assert ended_early({0: DONE, 1: DONE}, {}) is None


def test_program_that_ends_its_process_is_the_users() -> None:
    gone = Evidence(exited=Exited(generation=1, code=0))
    found = find_cause({0: Evidence(failed=GLOO), 1: gone}, is_own_program=True)
    assert (found.failure_class, found.rank, found.recoverable) == (FailureClass.USER_CODE_ERROR, 1, False)
    killed = Evidence(exited=Exited(generation=1, code=-9))
    found = find_cause({0: killed, 1: gone}, is_own_program=True)
    assert (found.failure_class, found.rank, found.recoverable) == (FailureClass.WORKER_LOST, 0, True)


STOPPED = Result(outcome=Outcome.STOPPED, step=8, total_steps=8)


def test_ranks_that_lose_a_stopped_one_were_stopped_with_it() -> None:
    assert stopped_with({0: STOPPED}, {1: Evidence(failed=GLOO)})
    assert not stopped_with({0: STOPPED}, {1: Evidence(failed=failed(FailureClass.USER_CODE_ERROR, "bad"))})
    assert not stopped_with({0: STOPPED}, {1: Evidence(failed=GLOO), 2: Evidence(agent_lost=True)})
    assert not stopped_with({0: DONE}, {1: Evidence(failed=GLOO)})


def test_group_of_a_program_stops_although_a_rank_lost_its_peer() -> None:
    group = Group(2, lambda _: 1, is_own_program=True)
    for rank in range(2):
        group.on_agent(Agent(rank, rank, "g", f"job-1-w-{rank}", "10.0.0.1"), 0.0)
    assert group.on_leaving(9, is_training=True)
    assert group.on_rank(1, GLOO.model_copy(update={"generation": 1}), 1.0) == []
    assert group.on_rank(0, Finished(generation=1, result=STOPPED), 1.1) == []
    (answer,) = group.on_time(9.0)
    assert answer == AnswerLaunchers((9,), saved=True)
    assert group.phase is Phase.IDLE

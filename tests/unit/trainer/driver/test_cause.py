"""SIGKILL, SIGSEGV, memory, an exit code and a lost pod are told apart."""

from __future__ import annotations

import pytest
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.driver.cause import Evidence, find_cause
from trainmaster_trainer.ipc.messages import Exited, Failed


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

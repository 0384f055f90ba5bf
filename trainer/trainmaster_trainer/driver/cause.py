"""Finds the one cause in what the ranks of a group reported and how their processes ended."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass

from trainmaster_trainer.context import Result
from trainmaster_trainer.failures import Failure
from trainmaster_trainer.ipc.messages import Exited, Failed

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


@dataclass
class Evidence:
    """What is known of the end of one rank.

    Attributes:
        pod: Its pod; empty on a laptop.
        failed: The error that it reported itself.
        exited: How its process ended.
        agent_lost: Whether its agent, or the whole pod, is gone.
    """

    pod: str = ""
    failed: Failed | None = None
    exited: Exited | None = None
    agent_lost: bool = False


@dataclass(frozen=True)
class _Ended:
    failure_class: FailureClass
    message: str
    recoverable: bool
    lines: list[str] = field(default_factory=list)
    by_itself: bool = False


def find_cause(found: Mapping[int, Evidence], *, is_own_program: bool = False) -> Failure:
    """Return the cause behind the end of a group.

    A rank's own error comes first, then a lost process or pod; a rank that lost its peer is only a consequence.

    Args:
        found: What is known of the ranks that have ended.
        is_own_program: Whether they ran a program of the user's own, which may end its process itself.
    """
    ranks = sorted(found.items())
    for rank, one in ranks:
        if one.failed is not None and not one.failed.peer:
            said = one.failed
            return Failure(said.failure_class, said.message, rank, one.pod or None, said.last_lines)
    deaths = [(rank, one, ended) for rank, one in ranks if (ended := _ended(rank, one, is_own_program)) is not None]
    # memory that ran out explains the other deaths of a group, and not the other way round; a process that ended by
    # itself may have exited because another one was killed
    deaths.sort(key=lambda death: (death[2].by_itself, death[2].recoverable))
    for rank, one, ended in deaths:
        return Failure(ended.failure_class, ended.message, rank, one.pod or None, ended.lines, ended.recoverable)
    for rank, one in ranks:
        if one.failed is not None:
            said = one.failed
            return Failure(said.failure_class, said.message, rank, one.pod or None, said.last_lines, recoverable=True)
    return Failure(FailureClass.WORKER_LOST, "a rank ended for an unknown reason", recoverable=True)


def stopped_with(results: Mapping[int, Result], found: Mapping[int, Evidence]) -> bool:
    """Return whether the ranks that ended only lost one that had been stopped: they were stopped with it.

    A program of the user's own is ended between any two of its instructions, so its other ranks may be in a collective.
    """
    has_stopped = any(result.outcome is Outcome.STOPPED for result in results.values())
    return has_stopped and all(one.failed is not None and one.failed.peer for one in found.values())


def ended_early(results: Mapping[int, Result], found: Mapping[int, Evidence]) -> Failure | None:
    """Return the failure of a program that ended on some ranks while others still needed them; None: it isn't that.

    Args:
        results: Of the ranks that have ended with success.
        found: How the others ended.
    """
    only_lost_a_peer = all(one.failed is not None and one.failed.peer for one in found.values())
    if not found or not only_lost_a_peer:
        return None
    rank = min(results)
    others = ", ".join(str(each) for each in sorted(found))
    text = (
        f"rank {rank} ended its program with success after step {results[rank].step} while rank {others} still trained "
        "with it: every rank must make the same number of steps"
    )
    return Failure(FailureClass.USER_CODE_ERROR, text, rank, None, found[min(found)].failed.last_lines)  # type: ignore[union-attr]


def _ended(rank: int, one: Evidence, is_own_program: bool) -> _Ended | None:
    """Return how a process ended that reported no error; None if it did, or if it hasn't ended."""
    if one.exited is not None and one.failed is None:
        return _exit(rank, one.exited, is_own_program)
    if one.agent_lost and one.failed is None:
        where = f"its pod {one.pod}" if one.pod else "its agent"
        return _Ended(FailureClass.WORKER_LOST, f"rank {rank} is gone: {where} was lost", recoverable=True)
    return None


def _exit(rank: int, exited: Exited, is_own_program: bool) -> _Ended:
    code, lines = exited.code, exited.last_lines
    if exited.out_of_memory:
        message = f"rank {rank} was killed by the kernel's OOM killer; raise cluster.workers.memory"
        return _Ended(FailureClass.HOST_OUT_OF_MEMORY, message, recoverable=False)
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        verb = "crashed with" if -code in _CRASHES else "is gone: it was killed by"
        return _Ended(FailureClass.WORKER_LOST, f"the process of rank {rank} {verb} {name}", True, lines)
    if is_own_program and code == 0:
        message = (
            f"rank {rank} ended its process with os._exit(0): what it wrote last couldn't be stored, and whether it "
            "was done can't be known; end the program by returning or with sys.exit"
        )
        return _Ended(FailureClass.USER_CODE_ERROR, message, recoverable=False, lines=lines, by_itself=True)
    message = f"the process of rank {rank} exited with code {code}"
    return _Ended(FailureClass.WORKER_LOST, message, True, lines, by_itself=True)

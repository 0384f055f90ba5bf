"""Finds the one cause in what the ranks of a group reported and how their processes ended."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainmaster_api.reasons import FailureClass

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


def find_cause(found: Mapping[int, Evidence]) -> Failure:
    """Return the cause behind the end of a group.

    A rank's own error comes first, then a lost process or pod; a rank that lost its peer is only a consequence.
    """
    ranks = sorted(found.items())
    for rank, one in ranks:
        if one.failed is not None and not one.failed.peer:
            said = one.failed
            return Failure(said.failure_class, said.message, rank, one.pod or None, said.last_lines)
    deaths = [(rank, one, ended) for rank, one in ranks if (ended := _ended(rank, one)) is not None]
    # memory that ran out explains the other deaths of a group, and not the other way round; a process that ended by
    # itself may have exited because another one was killed
    deaths.sort(key=lambda death: (death[2].recoverable, death[2].by_itself))
    for rank, one, ended in deaths:
        return Failure(ended.failure_class, ended.message, rank, one.pod or None, ended.lines, ended.recoverable)
    for rank, one in ranks:
        if one.failed is not None:
            said = one.failed
            return Failure(said.failure_class, said.message, rank, one.pod or None, said.last_lines, recoverable=True)
    return Failure(FailureClass.WORKER_LOST, "a rank ended for an unknown reason", recoverable=True)


def _ended(rank: int, one: Evidence) -> _Ended | None:
    """Return how a process ended that reported no error; None if it did, or if it hasn't ended."""
    if one.exited is not None and one.failed is None:
        return _exit(rank, one.exited)
    if one.agent_lost and one.failed is None:
        where = f"its pod {one.pod}" if one.pod else "its agent"
        return _Ended(FailureClass.WORKER_LOST, f"rank {rank} is gone: {where} was lost", recoverable=True)
    return None


def _exit(rank: int, exited: Exited) -> _Ended:
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
    message = f"the process of rank {rank} exited with code {code}"
    return _Ended(FailureClass.WORKER_LOST, message, True, lines, by_itself=True)

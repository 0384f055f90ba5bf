"""Child processes of a PID 1: started, reaped, ended. Single-threaded: signals arrive where they are awaited."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from typing import IO

_PR_SET_CHILD_SUBREAPER = 36
AWAITED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


class Children:
    """Starts processes and collects every exit, also those of orphans, which a PID 1 inherits."""

    spared: frozenset[int] = frozenset()
    """Processes that outlive Ray's: those that take note of how they ended."""

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
        self.exits: dict[int, int] = {}

    def start(self, command: Sequence[str], env: Mapping[str, str], output: IO[bytes] | None = None) -> int:
        """Start a process in a session of its own; returns its pid."""
        process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
            preexec_fn=_unblock,
        )
        process.returncode = 0  # it is reaped here and not by subprocess
        return process.pid

    def wait(self, seconds: float) -> bool:
        """Wait for a signal or for time to pass. Returns whether it was one that asks us to end."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            info = signal.sigtimedwait(AWAITED, left)
            self.reap()
            if info is not None and info.si_signo != signal.SIGCHLD:
                return True
            if info is not None:
                return False
        return False

    def reap(self) -> None:
        """Collect every process that has ended. Exit statuses are negative signal numbers for killed ones."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self.exits[found[0]] = os.waitstatus_to_exitcode(found[1])

    def exit_of(self, pid: int) -> int | None:
        """Exit status of a process, None while it runs."""
        return self.exits.get(pid)

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process, if it still runs."""
        if pid not in self.exits:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, pid: int, seconds: float) -> None:
        """End a process and its session: SIGTERM, then SIGKILL after so many seconds."""
        deadline = time.monotonic() + seconds
        if seconds > 0:
            self.signal(pid, signal.SIGTERM)
        while pid not in self.exits and time.monotonic() < deadline:
            self.wait(min(0.1, max(0.0, deadline - time.monotonic())))
        for other in descendants(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(other, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self.reap()


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, so that they can be found. Linux only; elsewhere a no-op."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants(spared: Collection[int] = ()) -> None:
    """End every process below this one, except those of `spared`."""
    for pid in set(descendants(os.getpid())[1:]).difference(spared):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_running_below(program: str) -> bool:
    """Return whether a process below this one runs a program of that file name. Where /proc is missing: True."""
    if not os.path.isdir("/proc"):  # noqa: PTH112
        return True
    for pid in descendants(os.getpid())[1:]:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:  # noqa: PTH123
            if os.path.basename(file.read().partition("\0")[0]) == program:  # noqa: PTH119
                return True
    return False


def descendants(pid: int) -> list[int]:
    """Return the process and all its descendants, from /proc."""
    parents: dict[int, list[int]] = {}
    if not os.path.isdir("/proc"):  # noqa: PTH112
        return [pid]
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names only
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:  # noqa: PTH123
                parent = int(file.read().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += parents.get(found[-1], [])
    return found


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())

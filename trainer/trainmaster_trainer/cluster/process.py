"""A process that is or may become the rank, seen from the process that started it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

from trainmaster_trainer.ipc.link import Link
from trainmaster_trainer.logs.pipe import OutputPipe

RANK_COMMAND = (sys.executable, "-m", "trainmaster_trainer.rank")

_SHORT = 0.01
_CRASH_LINES = 12
_NOT_USERS = re.compile(
    r"/site-packages/|/dist-packages/|/lib/python3[^/]*/|/trainmaster_trainer/|/trainmaster/__init__\.py|<frozen "
)


class Process:
    """A process that is or may become the rank, in a session of its own."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str], *, is_spare: bool) -> None:
        """Start it.

        Args:
            command: What to start.
            environment: Of the process.
            is_spare: Whether a rank trains beside it.
        """
        self.environment = dict(environment)
        self.is_spare = is_spare
        self.is_ready = False
        self.is_silent = False
        """Whether it has closed its end: it has ended, or sends no more messages."""
        self.generation = 0
        ours, theirs = socket.socketpair()
        self._output = OutputPipe.of(environment)
        output = self._output.writer if self._output else None
        self._crash = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        with theirs:
            # no preexec_fn: Ray's process has many threads, and a fork of one may only exec
            self.popen = subprocess.Popen(
                [*command, str(theirs.fileno()), str(self._crash.fileno())],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno(), self._crash.fileno()],
                start_new_session=True,
            )
        if self._output is not None:
            self._output.started()
        self.link = Link(ours)
        self.pidfd = os.pidfd_open(self.popen.pid) if hasattr(os, "pidfd_open") else None

    def poll(self) -> int | None:
        """Return its exit status, None while it runs; its children are ended with it."""
        if hasattr(os, "waitid"):  # macOS can't wait without reaping, after which the pid may be reused
            if os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self._kill_session()
        return self.popen.poll()

    def kill(self) -> int:
        """Kill it and its children; return its exit status."""
        self._kill_session()
        return self.popen.wait()

    def _kill_session(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: refused for a zombie
            os.killpg(self.popen.pid, signal.SIGKILL)

    def wait_or_kill(self, seconds: float) -> int:
        """Wait for its end, and kill it if it doesn't end in time; return its exit status."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                return self.kill()
            time.sleep(_SHORT)
        return code

    def hand_over_output(self, name: str) -> None:
        """Have the pod's log collector read what it prints, under a name such as `rank 1`."""
        if self._output is not None:
            self._output.hand_over(name)

    def crash(self) -> list[str]:
        """Return what faulthandler wrote of the thread that crashed, cut to a few lines."""
        self._crash.seek(0)
        return crash_lines(self._crash.read().decode(errors="replace"))

    def close(self) -> None:
        """Close its descriptors."""
        self.link.close()
        self._crash.close()
        if self._output is not None:
            self._output.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


def crash_lines(written: str) -> list[str]:
    """Return the lines of a faulthandler's dump that help: what it was, then the frame of the user's that led to it.

    The dump has every thread, the newest first, so the one that crashed is often the last.
    """
    lines = [line.rstrip() for line in written.splitlines() if line.strip()]
    head = [line for line in lines if line.startswith("Fatal Python error")][:1]
    start = next((i for i, line in enumerate(lines) if line.startswith("Current thread")), None)
    if start is None:
        return lines[:_CRASH_LINES]
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith("  ")), len(lines))
    frames = lines[start + 1 : end]
    users = [line for line in frames if not _NOT_USERS.search(line)]
    return [*head, *users, *(line for line in frames if line not in users)][:_CRASH_LINES]

"""A process that is or may become the rank, seen from the process that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

from trainmaster_trainer.ipc.link import Link

RANK_COMMAND = (sys.executable, "-m", "trainmaster_trainer.rank")

_SHORT = 0.01
_CRASH_LINES = 12


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
        self._crash = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        with theirs:
            # no preexec_fn: Ray's process has many threads, and a fork of one may only exec
            self.popen = subprocess.Popen(
                [*command, str(theirs.fileno()), str(self._crash.fileno())],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), self._crash.fileno()],
                start_new_session=True,
            )
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

    def crash(self) -> list[str]:
        """Return what faulthandler wrote, cut to a few lines."""
        self._crash.seek(0)
        return self._crash.read().decode(errors="replace").splitlines()[:_CRASH_LINES]

    def close(self) -> None:
        """Close its descriptors."""
        self.link.close()
        self._crash.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

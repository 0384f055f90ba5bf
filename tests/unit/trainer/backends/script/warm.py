"""Ranks that are forked from a process which has imported a framework: importing one takes longer than most tests.

The cluster's ranks begin in the same way (`warm_modules`). Each is a process of its own all the same, and is killed as
one. Arguments of the program: modules to import; it serves on file descriptor 0 until that is closed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RANK = "tests.unit.trainer.backends.script.rank"
_MOST = 1 << 17


class Forked:
    """A rank, with what `Run` uses of a Popen."""

    def __init__(self, descriptor: int, stdout: int) -> None:
        self._descriptor = descriptor
        self.stdout = os.fdopen(stdout, "rb")

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the end; the status isn't known here."""
        select.select([self._descriptor], [], [])
        return 0

    def poll(self) -> int | None:
        """Return None as long as it runs."""
        return 0 if select.select([self._descriptor], [], [], 0)[0] else None


class Warm:
    """The process that ranks are forked from; started when the first one is."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
        """Start a rank."""
        if self._process is None:
            self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.trainer.backends.script.warm", *self._modules],
                env=dict(environment),
                stdin=there.fileno(),
            )
            there.close()
        reading, writing = os.pipe()
        with log.open("ab") as file:
            asked = json.dumps([list(arguments), dict(environment)]).encode()
            socket.send_fds(self._here, [asked], [writing, file.fileno()])
            os.close(writing)
        answer, descriptors, *_ = socket.recv_fds(self._here, 1, 1)
        assert answer, f"the process with {', '.join(self._modules)} has ended"
        return Forked(descriptors[0], reading)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._here.close()
            self._process.wait()
            self._process = None


def serve(connection: socket.socket) -> None:
    """Fork a rank for each request."""
    gc.collect()
    gc.freeze()
    while True:
        asked, descriptors, *_ = socket.recv_fds(connection, _MOST, 2)
        if not asked:
            return
        child = os.fork()
        if not child:
            connection.close()
            arguments, environment = json.loads(asked)
            _be_rank(arguments, environment, descriptors)
        descriptors.append(os.pidfd_open(child))
        socket.send_fds(connection, [b"."], descriptors[-1:])
        for each in descriptors:
            os.close(each)
        while _has_ended():
            pass


def _has_ended() -> bool:
    """Collect a child that has ended, if there is one."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _be_rank(arguments: list[str], environment: dict[str, str], descriptors: list[int]) -> Any:
    try:
        for number, each in zip((1, 2), descriptors, strict=True):
            os.dup2(each, number)
            os.close(each)
        os.environ.clear()
        os.environ.update(environment)
        random.seed()
        np.random.seed()
        sys.argv = [RANK, *arguments]
        importlib.import_module(RANK).main()
    finally:
        os._exit(1)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    serve(socket.socket(fileno=0))

"""The pipe that a rank prints to, on the agent's side."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping

from .settings import ENV_SOCKET

_CHUNK = 2**16


class OutputPipe:
    """Standard output and standard error of one process, as one stream: in the order in which it was written."""

    def __init__(self, address: str) -> None:
        """Make the pipe.

        Args:
            address: Of the collector's socket.
        """
        self._address = address
        self._reader, self.writer = os.pipe()
        self._collector: socket.socket | None = None
        self._closed = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> OutputPipe | None:
        """Return a pipe, if there is a collector; None: the process prints where we do."""
        address = environment.get(ENV_SOCKET)
        return cls(address) if address else None

    def started(self) -> None:
        """Leave the writing end to the process: when it has ended, so has the stream."""
        os.close(self.writer)

    def hand_over(self, name: str) -> None:
        """Let the collector read.

        Without one, or when it has ended, this process reads: a rank must neither wait for a full pipe nor fail at a
        broken one because of what it prints.

        Args:
            name: What its lines are marked with, such as `rank 1`.
        """
        collector = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            collector.connect(self._address)
            socket.send_fds(collector, [name.encode()], [self._reader])
        self._collector = collector
        threading.Thread(target=self._stand_in, name="output", daemon=True).start()

    def close(self) -> None:
        """Let go of it. The collector reads to the end."""
        self._closed = True
        if self._collector is None:
            os.close(self._reader)
            return
        with contextlib.suppress(OSError):
            self._collector.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes the rest

    def _stand_in(self) -> None:
        """Wait for the end of the collector, and read in its place."""
        assert self._collector is not None
        with contextlib.suppress(OSError):
            self._collector.recv(1)
        self._collector.close()
        os.set_blocking(self._reader, True)  # the collector reads without waiting, which holds for both of us
        with contextlib.suppress(OSError):
            while not self._closed and (data := os.read(self._reader, _CHUNK)):
                os.write(1, data)
        os.close(self._reader)

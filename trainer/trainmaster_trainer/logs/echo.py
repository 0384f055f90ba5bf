"""Passes lines on to the pod's own output, from a thread of its own: a slow reader must not hold up a rank."""

from __future__ import annotations

import os
import threading
from collections import deque

LIMIT = 4 * 2**20


class Echo:
    """Writes to a descriptor. What doesn't fit while the reader is slow is left out, and the gap is said."""

    def __init__(self, descriptor: int, limit: int = LIMIT) -> None:
        """Start the thread.

        Args:
            descriptor: Where to write.
            limit: Bytes that may wait.
        """
        self._descriptor, self._limit = descriptor, limit
        self._new = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._size = self._lost = 0
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="echo", daemon=True)
        self._thread.start()

    def add(self, lines: bytes) -> None:
        """Hand over complete lines; never waits. The oldest of those that wait make room for the newest."""
        if not lines:
            return
        with self._new:
            self._waiting.append(lines)
            self._size += len(lines)
            while self._size > self._limit and len(self._waiting) > 1:
                oldest = self._waiting.popleft()
                self._size -= len(oldest)
                self._lost += len(oldest)
            self._new.notify()

    def close(self, seconds: float) -> None:
        """Write the rest; gives up after so many seconds."""
        with self._new:
            self._closed = True
            self._new.notify()
        self._thread.join(seconds)

    def _take(self) -> bytes:
        """Return what waits; empty at the end."""
        with self._new:
            while not self._waiting and not self._closed:
                self._new.wait()
            lines, lost = b"".join(self._waiting), self._lost
            self._waiting.clear()
            self._size = self._lost = 0
        if not lost:
            return lines
        return f"[trainmaster] {lost:,} bytes were left out here: this log is read too slowly\n".encode() + lines

    def _loop(self) -> None:
        while lines := self._take():
            rest = memoryview(lines)
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:  # its reader has ended; the log in storage has it
                return

"""A log of bounded size: its beginning and its end are kept, and what is missing between them is said."""

from __future__ import annotations

import threading
from collections import deque

HEAD_BYTES = 2 * 2**20
TAIL_BYTES = 6 * 2**20


class BoundedLog:
    """Thread-safe; in memory, so it needs no room on a disk."""

    def __init__(self, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> None:
        """Start empty.

        Args:
            head: Bytes that are kept of the beginning.
            tail: Bytes that are kept of the end.
        """
        self._lock = threading.Lock()
        self._head_limit, self._tail_limit = head, tail
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._head_size = self._tail_size = 0
        self._lost_bytes = self._lost_lines = 0
        self.size = 0
        """Bytes that were ever added."""

    def add(self, lines: bytes) -> None:
        """Add complete lines."""
        if not lines:
            return
        with self._lock:
            self.size += len(lines)
            if not self._tail and not self._lost_bytes:
                lines = self._fill_head(lines)
            if lines:
                self._tail.append(lines)
                self._tail_size += len(lines)
                self._cut()

    def content(self) -> bytes:
        """Return the log; a line in the middle says what was left out there."""
        with self._lock:
            parts = [*self._head]
            if self._lost_bytes:
                parts.append(
                    f"[trainmaster] {self._lost_lines:,} lines ({self._lost_bytes:,} bytes) of this log were left out "
                    f"here; its first {self._head_limit:,} and last {self._tail_limit:,} bytes are kept\n".encode()
                )
            return b"".join([*parts, *self._tail])

    def _fill_head(self, lines: bytes) -> bytes:
        """Put whole lines into the beginning; return the others."""
        room = self._head_limit - self._head_size
        if len(lines) > room:
            cut = lines.rfind(b"\n", 0, room) + 1
            lines, rest = lines[:cut], lines[cut:]
        else:
            rest = b""
        self._head.append(lines)
        self._head_size += len(lines)
        return rest

    def _cut(self) -> None:
        """Drop whole lines from the front of the end."""
        while self._tail_size > self._tail_limit:
            oldest = self._tail.popleft()
            excess = self._tail_size - self._tail_limit
            keep = b""
            if len(oldest) > excess:  # only as much as necessary: the pieces may be large
                cut = oldest.find(b"\n", excess - 1) + 1
                oldest, keep = oldest[:cut], oldest[cut:]
            if keep:
                self._tail.appendleft(keep)
            self._tail_size -= len(oldest)
            self._lost_bytes += len(oldest)
            self._lost_lines += oldest.count(b"\n")

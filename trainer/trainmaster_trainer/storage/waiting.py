"""Calls to storage that are waiting for a response, so that an unresponsive server is reported while it hangs.

A stopped server accepts a connection and then never responds: no error comes for two minutes. So what counts is how
long a call has been in progress, not whether it failed. The progress reporter polls `waiting` about once a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

QUIET_SECONDS = 5.0  # an answer that comes sooner is worth no word
_BYTES_PER_SECOND = 10 * 2**20  # a transfer that is at least this fast is not waiting


@dataclass(frozen=True)
class Wait:
    """A call that storage hasn't answered yet.

    Attributes:
        where: The server or directory.
        doing: What is being done there, as in `writing LATEST`.
        since: When it began, in seconds since 1970.
        seconds: How long that is ago.
        reason: What the last try said; empty while there was no answer at all.
    """

    where: str
    doing: str
    since: float
    seconds: float
    reason: str = ""

    def __str__(self) -> str:
        """Return a message for the status."""
        because = f" ({self.reason})" if self.reason else ""
        return f"storage {self.where} has not responded for {self.seconds:.0f} s while {self.doing}{because}"


@dataclass
class Call:
    """A call in progress; `reason` is the error of its last try."""

    where: str
    doing: str
    size: int
    since: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    reason: str = ""


_LOCK = threading.Lock()
_CALLS: dict[int, Call] = {}


@contextmanager
def calling(where: str, doing: str, size: int = 0) -> Iterator[Call]:
    """Track a call while it is in progress.

    Args:
        where: The server or directory.
        doing: What is being done there.
        size: Bytes that have to be moved, because a large file takes its time.
    """
    call = Call(where, doing, size)
    with _LOCK:
        _CALLS[id(call)] = call
    try:
        yield call
    finally:
        with _LOCK:
            del _CALLS[id(call)]


def waiting(quiet_seconds: float = QUIET_SECONDS) -> Wait | None:
    """Return the call of this process that has waited longest, None while storage answers in time.

    Args:
        quiet_seconds: How long a call may take, in addition to the time for its bytes, before it counts.
    """
    now = time.monotonic()
    with _LOCK:
        late = [call for call in _CALLS.values() if now - call.began > quiet_seconds + call.size / _BYTES_PER_SECOND]
    if not late:
        return None
    first = min(late, key=lambda call: call.began)
    return Wait(first.where, first.doing, first.since, now - first.began, first.reason)

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

from trainmaster_api.messages import WAITING_LIMIT
from trainmaster_api.text import time_text

QUIET_SECONDS = 5.0  # a response that comes sooner isn't reported
_BYTES_PER_SECOND = 10 * 2**20  # a transfer that is at least this fast is not waiting


@dataclass(frozen=True)
class Wait:
    """A call that storage hasn't responded to yet.

    Attributes:
        where: The server or directory.
        doing: What the call does there, as in `writing LATEST`.
        since: When it began, in seconds since 1970.
        reason: Error of the last try; empty while there was no response at all.
    """

    where: str
    doing: str
    since: float
    reason: str = ""

    def __str__(self) -> str:
        """Return a message for the status; it stays the same until another call, or another reason, takes its place."""
        because = f" ({self.reason})" if self.reason else ""
        text = f"storage {self.where} has not responded since {time_text(self.since)} while {self.doing}{because}"
        return text if len(text) <= WAITING_LIMIT else f"{text[: WAITING_LIMIT - 1]}…"


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
    """Return the call of this process that has waited longest, None while storage responds in time.

    Args:
        quiet_seconds: How long a call may take, in addition to the time for its bytes, before it counts.
    """
    now = time.monotonic()
    with _LOCK:
        late = [call for call in _CALLS.values() if now - call.began > quiet_seconds + call.size / _BYTES_PER_SECOND]
    if not late:
        return None
    first = min(late, key=lambda call: call.began)
    return Wait(first.where, first.doing, first.since, first.reason)

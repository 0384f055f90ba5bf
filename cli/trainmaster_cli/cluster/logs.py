"""`trainmaster logs`: from the pods while they are there, from storage afterwards."""

from __future__ import annotations

import heapq
import itertools
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trainmaster_api import names
from trainmaster_api.layout import log_path

from trainmaster_cli.errors import UserError

from .api import Api, NotFound, NotReady, Object, core_path
from .explain import explain
from .jobs import get_job, is_finished, pods_of, status_of

_TIME = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?")
_RANK = re.compile(rb"^\[rank (\d+)\] ")
_OURS = b"[trainmaster] "
_POLL_SECONDS = 2.0
_PROBE_LINES = 50


@dataclass(frozen=True)
class Line:
    """A line of a log.

    Attributes:
        time: RFC 3339, as it sorts; empty where the log has none.
        text: The line itself, without time.
        rank: Of the rank that printed it; None: the launcher or the driver did.
    """

    time: bytes
    text: bytes
    rank: int | None

    @classmethod
    def of(cls, raw: bytes) -> Line:
        """Read a line of a pod or of storage."""
        found = _TIME.match(raw)
        text = raw[found.end() :] if found else raw
        whose = _RANK.match(text)
        return cls(_sortable(found[1]) if found else b"", text, int(whose[1]) if whose else None)


@dataclass(frozen=True)
class Wanted:
    """Which lines to show.

    Attributes:
        rank: Those of one rank; None: those of rank 0 and of the head.
        everything: Those of every rank, of the head and of the launchers.
        timestamps: Whether to show the time of each line.
    """

    rank: int | None = None
    everything: bool = False
    timestamps: bool = False

    def shows(self, line: Line, pod: str) -> bool:
        """Return whether a line is among them."""
        if self.everything:
            return True
        if line.rank is None:
            is_note = line.text.startswith(_OURS)
            return is_note or (self.rank is None and pod.endswith(f"-{names.ROLE_HEAD}"))
        return line.rank == (self.rank or 0)

    def needs(self, rank: int | None) -> bool:
        """Return whether the log of a pod with this rank may have lines that are wanted; None: it isn't known."""
        return self.everything or rank in (None, self.rank or 0)

    def is_only(self, rank: int | None) -> bool:
        """Return whether no other worker's log can have any."""
        return not self.everything and rank is not None and rank == (self.rank or 0)

    def text(self, line: Line, pod: str) -> bytes:
        """Return a line as it is shown; those of a rank have its number already."""
        label = b"" if line.rank is not None or self.rank is not None else f"[{_short(pod)}] ".encode()
        when = line.time.rstrip(b"0").rstrip(b".") + b"Z " if self.timestamps and line.time else b""
        return when + label + line.text


Stored = Callable[[str], Iterable[bytes]]
"""Reads the lines of an object of the run in storage; raises FileNotFoundError, UserError."""


def show(api: Api, job: Object, attempt: int, wanted: Wanted, stored: Stored, write: Callable[[bytes], None]) -> None:
    """Show the log of an attempt, in order.

    Args:
        api: The cluster.
        job: Whose log.
        attempt: Number of the attempt.
        wanted: Which lines.
        stored: Reads from storage.
        write: Takes each line, with its end.

    Raises:
        UserError: There is no log, or it can't be read.
    """
    pods = {pod["metadata"]["name"] for pod in pods_of(api, job["metadata"]["name"])}
    sources: list[tuple[str, Iterable[bytes]]] = []
    troubles: list[str] = []
    for pod in pods_of_attempt(job, attempt, wanted):
        lines = _of_pod(api, pod) if pod in pods else None
        if lines is None:
            try:
                lines = stored(log_path(attempt, pod))
            except FileNotFoundError:
                continue
            except UserError as error:
                troubles.append(str(error))
                continue
        rank, lines = _rank_of(lines)
        if wanted.needs(rank):
            sources.append((pod, lines))
        if wanted.is_only(rank):
            break
    is_empty = True
    for pod, line in merged(sources):
        if wanted.shows(line, pod):
            is_empty = False
            write(wanted.text(line, pod) + b"\n")
    if troubles and is_empty:
        raise UserError(f"the pods of attempt {attempt} are gone, and {troubles[0]}")
    for trouble in dict.fromkeys(troubles):
        print(f"trainmaster: some of the log can't be read: {trouble}", file=sys.stderr)
    if not sources:
        raise UserError(f"attempt {attempt} of {job['metadata']['name']} has left no log")
    if is_empty:
        whose = f"rank {wanted.rank}" if wanted.rank is not None else "rank 0"
        print(f"trainmaster: {whose} has printed nothing in attempt {attempt}", file=sys.stderr)


def pods_of_attempt(job: Object, attempt: int, wanted: Wanted) -> list[str]:
    """Return the pods that may have lines that are wanted; a rank is most often in the worker of its number."""
    name = job["metadata"]["name"]
    count = int((((job.get("spec") or {}).get("cluster") or {}).get("workers") or {}).get("count") or 1)
    count = max(count, int((status_of(job).get("workers") or {}).get("desired") or 0))
    first = wanted.rank or 0
    if first >= count:
        raise UserError(f"there is no rank {first}: {name} has {count} workers, with ranks 0 to {count - 1}")
    order = sorted(range(count), key=lambda index: (index != first, index))
    workers = [names.worker_pod(name, attempt, index) for index in order]
    return workers if wanted.rank is not None else [names.head_pod(name, attempt), *workers]


def merged(sources: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[tuple[str, Line]]:
    """Yield the lines of several logs by time; lines without one stay behind the line before them."""

    def timed(number: int, pod: str, lines: Iterable[bytes]) -> Iterator[tuple[bytes, int, int, str, Line]]:
        last = b""
        for count, raw in enumerate(lines):
            line = Line.of(raw)
            last = max(last, line.time)
            yield last, number, count, pod, line

    streams = [timed(number, pod, lines) for number, (pod, lines) in enumerate(sources)]
    for _, _, _, pod, line in heapq.merge(*streams, key=lambda item: item[:3]):
        yield pod, line


def _of_pod(api: Api, pod: str) -> Iterable[bytes] | None:
    """Return the lines of a pod's log; None: it has none, or it is gone."""
    try:
        lines = iter(api.lines(_log(api, pod), timestamps=True, container=names.CONTAINER))
        first = next(lines, None)
    except (NotFound, NotReady):
        return None
    return () if first is None else itertools.chain([first], lines)


def _rank_of(lines: Iterable[bytes]) -> tuple[int | None, Iterable[bytes]]:
    """Return whose lines they are, as their first ones tell, and all of them."""
    rest = iter(lines)
    first = list(itertools.islice(rest, _PROBE_LINES))
    ranks = (Line.of(raw).rank for raw in first)
    return next((rank for rank in ranks if rank is not None), None), itertools.chain(first, rest)


def _log(api: Api, pod: str) -> str:
    return core_path(api.namespace, "pods", pod, "log")


# --- as it grows ---------------------------------------------------------------------------------------------------


class Follower:
    """Shows the logs of a job as they grow, from one attempt to the next, until the job has finished."""

    def __init__(self, api: Api, name: str, wanted: Wanted, write: Callable[[bytes], None]) -> None:
        """Show nothing yet.

        Args:
            api: The cluster.
            name: Of the job.
            wanted: Which lines.
            write: Takes each line, with its end.
        """
        self._api, self._name, self._wanted, self._write = api, name, wanted, write
        self._lines: queue.SimpleQueue[tuple[str, Line] | None] = queue.SimpleQueue()
        self._reading: dict[str, threading.Thread] = {}
        self._newest: dict[str, bytes] = {}
        self._said = ""

    def run(self) -> None:
        """Follow until the job has finished or is suspended, and everything is shown."""
        look = 0.0
        while True:
            if time.monotonic() >= look:
                job = get_job(self._api, self._name)
                self._join(job)
                look = time.monotonic() + _POLL_SECONDS
                is_over = is_finished(job) or status_of(job).get("phase") == "Suspended"
                if is_over and not any(thread.is_alive() for thread in self._reading.values()):
                    self._drain()
                    print(f"trainmaster: {self._name} is {status_of(job)['phase']}", file=sys.stderr)
                    return
            try:
                self._show(self._lines.get(timeout=min(0.2, _POLL_SECONDS)))
            except queue.Empty:
                continue

    def _drain(self) -> None:
        while True:
            try:
                self._show(self._lines.get_nowait())
            except queue.Empty:
                return

    def _show(self, item: tuple[str, Line] | None) -> None:
        if item is not None and self._wanted.shows(item[1], item[0]):
            self._write(self._wanted.text(item[1], item[0]) + b"\n")

    def _join(self, job: Object) -> None:
        """Read from every pod that has a log and isn't read yet; first what is there of all of them, by time."""
        attempt = int(status_of(job).get("attempt") or 0)
        if not attempt:
            self._say(job)
            return
        running = {pod["metadata"]["name"]: pod for pod in pods_of(self._api, self._name)}
        new = [
            pod
            for pod in pods_of_attempt(job, attempt, self._wanted)
            if pod in running
            and self._key(running[pod]) not in self._reading
            and _has(running[pod], "running", "terminated")
        ]
        if not new:
            if not any(thread.is_alive() for thread in self._reading.values()):
                self._say(job)
            return
        logs = [(pod, _of_pod(self._api, pod)) for pod in new]
        found = [(pod, lines) for pod, lines in logs if lines is not None]
        ranks: dict[str, int] = {}
        for pod, line in merged(found):
            self._newest[pod] = max(line.time, self._newest.get(pod, b""))
            if line.rank is not None:
                ranks[pod] = line.rank
            self._show((pod, line))
        for pod, _ in found:
            if not self._wanted.needs(ranks.get(pod)):
                self._reading[self._key(running[pod])] = threading.Thread()  # of another rank: never started
                continue
            thread = threading.Thread(target=self._read, args=[pod, self._key(running[pod])], daemon=True)
            self._reading[self._key(running[pod])] = thread
            thread.start()

    def _read(self, pod: str, uid: str) -> None:
        """Put what a pod prints from now on into the queue; a connection that breaks is made again."""
        while True:
            newest = self._newest.get(pod, b"")
            query: dict[str, Any] = {"follow": True, "timestamps": True, "container": names.CONTAINER}
            if newest:  # the API server's resolution is a second; what has been shown is left out below
                query["sinceTime"] = newest.partition(b".")[0].decode() + "Z"
            try:
                for raw in self._api.lines(_log(self._api, pod), **query):
                    line = Line.of(raw)
                    if line.time > newest or not line.time:
                        self._newest[pod] = max(line.time, self._newest.get(pod, b""))
                        self._lines.put((pod, line))
                found = self._api.get(core_path(self._api.namespace, "pods", pod))
            except (NotFound, NotReady, UserError):
                return
            if self._key(found) != uid or not _has(found, "running"):
                return
            time.sleep(_POLL_SECONDS)

    def _say(self, job: Object) -> None:
        """Say why there is nothing to show, once for each reason."""
        status = status_of(job)
        why = f"{status.get('attempt')} {status.get('phase')} {status.get('reason')}"
        if why != self._said and not is_finished(job):
            self._said = why
            print(f"trainmaster: {self._name}: {explain(job, (), (), datetime.now(UTC)).text}", file=sys.stderr)

    @staticmethod
    def _key(pod: Object) -> str:
        return str(pod["metadata"].get("uid") or pod["metadata"]["name"])


def _has(pod: Object, *states: str) -> bool:
    """Return whether the trainer's container is in one of these states."""
    found = (pod.get("status") or {}).get("containerStatuses") or ()
    mine: Object = next((each for each in found if each.get("name") == names.CONTAINER), {})
    return any(state in (mine.get("state") or {}) for state in states)


def latest_attempt(job: Object, *, previous: bool) -> int:
    """Return the attempt whose log is meant.

    Raises:
        UserError: There is none yet, or none before it.
    """
    name, attempt = job["metadata"]["name"], int(status_of(job).get("attempt") or 0)
    if not attempt:
        raise UserError(f"{name} has no attempt yet, so no log: `trainmaster why {name}` says what it waits for")
    if not previous:
        return attempt
    known = [int(each["attempt"]) for each in status_of(job).get("attempts") or () if each["attempt"] < attempt]
    if attempt == 1 or (status_of(job).get("attempts") and not known):
        raise UserError(f"{name} is in its first attempt: there is no log of an attempt before")
    return max(known, default=attempt - 1)


def _sortable(text: bytes) -> bytes:
    """Return a time in UTC with nine digits after the point, so that times sort as bytes."""
    if not text.endswith(b"Z"):  # of a node with a time zone of its own
        whole, offset = text[:-6], text[-6:]
        seconds, _, fraction = whole.partition(b".")
        moment = datetime.fromisoformat((seconds + offset).decode()).astimezone(UTC)
        text = moment.strftime("%Y-%m-%dT%H:%M:%S").encode() + b"." + fraction + b"Z"
    whole, _, fraction = text.rstrip(b"Z").partition(b".")
    return whole + b"." + fraction.ljust(9, b"0")[:9]


def _short(pod: str) -> str:
    """Return `head` or `w-1` of a pod's name."""
    found = re.search(r"-\d+-(head|w-\d+)$", pod)
    return found[1] if found else pod

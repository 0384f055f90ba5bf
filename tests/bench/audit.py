"""API writes from the API server's audit log, by who made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})
# Questions that are asked with POST; nothing is stored.
REVIEWS = frozenset({"authentication.k8s.io", "authorization.k8s.io"})
# Leader election writes at its own pace, whatever the number of jobs.
LEASES = "leases"


@dataclass(frozen=True)
class Write:
    """One request that changes something, successful or not: the API server had the work either way."""

    time: float
    """When it was received, seconds since the epoch."""
    verb: str
    kind: str
    """Resource, with its subresource: ``pods``, ``rayclusters/status``."""
    code: int


def parse(lines: Iterable[bytes], user: str) -> Iterator[Write]:
    """Writes of one user, in the order of the log. A last line that is still being written is left out."""
    wanted = user.encode()
    for line in lines:
        # most lines are other users' and needn't be parsed
        if wanted not in line or not line.endswith(b"\n"):
            continue
        entry = orjson.loads(line)
        target = entry.get("objectRef", {})
        if entry["user"].get("username") != user or entry["verb"] not in WRITE_VERBS:
            continue
        if entry["stage"] != "ResponseComplete" or target.get("apiGroup") in REVIEWS:
            continue
        kind = "/".join(part for part in (target.get("resource", "?"), target.get("subresource")) if part)
        received = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()
        yield Write(received, entry["verb"], kind, entry.get("responseStatus", {}).get("code", 0))


def read(log: Path, user: str) -> list[Write]:
    """Writes of one user from a log that isn't rotated."""
    with log.open("rb") as handle:
        return list(parse(handle, user))


def count(writes: Iterable[Write], begin: float, end: float) -> Counter[str]:
    """Number of writes by ``verb kind`` in a stretch of time, leader election left out."""
    return Counter(f"{w.verb} {w.kind}" for w in writes if begin <= w.time < end and w.kind != LEASES)

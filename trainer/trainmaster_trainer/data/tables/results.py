"""What was found in a cached table, stored beside its files: the next start of the same job reads it.

A result is used only if everything that it depends on is the same: the content of the sources (the names of their
entries are of their fingerprints), the job's data and task, the code that found it, and its libraries. What it depends
on is in the file as a checksum, and so is its content: a file that is cut off, changed or copied from elsewhere isn't
used, and what it should say is found again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import trainmaster_api.spec
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Task

from .cache import CachedTable

UNUSED = {"batch_size", "cache", "loading"}
"""Settings of `data` that no result depends on; a new setting counts until it is listed here."""
T = TypeVar("T")

_POLL_SECONDS = 0.1
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError)


class Results:
    """Results of work on a table; of one in memory nothing is stored.

    Args:
        cached: The table; None: it is in memory.
        data: `spec.training.data`.
        task: `spec.training.task`.
    """

    def __init__(self, cached: CachedTable | None = None, data: Data | None = None, task: Task | None = None) -> None:
        self._cached = cached
        self._of = ""
        if cached is not None and data is not None and task is not None:
            entries = [each.path.name for each in (cached.entry, *cached.others)]
            settings = data.model_dump(mode="json", by_alias=True, exclude=UNUSED), task.model_dump(mode="json")
            self._of = json.dumps([_code(), cached.table.shown, len(cached), entries, *settings])

    def say(self, doing: str) -> None:
        """Say what is being done with a table so large that it takes long."""
        if self._cached is not None:
            self._cached.say(f"{doing} {self._cached.table.shown}")

    def get(
        self,
        name: str,
        make: Callable[[], T],
        write: Callable[[T], bytes],
        read: Callable[[bytes], T],
        *depends: bytes | memoryview,
    ) -> T:
        """Return a result: the stored one, or a new one, which one process of the machine makes and stores.

        Args:
            name: What it is.
            make: Makes it.
            write: Returns it as bytes.
            read: Returns what `write` wrote.
            depends: What it depends on beside the table and the job.
        """
        if not self._of or self._cached is None:
            return make()
        digest = hashlib.sha256(f"{name} {self._of}".encode())
        for each in depends:
            digest.update(hashlib.sha256(each).digest())
        key = digest.hexdigest()
        path = self._cached.entry.path / f"found-{name}-{key[:16]}.bin"
        while (known := _stored(path, key, read)) is None:
            try:
                lock = path.with_suffix(".lock").open("ab")
            except OSError:  # of another user, or a file system that is read-only
                return make()
            with lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(_POLL_SECONDS)
                    self.say("waiting for another process that looks through")
                    continue
                known = _stored(path, key, read)
                if known is None:
                    found = make()
                    _store(path, key, write(found))
                    return found
        return known[0]


def to_json(value: Any) -> bytes:
    """Return a value as JSON, which keeps each float exactly."""
    return json.dumps(value).encode()


def _stored(path: Path, key: str, read: Callable[[bytes], T]) -> tuple[T] | None:
    """Return what a file says; None: there is none, or it is damaged, or of something else."""
    with suppress(*_UNREADABLE):
        head, _, body = path.read_bytes().partition(b"\n")
        if head == _head(key, body):
            return (read(body),)
    return None


def _store(path: Path, key: str, body: bytes) -> None:
    """Write a result under another name until it is whole; nothing is wrong if there is no room for it."""
    part = path.with_suffix(".tmp")
    try:
        part.write_bytes(_head(key, body) + b"\n" + body)
        part.rename(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _head(key: str, body: bytes) -> bytes:
    return f"{key} {hashlib.sha256(body).hexdigest()}".encode()


@cache
def _code() -> str:
    """Return a checksum of the code that finds results, with the versions of what it uses."""
    versions = [np.__version__, pa.__version__, platform.python_version(), platform.machine()]
    digest = hashlib.sha256(json.dumps(versions).encode())
    for folder in (Path(__file__).parents[1], *map(Path, trainmaster_api.spec.__path__)):
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()

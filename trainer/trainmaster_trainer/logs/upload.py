"""Keeps a log in the run's storage while it grows: as a whole object each time, because S3 can't append."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainmaster_trainer.errors import TrainingError

from .bounded import BoundedLog

if TYPE_CHECKING:  # loaded with the first upload: the start of a pod has no time for it
    from trainmaster_trainer.storage.store import Store

EVERY_SECONDS = 30.0
EVERY_BYTES = 2**20
PAUSE_SECONDS = 5.0
PATIENCE_SECONDS = 20.0
_AGAIN = "[trainmaster] --- the output of an earlier pod of this name ends here ---\n"


class Uploader:
    """Writes the log after 30 s with news, or after 1 MiB of them, at most every 5 s, and at the end."""

    def __init__(self, open_run: Callable[[], Store], path: str, log: BoundedLog, say: Callable[[str], None]) -> None:
        """Start the thread; nothing is imported or written before there is something to write.

        Args:
            open_run: Opens the store of the run.
            path: Of the log in it.
            log: What to write.
            say: Prints a line about the log itself.
        """
        self._open_run, self._path, self._log, self._say = open_run, path, log, say
        self._store: Store | None = None
        self._before: bytes | None = None
        self._written = 0
        self._tried = False
        self._trouble = ""
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="upload", daemon=True)
        self._thread.start()

    def soon(self) -> None:
        """Write what is new now: this pod may be killed."""
        self._wake.set()

    def close(self, seconds: float) -> bool:
        """Write the rest. Returns False if storage didn't take it within so many seconds."""
        self._closed.set()
        self._wake.set()
        self._thread.join(seconds)
        return not self._thread.is_alive() and self._written == self._log.size

    def _loop(self) -> None:
        while not self._closed.is_set():
            self._wait()
            if self._log.size != self._written:
                self._write()
        if self._log.size != self._written:
            self._write()

    def _wait(self) -> None:
        """Wait until a write is due."""
        if self._tried:
            self._wake.wait(PAUSE_SECONDS)
        end = time.monotonic() + EVERY_SECONDS
        while not self._wake.is_set() and self._log.size - self._written < EVERY_BYTES:
            left = end - time.monotonic()
            if left <= 0:
                break
            self._wake.wait(min(1.0, left))
        self._wake.clear()

    def _write(self) -> None:
        size, self._tried = self._log.size, True
        try:
            if self._store is None:
                self._store = self._open_run()
            if self._before is None:  # a worker that is replaced within an attempt has the name of the one before
                self._before = _shortened(self._store.get(self._path) or b"")
            self._store.put(self._path, self._before + self._log.content())
        except TrainingError as error:
            if error.message != self._trouble:
                self._say(f"this log can't be kept in storage: {error.message}")
            self._trouble = error.message
        else:
            self._written, self._trouble = size, ""


def _shortened(before: bytes) -> bytes:
    if not before:
        return b""
    kept = BoundedLog(2**20, 3 * 2**20)
    kept.add(before if before.endswith(b"\n") else before + b"\n")
    return kept.content() + _AGAIN.encode()

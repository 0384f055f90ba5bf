"""A folder of cache entries: each built once under a lock, in use under a shared lock, evicted by least recent use.

The locks are the kernel's (`flock`), so a process that is killed releases them, and a process that waits takes over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainmaster_trainer.data.cache_folder import make
from trainmaster_trainer.errors import ConfigurationError, DataError

DONE = "table.json"
"""File of an entry that is complete; its time is that of the last use."""
SAID = "progress.txt"
"""What the process that builds an entry said last."""

_POLL_SECONDS = 0.1
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCK = ".lock"


def size_text(size: float) -> str:
    """Return a number of bytes for people: `1.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class Entry:
    """An entry that this process uses: it isn't evicted as long as this object is there."""

    def __init__(self, folder: Folder, path: Path, lock: IO[bytes]) -> None:
        self.folder, self.path, self._lock = folder, path, lock

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return _size(self.path)

    def close(self) -> None:
        """Release the entry; nothing that is mapped from it may be used any more."""
        self._lock.close()


@dataclass(frozen=True)
class Folder:
    """Where entries are.

    Attributes:
        root: The folder.
        limit: Bytes that all entries together may have.
        say: Takes a sentence on what is being done.
        shown: The source, for messages.
    """

    root: Path
    limit: int
    say: Callable[[str], None]
    shown: str

    def entry(self, key: str, build: Callable[[Path], None]) -> Entry:
        """Return a complete entry; one process builds it, and the others wait.

        Args:
            key: Its name.
            build: Writes it; DONE last, and whatever is there already comes from a process that was killed.

        Raises:
            DataError: There is no room for it, or what `build` raises.
        """
        path = self.root / key
        try:
            make(self.root)
        except OSError as error:
            raise self._unusable(error) from None
        began = time.monotonic()
        while True:
            is_done = (path / DONE).exists()
            lock = self._locked(key, fcntl.LOCK_SH if is_done else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock is None:
                self._wait(path, began)
                continue
            try:
                if (path / DONE).exists() and is_done:
                    with suppress(OSError):  # of another user, or a file system that is read-only
                        os.utime(path / DONE)
                    entry, lock = Entry(self, path, lock), None
                    return entry
                if not (path / DONE).exists() and not is_done:
                    self._build(path, build)
            finally:
                if lock is not None:
                    lock.close()

    def _build(self, path: Path, build: Callable[[Path], None]) -> None:
        try:
            with self.full_disk(path):
                path.mkdir(exist_ok=True)
                build(path)
        except DataError:  # another process would find the same, and what it needs is another entry
            _remove(path)
            raise

    def _wait(self, path: Path, began: float) -> None:
        time.sleep(_POLL_SECONDS)  # the lock of a process that died is free at the next look
        words = ""
        with suppress(OSError):
            words = (path / SAID).read_text()
        since = time.monotonic() - began
        if since > 1 and since % 2 < _POLL_SECONDS:
            self.say(f"waiting for another process that reads {self.shown} into the cache{words and f': {words}'}")

    def _unusable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"data.cache.directory: {self.root} can't be used ({error.strerror}); set it to a folder that can be "
            "written, or data.cache.mode to never"
        )

    def _locked(self, key: str, how: int) -> IO[bytes] | None:
        """Return the lock of an entry, None if another process has it."""
        name = self.root / f"{key}{_LOCK}"
        while True:
            try:
                lock = name.open("ab")
            except OSError as error:
                raise self._unusable(error) from None
            try:
                fcntl.flock(lock, how)
                if os.path.samestat(os.fstat(lock.fileno()), name.stat()):
                    return lock
            except BlockingIOError:
                lock.close()
                return None
            except FileNotFoundError:
                pass
            lock.close()  # evicted, with its lock, since it was opened

    @contextmanager
    def full_disk(self, path: Path) -> Iterator[None]:
        """Turn an error of a full disk into a sentence, and remove what was being written.

        Raises:
            DataError: The disk is full.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            _remove(path)
            free = shutil.disk_usage(self.root).free
            raise DataError(
                f"{self.shown}: the disk of the cache {self.root} is full ({size_text(free)} are free without this "
                "table's entry); free space, or set data.cache.directory to a larger disk"
            ) from None

    def make_room(self, path: Path, more: int) -> None:
        """Evict what was least recently used and isn't in use, until an entry can grow.

        Args:
            path: Of the entry.
            more: Bytes that it gets.

        Raises:
            DataError: The limit is too small for it, or what is in use doesn't leave it room.
        """
        own = _size(path) + more
        # a folder without a lock is no entry, and not ours to delete
        entries = (each.with_suffix("") for each in self.root.glob(f"*{_LOCK}"))
        others = {other: _size(other) for other in entries if other.is_dir() and other != path}
        total = own + sum(others.values())
        for other in sorted(others, key=_used):
            if total <= self.limit:
                return
            if self._evict(other):
                total -= others[other]
        if total > self.limit:
            rest = total - own
            words = f", and {size_text(rest)} there are in use" if rest else ""
            raise DataError(
                f"{self.shown}: its cache needs more than {size_text(own)}{words}, and data.cache.size allows "
                f"{size_text(self.limit)} in {self.root}; raise data.cache.size, where its disk (in a cluster: the "
                "volume that data.cache.directory names) has the room"
            )

    def _evict(self, path: Path) -> bool:
        lock = self._locked(path.name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:
            return False
        with lock:
            _remove(path)
            (self.root / f"{path.name}{_LOCK}").unlink(missing_ok=True)
        return True


def once(lock_path: Path, done: Path, build: Callable[[], None], wait: Callable[[], None]) -> None:
    """Build a file of an entry in use, in one process; the others wait.

    Args:
        lock_path: The lock.
        done: Is there when it is built.
        build: Builds it.
        wait: Is called while another process does.
    """
    while not done.exists():
        with lock_path.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)
                wait()
                continue
            if not done.exists():
                build()


def _used(path: Path) -> float:
    for name in (path / DONE, path):
        with suppress(OSError):
            return name.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    total = 0
    with suppress(FileNotFoundError):
        for found in os.scandir(path):
            with suppress(FileNotFoundError):
                total += found.stat().st_size
    return total


def _remove(path: Path) -> None:
    """Remove an entry, the file that says that it is complete first; or a file of one."""
    if path.is_file():
        path.unlink()
        return
    (path / DONE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)

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
from typing import IO, ClassVar

from trainmaster_api.archive import remove

from trainmaster_trainer.data.cache_folder import make
from trainmaster_trainer.errors import ConfigurationError, DataError, TrainingError

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
        return size_of(self.path)

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

    What is kept in it, and what is said of it, is that of tables; other caches say something else.
    """

    done: ClassVar[str] = DONE
    """File of an entry that is complete; its time is that of the last use."""

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
            TrainingError: The folder can't be used, there is no room for it, or what `build` raises.
        """
        path = self.root / key
        try:
            make(self.root)
        except OSError as error:
            raise self.unusable(error) from None
        began = time.monotonic()
        while True:
            if (entry := self.held(key)) is not None:
                return entry
            lock = self._locked(key, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock is None:
                self._wait(path, began)
                continue
            with lock:
                if not (path / self.done).exists():
                    self._build(path, build)

    def held(self, key: str) -> Entry | None:
        """Return a complete entry, which isn't evicted as long as the result is there; None: there is none."""
        path = self.root / key
        if not (path / self.done).exists() or (lock := self._locked(key, fcntl.LOCK_SH)) is None:
            return None
        if not (path / self.done).exists():  # evicted while we waited for the lock
            lock.close()
            return None
        with suppress(OSError):  # of another user, or a file system that is read-only
            os.utime(path / self.done)
        return Entry(self, path, lock)

    def _build(self, path: Path, build: Callable[[Path], None]) -> None:
        try:
            with self.full_disk(path):
                path.mkdir(exist_ok=True)
                build(path)
        except DataError:  # another process would find the same, and what it needs is another entry
            _remove(path, self.done)
            raise

    def _wait(self, path: Path, began: float) -> None:
        time.sleep(_POLL_SECONDS)  # the lock of a process that died is free at the next look
        words = ""
        with suppress(OSError):
            words = (path / SAID).read_text()
        since = time.monotonic() - began
        if since > 1 and since % 2 < _POLL_SECONDS:
            self.say(self.waiting(words))

    def waiting(self, words: str) -> str:
        """Return what a process says that waits for another one, and what that one said last."""
        return f"waiting for another process that reads {self.shown} into the cache{words and f': {words}'}"

    def is_entry(self, path: Path) -> bool:
        """Return whether a folder beside a lock is an entry; others are never deleted."""
        return True

    def unusable(self, error: OSError) -> TrainingError:
        """Return that the folder can't be used."""
        return ConfigurationError(
            f"data.cache.directory: {self.root} can't be used ({error.strerror}); set it to a folder that can be "
            "written, or data.cache.mode to never"
        )

    def _locked(self, key: str, how: int) -> IO[bytes] | None:
        """Return the lock of an entry, None if another process has it."""
        name = self.root / f"{key}{_LOCK}"
        while True:
            try:
                lock = _opened(name, how)
            except OSError as error:
                raise self.unusable(error) from None
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
            TrainingError: The disk is full.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            _remove(path, self.done)
            raise self.full() from None

    def full(self) -> TrainingError:
        """Return that the disk is full."""
        free = shutil.disk_usage(self.root).free
        return DataError(
            f"{self.shown}: the disk of the cache {self.root} is full ({size_text(free)} are free without this "
            "table's entry); free space, or set data.cache.directory to a larger disk"
        )

    def make_room(self, path: Path, more: int) -> None:
        """Evict until an entry can grow.

        Args:
            path: Of the entry.
            more: Bytes that it gets.

        Raises:
            DataError: The limit is too small for it, or what is in use doesn't leave it room.
        """
        own = size_of(path) + more
        rest = self.evict(path, own)
        if own + rest > self.limit:
            words = f", and {size_text(rest)} there are in use" if rest else ""
            raise DataError(
                f"{self.shown}: its cache needs more than {size_text(own)}{words}, and data.cache.size allows "
                f"{size_text(self.limit)} in {self.root}; raise data.cache.size, where its disk (in a cluster: the "
                "volume that data.cache.directory names) has the room"
            )

    def evict(self, path: Path, own: int) -> int:
        """Evict what was least recently used and isn't in use, until there is room for an entry.

        Args:
            path: Of the entry.
            own: Bytes that it has, or will have.

        Returns:
            Bytes that the others have then.
        """
        # a folder without a lock is no entry, and not ours to delete
        entries = (each.with_suffix("") for each in self.root.glob(f"*{_LOCK}"))
        others = {
            other: size_of(other) for other in entries if other.is_dir() and other != path and self.is_entry(other)
        }
        rest = sum(others.values())
        for other in sorted(others, key=self.used):
            if own + rest <= self.limit:
                break
            if self._evict(other):
                rest -= others[other]
        return rest

    def used(self, path: Path) -> float:
        """Return when an entry was last used, in seconds: the earliest is evicted first."""
        for name in (path / self.done, path):
            with suppress(OSError):
                return name.stat().st_mtime
        return 0.0

    def _evict(self, path: Path) -> bool:
        try:
            lock = self._locked(path.name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except TrainingError:  # of another user
            return False
        if lock is None:
            return False
        with lock:
            _remove(path, self.done)
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


def _opened(name: Path, how: int) -> IO[bytes]:
    """Open a lock; NFS wants one that is shared to be readable, and a folder may be read-only."""
    if how == fcntl.LOCK_SH:
        with suppress(FileNotFoundError):
            return name.open("rb")
    return name.open("a+b")


def size_of(path: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - of many files
    return total


def _remove(path: Path, done: str) -> None:
    """Remove an entry, the file that says that it is complete first; or a file of one."""
    if path.is_file():
        path.unlink()
        return
    (path / done).unlink(missing_ok=True)
    remove(path)

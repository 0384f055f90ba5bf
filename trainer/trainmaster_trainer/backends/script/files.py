"""Checkpoint files of a program that we didn't write: seen when they are closed, stored, and offered as one set."""

from __future__ import annotations

import collections
import hashlib
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Protocol

from trainmaster_api.layout import OBJECTS
from watchdog.events import (
    FileClosedEvent,
    FileClosedNoWriteEvent,
    FileModifiedEvent,
    FileOpenedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from trainmaster_trainer.context import Part, StoredFile
from trainmaster_trainer.storage.store import Store

from .workdir import Folders, sha256_of

QUIET_SECONDS = 2.0
"""Seconds without a write after which the files count as a complete set."""
OPEN_SECONDS = 60.0
"""Seconds after its last write for which an open file is waited for: a log that stays open mustn't hold up the rest."""
RESTLESS_SECONDS = 10.0
"""Seconds after which a program that saves again and again isn't waited for: its files are taken between two writes."""
MOST_FILES = 4000
_MOST_FOLDERS = 2


class Watch(FileSystemEventHandler):
    """Which checkpoint files are being written and which were read, from the kernel's notifications.

    On Linux by inotify, which sees every program and every library. Elsewhere closing and reading can't be seen: files
    count as closed once nothing writes to them.
    """

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._open: dict[str, float] = {}
        self._handles: collections.Counter[str] = collections.Counter()
        self._changed = 0.0
        self._restless_since: float | None = None
        self.version = 0
        """Counts changes."""
        self.reads: set[str] = set()
        """Paths that were opened and closed without a write."""
        self.is_reading = False
        """Whether reads are ours at the moment: those aren't noted."""
        self._observer = Observer()

    def start(self) -> None:
        """Watch from now on."""
        for folder in self._folders.watched:
            folder.mkdir(parents=True, exist_ok=True)
            self._observer.schedule(self, str(folder), recursive=True)
        self._observer.start()

    def stop(self) -> None:
        """End the thread."""
        self._observer.stop()
        self._observer.join(5.0)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note what happened; in the observer's thread."""
        path = str(event.dest_path or event.src_path)
        if event.is_directory or not self._folders.concerns(Path(path)):
            return
        with self._lock:
            if isinstance(event, FileOpenedEvent):
                self._handles[path] += 1
                if not self.is_reading and path not in self._open:
                    self.reads.add(str(Path(path).relative_to(self._folders.root)))
                return
            if isinstance(event, FileClosedNoWriteEvent):
                self._handles[path] -= 1
                return
            self._changed = time.monotonic()
            self._restless_since = self._restless_since or self._changed
            self.version += 1
            if isinstance(event, FileModifiedEvent):
                # a change of mode or time is told as one of the content, also of a file that is closed
                if self._handles[path] > 0 or sys.platform != "linux":
                    self._open[path] = self._changed
            elif isinstance(event, FileClosedEvent):
                self._handles[path] -= 1
                self._open.pop(path, None)
            else:  # moved, created, deleted: the old name is gone
                self._open.pop(str(event.src_path), None)
                self._handles.pop(str(event.src_path), None)

    def is_quiet(self, now: float) -> bool:
        """Return whether all files are closed, and nothing has changed for a while."""
        with self._lock:
            limit = OPEN_SECONDS if sys.platform == "linux" else QUIET_SECONDS
            busy = any(now - at < limit for path, at in self._open.items() if Path(path).exists())
            since = self._restless_since
            is_restless = since is not None and now - since >= RESTLESS_SECONDS
            return not busy and (now - self._changed >= QUIET_SECONDS or is_restless)

    def settled(self, version: int) -> None:
        """Take note that the files of this version are kept."""
        with self._lock:
            if self.version == version:
                self._restless_since = None
            elif self._restless_since is not None:
                self._restless_since = self._changed


class Steps(Protocol):
    """Knows when steps were made."""

    def step_at(self, modified: float) -> int:
        """Return the step that had been made when a file was written, by its time."""

    def follow(self, places: Callable[[], Iterable[str]]) -> None:
        """Take note of the step in which one of these changes."""


def _modified(path: str) -> float:
    try:
        return Path(path).lstat().st_mtime
    except OSError:
        return 0.0


class Keeper:
    """Stores the checkpoint files of this node and offers them as a part of a set, from a thread of its own.

    Args:
        store: The run's store.
        folders: Which files.
        watch: What happens to them.
        node: Number of this node.
        share: Takes the part.
        steps: Knows which step had been made when a file was written.
    """

    def __init__(
        self,
        store: Store,
        folders: Folders,
        watch: Watch,
        node: int,
        share: Callable[[Part], None],
        steps: Steps,
    ) -> None:
        self._store, self._folders, self._watch = store, folders, watch
        self._node, self._share, self._steps = node, share, steps
        self._stored: dict[tuple[str, int, float], StoredFile] = {}
        self._objects: set[str] = set()
        self._others: set[tuple[str, int, float]] = set()
        self._offered = -1
        self._said_busy = True

    def know(self, files: dict[str, StoredFile], others: Collection[str]) -> None:
        """Take note of files that are in storage already, because they came from there.

        Args:
            files: By path.
            others: Paths of those that another node wrote: until this node's program changes one, it is that node's,
                and this copy of it only gets old.
        """
        for path, file in files.items():
            key = (path, file.size, file.modified)
            self._stored[key] = file
            self._objects.add(file.sha256)
            if path in others:
                self._others.add(key)

    def look(self, *, at_the_end: bool = False) -> bool:
        """Store and offer what is complete.

        Args:
            at_the_end: The program has ended, so nothing writes any more and nothing has to be waited for.

        Returns:
            Whether everything there is has been offered.
        """
        version = self._watch.version
        if version == self._offered and not at_the_end:
            return True
        if not self._said_busy:
            self._said_busy = True  # else a set could be made of this node's old files and the others' new ones
            self._share(Part(node=self._node, is_complete=False))
        if not at_the_end and not self._watch.is_quiet(time.monotonic()):
            return False
        files = self._store_all()
        if files is None or (self._watch.version != version and not at_the_end):
            return False
        self._offered, self._said_busy = version, False
        # the driver removes what no set has any more: only what is offered is sure to be there
        self._objects = {file.sha256 for file in files if not file.link}
        self._watch.settled(version)
        newest = max((file.modified for file in files), default=0.0)
        self._share(Part(node=self._node, files=files, step=self._steps.step_at(newest)))
        self.follow()
        return True

    def follow(self) -> None:
        """Have folders and the newest of the files looked at after each step."""
        self._steps.follow(self._places)

    def _places(self) -> list[str]:
        # of folders that were made at once, the innermost gets the files
        below = {place for place in self._folders.places() if place not in self._folders.watched}
        newest = sorted(map(str, below), key=lambda place: (_modified(place), place.count("/")), reverse=True)
        files = sorted(map(str, self._folders.files().values()), key=_modified, reverse=True)
        return [*map(str, self._folders.watched[:1]), *newest[:_MOST_FOLDERS], *files]

    def _store_all(self) -> list[StoredFile] | None:
        """Return every file, with its content in storage; None: one was changed or removed meanwhile."""
        found = []
        for path, file in sorted(self._folders.files().items())[:MOST_FILES]:
            try:
                if file.is_symlink():
                    link = self._link(path, file)
                    found += [link] if link is not None else []
                    continue
                before = file.stat()
                key = (path, before.st_size, before.st_mtime)
                if key in self._others:
                    continue
                entry = self._stored.get(key)
                if entry is None:
                    entry = self._put(path, file, before.st_size, before.st_mtime)
                    after = file.stat()
                    if (after.st_size, after.st_mtime) != key[1:]:
                        return None
                    self._stored[key] = entry
                found.append(entry)
            except FileNotFoundError:
                return None
        return found

    def _put(self, path: str, file: Path, size: int, modified: float) -> StoredFile:
        self._watch.is_reading = True
        try:
            digest = sha256_of(file)
            if digest not in self._objects:
                self._store.put_file(f"{OBJECTS}/{digest}", file)
                self._objects.add(digest)
        finally:
            self._watch.is_reading = False
        return StoredFile(path=path, size=size, sha256=digest, modified=modified)

    def _link(self, path: str, file: Path) -> StoredFile | None:
        target = file.readlink()
        root = self._folders.root.resolve()
        if not file.resolve().is_relative_to(root):
            return None  # it leaves the directory; on another node it would lead nowhere
        if target.is_absolute():
            target = Path(*[".."] * (len(Path(path).parts) - 1), file.resolve().relative_to(root))
        empty = hashlib.sha256(b"").hexdigest()
        return StoredFile(path=path, size=0, sha256=empty, modified=0.0, link=str(target))

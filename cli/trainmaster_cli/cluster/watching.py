"""Watches folders and files for changes, many in a row as one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trainmaster_cli.errors import UserError

if TYPE_CHECKING:
    from .commands import Seen

QUIET_SECONDS = 0.5
"""An editor writes a file in several steps, and a tool many files: what follows sooner belongs to the same change."""


class Changed(Exception):  # noqa: N818 - an event, not an error
    """Something that is watched has changed."""


class Watcher:
    """Puts `Changed` into a queue when something has changed and nothing more has for a moment."""

    def __init__(self, paths: Sequence[Path], quiet: float = QUIET_SECONDS) -> None:
        """Take what to watch: a folder with all that is in it, or a file.

        Raises:
            UserError: The package for it isn't installed.
        """
        try:
            from watchdog.events import FileSystemEventHandler
            from watchdog.observers import Observer
        except ImportError:
            raise UserError("`--watch` needs the package watchdog: pip install watchdog") from None
        watcher = self

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: Any) -> None:
                if event.event_type in ("created", "modified", "moved", "deleted"):
                    watcher.notice({str(event.src_path), str(getattr(event, "dest_path", ""))})

        self._files = {str(path) for path in paths if not path.is_dir()}
        self._folders = [path for path in paths if path.is_dir()]
        self._quiet = quiet
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._seen: Seen = queue.SimpleQueue()
        self._observer = Observer()
        for folder in self._folders:
            self._observer.schedule(Handler(), str(folder), recursive=True)
        for folder in {Path(file).parent for file in self._files} - set(self._folders):
            self._observer.schedule(Handler(), str(folder), recursive=False)

    def __enter__(self) -> Watcher:
        self._observer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._observer.stop()
        self._observer.join()
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()

    def fresh(self) -> Seen:
        """Return a queue that the next change is put into; one that came meanwhile is in it already."""
        with self._lock:
            before, self._seen = self._seen, queue.SimpleQueue()
            while not before.empty():
                if isinstance(before.get(), Changed):
                    self._seen.put(Changed())
            return self._seen

    def wait(self, seen: Seen) -> None:
        """Wait for a change. Raises Changed."""
        while True:
            found = seen.get()
            if isinstance(found, Changed):
                raise found

    def notice(self, paths: set[str]) -> None:
        """Take an event; it counts once there has been none for a moment."""
        inside = any(Path(path).is_relative_to(folder) for path in paths if path for folder in self._folders)
        if not inside and not paths & self._files:
            return
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self._quiet, self._tell)
            self._timer.daemon = True
            self._timer.start()

    def _tell(self) -> None:
        with self._lock:
            self._seen.put(Changed())

"""Keeps events.jsonl and the driver's log in the run's storage, from a thread of its own."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from trainmaster_api.layout import EVENTS, log_path

from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.storage.store import Store

from .event import MILESTONES, EventKind, RunEvent
from .state import Event

_PAUSE = 5.0
_LOG_PAUSE = 30.0
_LOG_LIMIT = 8 * 2**20
_LAST_SECONDS = 20.0


class EventLog:
    """Writes events.jsonl and the log as whole files, because S3 can't append: at most every 5 s, and at the end."""

    def __init__(self, run: Store, attempt: int, pod: str, log_file: str) -> None:
        """Start the thread.

        Args:
            run: Store of the run.
            attempt: Number of the attempt.
            pod: Name of this pod; empty on a laptop.
            log_file: File to keep as the driver's log; empty: none.
        """
        self._run = run
        self._attempt = attempt
        self._log_path = log_path(attempt, pod or "driver")
        self._log_file = Path(log_file) if log_file else None
        self._lines: list[bytes] = []
        self._new = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="event-log", daemon=True)
        self._thread.start()

    def show(self, event: Event) -> None:
        """Keep an event if it is a milestone."""
        found = RunEvent.read(event)
        if found.kind is EventKind.TRIALS:  # the journal has the validations
            if not found.message:
                return
            event = {key: value for key, value in event.items() if key not in ("running", "best_values")}
        if found.kind is not EventKind.REPORT or found.report in MILESTONES or found.report is ReportKind.WARNING:
            fields = {key: value for key, value in event.items() if value not in ("", None, {}, [])}
            self._lines.append(json.dumps({"attempt": self._attempt, **fields}).encode())
            self._new.set()

    def close(self) -> None:
        """Write the rest; gives up after 20 s."""
        self._closed.set()
        self._new.set()
        self._thread.join(timeout=_LAST_SECONDS)

    def _loop(self) -> None:
        before: bytes | None = None
        log_time = time.monotonic()
        while True:
            self._new.wait(_LOG_PAUSE)
            self._new.clear()
            closed = self._closed.is_set()
            try:
                if before is None:
                    before = self._run.get(EVENTS) or b""
                self._run.put(EVENTS, before + b"".join(line + b"\n" for line in list(self._lines)))
                if closed or time.monotonic() - log_time > _LOG_PAUSE:
                    log_time = time.monotonic()
                    self._put_log()
            except TrainingError as error:  # storage that is away for minutes ends the run elsewhere, with its class
                print(f"events.jsonl can't be written: {error}", flush=True)
            if closed:
                return
            self._closed.wait(_PAUSE)

    def _put_log(self) -> None:
        if self._log_file is not None and self._log_file.exists():
            with self._log_file.open("rb") as file:
                size = self._log_file.stat().st_size
                file.seek(max(0, size - _LOG_LIMIT))
                self._run.put(self._log_path, file.read())

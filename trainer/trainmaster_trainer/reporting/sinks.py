"""Where the events of a run go: the operator, trackers, storage, a display. None of them can hold up training."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from trainmaster_api.messages import ExitMessage
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tracking import Tracker as Entry
from trainmaster_api.spec.tracking import names

from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.storage.store import Store

from .console import PlainDisplay
from .event import MILESTONES, EventKind, RunEvent
from .events import EventLog
from .operator import ProgressPush
from .state import Event, RunState
from .trackers.background import BackgroundTracker
from .trackers.base import factory


class Sinks:
    """The sinks of an attempt, connected to its run state."""

    def __init__(
        self,
        settings: DriverSettings,
        job: TrainingJob,
        run_state: RunState,
        run: Store,
        on_display_gone: Callable[[], None],
        on_images: Callable[[tuple[str, ...]], None] = lambda images: None,
    ) -> None:
        """Connect the sinks that are configured.

        Args:
            settings: Which sinks there are.
            job: What is trained.
            run_state: Source of the events.
            run: Store of the run.
            on_display_gone: Called when the process that started the driver and displays its events is gone.
            on_images: Called with what the pods of the attempt run, in a thread of its own.
        """
        self._run_state = run_state
        self._on_display_gone = on_display_gone
        self._event_log = EventLog(run, settings.attempt, settings.pod, settings.log_file)
        run_state.listen(self._event_log.show)
        self._push: ProgressPush | None = None
        if settings.progress_url:
            where = (settings.progress_url, settings.progress_ca, settings.progress_token)
            self._push = ProgressPush(*where, run_state.progress, on_images)
            run_state.listen(self._wake_push)
        self._trackers = _trackers(settings, job, run_state, run)
        for tracker in self._trackers:
            run_state.listen(tracker.show)
        if settings.events_fd:
            self._stream = os.fdopen(settings.events_fd, "w", buffering=1)
            run_state.listen(self._write)
        else:
            run_state.listen(PlainDisplay(job.spec.checkpoint.metric).show)

    def finish(self, message: ExitMessage) -> ExitMessage:
        """Flush and close every sink. Returns the message with what the trackers added to it."""
        if self._push is not None:
            self._push.wake()  # the operator hears of the checkpoint before the trackers end
        self._close_trackers(message)
        message = message.model_copy(update={"trackers": list(self._run_state.trackers.values())})
        self._run_state.emit(EventKind.RESULT, **message.wire())
        self._event_log.close()
        if self._push is not None:
            self._push.close()
        return message

    def _close_trackers(self, message: ExitMessage) -> None:
        """Close all trackers in parallel, so that the grace periods of several dead servers don't add up."""
        threads = [threading.Thread(target=tracker.close, args=(message,)) for tracker in self._trackers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _wake_push(self, event: Event) -> None:
        found = RunEvent.read(event)
        is_validation = found.kind is EventKind.TRIALS and not found.message
        is_news = found.report in MILESTONES if found.kind is EventKind.REPORT else not is_validation
        if self._push is not None and is_news:
            self._push.wake()

    def _write(self, event: Event) -> None:
        try:
            self._stream.write(json.dumps(event) + "\n")
        except OSError:
            self._on_display_gone()


def _trackers(settings: DriverSettings, job: TrainingJob, run_state: RunState, run: Store) -> list[BackgroundTracker]:
    entries = [Entry.model_validate(entry) for entry in settings.tracking]
    folder = Path(settings.code_dir or settings.base_dir)
    return [
        BackgroundTracker(name, lambda entry=entry: factory(entry, folder)(), job, settings.attempt, run_state, run)  # type: ignore[misc]
        for name, entry in zip(names(entries), entries, strict=True)
    ]

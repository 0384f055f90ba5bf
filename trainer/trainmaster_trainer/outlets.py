"""Where the news of a run goes: the operator, MLflow, events.jsonl, a display. None of them can hold up training."""

from __future__ import annotations

import json
import os

from trainmaster_api.messages import ExitMessage
from trainmaster_api.trainingjob import TrainingJob

from .display import PlainDisplay
from .hub import Event, Hub
from .settings import DriverSettings
from .store import Store


class Outlets:
    """All outlets of an attempt, connected to its hub."""

    def __init__(self, settings: DriverSettings, job: TrainingJob, hub: Hub, run: Store) -> None:
        self._hub = hub
        if settings.events_fd:
            self._stream = os.fdopen(settings.events_fd, "w", buffering=1)
            hub.listen(self._write)
        else:
            hub.listen(PlainDisplay().show)

    def finish(self, message: ExitMessage) -> ExitMessage:
        """Everything that can still be said, said."""
        return message

    def _write(self, event: Event) -> None:
        self._stream.write(json.dumps(event) + "\n")

"""Where the news of a run goes: the operator, MLflow, storage, a display. None of them can hold up training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from trainmaster_api.messages import ExitMessage
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.storage.store import Store

from .console import PlainDisplay
from .events import Keeper
from .operator import ProgressPush
from .state import Event, Hub
from .trackers.mlflow import MlflowTrack

_URGENT_REPORTS = {"Resumed", "Loaded", "FirstStep", "Checkpoint", "Done"}


class Outlets:
    """All outlets of an attempt, connected to its hub."""

    def __init__(
        self, settings: DriverSettings, job: TrainingJob, hub: Hub, run: Store, nobody_watches: Callable[[], None]
    ) -> None:
        """Connect.

        Args:
            settings: Says which outlets there are.
            job: What is trained.
            hub: Where the news comes from.
            run: Store of the run.
            nobody_watches: Called when whoever started us, and shows the events, is gone.
        """
        self._hub = hub
        self._nobody_watches = nobody_watches
        self._keeper = Keeper(run, settings.attempt, settings.pod, settings.log_file)
        hub.listen(self._keeper.show)
        self._push: ProgressPush | None = None
        if settings.progress_url:
            self._push = ProgressPush(
                settings.progress_url, settings.progress_ca, settings.progress_token, hub.progress
            )
            hub.listen(self._wake_push)
        self._track: MlflowTrack | None = None
        if settings.mlflow_uri:
            self._track = MlflowTrack(
                settings.mlflow_uri, settings.mlflow_experiment, settings.mlflow_artifacts, job, hub, run
            )
            hub.listen(self._track.show)
        if settings.events_fd:
            self._stream = os.fdopen(settings.events_fd, "w", buffering=1)
            hub.listen(self._write)
        else:
            hub.listen(PlainDisplay(job.spec.checkpoint.metric).show)

    def finish(self, message: ExitMessage) -> ExitMessage:
        """Say everything that can still be said. Returns the message with what became known by that."""
        if self._push is not None:
            self._push.wake()  # the operator hears of the checkpoint before MLflow has its say
        if self._track is not None:
            self._track.close(message)
            message = message.model_copy(update={"mlflow_run": self._hub.mlflow_run})
        self._hub.emit("result", **message.wire())
        self._keeper.close()
        if self._push is not None:
            self._push.close()
        return message

    def _wake_push(self, event: Event) -> None:
        if self._push is not None and (event["event"] != "report" or event["kind"] in _URGENT_REPORTS):
            self._push.wake()

    def _write(self, event: Event) -> None:
        try:
            self._stream.write(json.dumps(event) + "\n")
        except OSError:
            self._nobody_watches()

"""Makes every tracker harmless: its own thread, a queue, retries, one warning for a dead server, limits at the end."""

from __future__ import annotations

import json
import math
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trainmaster_api.layout import CODE_DIFF, ENVIRONMENT, MODEL
from trainmaster_api.messages import ExitMessage, Outcome, TrackerRef, TuningProgress
from trainmaster_api.record import EnvironmentRecord
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tuning import CHANGEABLE
from trainmaster_api.tuning.space import axes_of

from trainmaster_trainer.context import ReportKind
from trainmaster_trainer.data.identity import stored
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.reporting.event import MOVING, EventKind, RunEvent
from trainmaster_trainer.reporting.state import Event, RunState
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.trials import METRICS, NUMBER, STEP, VALUES, TrialRecord, run_of

from .base import Factory, TrackedRun, TrackedTrial, TrackedValidation, Tracker, flatten

_FLUSH_SECONDS = 2.0
_AGAIN_SECONDS = 15.0
_QUEUE = 20_000  # values of metrics, and validations of trials; beyond it the oldest are dropped
_Item = TypeVar("_Item")


def record_path(name: str) -> str:
    """Return where the run's storage keeps what a tracker needs to continue after a resume."""
    return f"trackers/{name}.json"


def read_record(run: Store, name: str) -> dict[str, str]:
    """Return what a tracker kept; empty where there is nothing or it can't be read."""
    for path in (record_path(name), f"{name}.json"):  # the second one: runs that began before there was a folder
        try:
            found = json.loads(run.get(path) or b"")
        except ValueError:
            continue
        if isinstance(found, dict):
            return {str(key): str(value) for key, value in found.items()}
    return {}


def code_params(run: Store) -> dict[str, str]:
    """Return what identifies the code of a run's newest attempt, as parameters; empty where nothing is known of it."""
    try:
        attempt = EnvironmentRecord.model_validate_json(run.get(ENVIRONMENT) or b"{}").attempts[-1]
    except (ValueError, IndexError):
        return {}
    code = attempt.code
    found = {"code.archive": code.sha256, "code.commit": code.commit, "image": attempt.image}
    dirty = {"code.dirty": str(code.dirty).lower()} if code.dirty is not None else {}
    return {**{key: value for key, value in found.items() if value}, **dirty}


def parameters(job: TrainingJob) -> dict[str, str]:
    """Return the parameters of a job's run; of a search without those that its trials differ in."""
    params = flatten(job.spec.training.wire())
    params["workers"] = str(job.spec.cluster.workers.count)
    tuning = job.spec.tuning
    if tuning is None:
        return params
    paths = tuple(f"{each.path}." for each in axes_of(job.spec))
    params = {key: value for key, value in params.items() if not f"{key}.".startswith(paths)}
    return params | flatten({"tuning": {key: value for key, value in tuning.wire().items() if key not in CHANGEABLE}})


def tracked(record: TrialRecord, job: TrainingJob, progress: TuningProgress | None) -> TrackedTrial:
    """Return a trial as trackers take it."""
    assert job.spec.tuning is not None
    values = zip((each.metric for each in job.spec.tuning.objectives), record.objectives, strict=False)
    objectives = {name: value for name, value in values if math.isfinite(value)}
    now = time.time()
    return TrackedTrial(
        number=record.number,
        state=str(record.end),
        params={name: str(value) for name, value in record.values.items()},
        objectives=objectives,
        metrics={**objectives, "seconds": record.seconds, "validations": float(record.time)},
        began=record.began or now,
        ended=record.ended or now,
        is_best=progress is not None and progress.best_trial == record.number,
    )


def validated(found: Mapping[str, Any]) -> TrackedValidation:
    """Return a validation of a trial, from its event, as trackers take it."""
    return TrackedValidation(
        number=found[NUMBER],
        step=found[STEP],
        metrics={name: value for name, value in found[METRICS].items() if math.isfinite(value)},
        params={name: str(value) for name, value in found[VALUES].items()},
        began=found["began"],
        time=time.time(),
    )


class BackgroundTracker:
    """Runs one tracker in a thread of its own.

    It starts with the first step, or the first validation or end of a trial, so that an import doesn't slow the start.
    """

    def __init__(
        self, name: str, factory: Factory, job: TrainingJob, attempt: int, run_state: RunState, run: Store
    ) -> None:
        """Prepare; nothing is imported or opened yet.

        Args:
            name: Name of the tracker, as the status shows it.
            factory: Makes the tracker, in its thread.
            job: What is trained.
            attempt: Number of the attempt.
            run_state: Told of the tracker's run and of warnings.
            run: Store of the run.
        """
        self._name, self._factory, self._job, self._attempt = name, factory, job, attempt
        self._run_state, self._run = run_state, run
        self._lock = threading.Lock()
        self._values: list[tuple[int, float, dict[str, float]]] = []
        self._validations: list[TrackedValidation] = []
        self._wake = threading.Event()
        self._end: ExitMessage | None = None
        self._warned = False
        self._tracker: Tracker | None = None
        self._is_started = False
        self._logged_step = -1
        self._logged_trials: set[int] = set()
        self._thread = threading.Thread(target=self._loop, name=f"tracker-{name}", daemon=True)

    def show(self, event: Event) -> None:
        """Take the metrics of a report."""
        found = RunEvent.read(event)
        if found.kind is EventKind.TRIALS and (found.validation or self._run_state.ended_trials):
            if found.validation:
                with self._lock:
                    self._validations.append(validated(found.validation))
                    del self._validations[:-_QUEUE]
            self._begin()
        if found.kind is not EventKind.REPORT or found.report not in MOVING:
            return
        is_validation = found.report is ReportKind.VALIDATION
        with self._lock:
            if found.step > self._logged_step or is_validation:
                self._logged_step = max(found.step, self._logged_step)
                # a report repeats the last validation until the next one: it isn't a value of this step
                prefix = "" if is_validation else "train/"
                finite = {k: v for k, v in found.metrics.items() if k.startswith(prefix) and math.isfinite(v)}
                self._values.append((found.step, time.time(), finite))
                del self._values[:-_QUEUE]
        self._begin()

    def _begin(self) -> None:
        if not self._thread.is_alive() and self._thread.ident is None:
            self._thread.start()

    def close(self, message: ExitMessage) -> None:
        """Record the end; gives up after a while, so that a dead server can't hold up the end of the run."""
        self._end = message
        self._wake.set()
        if self._thread.ident is None:
            if message.outcome is not Outcome.COMPLETE:
                return  # it ended before the first step: there is nothing to look at
            self._thread.start()
        self._join()

    def _join(self) -> None:
        began = time.monotonic()
        while self._thread.is_alive():  # the limit is known when the tracker has been made
            limit = self._tracker.finish_seconds if self._tracker is not None else Tracker.finish_seconds
            left = began + limit - time.monotonic()
            if left <= 0:
                self._warn(f"no answer for {limit:.0f} s")
                return
            self._thread.join(timeout=min(left, 1.0))

    def _loop(self) -> None:
        while True:
            try:
                if self._tracker is None:
                    self._tracker = self._factory()
                if not self._is_started:
                    self._start(self._tracker)
                self._flush(self._tracker)
                if self._end is not None:
                    self._finish(self._tracker, self._end)
                    return
                pause = _FLUSH_SECONDS
            except Exception as error:  # noqa: BLE001 - anything may come out of a tracker, and none of it may reach the run
                lines = str(error).strip().splitlines()
                self._warn(f"{type(error).__name__}: {lines[0][:200] if lines else ''}")
                if self._end is not None:
                    return
                pause = _AGAIN_SECONDS
            self._wake.wait(pause)

    def _start(self, tracker: Tracker) -> None:
        meta = self._job.metadata
        params = parameters(self._job)
        # there: it is written before the first step, and this thread begins with that or with a validation of a trial
        with self._lock:
            trials = [*self._run_state.ended_trials, *(each.number for each in self._validations)]
        first = trials[0] if trials else None
        data = stored(self._run) or (stored(self._run.under(run_of(first))) if first is not None else None)
        if data is not None and data.digest:
            params["data.fingerprint"] = data.short
        params |= code_params(self._run)
        kept = read_record(self._run, self._name)
        told = TrackedRun(meta.namespace, meta.name, meta.uid, self._attempt, self._run.uri, params, kept)
        found = tracker.start(told)
        url = tracker.url
        record = {**found, "url": url}
        if record != kept:
            self._run.put(record_path(self._name), json.dumps(record).encode())
        self._is_started = True
        reference = TrackerRef(name=self._name, url=url, run_id=found.get("run_id", ""))
        self._run_state.tracked(reference)

    def _flush(self, tracker: Tracker) -> None:
        ended = self._run_state.ended_trials  # before the validations: those of these trials are all there
        self._drain(self._values, lambda value: tracker.log(value[2], value[0], value[1]))
        self._drain(self._validations, tracker.log_validation)
        self._log_trials(tracker, ended)
        tracker.flush()

    def _drain(self, queue: list[_Item], give: Callable[[_Item], None]) -> None:
        """Give the items of a queue to the tracker, each until it was taken."""
        while True:
            with self._lock:
                if not queue:
                    return
                item = queue[0]
            give(item)
            with self._lock:  # it may have been dropped meanwhile
                if queue and queue[0] is item:
                    del queue[0]

    def _log_trials(self, tracker: Tracker, ended: Mapping[int, TrialRecord]) -> None:
        for number, record in ended.items():
            if number not in self._logged_trials:
                tracker.log_trial(tracked(record, self._job, self._run_state.tuning))
                self._logged_trials.add(number)

    def _finish(self, tracker: Tracker, message: ExitMessage) -> None:
        if message.test_metrics:
            tracker.log(message.test_metrics, message.step or 0, time.time())
        if message.outcome is Outcome.COMPLETE:
            with tempfile.TemporaryDirectory() as folder:
                if self._fetch(Path(folder), MODEL):
                    tracker.log_artifacts(Path(folder) / MODEL, MODEL)
        with tempfile.TemporaryDirectory() as folder:
            if self._fetch(Path(folder), ENVIRONMENT, CODE_DIFF):
                tracker.log_artifacts(Path(folder), "environment")
        tracker.finish(message.outcome)

    def _fetch(self, folder: Path, *names: str) -> bool:
        """Download files and the files of folders; return whether there are any."""
        try:
            paths = [path for name in names for path in self._paths(name)]
            for path in paths:
                self._run.download(path, folder / path)
        except TrainingError:  # storage is unavailable, which is reported elsewhere
            return False
        return bool(paths)

    def _paths(self, name: str) -> list[str]:
        return (
            [path for path, _ in self._run.list(name)] if name == MODEL else [name] * (self._run.stat(name) is not None)
        )

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._run_state.emit(
                EventKind.WARNING, message=f"tracker {self._name} is unavailable ({text}); training continues"
            )

"""The search of a job, in its driver: decides by the study what Ray Tune executes, and says how it goes."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainmaster_api.messages import Outcome, TuningProgress
from trainmaster_api.reasons import FAILURE_RULES, FailureClass, Retry
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tuning import Tuning
from trainmaster_api.tuning.plan import parallel_trials, validations
from trainmaster_api.tuning.space import axes_of
from trainmaster_api.types import parse_count

from trainmaster_trainer.errors import Fenced, TrainingError
from trainmaster_trainer.ipc.channel import Peer
from trainmaster_trainer.ipc.messages import Leaving, Left, Message, Progress, Returned, Stop
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.reporting.state import RunState
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.findings import findings
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import (
    METRICS,
    NUMBER,
    REASON,
    RESULT,
    STATE,
    STEP,
    TIME,
    VALUES,
    Decision,
    TrialEnd,
    TrialRecord,
)

from . import search_report
from .earlier import earlier_trials
from .final_run import FinalRun
from .leaving import Leavers
from .retention import Retention
from .rounds import Rounds
from .search_state import progress_of, result_of
from .search_text import begun, told

_MOST_IN_VAIN = 20


@dataclass
class _Running:
    began: float
    decided: TrialEnd | None = None
    has_moved: bool = False
    since: float = 0.0
    time: int = 0
    value: float | None = None
    values: dict[str, Any] = field(default_factory=dict)


class Search:
    """Decides about trials; `suggest`, `report` and `ended` are called in the thread of `run`."""

    def __init__(self, settings: DriverSettings, job: TrainingJob, store: Store, run_state: RunState) -> None:
        """Take what is asked for; the journal is read by `run`."""
        self._settings, self.job, self._store, self._state = settings, job, store, run_state
        self._running: dict[int, _Running] = {}
        self._peers: dict[int, Peer] = {}
        self._lock = threading.Lock()
        self._error: TrainingError | None = None
        self._losses: dict[int, int] = {}
        self._vain = 0
        self._rounds = Rounds(store)
        self._leavers = Leavers()
        self.is_stopping = False
        self.is_active = False
        self.study: Study | None = None

    @property
    def tuning(self) -> Tuning:
        """What is asked for."""
        assert self.job.spec.tuning is not None
        return self.job.spec.tuning

    def run(self, execute: Callable[[Search, int], None]) -> None:
        """Run the search to its end or to a stop.

        Args:
            execute: Has trials run, so many at a time, until this has no more.

        Raises:
            TrainingError: The search can't go on.
        """
        self.is_active = True
        try:
            self._store.check()
            gpus = self.job.spec.cluster.workers.gpus * self.tuning.trial.workers
            self._journal = Journal(self._store, self._settings.attempt)
            self.study = Study(self.tuning, axes_of(self.job.spec), self._journal, self._max_time, gpus=gpus)
            if not self.study.has_learnt:
                self.study.learn(earlier_trials(self._settings, self.job, axes_of(self.job.spec), self._say))
            self._retention = Retention(self._store, self._settings.attempt, self.tuning.keep_best, self.study.higher)
            self._retention.begin(self.study.trials())
            self._state.trials_ended(each for each in self.study.trials() if each.end is not None)
            while not self.study.is_over and not self.is_stopping:
                execute(self, self._parallel)
            if self._error is not None:
                raise self._error
            if self.study.failure and not self.is_stopping:
                raise TrainingError(self.study.failure, _class_of(self.study.trials()))
        finally:
            self.is_active = False
        if not self.is_stopping:
            self._retention.finish()
            self._say(f"the search is over: {self.study.why_over}")

    # -- what Tune asks -------------------------------------------------------------------------------------------
    def suggest(self) -> dict[str, Any] | None:
        """Return the next trial; None: there is none now."""
        if self.is_stopping or self._error is not None:
            return None
        assert self.study is not None
        try:
            found = self.study.ask()
        except TrainingError as error:
            self._fail(error)
            return None
        if found is None:
            waits = self.study.has_rounds and not self.study.is_over and bool(self._running)
            return self._rounds.rest() if waits else None
        self._rounds.clear(self.study.trials() if found.round else (), found.round)
        self._running[found.number] = _Running(time.monotonic(), since=time.time(), values=found.values)
        self._say(begun(found))
        return {NUMBER: found.number, VALUES: found.values, **self._rounds.config(found)}

    def report(self, number: int, result: Mapping[str, Any]) -> bool:
        """Take a validation of a trial; return whether the trial ends."""
        running = self._running.get(number)
        if running is None or result.get(STATE) is not None:
            return False
        assert self.study is not None
        self._state.trial_moved()
        running.time = int(result[TIME])
        try:
            metrics = json.loads(result[METRICS])
            decision = self.study.report(number, running.time, metrics)
        except TrainingError as error:
            self._fail(error)
            return True
        running.value = float(metrics[self.tuning.objectives[0].metric])
        values = {} if self.study.has_rounds else running.values  # which change from round to round
        at = {NUMBER: number, STEP: int(result.get(STEP, running.time)), "began": running.since}
        self._show(self._state.tuning, validation={**at, METRICS: metrics, VALUES: values})
        longest = self.tuning.pruning.max_time
        if decision is Decision.PRUNE:
            running.decided = TrialEnd.PRUNED
        elif longest is not None and running.time >= longest and not self.study.has_rounds:
            running.decided = TrialEnd.COMPLETE
        return running.decided is not None

    def ended(self, number: int, result: Mapping[str, Any] | None, *, is_lost: bool) -> None:
        """Take the end of a trial."""
        running = self._running.pop(number, None)
        if running is None or self.study is None:
            return
        end = running.decided or TrialEnd((result or {}).get(STATE) or TrialEnd.STOPPED)
        reason = str((result or {}).get(REASON, ""))
        if is_lost:
            end = TrialEnd.STOPPED if self._continues(number, running) else TrialEnd.FAILED
            reason = f"its processes were lost {self._losses.get(number, 0) or self._vain} times"
        try:
            self.study.tell(number, end, reason=reason, seconds=time.monotonic() - running.began)
        except TrainingError as error:
            self._fail(error)
            return
        if end is TrialEnd.STOPPED and (is_lost or not self.is_stopping):
            self.study.again(number)
            self._say(f"trial {number} lost its processes" if is_lost else f"trial {number} has saved: its pod ends")
        else:
            trials = self.study.trials()
            self._retention.ended(number, trials, has_returned=running.decided is None)
            record = next(each for each in trials if each.number == number)
            if record.end is not None:
                self._state.trials_ended([record])
            self._say(told(record, end, self.tuning))
        if self.study.has_rounds:
            with self._lock:
                self._rounds.wake(self._peers.values())

    def _continues(self, number: int, running: _Running) -> bool:
        """Count a lost actor; return whether the trial continues.

        An actor that was gone before the trial had begun is no fault of the trial's.
        """
        if not running.has_moved:
            self._vain += 1
            return self._vain < _MOST_IN_VAIN
        self._losses[number] = self._losses.get(number, 0) + 1
        return self._losses[number] <= self.tuning.trial.retries

    @property
    def is_over(self) -> bool:
        """Whether no trial will be suggested any more; one that runs may still have to be suggested again."""
        return self.study is None or ((self.study.is_over or self.is_stopping) and not self._running)

    @property
    def open_trials(self) -> list[int]:
        """Numbers of the trials that run."""
        return sorted(self._running)

    def on_message(self, peer: Peer, message: Message) -> None:
        """Take a message of an actor. From any thread, but always the same."""
        if isinstance(message, Progress):
            self.moved(message.generation)
        elif isinstance(message, Returned):
            self._retention.returned(message.trial)
        elif isinstance(message, Left):
            self._leavers.answered(peer, message)

    def on_leaving(self, launcher: Peer, message: Leaving) -> None:
        """Have the trials that have ranks in a pod save before it ends. From the thread of `on_message`."""
        left = [number for number, each in list(self._running.items()) if each.decided is None]
        with self._lock:
            actors = list(self._peers.values())
        self._leavers.ask(launcher, message.model_copy(update={"trials": left}), actors)

    def moved(self, number: int) -> None:
        """Take note that a trial has made progress."""
        running = self._running.get(number)
        if running is not None:
            running.has_moved, self._vain = True, 0
        self._state.trial_moved()

    def _fail(self, error: TrainingError) -> None:
        """End the search: no further trial, and those that run are stopped."""
        self._error = self._error or error
        self.stop()

    # -- stopping, and the actors of trials -----------------------------------------------------------------------
    def stop(self) -> None:
        """Have all trials save and end. From any thread."""
        self.is_stopping = True
        with self._lock:
            peers = list(self._peers.values())
        for peer in peers:
            peer.send(Stop())

    def on_join(self, peer: Peer) -> None:
        """Take note of an actor."""
        with self._lock:
            self._peers[peer.number] = peer
            self._rounds.tell(peer)
        if self.is_stopping:
            peer.send(Stop())

    def on_leave(self, peer: Peer) -> None:
        """Forget an actor."""
        with self._lock:
            self._peers.pop(peer.number, None)
        self._leavers.gone(peer)

    @property
    def has_actors(self) -> bool:
        """Whether an actor is there that runs trials."""
        return bool(self._peers)

    # -- what is known --------------------------------------------------------------------------------------------
    def progress(self) -> TuningProgress:
        """Return how many trials there are of each kind, and the best."""
        assert self.study is not None
        return progress_of(self.study, self.job, is_over=not self.is_active)

    def lead(self, execute: Callable[[Search, int], None]) -> TrainingJob | tuple[Outcome, str]:
        """Run the search; return the job of its winner, or how the attempt ends with it.

        Raises:
            TrainingError: The search has failed.
        """
        try:
            return self._lead(execute)
        except Fenced:  # a newer attempt writes now
            raise
        except TrainingError:
            self._keep_pictures()
            raise

    def _lead(self, execute: Callable[[Search, int], None]) -> TrainingJob | tuple[Outcome, str]:
        self.run(execute)
        if self.is_stopping:
            return Outcome.STOPPED, "the trials have saved and stopped"
        if len(self.tuning.objectives) > 1 or not self.tuning.final_run.enabled:
            self.keep_result()
            return Outcome.COMPLETE, self.progress().summary
        assert self.study is not None
        final = FinalRun(self._settings, self.job, self._store, self.study)
        winner, job = final.winner()
        final.make_room(winner)
        self.keep_result()
        self._say(f"trial {winner.number} {'continues' if self.study.has_rounds else 'is trained'} at full size")
        return job

    def keep_result(self) -> None:
        """Store what the search has found; with it and the model, if there is to be one, the job is complete."""
        assert self.study is not None
        result = json.dumps(result_of(self.study, self.job), indent=1).encode()
        if result == self._store.get(RESULT):  # an attempt that only trains the winner
            return
        search_report.keep(self._store, self._journal, findings(self.study, axes_of(self.job.spec)))
        self._store.put(RESULT, result)

    def _keep_pictures(self) -> None:
        """Store what a search that has failed leaves for people, as far as trials have ended."""
        if self.study is None or not any(each.end is not None for each in self.study.trials()):
            return
        try:
            search_report.keep(self._store, self._journal, findings(self.study, axes_of(self.job.spec)))
        except TrainingError as error:  # the search has failed for another reason, which is said
            print(f"the pictures of the search can't be stored: {error}", flush=True)

    def _say(self, sentence: str) -> None:
        found = self.progress()
        trials = self.study.trials() if self.study is not None else []
        best = next((each.values for each in trials if each.number == found.best_trial), {})
        self._show(found, sentence, best_values=best)

    def _show(self, found: TuningProgress | None, sentence: str = "", **more: Any) -> None:
        """Tell the sinks how far the search is, with the trials that run."""
        running = [
            {NUMBER: number, TIME: each.time, "value": each.value, VALUES: each.values}
            for number, each in sorted(self._running.items())
        ]
        if found is not None:
            self._state.searched(found, sentence, running=running, longest=validations(self.job.spec), **more)

    @property
    def _parallel(self) -> int:
        return parallel_trials(self.job.spec)

    @property
    def _max_time(self) -> int:
        """How many validations a whole trial has, where it can be told without the data."""
        return validations(self.job.spec) or parse_count(self.job.spec.training.loop.duration)[0]


def _class_of(trials: list[TrialRecord]) -> FailureClass:
    """Return the class of a search that has failed: that of its first failed trial, unless it would be tried again."""
    first = next(each.reason.partition(":")[0] for each in trials if each.end is TrialEnd.FAILED)
    known = FailureClass(first) if first in set(FailureClass) else FailureClass.NO_PROGRESS
    return known if FAILURE_RULES[known].retry is Retry.NEVER else FailureClass.NO_PROGRESS


def executor(settings: DriverSettings, control_port: int) -> Callable[[Search, int], None]:
    """Return what has trials run, on Ray Tune."""

    def execute(search: Search, parallel: int) -> None:
        from trainmaster_trainer.cluster import tune

        from .host_settings import HostSettings
        from .trial import TrialHost

        host = settings.host if settings.ray_address else "127.0.0.1"
        wanted = HostSettings(
            job=search.job.wire(),
            control=(host, control_port),
            agents=functools.partial(tune.agents, settings),
            storage_uri=settings.storage_uri,
            attempt=settings.attempt,
        )
        tune.search(settings, search.job, search, functools.partial(TrialHost, wanted), parallel)

    return execute

"""What a trial needs whose program is the user's own: its files are kept as sets, and it may hang."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from trainmaster_api.messages import TrainerState
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.context import TRAINS, Part, Report
from trainmaster_trainer.errors import TrainingError
from trainmaster_trainer.reporting.pace import Pace
from trainmaster_trainer.storage.runs import open_run, run_address
from trainmaster_trainer.tuning.trials import run_of

from .endings import patience
from .sets import Sets


class OwnTrials:
    """The trials of one actor, one after another.

    Args:
        job: With the search.
        storage_uri: Where runs are stored.
        attempt: Number of the attempt.
        workers: Of a trial.
        on_error: Called with the number of a trial whose files couldn't be committed, in a thread of ours.
    """

    def __init__(
        self,
        job: TrainingJob,
        storage_uri: str,
        attempt: int,
        workers: int,
        on_error: Callable[[int, TrainingError], None],
    ) -> None:
        self._job, self._storage_uri, self._attempt, self._workers = job, storage_uri, attempt, workers
        self._on_error = on_error
        tuning = job.spec.tuning
        self._metric = tuning.objectives[0].metric if tuning is not None else ""
        self._sets: Sets | None = None
        self._moved_at: float | None = None
        self._is_spared = False
        self._last: Report | None = None
        self._pace = Pace()

    # -- files ----------------------------------------------------------------------------------------------------
    def begin(self, job: TrainingJob, number: int) -> None:
        """Claim the storage of a trial. Raises TrainingError where that can't be."""
        run = run_of(number)
        self._last, self._pace = None, Pace()
        self._sets = Sets(
            open_run(job, self._storage_uri, run),
            run_address(job, self._storage_uri, run),
            self._attempt,
            self._workers,
            job.spec.checkpoint.keep,
            lambda checkpoint: None,
            lambda error: self._failed(number, error),
        )
        self._sets.claim()

    def take(self, part: Part) -> None:
        """Take what a node has stored."""
        if self._sets is not None:
            self._sets.take(part)

    def finish(self) -> None:
        """Wait until the newest set is committed. Raises TrainingError where it can't be."""
        self._moved_at = None
        sets, self._sets = self._sets, None
        if sets is not None:
            sets.finish(is_complete=False)

    def leave(self) -> None:
        """Have nothing more to do with a trial that isn't continued."""
        with contextlib.suppress(TrainingError):
            self.finish()

    def _failed(self, number: int, error: BaseException) -> None:
        if isinstance(error, TrainingError):
            self._on_error(number, error)

    # -- progress -------------------------------------------------------------------------------------------------
    def started(self, nodes: int, now: float) -> None:
        """Take note of new ranks."""
        if self._sets is not None:
            self._sets.begin(nodes)
        self._moved_at, self._is_spared = now, False
        self._pace.restarted()

    def answered(self, now: float) -> None:
        """Take note that the program continues after a validation."""
        self._moved_at = now
        self._pace.restarted()  # what it has waited for the verdict is no step

    def moved(self, report: Report, now: float) -> bool:
        """Take note of a report; return whether a spare process may warm up now."""
        if self._last is None or report.step > self._last.step:
            self._pace.moved(now)
        self._moved_at, self._last = now, report
        is_first = report.kind in TRAINS and not self._is_spared
        self._is_spared |= is_first
        return is_first

    def stalled(self, now: float) -> str:
        """Return in a sentence that the program has hung for too long; empty: it hasn't."""
        if self._moved_at is None:
            return ""
        last = self._last
        state = TrainerState.TRAINING if last is not None and last.step else TrainerState.STARTING
        limit = patience(self._job.spec.run.stall_seconds, state, self._pace.longest)
        if now - self._moved_at < limit:
            return ""
        told = ", ".join(sorted(last.metrics)) if last is not None and last.metrics else "no metrics"
        return (
            f"no new step and no report for {limit} s after step {last.step if last else 0}; the search waits for "
            f"{self._metric}, and reported were: {told}; look for a deadlock, or raise run.stallSeconds"
        )

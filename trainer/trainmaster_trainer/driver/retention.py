"""Removes the checkpoints of trials that have ended and aren't among the best, while the search runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from trainmaster_trainer.checkpoint.protocol import FOLDERS, POINTERS, check_fence, remove_all
from trainmaster_trainer.errors import Fenced, TrainingError
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.ranking import removable
from trainmaster_trainer.tuning.trials import TRIALS, TrialRecord, run_of


class Retention:
    """Works in a thread of its own: storage may be slow, and no trial waits for it.

    Methods are called when the journal has what they tell. What an attempt that was killed has left is removed by the
    next one, and an attempt that a newer one has replaced removes nothing.
    """

    def __init__(self, run: Store, attempt: int, keep: int, higher: Sequence[bool]) -> None:
        """Take what is needed; nothing is removed yet.

        Args:
            run: Store of the job's run.
            attempt: Of the job.
            keep: How many of the best trials keep their checkpoints.
            higher: For each objective whether higher is better.
        """
        self._run, self._attempt, self._keep, self._higher = run, attempt, keep, higher
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="retention")
        # used by that thread alone
        self._trials: Sequence[TrialRecord] = ()
        self._there: set[int] = set()  # trials with checkpoints
        self._saving: set[int] = set()  # trials that have ended and whose ranks may still be writing
        self._is_fenced = False

    def begin(self, trials: Sequence[TrialRecord]) -> None:
        """Look what is there, and remove what an earlier attempt has left."""

        def scan() -> None:
            paths = [path.split("/") for path, _ in self._run.list(TRIALS)]
            self._there = {int(path[1]) for path in paths if path[2] in (*FOLDERS, *POINTERS)}
            self._trials = trials

        self._do(scan)

    def ended(self, number: int, trials: Sequence[TrialRecord], *, has_returned: bool) -> None:
        """Take the end of a trial.

        Args:
            number: Of the trial.
            trials: All, as they are now.
            has_returned: Whether its ranks have; if not, `returned` says so later.
        """

        def take() -> None:
            self._trials = trials
            self._there.add(number)
            if not has_returned:
                self._saving.add(number)

        self._do(take)

    def returned(self, number: int) -> None:
        """Take note that the ranks of a trial write no more."""
        self._do(lambda: self._saving.discard(number))

    def finish(self) -> None:
        """Remove the rest, once all actors have ended; returns when it is done."""
        self._do(self._saving.clear).result()

    def _do(self, change: Callable[[], None]) -> Future[None]:
        return self._thread.submit(self._guarded, change)

    def _guarded(self, change: Callable[[], None]) -> None:
        try:
            change()
            self._sweep()
        except Fenced:
            self._is_fenced = True
        except TrainingError as error:  # tried again with the next trial
            print(f"checkpoints of trials that aren't needed any more can't be removed: {error}", flush=True)

    def _sweep(self) -> None:
        if self._is_fenced:
            return
        present = [each for each in self._trials if each.number in self._there]
        for number in sorted(removable(present, self._keep, self._higher) - self._saving):
            check_fence(self._run, self._attempt)
            remove_all(self._run.under(run_of(number)))
            self._there.discard(number)

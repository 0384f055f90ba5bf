"""What a search has found so far, read from the run's storage. Nothing is claimed or written."""

from __future__ import annotations

import json
from dataclasses import dataclass

from trainmaster_api.spec.job import Spec
from trainmaster_api.tuning.plan import plan_of, validations
from trainmaster_api.tuning.space import axes_of

from trainmaster_trainer.storage.store import Store

from .trials import HOURS_USED, NUMBER, RESULT, TrialRecord


@dataclass(frozen=True)
class Found:
    """A search as it is stored.

    Attributes:
        total: How many trials there will be at most.
        why: Why it is over; empty: it isn't.
        trials: All that were begun, by number.
        best: Number of the best complete trial; None: none yet, or several objectives.
        front: Numbers of the complete trials that no other one dominates.
    """

    total: int
    why: str
    trials: list[TrialRecord]
    best: int | None
    front: list[int]

    @property
    def ended_early(self) -> bool:
        """Whether it is over for another reason than that all its trials have been run."""
        return self.why != "" and len(self.trials) < self.total

    @property
    def is_out_of_hours(self) -> bool:
        """Whether it is over because its hours are used."""
        return self.why.startswith(HOURS_USED)


def found_in(run: Store, spec: Spec) -> Found | None:
    """Return what a search has found; None: no trial was begun.

    What is over is read from its result. The journal tells what isn't, and what was extended since.

    Args:
        run: Store of the run.
        spec: Of the job, with the budget that it has now.

    Raises:
        TrainingError: It can't be read.
    """
    tuning = spec.tuning
    if tuning is None:
        return None
    result = json.loads(run.get(RESULT) or b"{}")
    if result.get("budget") == tuning.budget.wire():
        trials = [TrialRecord.read(each) for each in result["trials"]]
        best = result["best"][NUMBER] if result["best"] else None
        return Found(plan_of(spec).trials, result["why"], trials, best, [each[NUMBER] for each in result["front"]])
    from .journal import Snapshot  # what is over can be read without Optuna
    from .study import Study

    study = Study(tuning, axes_of(spec), Snapshot(run), validations(spec) or 1)
    trials = study.trials()
    if not trials:
        return None
    winner = study.best()
    return Found(
        study.max_trials, study.why_over, trials, winner.number if winner is not None else None,
        [each.number for each in study.front()],
    )  # fmt: skip

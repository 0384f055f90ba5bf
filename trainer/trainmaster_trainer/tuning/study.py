"""A search: which trial comes next, which one is stopped, what is best. All of it follows from its journal."""

from __future__ import annotations

import math
import random
import time as time_module
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState
from trainmaster_api.spec.tuning import Objective, Tuning
from trainmaster_api.tuning.expression import ExpressionError, rejects
from trainmaster_api.tuning.plan import grid_of, total_trials
from trainmaster_api.tuning.space import Axis

from trainmaster_trainer.errors import ConfigurationError

from .account import seconds_saved, seconds_used
from .algorithms import pruner, sampler
from .earlier import OBJECTIVES, Known, described
from .journal import Snapshot
from .parameters import finished, found, plain, suggest
from .population import Values
from .ranking import front, ranked
from .rounds import PAUSED, decided, end_of, ended, is_paused, require_same, rounds_of
from .trials import (
    HOURS_USED,
    NUMBER,
    ROUNDS,
    STUDY,
    Decision,
    Suggestion,
    TrialEnd,
    TrialRecord,
    is_higher,
    reduced,
)

_MOST_REJECTED = 500
_MOST_LEARNT = 20  # rejected suggestions of a sampler that learns; then it is left to chance
# user attributes of Optuna's trials
_OURS, _END, _REASON, _SECONDS, _REJECTED, _SEEN = NUMBER, "end", "reason", "seconds", "rejected", "metrics"
_EARLIER, _LEARNT = "earlier", "learnt"  # of a trial of another search; of the study, how many it was given
_ELAPSED, _POPULATION = "elapsed", "population"
_STATES = {TrialEnd.COMPLETE: TrialState.COMPLETE, TrialEnd.FAILED: TrialState.FAIL}

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Study:
    """A search whose state is its journal."""

    def __init__(
        self,
        tuning: Tuning,
        axes: Sequence[Axis],
        journal: Snapshot,
        max_time: int,
        *,
        gpus: int = 0,
        clock: Callable[[], float] = time_module.monotonic,
    ) -> None:
        """Replay the journal.

        Args:
            tuning: What is asked for.
            axes: Its parameters, those first on which others depend.
            journal: What has happened.
            max_time: Validations of a whole trial.
            gpus: Of a trial.
            clock: Seconds.
        """
        self.tuning, self._axes, self._journal = tuning, list(axes), journal
        self._storage = JournalStorage(journal)
        self.higher = [is_higher(each) for each in tuning.objectives]
        self._study = optuna.create_study(
            storage=self._storage, study_name=STUDY, load_if_exists=True, pruner=pruner(tuning.pruning, max_time),
            directions=["maximize" if each else "minimize" for each in self.higher],
        )  # fmt: skip
        self._study_id = self._storage.get_study_id_from_name(STUDY)
        if OBJECTIVES not in self._study.user_attrs:
            self._study.set_user_attr(OBJECTIVES, described(tuning.objectives))
        self._clock, self._began = clock, clock()
        self._elapsed_before = float(self._study.user_attrs.get(_ELAPSED, 0.0))
        self._gpus = gpus
        self._points = self._all_points() if tuning.search.algorithm == "grid" else list(tuning.warm_start.points)
        self.has_rounds = tuning.pruning.algorithm == "pbt"
        if self.has_rounds:
            if _POPULATION not in self._study.user_attrs:
                self._study.set_user_attr(_POPULATION, self.max_trials)
            require_same(self._study.user_attrs[_POPULATION], self.max_trials)
        self._unfinished = [each.user_attrs[_OURS] for each in self._running() if not is_paused(each)]
        self._handed_out: set[int] = set()
        journal.flush()

    # -- what was known before ------------------------------------------------------------------------------------
    @property
    def has_learnt(self) -> bool:
        """Whether the journal has what was known before the search."""
        return _LEARNT in self._study.user_attrs or bool(self.trials())

    def learn(self, known: Sequence[Known]) -> None:
        """Take trials of other searches, with values of these axes; all by one put, so once."""
        for each in known:
            self._study.add_trial(finished(self._axes, each.values, each.results, {_EARLIER: each.name}))
        self._study.set_user_attr(_LEARNT, len(known))
        self._journal.flush()

    # -- asking -----------------------------------------------------------------------------------------------------
    @property
    def max_trials(self) -> int:
        """How many trials there will be."""
        return total_trials(self.tuning, len(self._points) if self.tuning.search.algorithm == "grid" else None)

    @property
    def is_over(self) -> bool:
        """Whether no trial will be suggested any more."""
        return self.why_over != ""

    @property
    def why_over(self) -> str:
        """Why no trial will be suggested any more; empty: there will be another one."""
        budget, trials = self.tuning.budget, self.trials()
        failed = sum(each.end is TrialEnd.FAILED for each in trials)
        if failed > budget.max_failed_trials:
            return (
                f"{failed} trials have failed, which is more than budget.maxFailedTrials = {budget.max_failed_trials}"
            )
        if self._reached_target(trials):
            return f"the target {self.tuning.objectives[0].target:g} was reached"
        if budget.max_hours is not None and self.elapsed_seconds >= budget.max_hours * 3600:
            return f"{HOURS_USED} = {budget.max_hours:g} are used"
        if budget.max_gpu_hours is not None and self.gpu_hours >= budget.max_gpu_hours:
            return f"budget.maxGpuHours = {budget.max_gpu_hours:g} are used"
        is_open = self.has_rounds and any(each.end is None for each in trials)  # the next round of a trial
        if not self._unfinished and len(trials) >= self.max_trials and not is_open:
            return f"all {self.max_trials} trials have been run"
        return ""

    @property
    def failure(self) -> str:
        """Why the search has failed, with the first reason of a trial; empty: it hasn't."""
        failed = [each for each in self.trials() if each.end is TrialEnd.FAILED]
        if len(failed) <= self.tuning.budget.max_failed_trials:
            return ""
        return self.why_over + (f"; trial {failed[0].number}: {failed[0].reason}" if failed[0].reason else "")

    @property
    def elapsed_seconds(self) -> float:
        """How long the search has taken, over all attempts."""
        return self._elapsed_before + self._clock() - self._began

    @property
    def gpu_hours(self) -> float:
        """How many GPU-hours its trials have used."""
        return seconds_used(self.trials()) * self._gpus / 3600

    @property
    def gpu_hours_saved(self) -> float:
        """How many GPU-hours pruning has saved."""
        return seconds_saved(self.trials()) * self._gpus / 3600

    def ask(self) -> Suggestion | None:
        """Return the next trial, one that was interrupted first; None: there is none.

        Raises:
            ConfigurationError: The constraints leave next to nothing.
        """
        if self.is_over:
            return None
        self._end_round()
        if self._unfinished:
            number = self._unfinished.pop(0)
            return self._suggestion(number, self._values(self._frozen(number)), is_resumed=True)
        number = len(self.trials())
        if number >= self.max_trials:  # of a population, which waits for others to end the round
            return None
        points = self._points
        if number < len(points):
            self._study.enqueue_trial(plain(self._axes, points[number]))
        rejected: dict[str, int] = {}
        # what is rejected counts as bad, or a sampler would look for the best where nothing is known
        bad = TrialState.PRUNED if len(self.higher) == 1 else TrialState.FAIL
        for tries in range(_MOST_REJECTED):
            asked = sum(_EARLIER not in each.user_attrs for each in self._study.get_trials(deepcopy=False))
            self._study.sampler = sampler(self.tuning.search, asked, is_random=tries >= _MOST_LEARNT)
            trial = self._study.ask()
            values = suggest(trial, self._axes)
            broken = self._broken(values)
            if broken is None:
                trial.set_user_attr(_OURS, number)
                self._journal.flush()
                return self._suggestion(number, values)
            rejected[broken] = rejected.get(broken, 0) + 1
            trial.set_user_attr(_REJECTED, broken)
            self._study.tell(trial, state=bad)
        worst = max(rejected, key=lambda each: rejected[each])
        raise ConfigurationError(
            f"spec.tuning.constraints: {_MOST_REJECTED} suggestions in a row were rejected, {rejected[worst]} of them "
            f"by `{worst}`; widen the space or the constraint"
        )

    def again(self, number: int) -> None:
        """Suggest a trial once more that was interrupted, before any other."""
        self._unfinished.insert(0, number)

    # -- the rounds of a population ---------------------------------------------------------------------------------
    def _suggestion(self, number: int, values: Values, *, is_resumed: bool = False) -> Suggestion:
        if not self.has_rounds:
            return Suggestion(number, values, is_resumed)
        rounds = rounds_of(self._frozen(number))
        at = len(rounds) + 1
        return Suggestion(
            number, values, is_resumed, at, end_of(self.tuning, at), rounds[-1].source if rounds else None
        )

    def _end_round(self) -> None:
        """Decide how each trial of a population continues, once all have ended the round."""
        running = {each.user_attrs[_OURS]: each for each in self._running()}
        if not running or len(self.trials()) < self.max_trials or not all(map(is_paused, running.values())):
            return
        found = decided(
            self.tuning, self._axes,
            {number: (each, self._values(each), each.user_attrs[_SEEN]) for number, each in running.items()},
            higher=self.higher[0], is_rejected=lambda values: self._broken(values) is not None,
        )  # fmt: skip
        for number, rounds in found.items():
            self._storage.set_trial_user_attr(self._id(running[number]), ROUNDS, rounds)
        self._journal.flush()  # all of a round by one put, before any of it takes effect
        self._unfinished += sorted(found)

    def _broken(self, values: Mapping[str, Any]) -> str | None:
        try:
            return rejects(self.tuning.constraints, values)
        except ExpressionError as error:
            raise ConfigurationError(f"spec.tuning.constraints: {error}") from None

    def _all_points(self) -> list[dict[str, Any]]:
        """Return what a grid tries: the points of the spec first, then its own in an order that is drawn."""
        try:
            first, points = grid_of(self.tuning, self._axes)
        except ExpressionError as error:
            raise ConfigurationError(f"spec.tuning.constraints: {error}") from None
        random.Random(self.tuning.search.seed).shuffle(points)
        return [*first, *points]

    # -- telling ----------------------------------------------------------------------------------------------------
    def report(self, number: int, time: int, metrics: Mapping[str, float]) -> Decision:
        """Take a validation of a trial. The same one again gets the same answer, and changes nothing.

        Raises:
            ConfigurationError: An objective isn't among the metrics.
        """
        trial = self._frozen(number)
        seen: dict[str, list[float]] = dict(trial.user_attrs.get(_SEEN, {}))
        if str(time) in seen:
            return Decision(trial.user_attrs[f"decision-{time}"])
        values = [self._of(metrics, objective) for objective in self.tuning.objectives]
        self._storage.set_trial_user_attr(self._id(trial), _SEEN, {**seen, str(time): values})
        decision = Decision.CONTINUE
        if len(values) == 1:
            self._storage.set_trial_intermediate_value(self._id(trial), time, values[0])
            if self._study.pruner.prune(self._study, self._frozen(number)):
                decision = Decision.PRUNE
        self._storage.set_trial_user_attr(self._id(trial), f"decision-{time}", str(decision))
        self._journal.flush()
        return decision

    def _id(self, trial: FrozenTrial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)

    def _of(self, metrics: Mapping[str, float], objective: Objective) -> float:
        if objective.metric not in metrics:
            known = ", ".join(sorted(each for each in metrics if each.startswith("val/")))
            raise ConfigurationError(
                f"the search's objective: there is no metric {objective.metric}; there are {known}"
            )
        return float(metrics[objective.metric])

    def tell(self, number: int, end: TrialEnd, *, reason: str = "", seconds: float = 0.0) -> None:
        """Take the end of a trial. One that was stopped with the whole search has none: it is continued."""
        trial = self._frozen(number)
        if trial.state.is_finished():
            return
        self._storage.set_trial_user_attr(self._id(trial), _SECONDS, trial.user_attrs.get(_SECONDS, 0.0) + seconds)
        if end is TrialEnd.PAUSED:
            at = len(rounds_of(trial)) + 1
            self._storage.set_trial_user_attr(self._id(trial), PAUSED, at)
            if end_of(self.tuning, at) == self.tuning.pruning.max_time:
                end = TrialEnd.COMPLETE
        if end not in (TrialEnd.STOPPED, TrialEnd.PAUSED):
            self._storage.set_trial_user_attr(self._id(trial), _END, str(end))
            self._storage.set_trial_user_attr(self._id(trial), _REASON, reason)
            values = self._reduced(self._frozen(number)) if end is TrialEnd.COMPLETE else None
            state = _STATES.get(end, TrialState.PRUNED)
            if state is TrialState.COMPLETE and (values is None or any(map(math.isnan, values))):
                state, values = TrialState.FAIL, None
            if state is TrialState.PRUNED and len(self.higher) > 1:
                state = TrialState.FAIL  # with several objectives Optuna has no pruned trials
            self._study.tell(trial.number, values, state=state)
        self._study.set_user_attr(_ELAPSED, self.elapsed_seconds)
        self._journal.flush()

    def _reduced(self, trial: FrozenTrial) -> list[float] | None:
        seen: dict[str, list[float]] = trial.user_attrs.get(_SEEN, {})
        columns = zip(*(seen[key] for key in sorted(seen, key=int)), strict=True)
        found = [
            reduced(column, objective.reduce, is_high)
            for column, objective, is_high in zip(columns, self.tuning.objectives, self.higher, strict=False)
        ]
        return (
            None if not found or any(each is None for each in found) else [each for each in found if each is not None]
        )

    # -- what is known ----------------------------------------------------------------------------------------------
    def trials(self) -> list[TrialRecord]:
        """Return all trials that were begun, by number."""
        found = [self._record(each) for each in self._study.get_trials(deepcopy=False) if _OURS in each.user_attrs]
        return sorted(found, key=lambda each: each.number)

    def best(self) -> TrialRecord | None:
        """Return the best complete trial, of equal ones the first; None: none yet, or several objectives."""
        if len(self.higher) > 1:
            return None
        return next(iter(ranked(self.trials(), is_higher=self.higher[0])), None)

    def front(self) -> list[TrialRecord]:
        """Return the complete trials that no other one dominates: as good in every objective, and better in one."""
        return front(self.trials(), self.higher)

    def _reached_target(self, trials: list[TrialRecord]) -> bool:
        target = self.tuning.objectives[0].target
        if target is None:
            return False
        values = [each.objectives[0] for each in trials if each.counts]
        return any(value >= target if self.higher[0] else value <= target for value in values)

    def _running(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [each for each in trials if _OURS in each.user_attrs]

    def _frozen(self, number: int) -> FrozenTrial:
        trials = self._study.get_trials(deepcopy=False)
        return next(each for each in trials if each.user_attrs.get(_OURS) == number)

    def _values(self, trial: FrozenTrial, in_round: int | None = None) -> dict[str, Any]:
        if rounds := rounds_of(trial)[: None if in_round is None else in_round - 1]:
            return dict(rounds[-1].values)
        values: dict[str, Any] = {}
        for axis in self._axes:
            if axis.exists(values):
                value = axis.values[0] if axis.kind == "constant" else trial.params[axis.name]
                values[axis.name] = found(axis, value) if axis.kind == "choice" else value
        return values

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        attributes, in_round = trial.user_attrs, None
        seen = attributes.get(_SEEN, {})
        end = TrialEnd(attributes[_END]) if trial.state.is_finished() and _END in attributes else None
        objectives = self._reduced(trial)
        if end is None and (in_round := ended(trial) or None):
            objectives = seen[str(end_of(self.tuning, in_round))]
        return TrialRecord(
            attributes[_OURS], self._values(trial, in_round), end, tuple(objectives or ()),
            max(map(int, seen), default=0), attributes.get(_REASON, ""), attributes.get(_SECONDS, 0.0),
            _seconds(trial.datetime_start), _seconds(trial.datetime_complete), rounds_of(trial), ended(trial),
        )  # fmt: skip


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()

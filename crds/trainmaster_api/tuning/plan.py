"""What a search will do, computed before anything runs: its trials, its rungs, and what they cost at most.

The driver asks the same functions, so that a plan is what happens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.tuning import Pruning, Tuning
from trainmaster_api.types import parse_count

from .expression import rejects
from .space import Axis, axes_of

DEFAULT_TRIALS = 64
MOST_COUNTED = 100_000
"""Combinations that are looked at one by one, to count those that keep the constraints."""


@dataclass(frozen=True)
class Rung:
    """A validation at which the pruner decides.

    Attributes:
        time: Which validation of a trial, from 1.
        reached: How many trials are expected to come so far.
        promoted: How many of them are expected to continue; at the last validation, to count as complete.
    """

    time: int
    reached: float
    promoted: float


@dataclass(frozen=True)
class Bracket:
    """Trials that are compared with each other, at the same rungs.

    Attributes:
        trials: How many are expected in it.
        rungs: In order of time.
    """

    trials: float
    rungs: tuple[Rung, ...]

    def work(self, longest: int) -> float:
        """Return the validations that its trials are expected to have.

        Args:
            longest: Validations of a whole trial.
        """
        alive, last, done = self.trials, 0, 0.0
        for rung in self.rungs:
            done += alive * (rung.time - last)
            alive, last = rung.promoted, rung.time
        return done + alive * (longest - last)


@dataclass(frozen=True)
class Plan:
    """What a search will do.

    Attributes:
        axes: Its parameters, those first on which others depend.
        combinations: How many combinations of values there are, without constraints; infinite with decimal numbers.
        points: How many of them there are with conditions and constraints; None: too many to count.
        trials: How many trials there will be.
        fits: How many of them fit the job's workers at the same time.
        parallel: How many there will be at the same time.
        longest: Validations of a whole trial; None: only the data tells.
        brackets: Of `asha` and `hyperband`; empty for others.
        work: What all trials are expected to cost, in whole trials; None: it can't be told.
        trial_length: Duration of a whole trial in the unit of `loop.duration`; None: only the data tells.
        unit: That unit: `ep` or `step`.
        has_final_run: Whether the winner is trained at full size.
    """

    axes: tuple[Axis, ...]
    combinations: float
    points: int | None
    trials: int
    fits: int
    parallel: int
    longest: int | None
    brackets: tuple[Bracket, ...]
    work: float | None
    trial_length: int | None
    unit: str
    has_final_run: bool


def plan_of(spec: Spec) -> Plan:
    """Return the plan of a valid job's search.

    Raises:
        ExpressionError: A constraint can't be computed.
    """
    tuning = spec.tuning
    if tuning is None:
        raise ValueError("there is no search in this job")
    axes = axes_of(spec)
    combinations = math.prod(each.count for each in axes)
    points = sum(1 for _ in points_of(axes, tuning.constraints)) if combinations <= MOST_COUNTED else None
    if points is None and math.isfinite(combinations) and not tuning.constraints and not any(a.when for a in axes):
        points = int(combinations)
    trials = total_trials(tuning, _of_grid(tuning, axes, points) if tuning.search.algorithm == "grid" else None)
    fits, longest = trials_that_fit(spec), validations(spec)
    brackets = brackets_of(tuning.pruning, trials, longest) if longest is not None else ()
    (length, unit), (every, unit_every) = _lengths(spec)
    whole = min(length, longest * every) if longest is not None and unit == unit_every else None
    return Plan(
        tuple(axes), combinations, points, trials, fits, min(parallel_trials(spec), trials), longest, brackets,
        _work(tuning.pruning, trials, longest, brackets), whole, unit,
        tuning.final_run.enabled and len(tuning.objectives) == 1,
    )  # fmt: skip


def points_of(axes: Sequence[Axis], constraints: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values of finite axes that keeps the constraints, in order.

    Raises:
        ExpressionError: A constraint can't be computed.
    """
    names, seen = [each.name for each in axes], set[str]()
    has_conditions = any(each.when for each in axes)
    for values in itertools.product(*(each.grid() for each in axes)):
        point = dict(zip(names, values, strict=True))
        if has_conditions:  # those that differ in what doesn't exist are one
            point = _existing(axes, point)
            key = repr(sorted(point.items()))
            if key in seen:
                continue
            seen.add(key)
        if rejects(list(constraints), point) is None:
            yield point


def grid_of(tuning: Tuning, axes: Sequence[Axis]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what a grid tries: the points of the spec, and those of the grid that aren't among them, in order.

    Raises:
        ExpressionError: A constraint can't be computed.
    """
    constants = {each.name: each.values[0] for each in axes if each.kind == "constant"}
    first = list(tuning.warm_start.points)
    known = [constants | each for each in first]
    return first, [each for each in points_of(axes, tuning.constraints) if each not in known]


def _of_grid(tuning: Tuning, axes: Sequence[Axis], points: int | None) -> int | None:
    """Return how many points a grid tries; None: too many to count."""
    if points is None or points > MOST_COUNTED:
        return points
    return sum(map(len, grid_of(tuning, axes)))


def _existing(axes: Sequence[Axis], point: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in axes:
        if each.exists(found):
            found[each.name] = point[each.name]
    return found


def total_trials(tuning: Tuning, points: int | None) -> int:
    """Return how many trials there will be.

    Args:
        tuning: The search.
        points: Of its grid; None: it is none.
    """
    given = tuning.budget.max_trials
    if points:
        return min(given or points, points)
    return given or DEFAULT_TRIALS


def asked_trials(tuning: Tuning) -> int | None:
    """Return how many trials are asked for; None: all of a grid."""
    given = tuning.budget.max_trials
    return given if given is not None or tuning.search.algorithm == "grid" else DEFAULT_TRIALS


def is_population(tuning: Tuning) -> bool:
    """Return whether all trials are trained side by side, so that there can't be more of them later."""
    return tuning.pruning.algorithm == "pbt"


def replaced_in(pruning: Pruning, trials: int) -> int:
    """Return how many trials of a population continue, after a round, from as many of the best."""
    return min(math.ceil(trials * pruning.quantile), trials // 2)


def trials_that_fit(spec: Spec) -> int:
    """Return how many trials the job's workers are enough for at the same time."""
    assert spec.tuning is not None
    return max(1, spec.cluster.workers.count // spec.tuning.trial.workers)


def parallel_trials(spec: Spec) -> int:
    """Return how many trials there will be at the same time."""
    assert spec.tuning is not None
    fits = trials_that_fit(spec)
    return min(fits, spec.tuning.budget.max_parallel or fits)


def validations(spec: Spec) -> int | None:
    """Return how many validations a whole trial has; None: it can't be told without the data."""
    given = spec.tuning.pruning.max_time if spec.tuning is not None else None
    (length, unit), (every, unit_every) = _lengths(spec)
    if unit != unit_every:
        return given
    own = -(-length // every)
    return own if given is None else min(given, own)


def _lengths(spec: Spec) -> tuple[tuple[int, str], tuple[int, str]]:
    loop = spec.training.loop
    return parse_count(loop.duration), parse_count(loop.validate_every)


def brackets_of(pruning: Pruning, trials: int, longest: int) -> tuple[Bracket, ...]:
    """Return the brackets of a pruner with rungs, as Optuna has them; none for other pruners.

    Args:
        pruning: What is asked for.
        trials: How many trials there will be.
        longest: Validations of a whole trial.
    """
    first, factor = pruning.min_time, pruning.reduction_factor
    if pruning.algorithm == "asha":
        return (_bracket(first, factor, trials, longest),)
    if pruning.algorithm != "hyperband":
        return ()
    # the paper's number of brackets, and shares of the trials, in Optuna's arithmetic
    count = math.floor(math.log(longest / first, factor)) + 1 if longest >= first else 1
    shares = [math.ceil(count * factor**rest / (rest + 1)) for rest in range(count - 1, -1, -1)]
    return tuple(
        _bracket(first * factor**number, factor, trials * share / sum(shares), longest)
        for number, share in enumerate(shares)
    )


def _bracket(first: int, factor: int, trials: float, longest: int) -> Bracket:
    rungs, alive, time = [], trials, first
    while time <= longest:
        promoted = expected_promotions(alive, factor)
        rungs.append(Rung(time, alive, promoted))
        alive, time = promoted, time * factor
    return Bracket(trials, tuple(rungs))


def expected_promotions(trials: float, factor: int) -> float:
    """Return how many of the trials that come to a rung one after the other are expected to be promoted.

    A trial is promoted if it is among the best `1 / factor` of those that have come so far, itself included; among
    fewer than `factor` it must be the best. Whichever comes is as likely to be of one rank as of another, so the n-th
    is promoted with probability `max(1, n // factor) / n`.

    Args:
        trials: How many come; an expected number, which may lie between two.
        factor: One in so many is promoted.
    """
    whole = math.floor(trials)
    found = sum(max(1, number // factor) / number for number in range(1, whole + 1))
    return found + (trials - whole) * max(1, (whole + 1) // factor) / (whole + 1)


def _work(pruning: Pruning, trials: int, longest: int | None, brackets: tuple[Bracket, ...]) -> float | None:
    if pruning.algorithm == "none":
        return float(trials)
    if longest is None or not brackets:
        return None
    return sum(each.work(longest) for each in brackets) / longest

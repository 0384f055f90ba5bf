"""The rounds of a population, as user attributes of Optuna's trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial
from trainmaster_api.spec.tuning import Tuning
from trainmaster_api.tuning.space import Axis

from trainmaster_trainer.errors import ConfigurationError

from .population import Continuation, Member, Values, continuations, exploits
from .trials import ROUNDS

PAUSED = "paused"
"""Key of the last round that a trial has ended; `ROUNDS` is that of how it has continued after each."""


def rounds_of(trial: FrozenTrial) -> tuple[Continuation, ...]:
    """Return how a trial has continued after each round."""
    return tuple(Continuation(**each) for each in trial.user_attrs.get(ROUNDS, ()))


def ended(trial: FrozenTrial) -> int:
    """Return the last round that a trial has ended; 0: none."""
    return int(trial.user_attrs.get(PAUSED, 0))


def is_paused(trial: FrozenTrial) -> bool:
    """Return whether a trial has ended its round, and the next one isn't decided."""
    return ended(trial) > len(trial.user_attrs.get(ROUNDS, ()))


def end_of(tuning: Tuning, round_number: int) -> int:
    """Return after how many validations a round ends."""
    end, longest = round_number * tuning.pruning.perturb_every, tuning.pruning.max_time
    return end if longest is None else min(end, longest)


def decided(
    tuning: Tuning,
    axes: Sequence[Axis],
    trials: Mapping[int, tuple[FrozenTrial, Values, Mapping[str, Sequence[float]]]],
    *,
    higher: bool,
    is_rejected: Callable[[Values], bool],
) -> dict[int, list[dict[str, Any]]]:
    """Return what is to be kept under `ROUNDS` of each trial, once all have ended a round.

    Args:
        tuning: What is asked for.
        axes: Parameters of the search.
        trials: By number: those that are trained, their values, and their objectives by time.
        higher: Whether a higher objective is better.
        is_rejected: Whether a constraint is violated.
    """
    number = ended(next(iter(trials.values()))[0])
    time = end_of(tuning, number)
    members = [Member(each, values, seen[str(time)][0]) for each, (_, values, seen) in sorted(trials.items())]
    found = [] if time < tuning.pruning.min_time else exploits(
        members, axes, tuning.pruning, seed=tuning.search.seed, round_number=number, higher=higher,
        is_rejected=is_rejected,
    )  # fmt: skip
    return {
        each: [*trials[each][0].user_attrs.get(ROUNDS, ()), how.wire()]
        for each, how in continuations(members, found).items()
    }


def require_same(known: int, asked: int) -> None:
    """Raise ConfigurationError if a population has changed since it began."""
    if known != asked:
        raise ConfigurationError(
            f"spec.tuning.budget.maxTrials = {asked}: with pbt it is the size of the population, which began with "
            f"{known} trials and can't change; set it to {known}, or start another search under another metadata.name"
        )

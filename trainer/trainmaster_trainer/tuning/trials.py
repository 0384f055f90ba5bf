"""What a trial is called, and what is said of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from trainmaster_api.layout import SEARCH, SEARCH_JOURNAL, SEARCH_RESULT
from trainmaster_api.spec.tuning import Objective

from trainmaster_trainer.errors import ConfigurationError

from .population import Continuation

NUMBER, VALUES, TIME, METRICS, STATE, REASON = "number", "values", "time", "metrics", "state", "reason"
RUN, SEGMENT, WAITS, STEP = "run", "segment", "waits", "step"
"""Keys of what the driver and the actor of a trial tell each other through Ray Tune, which flattens what is nested."""
OBJECTIVES, SECONDS, ROUNDS = "objectives", "seconds", "rounds"
TRIALS, FOLDER, RESULT, WHOLE = "trials", SEARCH, SEARCH_RESULT, SEARCH_JOURNAL
STUDY = "trainmaster"
"""Name of Optuna's study; a hyperband's brackets are drawn by it."""
HOURS_USED = "budget.maxHours"
"""What the reason begins with why a search is over that has used its hours."""


class TrialEnd(StrEnum):
    """How a trial ended."""

    COMPLETE = "Complete"
    PRUNED = "Pruned"  # others are better
    DIVERGED = "Diverged"  # its loss isn't finite: its result
    OUT_OF_MEMORY = "OutOfMemory"  # its result too
    FAILED = "Failed"
    STOPPED = "Stopped"  # saved, because the whole search stops: not an end
    PAUSED = "Paused"  # saved at the end of a round of its population: not an end either


def run_of(number: int, round_number: int = 0) -> str:
    """Return a trial's directory below the run's; in a population it has one for each round, from 1."""
    return f"{TRIALS}/{number:04d}" + (f"/round-{round_number:04d}" if round_number else "")


class Decision(StrEnum):
    """What becomes of a trial after a validation."""

    CONTINUE = "Continue"
    PRUNE = "Prune"


@dataclass(frozen=True)
class Suggestion:
    """A trial to run.

    Attributes:
        number: Its number, from 0, without gaps.
        values: Of the parameters that exist in it.
        is_resumed: Whether it was begun before, and continues from its checkpoint.
        round: Of its population, from 1; 0: there is none.
        until: Validations after which the round ends.
        source: Of the trial whose checkpoint the round begins with; None: it begins at the start.
    """

    number: int
    values: dict[str, Any]
    is_resumed: bool = False
    round: int = 0
    until: int = 0
    source: int | None = None


@dataclass(frozen=True)
class TrialRecord:
    """What is known of a trial.

    Attributes:
        number: Its number.
        values: Of its parameters.
        end: How it ended; None: it runs, or is to be continued.
        objectives: Its values of the objectives; empty: none yet.
        time: How many validations it had.
        reason: Why it ended, where it failed.
        seconds: How long it ran.
        began: When it was first suggested, in seconds since 1970; None: unknown.
        ended: When it ended; None: it hasn't.
        rounds: How it has continued after each round of its population but the last.
        ended_round: The last round that it has ended; while it is open, its values and objectives are of that.
    """

    number: int
    values: dict[str, Any]
    end: TrialEnd | None
    objectives: tuple[float, ...]
    time: int
    reason: str = ""
    seconds: float = 0.0
    began: float | None = field(default=None, compare=False)
    ended: float | None = field(default=None, compare=False)
    rounds: tuple[Continuation, ...] = ()
    ended_round: int = 0

    @property
    def counts(self) -> bool:
        """Whether its value is one of a search's results."""
        is_known = bool(self.objectives) and not any(map(math.isnan, self.objectives))
        return is_known and (self.end is TrialEnd.COMPLETE or (self.end is None and self.ended_round > 0))

    @property
    def run(self) -> str:
        """Directory of the weights that a trial of a population has reached its objectives with."""
        return run_of(self.number, self.ended_round if self.end is None else len(self.rounds) + 1)

    def wire(self) -> dict[str, Any]:
        """Return the trial as `tuning/result.json` has it."""
        found = {
            NUMBER: self.number,
            VALUES: self.values,
            STATE: str(self.end) if self.end else None,
            OBJECTIVES: list(self.objectives),
            TIME: self.time,
            ROUNDS: [each.wire() for each in self.rounds] or None,
            REASON: self.reason,
            SECONDS: round(self.seconds, 3),
        }
        return {key: value for key, value in found.items() if value not in (None, "")}

    @classmethod
    def read(cls, data: dict[str, Any]) -> TrialRecord:
        """Return the trial that `wire` has written."""
        end = TrialEnd(data[STATE]) if STATE in data else None
        return cls(
            data[NUMBER], data[VALUES], end, tuple(data[OBJECTIVES]), data[TIME], data.get(REASON, ""), data[SECONDS],
            rounds=tuple(Continuation(**each) for each in data.get(ROUNDS, ())),
        )  # fmt: skip


def reduced(values: Sequence[float], reduce: str, higher: bool) -> float | None:
    """Return the value of a trial from those of its validations; None: it has none."""
    numbers = [each for each in values if not math.isnan(each)]
    if not numbers:
        return None
    best = max(numbers) if higher else min(numbers)
    return {"best": best, "last": values[-1], "mean": statistics.fmean(numbers)}[reduce]


def is_higher(objective: Objective) -> bool:
    """Return whether higher is better. Raises ConfigurationError: it can't be told."""
    known = objective.is_higher_better
    if known is None:
        raise ConfigurationError(f"spec.tuning.objectives: {objective.metric} needs a goal: minimize or maximize")
    return known

"""What a trial is called, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from trainmaster_api.layout import SEARCH, SEARCH_JOURNAL, SEARCH_RESULT
from trainmaster_api.spec.task import is_better_higher
from trainmaster_api.spec.tuning import Objective

from trainmaster_trainer.errors import ConfigurationError

NUMBER, VALUES, TIME, METRICS, STATE, REASON = "number", "values", "time", "metrics", "state", "reason"
"""Keys of what the driver and the actor of a trial tell each other through Ray Tune, which flattens what is nested."""
OBJECTIVES, SECONDS = "objectives", "seconds"
TRIALS, FOLDER, RESULT, WHOLE = "trials", SEARCH, SEARCH_RESULT, SEARCH_JOURNAL


class TrialEnd(StrEnum):
    """How a trial ended."""

    COMPLETE = "Complete"
    PRUNED = "Pruned"  # others are better
    DIVERGED = "Diverged"  # its loss isn't finite: its result
    OUT_OF_MEMORY = "OutOfMemory"  # its result too
    FAILED = "Failed"
    STOPPED = "Stopped"  # saved, because the whole search stops: not an end


def run_of(number: int) -> str:
    """Return a trial's directory below the run's."""
    return f"{TRIALS}/{number:04d}"


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
    """

    number: int
    values: dict[str, Any]
    is_resumed: bool = False


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

    def wire(self) -> dict[str, Any]:
        """Return the trial as `tuning/result.json` has it."""
        found = {
            NUMBER: self.number,
            VALUES: self.values,
            STATE: str(self.end) if self.end else None,
            OBJECTIVES: list(self.objectives),
            TIME: self.time,
            REASON: self.reason,
            SECONDS: round(self.seconds, 3),
        }
        return {key: value for key, value in found.items() if value not in (None, "")}

    @classmethod
    def read(cls, data: dict[str, Any]) -> TrialRecord:
        """Return the trial that `wire` has written."""
        end = TrialEnd(data[STATE]) if STATE in data else None
        return cls(
            data[NUMBER], data[VALUES], end, tuple(data[OBJECTIVES]), data[TIME], data.get(REASON, ""), data[SECONDS]
        )  # fmt: skip


def is_higher(objective: Objective) -> bool:
    """Return whether higher is better. Raises ConfigurationError: it can't be told."""
    if objective.goal is not None:
        return objective.goal == "maximize"
    known = is_better_higher(objective.metric)
    if known is None:
        raise ConfigurationError(f"spec.tuning.objectives: {objective.metric} needs a goal: minimize or maximize")
    return known

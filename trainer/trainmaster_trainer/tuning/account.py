"""What a search has cost, and what pruning has saved. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .trials import TrialEnd, TrialRecord


def seconds_used(trials: Sequence[TrialRecord]) -> float:
    """Return how long all trials have run."""
    return sum(each.seconds for each in trials)


def seconds_saved(trials: Sequence[TrialRecord]) -> float:
    """Return how much longer the pruned trials would have run, each at its own pace, to the length of a complete one.

    How many validations a complete trial has is read from those that are complete: until there is one, nothing is known
    to be saved.
    """
    whole = max((each.time for each in trials if each.end is TrialEnd.COMPLETE), default=0)
    return sum(
        each.seconds / each.time * (whole - each.time)
        for each in trials
        if each.end is TrialEnd.PRUNED and 0 < each.time < whole
    )

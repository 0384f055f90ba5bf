"""Which trials are the best, and so which ones' checkpoints are kept. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .trials import TrialRecord


def ranked(trials: Iterable[TrialRecord], *, is_higher: bool) -> list[TrialRecord]:
    """Return the complete trials of a search with one objective, best first; of equal ones the earlier one."""
    sign = -1 if is_higher else 1
    return sorted(_valued(trials), key=lambda each: (sign * each.objectives[0], each.number))


def front(trials: Iterable[TrialRecord], higher: Sequence[bool]) -> list[TrialRecord]:
    """Return the complete trials that no other one dominates: as good in every objective, and better in one."""
    complete = _valued(trials)
    return [each for each in complete if not any(_dominates(other, each, higher) for other in complete)]


def removable(trials: Sequence[TrialRecord], keep: int, higher: Sequence[bool]) -> set[int]:
    """Return the numbers of the trials whose checkpoints are no longer needed.

    Those of a trial that hasn't ended are needed, and those of the best ones are kept: of several objectives the front.
    What may go now may go whatever comes later, and leaving out what is gone changes nothing about the rest.

    Args:
        trials: Those with checkpoints.
        keep: How many of the best are kept.
        higher: For each objective whether higher is better.
    """
    best = ranked(trials, is_higher=higher[0])[:keep] if len(higher) == 1 else front(trials, higher)
    return {each.number for each in trials if each.end is not None} - {each.number for each in best}


def _valued(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    return [each for each in trials if each.counts]


def _dominates(one: TrialRecord, other: TrialRecord, higher: Sequence[bool]) -> bool:
    pairs = [
        (a, b) if is_high else (-a, -b) for a, b, is_high in zip(one.objectives, other.objectives, higher, strict=True)
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

"""Medians, percentiles and ratios of interleaved repeats."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 2000


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the sample is below, interpolated between neighbours.

    Raises:
        ValueError: an empty sample.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True)
class Ratio:
    """Median of the ratios of interleaved pairs, with the range in which it can be trusted."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        if self.pairs == 1:
            return f"{self.median:.2f}x (one pair)"
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compare repeat by repeat: what disturbs the machine for a while disturbs both halves of a pair.

    The range is the smallest and the largest ratio below five pairs, and a 95 % bootstrap interval of the median from
    there on.

    Raises:
        ValueError: the samples don't pair up.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} values don't pair up")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = min(ratios), max(ratios)
    if len(ratios) >= 5:
        dice = random.Random(0)
        medians = [statistics.median(dice.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)]
        low, high = percentile(medians, 0.025), percentile(medians, 0.975)
    return Ratio(statistics.median(ratios), low, high, len(ratios))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """``12.3 (11.9 to 13.0)``: median and range; the bare figure for a single value."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


@dataclass(frozen=True)
class Difference:
    """Mean difference of pairs, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Compare pairs of runs that have nothing in common but what they were given.

    Raises:
        ValueError: the samples don't pair up.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} values don't pair up")
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    dice = random.Random(0)
    means = [statistics.fmean(dice.choices(differences, k=len(differences))) for _ in range(RESAMPLES)]
    return Difference(statistics.fmean(differences), percentile(means, 0.025), percentile(means, 0.975))

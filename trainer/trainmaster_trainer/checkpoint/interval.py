"""When a checkpoint is due: `checkpoint.every`, for every loop."""

from __future__ import annotations

from dataclasses import dataclass

from trainmaster_api.types import interval_seconds, parse_count

AUTO = "auto"
AUTO_COST = 0.01
"""Share of the time that automatic checkpoints may take."""
AUTO_LEAST, AUTO_LEAST_WAITING, AUTO_MOST = 5.0, 30.0, 900.0
"""Fewest seconds between automatic checkpoints, so that a fast store isn't written all the time; the same where
training waits for each; most seconds."""


@dataclass(frozen=True)
class Interval:
    """Time, steps or epochs between checkpoints.

    Attributes:
        every: `spec.checkpoint.every`: `auto`, `10m`, `500step` or `1ep`.
        waits: Whether training waits while one is written.
    """

    every: str
    waits: bool = False

    def seconds(self, cost: float) -> float:
        """Return the seconds between checkpoints; infinite where steps or epochs are counted.

        Args:
            cost: Seconds that the last one took.
        """
        if self.every == AUTO:
            return min(max(cost / AUTO_COST, AUTO_LEAST_WAITING if self.waits else AUTO_LEAST), AUTO_MOST)
        return float(interval_seconds(self.every) or "inf")

    @property
    def steps(self) -> int:
        """The steps between checkpoints; 0: they aren't counted."""
        return self._count("step")

    @property
    def epochs(self) -> int:
        """The epochs between checkpoints; 0: they aren't counted."""
        return self._count("ep")

    def _count(self, unit: str) -> int:
        if self.every == AUTO:
            return 0
        number, found = parse_count(self.every)
        return number if found == unit else 0

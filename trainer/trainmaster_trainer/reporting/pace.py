"""How long the steps of an attempt take, as far as the driver sees them."""

from __future__ import annotations

FIRST = 5
"""Intervals that aren't counted: caches fill, kernels are compiled, and no step is like the next."""


class Pace:
    """The longest interval between two steps; those of one process only, because starting again isn't a step."""

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds; 0: too few steps yet."""
        self._last: float | None = None
        self._seen = 0

    def restarted(self) -> None:
        """Take note that other processes make the next step."""
        self._last = None

    def moved(self, now: float) -> None:
        """Take note of a new step at a monotonic time."""
        if self._last is not None:
            self._seen += 1
            if self._seen > FIRST:
                self.longest = max(self.longest, now - self._last)
        self._last = now

"""Which of two values of a metric is the better one, for early stopping, plateau and the best checkpoint alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric and its direction.

    Attributes:
        metric: Full name, `val/loss`.
        higher_is_better: Direction, from the metric object.
    """

    metric: str
    higher_is_better: bool

    def is_better(self, value: float, than: float | None, margin: float = 0.0) -> bool:
        """Return whether `value` beats `than` by more than `margin`; anything beats None."""
        return than is None or self.rank(than) - self.rank(value) > margin

    def rank(self, value: float) -> float:
        """Return a sort key: the best value has the smallest."""
        return -value if self.higher_is_better else value

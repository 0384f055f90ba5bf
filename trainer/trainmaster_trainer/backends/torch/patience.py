"""Patience with a metric that doesn't improve, behind early stopping and plateau."""

from __future__ import annotations

from typing import Any

from trainmaster_trainer.tasks import Objective


class Patience:
    """Counts validations without improvement. Its state is two numbers and goes into the checkpoint.

    Args:
        objective: The metric and its direction.
        patience: Validations without improvement before it runs out.
        min_delta: Improvement that counts.
    """

    def __init__(self, objective: Objective, patience: int, min_delta: float = 0.0) -> None:
        self.objective, self.patience, self.min_delta = objective, patience, min_delta
        self.best: float | None = None
        self.waited = 0

    def update(self, metrics: dict[str, float]) -> bool:
        """Take a validation in; return True when patience has run out (and the count starts again)."""
        value = metrics[self.objective.metric]
        if self.objective.is_better(value, self.best, self.min_delta):
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        if self.waited < self.patience:
            return False
        self.waited = 0
        return True

    def state(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.best = state["best"]
        self.waited = int(state["waited"] or 0)

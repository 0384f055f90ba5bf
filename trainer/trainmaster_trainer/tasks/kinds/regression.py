"""Regression of one number: outputs of (batch, 1), the target standardised for the loss and in its unit for metrics."""

from __future__ import annotations

from torch import Tensor
from trainmaster_api.spec.task import Task as TaskSpec

from trainmaster_trainer.tasks.base import Unit


class Regression:
    """One number.

    Args:
        unit: What leads from the standardised target back to its unit.
    """

    outputs = 1

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def decode(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets in the target's unit, float64 of (batch,)."""
        return self.unit.back(output.squeeze(1)), self.unit.back(target)


def build(spec: TaskSpec, classes: int, unit: Unit) -> Regression:
    """Return the task."""
    return Regression(unit)

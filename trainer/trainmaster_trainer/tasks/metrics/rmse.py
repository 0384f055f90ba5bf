"""Root mean squared error, in the unit of the target."""

from __future__ import annotations

import torch
from torch import Tensor

from trainmaster_trainer.tasks.base import Kind

from .base import Metric


class Rmse(Metric):
    """Root of the mean squared error."""

    name, higher_is_better = "rmse", False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("squared", torch.zeros((), dtype=torch.float64))
        self.add_state("rows", torch.zeros((), dtype=torch.float64))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add squared errors."""
        self.add("squared", ((output - target) ** 2).sum())
        self.add("rows", torch.tensor(float(len(target)), dtype=torch.float64, device=target.device))

    def compute(self) -> float:
        """Return the root of their mean."""
        return float((self["squared"] / self["rows"]).sqrt())


def build(kind: Kind) -> Rmse:
    """Return it for a task."""
    return Rmse()

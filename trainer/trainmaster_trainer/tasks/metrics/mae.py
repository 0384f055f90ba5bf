"""Mean absolute error, in the unit of the target."""

from __future__ import annotations

import torch
from torch import Tensor

from trainmaster_trainer.tasks.base import Kind

from .base import Metric


class Mae(Metric):
    """Mean absolute error."""

    name, higher_is_better = "mae", False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("absolute", torch.zeros((), dtype=torch.float64))
        self.add_state("rows", torch.zeros((), dtype=torch.float64))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add absolute errors."""
        self.add("absolute", (output - target).abs().sum())
        self.add("rows", torch.tensor(float(len(target)), dtype=torch.float64, device=target.device))

    def compute(self) -> float:
        """Return their mean."""
        return float(self["absolute"] / self["rows"])


def build(kind: Kind) -> Mae:
    """Return it for a task."""
    return Mae()

"""Share of the target's variance that is explained."""

from __future__ import annotations

import torch
from torch import Tensor

from trainmaster_trainer.tasks.base import Kind

from .base import Metric


class R2(Metric):
    """1 - squared error / variance of the target."""

    name, higher_is_better = "r2", True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, dtype=torch.float64))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add rows, squared error, target, squared target."""
        rows = torch.tensor(float(len(target)), dtype=torch.float64, device=target.device)
        self.add("sums", torch.stack([rows, ((output - target) ** 2).sum(), target.sum(), (target**2).sum()]))

    def compute(self) -> float:
        """Return R2; a constant target is explained wholly or not at all."""
        rows, squared, total, total_squared = self["sums"].tolist()
        variance = total_squared - total**2 / rows
        return 1 - squared / variance if variance > 0 else float(squared == 0)


def build(kind: Kind) -> R2:
    """Return it for a task."""
    return R2()

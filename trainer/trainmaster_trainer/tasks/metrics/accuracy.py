"""Share of rows whose largest logit is that of their class."""

from __future__ import annotations

import torch
from torch import Tensor

from trainmaster_trainer.tasks.base import Kind

from .base import Metric


class Accuracy(Metric):
    """Top-1 accuracy."""

    name, higher_is_better = "accuracy", True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros((), dtype=torch.float64))
        self.add_state("rows", torch.zeros((), dtype=torch.float64))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count hits."""
        self.add("hits", (output.argmax(dim=1) == target).sum().double())
        self.add("rows", torch.tensor(float(len(target)), dtype=torch.float64, device=target.device))

    def compute(self) -> float:
        """Return hits over rows."""
        return float(self["hits"] / self["rows"])


def build(kind: Kind) -> Accuracy:
    """Return it for a task."""
    return Accuracy()

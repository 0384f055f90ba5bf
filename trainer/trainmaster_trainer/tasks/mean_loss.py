"""The mean loss as a metric: every task has it, and it is a metric of the raw output."""

from __future__ import annotations

import torch
from torch import Tensor

from .losses.base import LossFunction
from .metrics.base import Metric


class MeanLoss(Metric):
    """The loss over all rows, on what the model returns and not on what `Task.decode` makes of it.

    Args:
        loss: (output, target) -> mean loss of the batch, a scalar; with `weight=`, the mean of weight times loss.
    """

    name, higher_is_better = "loss", False

    def __init__(self, loss: LossFunction) -> None:
        super().__init__()
        self._loss = loss
        self.add_state("total", torch.zeros((), dtype=torch.float64))
        self.add_state("rows", torch.zeros((), dtype=torch.float64))

    def update(self, output: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add the batch's mean, weighted by its rows: the last batch of a split is smaller.

        Args:
            output: What the model returns.
            target: Targets.
            weight: Weight of each row, of (batch,); None: all are 1.
        """
        if weight is None:
            self.add("total", self._loss(output.float(), target).double() * len(target))
            self.add("rows", torch.tensor(float(len(target)), dtype=torch.float64, device=target.device))
        else:
            self.add("total", self._loss(output.float(), target, weight=weight).double() * len(target))
            self.add("rows", weight.double().sum())

    def compute(self) -> float:
        """Return the mean over rows, or the sum of weight times loss divided by the sum of the weights."""
        return float(self["total"] / self["rows"])

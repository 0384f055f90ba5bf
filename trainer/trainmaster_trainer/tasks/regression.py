"""Regression of one number: the loss is on the standardised target, the metrics are in the target's unit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from trainmaster_api.spec.task import Task


class RegressionTask:
    """Targets are standardised numbers, float32 of (batch,); `mean` and `std` lead back to the unit."""

    outputs = 1

    def __init__(self, spec: Task) -> None:
        self.mean, self.std = 0.0, 1.0
        self._loss = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}[spec.loss_or_default.label]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss on the standardised target."""
        return self._loss(output.squeeze(1), target)  # type: ignore[operator, no-any-return]

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """[rows, loss, squared error, absolute error, target, squared target], errors in the target's unit."""
        predicted = output.squeeze(1).float()
        loss = self._loss(predicted, target, reduction="sum").double()  # type: ignore[operator]
        unit = target.double() * self.std + self.mean
        error = (predicted.double() - target.double()) * self.std
        rows = torch.tensor(float(len(target)), dtype=torch.float64, device=target.device)
        return torch.stack([rows, loss, (error**2).sum(), error.abs().sum(), unit.sum(), (unit**2).sum()])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Loss, root mean squared error, mean absolute error and the share of variance explained."""
        rows, loss, squared, absolute, total, total_squared = sums.tolist()
        variance = total_squared - total**2 / rows
        return {
            "loss": loss / rows,
            "rmse": (squared / rows) ** 0.5,
            "mae": absolute / rows,
            "r2": 1 - squared / variance if variance > 0 else float(squared == 0),
        }

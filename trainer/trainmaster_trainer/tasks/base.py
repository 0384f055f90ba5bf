"""What the loop asks of a task."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Task(Protocol):
    """Loss of a batch, and metrics as sums, so that they add up exactly over batches and workers."""

    outputs: int
    """Numbers that the model returns for a sample."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""
        ...

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """Float64 vector of sums over the batch; sums of batches and workers are added."""
        ...

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Metrics from added sums: `loss` and the task's own."""
        ...

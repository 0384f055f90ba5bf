"""Gradients of a step whose batch comes in parts: micro-batches, on several ranks."""

from __future__ import annotations

from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor, nn

from trainmaster_trainer.tasks import LossValue


class Accumulator:
    """Makes the gradients of a step those of its whole batch.

    Parts whose loss is a mean are equally large, so each has the same weight. Of a loss that is (sum, count) the counts
    are known after the last part only: the gradients are those of the sums, until `finish` divides them.

    Args:
        share: Device scalar: weight of a micro-batch in its step.
        loss_sum: Device scalar that losses are added to; of a sum and its count such that its mean over ranks and
            micro-batches is the quotient.
        world_size: Number of ranks, over which DDP averages gradients.
    """

    def __init__(self, share: Tensor, loss_sum: Tensor, world_size: int) -> None:
        self._share, self._loss_sum, self._world_size = share, loss_sum, world_size
        self._counted: tuple[Tensor, Tensor] | None = None

    def backward(self, loss: LossValue) -> None:
        """Add the gradients of a micro-batch; nothing in here waits for the device."""
        if isinstance(loss, Tensor):
            # The weight is the gradient of the root and not a factor: the same result without one more kernel.
            loss.backward(self._share)  # type: ignore[no-untyped-call]
            self._loss_sum += loss.detach()  # on the device: `loss.item()` would wait for it in every step
            return
        total, count = loss
        total.backward()  # type: ignore[no-untyped-call]
        before = self._counted or (0.0, 0.0)
        self._counted = total.detach() + before[0], count.detach().to(total.dtype) + before[1]

    def finish(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients of sums by the count of all ranks; collective, where there are counts."""
        if self._counted is None:
            return
        (total, count), self._counted = self._counted, None
        if self._world_size > 1:
            dist.all_reduce(count)
        # where nothing counts, every gradient is 0 and stays so
        scale = (self._world_size / count).where(count > 0, 0.0)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(scale.to(parameter.grad.dtype))
        self._loss_sum += total * scale / self._share

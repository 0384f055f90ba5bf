"""What a loss is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

LossFunction = Callable[..., Tensor]
"""(output, target) -> the mean over the batch, a scalar. With `weight=`, of (batch,): the mean of weight times loss.

The divisor is the number of rows and not the sum of the weights, whose mean over the train split is 1: so the mean over
micro-batches and ranks is that of the whole batch, whichever rows they have."""


@dataclass(frozen=True)
class Loss:
    """A loss in its two forms.

    Attributes:
        training: What is minimised.
        reported: What `val/loss` and `test/loss` are: without what only serves training, such as label smoothing, so
            that they compare between runs.
        takes_weights: Whether both take `weight`.
    """

    training: LossFunction
    reported: LossFunction
    takes_weights: bool = True

    @property
    def module(self) -> nn.Module | None:
        """The loss as a module, if it is one: it has to be moved, and its buffers are saved."""
        return self.training if isinstance(self.training, nn.Module) else None


def mean_of(loss: Callable[..., Any], *, squeeze: bool = False) -> LossFunction:
    """Return one of torch's losses as a function that takes weights.

    Args:
        loss: (output, target, reduction=) -> a scalar, or with `none` the loss of each row.
        squeeze: Whether outputs are (batch, 1).
    """

    def mean(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        if squeeze:
            output = output.squeeze(1)
        if weight is None:
            return loss(output, target)  # type: ignore[no-any-return]
        return (loss(output, target, reduction="none") * weight).mean()  # type: ignore[no-any-return]

    return mean


def standardised(loss: Callable[..., Any]) -> Loss:
    """Return a regression's loss: outputs are (batch, 1), targets (batch,)."""
    mean = mean_of(loss, squeeze=True)
    return Loss(mean, mean)

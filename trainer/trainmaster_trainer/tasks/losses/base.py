"""What a loss is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss in its two forms; each maps (output, target) to the mean over the batch, a scalar.

    Attributes:
        training: What is minimised.
        reported: What `val/loss` and `test/loss` are: without what only serves training, such as label smoothing, so
            that they compare between runs.
    """

    training: LossFunction
    reported: LossFunction

    @property
    def module(self) -> nn.Module | None:
        """The loss as a module, if it is one: it has to be moved, and its buffers are saved."""
        return self.training if isinstance(self.training, nn.Module) else None


def standardised(loss: Callable[..., Any]) -> Loss:
    """Return a regression's loss: outputs are (batch, 1), targets (batch,)."""

    def mean(output: Tensor, target: Tensor) -> Tensor:
        return loss(output.squeeze(1), target)  # type: ignore[no-any-return]

    return Loss(mean, mean)

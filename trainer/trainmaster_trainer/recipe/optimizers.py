"""Several optimizers as one, such as those of a generator and its discriminator."""

from __future__ import annotations

from typing import Any

import torch


class Optimizers:
    """Several optimizers that step together, each over parameters of its own.

    Args:
        *each: The optimizers.
    """

    def __init__(self, *each: torch.optim.Optimizer) -> None:
        self.each = each
        self.defaults: dict[str, Any] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups of all, in order; a change of one is a change of its optimizer."""
        return [group for optimizer in self.each for group in optimizer.param_groups]

    def step(self) -> None:
        """Make the update of each."""
        for optimizer in self.each:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients of each."""
        for optimizer in self.each:
            optimizer.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each, and the groups of all."""
        states = [optimizer.state_dict() for optimizer in self.each]
        return {"each": states, "param_groups": [group for state in states for group in state["param_groups"]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the states of a checkpoint."""
        for optimizer, own in zip(self.each, state["each"], strict=True):
            optimizer.load_state_dict(own)

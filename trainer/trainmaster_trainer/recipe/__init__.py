"""A training of your own: one function returns model, loss and data; the loop, its checkpoints and ranks are ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .optimizers import Optimizers

__all__ = ["HasState", "Optimizers", "Recipe"]


class HasState(Protocol):
    """Something that changes while training and isn't in the model, such as an average of the weights."""

    def state_dict(self) -> Any:
        """Return its state: tensors, numbers, text, lists and dicts."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Take the state of a checkpoint."""


@dataclass
class Recipe:
    """Everything that is trained.

    Attributes:
        model: The model.
        loss: (model, batch) -> the mean over the batch, a scalar tensor; or (sum, count), where samples count
            differently: then what is minimised is the sum over the whole batch of a step, of all its micro-batches and
            workers, divided by the count of all. Call the model that it is given: it is the one that is synchronized.
        train: Map-style dataset (`__len__`, `__getitem__`); its order is ours.
        validation: Likewise; None: nothing is validated.
        test: Likewise; None: nothing is tested.
        metrics: (model, batch) -> {name: (sum, count)}; reported is the quotient over a whole split.
        higher_is_better: Name of each metric, and whether a higher value is the better one.
        collate: Makes a batch of a list of samples. Default: torch's `default_collate`.
        sampling_weights: How often each sample of train is drawn, relative to the others; samples are then drawn with
            replacement, as many per epoch as there are. Default: each once per epoch.
        optimizer: An optimizer, or a function of the list of trainable parameters that returns one. The schedule scales
            the learning rate of each of its groups. Default: `training.optimizer`.
        schedule: Step, from 0 -> share of the learning rate. Default: `training.schedule`.
        state: What else changes while training, by name; kept in checkpoints.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Any], Tensor | tuple[Tensor, Tensor | int]]
    train: Any
    validation: Any = None
    test: Any = None
    metrics: Callable[[nn.Module, Any], Mapping[str, tuple[Any, Any]]] | None = None
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    collate: Callable[[list[Any]], Any] | None = None
    sampling_weights: Sequence[float] | Tensor | None = None
    optimizer: torch.optim.Optimizer | Optimizers | Callable[[list[nn.Parameter]], Any] | None = None
    schedule: Callable[[int], float] | None = None
    state: Mapping[str, HasState] = field(default_factory=dict)

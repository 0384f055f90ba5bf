"""`spec.training.optimizer`: how weights are updated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.types import Model


class AdamW(Model):
    """AdamW."""

    name: Literal["adamw"] = "adamw"
    """Name of the optimizer."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.001
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Decoupled weight decay; biases and norms are left out of it."""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.999,
    ]
    """Decay of the two moment estimates."""
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the denominator."""


class Sgd(Model):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    """Name of the optimizer."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """L2 penalty; biases and norms are left out of it."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum."""
    nesterov: bool = False
    """Nesterov's form of momentum; needs momentum above 0."""


Optimizer = Annotated[AdamW | Sgd, Field(discriminator="name")]

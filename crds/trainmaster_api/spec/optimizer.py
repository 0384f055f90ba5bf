"""`spec.training.optimizer`: the optimizer."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from trainmaster_api.types import Model, rule_error

from .part import FROM_NAME, Call, Family, Part, Shipped

MOST_RATE = 100.0
MOST_DECAY = 10.0


class AdamWArgs(Model):
    """Arguments of AdamW."""

    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.999,
    ]
    """Decay rates of the two moment estimates."""
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Term added to the denominator for numerical stability."""


class SgdArgs(Model):
    """Arguments of stochastic gradient descent."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum factor."""
    nesterov: bool = False
    """If true, use Nesterov momentum; requires momentum above 0."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise rule_error("nesterov needs momentum above 0")
        return self


OPTIMIZERS = Family(
    "optimizer",
    Shipped("adamw", AdamWArgs, "AdamW: decoupled weight decay.", {"lr": 0.001, "weightDecay": 0.01}),
    Shipped("sgd", SgdArgs, "Stochastic gradient descent with momentum.", {"lr": 0.1, "weightDecay": 0.0}),
    call=Call(
        positional=1,
        function_positional=1,
        fields={"lr": "lr", "weight_decay": "weightDecay"},
        words="A `torch.optim.Optimizer`. It is called with the parameters, `lr`, `weight_decay` if `weightDecay` is "
        "given, and `args`.",
    ),
)


class Optimizer(Part):
    """The optimizer: a built-in one, one from an installed package, or your own class."""

    FAMILY: ClassVar[Family] = OPTIMIZERS

    lr: Annotated[float, Field(gt=0, le=MOST_RATE, json_schema_extra=FROM_NAME)]
    """Peak learning rate; required unless the optimizer is a built-in one."""
    weight_decay: Annotated[Annotated[float, Field(ge=0, le=MOST_DECAY)] | None, Field(json_schema_extra=FROM_NAME)] = (
        None
    )
    """Weight decay; not applied to biases and norms. If unset, a class uses its own default."""

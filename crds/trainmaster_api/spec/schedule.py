"""`spec.training.schedule`: the learning-rate schedule."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from trainmaster_api.types import Metric, Model, Warmup

from .part import FROM_NAME, Call, Family, NoArgs, Part, Shipped


class PlateauArgs(Model):
    """Arguments of the plateau schedule."""

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor by which the learning rate is multiplied."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Number of validations without improvement after which the learning rate is reduced."""
    metric: Metric = "val/loss"
    """Validation metric to monitor."""


SCHEDULES = Family(
    "schedule",
    Shipped(
        "cosine",
        NoArgs,
        "Linear warm-up, then cosine decay to `minLrRatio` of the peak at the end of the run.",
        {"warmup": "5%"},
    ),
    Shipped(
        "linear",
        NoArgs,
        "Linear warm-up, then linear decay to `minLrRatio` of the peak at the end of the run.",
        {"warmup": "5%"},
    ),
    Shipped("constant", NoArgs, "Linear warm-up, then constant at the peak.", {"warmup": "0"}),
    Shipped(
        "plateau",
        PlateauArgs,
        "Linear warm-up, then multiplied by `factor`, down to `minLrRatio` of the peak, whenever the metric hasn't "
        "improved for `patience` validations.",
        {"warmup": "0"},
    ),
    call=Call(
        function_positional=1,
        offered=("total_steps", "steps_per_epoch"),
        words="A function of the step since the warm-up that returns the fraction of the peak, or a class with such a "
        "`__call__`. It is called with `args`, and with `total_steps` (after the warm-up) and `steps_per_epoch` if its "
        "signature has them.",
    ),
)


class Schedule(Part):
    """The learning-rate schedule: a built-in one, one from an installed package, or your own class."""

    FAMILY: ClassVar[Family] = SCHEDULES

    warmup: Annotated[Warmup, Field(json_schema_extra=FROM_NAME)] = "0"
    """Length of the linear warm-up from 0: a share of the run, steps or epochs."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Minimum learning rate after the warm-up, as a fraction of the peak."""

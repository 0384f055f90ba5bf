"""`spec.training.schedule`: how the learning rate moves."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from trainmaster_api.types import Metric, Model, Warmup

from .part import FROM_NAME, Call, Family, NoArgs, Part, Shipped


class PlateauArgs(Model):
    """Arguments of plateau."""

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the learning rate is multiplied by."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Validations without improvement before it falls."""
    metric: Metric = "val/loss"
    """Validation metric that is watched."""


SCHEDULES = Family(
    "schedule",
    Shipped(
        "cosine",
        NoArgs,
        "Warm up linearly, then fall along a half cosine to `minLrRatio` of the peak at the end of the run.",
        {"warmup": "5%"},
    ),
    Shipped(
        "linear",
        NoArgs,
        "Warm up linearly, then fall linearly to `minLrRatio` of the peak at the end of the run.",
        {"warmup": "5%"},
    ),
    Shipped("constant", NoArgs, "Warm up linearly, then stay at the peak.", {"warmup": "0"}),
    Shipped(
        "plateau",
        PlateauArgs,
        "Warm up linearly, then multiply by `factor`, down to `minLrRatio` of the peak, whenever the metric hasn't "
        "improved for `patience` validations.",
        {"warmup": "0"},
    ),
    call=Call(
        function_positional=1,
        offered=("total_steps", "steps_per_epoch"),
        words="A function of the step since the warm-up that returns the share of the peak, or a class whose objects "
        "are called so. It gets `args`, and `total_steps` (after the warm-up) and `steps_per_epoch` where its "
        "signature has them.",
    ),
)


class Schedule(Part):
    """The schedule of the learning rate: one that we ship, one of an installed package, or the user's own."""

    FAMILY: ClassVar[Family] = SCHEDULES

    warmup: Annotated[Warmup, Field(json_schema_extra=FROM_NAME)] = "0"
    """Linear warm-up from 0: a share of the run, steps or epochs."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Lowest learning rate after the warm-up, as a share of the peak."""

"""`spec.training.schedule`: how the learning rate moves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.types import Metric, Model, Warmup


class Cosine(Model):
    """Warm up linearly, then fall along a half cosine to `minLrRatio` of the peak at the end of the run."""

    name: Literal["cosine"] = "cosine"
    """Name of the schedule."""
    warmup: Warmup = "5%"
    """Linear warm-up from 0: a share of the run, steps or epochs."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate as a share of the peak."""


class Linear(Model):
    """Warm up linearly, then fall linearly to `minLrRatio` of the peak at the end of the run."""

    name: Literal["linear"] = "linear"
    """Name of the schedule."""
    warmup: Warmup = "5%"
    """Linear warm-up from 0: a share of the run, steps or epochs."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate as a share of the peak."""


class Constant(Model):
    """Warm up linearly, then stay at the peak."""

    name: Literal["constant"] = "constant"
    """Name of the schedule."""
    warmup: Warmup = "0"
    """Linear warm-up from 0: a share of the run, steps or epochs."""


class Plateau(Model):
    """Warm up linearly, then multiply by `factor` when the metric hasn't improved for `patience` validations."""

    name: Literal["plateau"] = "plateau"
    """Name of the schedule."""
    warmup: Warmup = "0"
    """Linear warm-up from 0: a share of the run, steps or epochs."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the learning rate is multiplied by."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Validations without improvement before it falls."""
    metric: Metric = "val/loss"
    """Validation metric that is watched."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Floor of the learning rate as a share of the peak."""


Schedule = Annotated[Cosine | Linear | Constant | Plateau, Field(discriminator="name")]

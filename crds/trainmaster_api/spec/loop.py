"""`spec.training.loop`: the training loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.types import Duration, Metric, Model


class EarlyStopping(Model):
    """Stops the run when the metric hasn't improved for `patience` validations."""

    metric: Metric = "val/loss"
    """Validation metric to monitor; whether higher is better is a property of the metric."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Number of validations without improvement after which the run stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Minimum change that counts as an improvement, in the metric's unit."""


class Loop(Model):
    """Duration, precision and other settings of the training loop."""

    duration: Duration = "10ep"
    """Duration of the run: `20ep` (epochs) or `1000step` (optimizer steps). May be raised later to extend the run."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the forward and backward pass; weights and optimizer state stay in fp32."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=65536)] = 1
    """Number of micro-batches per optimizer step. More of them need less memory; batchSize remains that of the whole
    step."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Maximum global gradient norm. If unset, gradients are not clipped."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of the initial weights, the order of rows, and dropout."""
    validate_every: Duration = "1ep"
    """Interval between evaluations of the validation split."""
    early_stopping: EarlyStopping | None = None
    """Early stopping. If unset, the run trains for its whole duration."""

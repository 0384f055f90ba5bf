"""`spec.training.loop`: how long, how precise."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.types import Duration, Metric, Model


class EarlyStopping(Model):
    """Stop when the metric hasn't improved for `patience` validations."""

    metric: Metric = "val/loss"
    """Validation metric that is watched; which direction is better is a property of the metric."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Validations without improvement before the run stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Improvement that counts, in the metric's unit."""


class Loop(Model):
    """How long, how precise, and what a step does besides the update."""

    duration: Duration = "10ep"
    """Length of the run: `20ep` (epochs) or `1000step` (optimizer steps)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of forward and backward; weights and optimizer stay in fp32."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=65536)] = 1
    """Micro-batches per optimizer step: less memory, same result, because the batch size is that of the step."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Clip the global gradient norm to this; absent: no clipping."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of weights, order and dropout."""
    validate_every: Duration = "1ep"
    """How often the validation split is evaluated."""
    early_stopping: EarlyStopping | None = None
    """Stop early; absent: run the whole duration."""

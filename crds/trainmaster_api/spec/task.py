"""`spec.training.task`: what is predicted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.types import Model

METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("loss", "accuracy", "f1"),
    "regression": ("loss", "rmse", "mae", "r2"),
}
"""Metrics of each task; in the spec and in metrics.jsonl they are called `val/<metric>`, `test/<metric>`."""


class Classification(Model):
    """Predict one of `numClasses` classes; cross-entropy loss; metrics accuracy and macro F1."""

    type: Literal["classification"] = "classification"
    """Kind of task."""
    num_classes: Annotated[int, Field(ge=2, le=1_000_000)]
    """Number of classes; labels are 0 .. numClasses-1, or names that are numbered in sorted order."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight that cross-entropy spreads over the other classes."""


class Regression(Model):
    """Predict one number; metrics rmse, mae and r2 in the unit of the target."""

    type: Literal["regression"] = "regression"
    """Kind of task."""
    loss: Literal["mse", "mae", "huber"] = "mse"
    """Loss on the standardised target."""


Task = Annotated[Classification | Regression, Field(discriminator="type")]

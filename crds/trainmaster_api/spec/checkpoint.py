"""`spec.checkpoint`: when state is saved and how much of it is kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainmaster_api.types import Interval, Metric, Model


class Checkpoint(Model):
    """When checkpoints are saved and how many are kept."""

    every: Interval = "auto"
    """Interval between checkpoints: `auto` (derived from the measured cost of a save), or `1ep`, `500step`, `10m`."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """Number of newest checkpoints to keep."""
    keep_best: Annotated[int, Field(ge=0, le=100)] = 1
    """Number of best checkpoints to keep in addition."""
    metric: Metric = "val/loss"
    """Validation metric that determines the best checkpoint; whether higher is better is a property of the metric."""

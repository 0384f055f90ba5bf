"""`spec.checkpoint`: when state is saved and how much of it is kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainmaster_api.types import Interval, Metric, Model


class Checkpoint(Model):
    """When state is saved and how much of it is kept."""

    every: Interval = "auto"
    """`auto` (chosen from the measured cost of a save), or `1ep`, `500step`, `10m`."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """Newest checkpoints that are kept."""
    keep_best: Annotated[int, Field(ge=0, le=100)] = 1
    """Best checkpoints that are kept besides."""
    metric: Metric = "val/loss"
    """Validation metric that says which is best; its better direction follows from its name."""

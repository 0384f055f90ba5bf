"""`spec.training`: what is trained. It means the same on a laptop and in a cluster.

Names that we ship (data sources, models, optimizers, schedules, tasks) have typed arguments here, so a misspelt one
fails at `kubectl apply` and not in the pod. A family of typed variants is a discriminated union on `name` (or `type`);
in the CRD, which has no unions, the variants' fields are merged and CEL rules say which belong to which.
"""

from __future__ import annotations

from typing import Literal

from trainmaster_api.types import Model

from .data import Data
from .loop import Loop
from .model import ModelSpec
from .optimizer import AdamW, Optimizer
from .schedule import Cosine, Schedule
from .task import Task


class Training(Model):
    """What is trained: data -> model -> loop."""

    framework: Literal["torch"] = "torch"
    """Framework that runs the loop."""
    task: Task
    """What is predicted; owns the loss and the metrics."""
    data: Data
    """Where the rows come from."""
    model: ModelSpec
    """Which model."""
    optimizer: Optimizer = AdamW()
    """How weights are updated."""
    schedule: Schedule = Cosine()
    """How the learning rate moves."""
    loop: Loop = Loop()
    """How long and how precise."""

"""`spec.training`: what is trained. It means the same on a laptop and in a cluster.

Task, model, optimizer and schedule are parts (`part.py`): names that we ship have typed arguments there, so a misspelt
one is found by `trainmaster validate` and the operator, and not in the pod.
"""

from __future__ import annotations

from typing import Literal

from trainmaster_api.types import Model

from .data import Data
from .loop import Loop
from .model import ModelPart
from .optimizer import Optimizer
from .schedule import Schedule
from .task import Task


class Training(Model):
    """What is trained: data -> model -> loop."""

    framework: Literal["torch"] = "torch"
    """Framework that runs the loop."""
    task: Task
    """What is predicted, with which loss and metrics."""
    data: Data
    """Where the rows come from."""
    model: ModelPart
    """Which model."""
    optimizer: Optimizer = Optimizer.model_validate({"name": "adamw"})
    """How weights are updated."""
    schedule: Schedule = Schedule(name="cosine")
    """How the learning rate moves."""
    loop: Loop = Loop()
    """How long and how precise."""

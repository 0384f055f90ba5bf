"""`spec.training`: what is trained. It means the same on a laptop and in a cluster.

Task, model, optimizer and schedule are parts (`part.py`): names that we ship have typed arguments there, so a misspelt
one is found by `trainmaster validate` and the operator, and not in the pod.
"""

from __future__ import annotations

from typing import Literal

from trainmaster_api.types import Model

from .data import Data
from .distributed import Distributed
from .loop import Loop
from .model import ModelPart
from .optimizer import Optimizer
from .schedule import Schedule
from .task import Task


class Training(Model):
    """What to train: data, model, optimizer and loop."""

    framework: Literal["torch"] = "torch"
    """Framework that runs the training loop."""
    task: Task
    """What to predict, with which loss and metrics."""
    data: Data
    """Data source, split and batches."""
    model: ModelPart
    """The model."""
    optimizer: Optimizer = Optimizer.model_validate({"name": "adamw"})
    """The optimizer."""
    schedule: Schedule = Schedule(name="cosine")
    """The learning-rate schedule."""
    loop: Loop = Loop()
    """Duration, precision and other settings of the training loop."""
    distributed: Distributed = Distributed()
    """How several workers train one model."""

"""Tasks own what a model predicts: outputs, loss and metrics."""

from __future__ import annotations

from trainmaster_api.spec import task as specs
from trainmaster_api.spec.task import LOSSES, TASK_METRICS

from trainmaster_trainer.errors import ConfigurationError

from .base import Task
from .classification import ClassificationTask
from .regression import RegressionTask

__all__ = ["Task", "build_task"]


def build_task(spec: specs.Task, classes: int) -> Task:
    """Return the task of a specification. `classes`: number of classes in the data, where the spec gives none."""
    own = {each.name for each in TASK_METRICS if spec.name in each.tasks}
    unknown = [metric.label for metric in spec.metrics if metric.name not in own]
    if LOSSES.get(spec.loss_or_default.name) is None:
        unknown.append(spec.loss_or_default.label)
    if unknown:
        raise ConfigurationError(f"task: {', '.join(unknown)} can't be built by this version")
    return ClassificationTask(spec, classes) if spec.name == "classification" else RegressionTask(spec)

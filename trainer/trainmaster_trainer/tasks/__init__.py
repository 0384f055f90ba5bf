"""Tasks own what a model predicts: outputs, loss and metrics."""

from __future__ import annotations

from trainmaster_api.spec.task import Classification, Regression

from .base import Task
from .classification import ClassificationTask
from .regression import RegressionTask

__all__ = ["Task", "build_task"]


def build_task(spec: Classification | Regression) -> Task:
    """The task of a specification."""
    return ClassificationTask(spec) if isinstance(spec, Classification) else RegressionTask(spec)

"""`spec.training.task`: the task, its loss and its metrics."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainmaster_api.types import Model

from .part import Call, Family, NoArgs, Part, Shipped

METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("loss", "accuracy", "f1"),
    "regression": ("loss", "rmse", "mae", "r2"),
}
"""Default metrics of each task; in the spec and in metrics.jsonl they are `val/<metric>` and `test/<metric>`."""

HIGHER_IS_BETTER = {"loss": False, "rmse": False, "mae": False, "accuracy": True, "f1": True, "r2": True, "auc": True}
"""Metrics that we ship, and whether higher is better."""


def is_better_higher(metric: str) -> bool | None:
    """Return whether higher is better of a metric such as `val/accuracy`; None: it isn't ours."""
    return HIGHER_IS_BETTER.get(metric.rpartition("/")[2])


class CrossEntropyArgs(Model):
    """Arguments of cross-entropy."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight that is distributed over the other classes."""


LOSSES = Family(
    "loss",
    Shipped("cross_entropy", CrossEntropyArgs, "Cross-entropy.", tasks=("classification",)),
    Shipped("mse", NoArgs, "Mean squared error of the standardized target.", tasks=("regression",)),
    Shipped("mae", NoArgs, "Mean absolute error of the standardized target.", tasks=("regression",)),
    Shipped("huber", NoArgs, "Huber loss of the standardized target.", tasks=("regression",)),
    call=Call(
        function_positional=2,
        words="A function `(output, target)` that returns the mean loss of a batch, or a class with such a "
        "`__call__`. It is called with `args`.",
    ),
    group="trainmaster.losses",
)
DEFAULT_LOSS = {"classification": "cross_entropy", "regression": "mse"}

TASK_METRICS = Family(
    "metric",
    Shipped("accuracy", NoArgs, "Share of rows whose class is predicted correctly.", tasks=("classification",)),
    Shipped("auc", NoArgs, "Area under the ROC curve; mean over several classes.", tasks=("classification",)),
    Shipped("f1", NoArgs, "F1 score, averaged over the classes that occur.", tasks=("classification",)),
    Shipped("rmse", NoArgs, "Root mean squared error in the target's unit.", tasks=("regression",)),
    Shipped("mae", NoArgs, "Mean absolute error in the target's unit.", tasks=("regression",)),
    Shipped("r2", NoArgs, "Share of variance explained.", tasks=("regression",)),
    call=Call(
        function_positional=2,
        offered=("outputs",),
        words="A subclass of `trainmaster_trainer.tasks.metrics.Metric`, or a function `(outputs, targets)` that "
        "returns a number. It is called with `args`; a class also with `outputs` if its signature has it. The "
        "metric is named `val/` and its name in snake_case.",
    ),
)


class Loss(Part):
    """The loss: a built-in one, one from an installed package, or your own class or function."""

    FAMILY: ClassVar[Family] = LOSSES


class MetricPart(Part):
    """A metric: a built-in one, one from an installed package, or your own class or function."""

    FAMILY: ClassVar[Family] = TASK_METRICS

    @property
    def key(self) -> str:
        """The metric's name after `val/`: its name, or its class name in snake_case."""
        last = re.split(r"[/:.]", self.label)[-1]
        return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).lower()).strip("_")


class Task(Model):
    """What to predict, with which loss and metrics."""

    name: Literal["classification", "regression"]
    """Kind of task: predict one of several classes, or a number."""
    num_classes: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Number of classes of a classification; labels are 0 .. numClasses-1, or names that are numbered in sorted order.
    Default: the number of classes in the data."""
    loss: Loss | None = None
    """Loss to minimize. Default: cross_entropy for classification, mse for regression."""
    metrics: Annotated[list[MetricPart], Field(max_length=32)] = []
    """Metrics in addition to the task's default metrics."""

    @property
    def loss_or_default(self) -> Loss:
        """The loss, or the task's default."""
        return self.loss or Loss(name=DEFAULT_LOSS[self.name])

    @property
    def metric_keys(self) -> list[str]:
        """Names of the metrics, as they follow `val/`: the task's own, then the job's."""
        return list(dict.fromkeys([*METRICS[self.name], *(metric.key for metric in self.metrics)]))

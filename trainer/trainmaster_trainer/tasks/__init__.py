"""A task is a kind (what is predicted), a loss (what is minimised) and metrics (what is measured)."""

from __future__ import annotations

from collections.abc import Callable

from trainmaster_api.spec.task import METRICS, MetricPart
from trainmaster_api.spec.task import Loss as LossPart
from trainmaster_api.spec.task import Task as TaskSpec

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import resolve
from trainmaster_trainer.registry import Registry

from .base import Kind, LossValue, Task, Trained, Unit
from .losses.base import Loss
from .metrics.base import Metric
from .objective import Objective
from .own import metric_factory, own_loss

__all__ = [
    "KINDS",
    "LOSSES",
    "METRICS_BY_NAME",
    "Kind",
    "Loss",
    "LossValue",
    "Metric",
    "Objective",
    "Task",
    "Trained",
    "Unit",
    "build_task",
]

KINDS: Registry[Callable[[TaskSpec, int, Unit], Kind]] = Registry("task", f"{__name__}.kinds", "trainmaster.tasks")
LOSSES: Registry[Callable[[LossPart], Loss]] = Registry("loss", f"{__name__}.losses", "trainmaster.losses")
METRICS_BY_NAME: Registry[Callable[[Kind], Metric]] = Registry("metric", f"{__name__}.metrics", "trainmaster.metrics")


def build_task(spec: TaskSpec, classes: int, unit: Unit | None = None, *, has_weights: bool = False) -> Task:
    """Return the task of a specification.

    Args:
        spec: What was asked.
        classes: Number of classes that the data names; used where the spec gives none.
        unit: What the target was standardised with.
        has_weights: Whether rows have weights, which the loss has to take.

    Raises:
        ConfigurationError: A name or a reference leads nowhere, its arguments don't fit, or the loss takes no weights.
    """
    kind = KINDS.get(spec.name, "task.name")(spec, classes, unit or Unit())
    # those that every task of this kind has come first, so that a job's own metric can't take their place
    parts = {key: MetricPart(name=key) for key in METRICS[spec.name] if key != "loss"}
    paths = dict.fromkeys(parts, "task.metrics")
    for index, part in enumerate(spec.metrics):
        if part.key not in parts:
            parts[part.key], paths[part.key] = part, f"task.metrics[{index}]"
    loss = _loss(spec.loss_or_default)
    if has_weights and not loss.takes_weights:
        raise ConfigurationError(
            f"task.loss {spec.loss_or_default.label}: rows have weights (role weight in data.columns, or `weights` of "
            "the dataset), and its signature doesn't name `weight`. Add an argument `weight=None`, a tensor of "
            "(batch,), and return the mean of weight times loss; or remove the weights"
        )
    factories = {key: _metric(part, key, paths[key], kind) for key, part in parts.items()}
    return Task(kind, loss, factories, spec.name, spec.loss_or_default.label)


def _loss(part: LossPart) -> Loss:
    if part.reference is not None:
        return own_loss(resolve(part.reference, "task.loss.class"), part, "task.loss")
    assert part.name is not None
    found = LOSSES.get(part.name, "task.loss.name")
    return found(part) if LOSSES.is_shipped(part.name) else own_loss(found, part, "task.loss")


def _metric(part: MetricPart, key: str, path: str, kind: Kind) -> Callable[[], Metric]:
    if part.reference is not None:
        return metric_factory(resolve(part.reference, f"{path}.class"), part, key, path, kind)
    assert part.name is not None
    found = METRICS_BY_NAME.get(part.name, f"{path}.name")
    return (
        (lambda: found(kind)) if METRICS_BY_NAME.is_shipped(part.name) else metric_factory(found, part, key, path, kind)
    )

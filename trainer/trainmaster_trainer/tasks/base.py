"""What a kind of task is, and what the loop asks of a task with its loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from trainmaster_api.references import did_you_mean

from trainmaster_trainer.errors import ConfigurationError, UserCodeError
from trainmaster_trainer.sample import Batch, forward

from .losses.base import Loss
from .mean_loss import MeanLoss
from .metrics.base import Metric
from .objective import Objective

LossValue = Tensor | tuple[Tensor, Tensor]
"""The mean over a batch, a scalar; or the sum over it and the count that it is to be divided by."""


@dataclass(frozen=True)
class Unit:
    """What a regression's target was standardised with."""

    mean: float = 0.0
    std: float = 1.0

    def back(self, value: Tensor) -> Tensor:
        """Return standardised numbers in the target's unit, in float64."""
        return value.double() * self.std + self.mean


class Kind(Protocol):
    """What a model predicts."""

    outputs: int
    """Numbers that the model returns for a sample: its output is (batch, outputs)."""

    def decode(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return what metrics see of a batch: predictions and targets."""
        ...


class Trained(Protocol):
    """What the loop asks of what it minimises and measures: a task by name, or a recipe."""

    @property
    def outputs(self) -> int:
        """Numbers that the model returns for a sample; 0: anything."""

    @property
    def module(self) -> nn.Module | None:
        """The loss as a module, if it is one: its buffers are saved."""

    @property
    def states(self) -> Mapping[str, Any]:
        """What else changes while training, by name."""

    def loss_of(self, model: nn.Module, batch: Batch) -> LossValue:
        """Return the loss of a batch."""

    def checked_loss(self, replica: nn.Module, model: nn.Module, batch: Batch, label: str) -> LossValue:
        """Return the loss of the first batch, after checking what the user's code returns."""

    def meters(self) -> dict[str, Metric]:
        """Return new metrics for one evaluation, the loss first."""

    def observe(self, meters: dict[str, Metric], model: nn.Module, batch: Batch, rows: int) -> None:
        """Add a batch to the metrics."""

    def objective(self, metric: str, path: str) -> Objective:
        """Return a metric that decides something, with its direction."""


@dataclass(frozen=True)
class Task:
    """What is predicted, what is minimised, what is measured.

    Attributes:
        kind: Outputs, and what metrics see.
        loss: What is minimised.
        factories: Factories of the metrics other than the loss, by their name in the spec and in metrics.jsonl.
        name: `task.name`, for sentences.
        loss_label: Name or reference of the loss, for sentences.
    """

    kind: Kind
    loss: Loss
    factories: dict[str, Callable[[], Metric]]
    name: str = ""
    loss_label: str = ""

    @property
    def outputs(self) -> int:
        """Numbers that the model returns for a sample."""
        return self.kind.outputs

    @property
    def module(self) -> nn.Module | None:
        """Return the loss as a module, if it is one."""
        return self.loss.module

    @property
    def states(self) -> Mapping[str, Any]:
        """Return nothing: what changes is in model, loss, optimizer and schedule."""
        return {}

    def loss_of(self, model: nn.Module, batch: Batch) -> LossValue:
        """Return the mean loss of a batch, a scalar."""
        return self._loss(forward(model, batch.x), batch)

    def checked_loss(self, replica: nn.Module, model: nn.Module, batch: Batch, label: str) -> LossValue:
        """Return the same for the first batch, after checking output and loss.

        Args:
            replica: The model that is trained.
            model: The bare model.
            batch: A batch.
            label: Name or reference of the model, for sentences.

        Raises:
            UserCodeError: The model or the loss doesn't return what is needed.
        """
        output = forward(replica, batch.x)
        self._require_output(output, len(batch.y), label)
        loss = self._loss(output, batch)
        where = f"task.loss {self.loss_label}"
        require_scalar(loss, where, "a scalar, the mean over the batch")
        require_gradient(loss, where, f" (model {label})")
        return loss

    def _loss(self, output: Any, batch: Batch) -> Tensor:
        if batch.weight is None:
            return self.loss.training(output, batch.y)
        return self.loss.training(output, batch.y, weight=batch.weight)

    def _require_output(self, output: object, rows: int, label: str) -> None:
        """Reject an output that isn't (batch, outputs): the loss would fail obscurely, or broadcast silently."""
        expected = (rows, self.outputs)
        shape = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        if shape != expected:
            raise UserCodeError(
                f"model {label} returned {shape} for a batch of {rows} rows; task.name {self.name} expects {expected}"
            )

    def meters(self) -> dict[str, Metric]:
        """Return new metrics for one evaluation, the loss first."""
        loss, others = self.metrics()
        return {"loss": loss, **others}

    def observe(self, meters: dict[str, Metric], model: nn.Module, batch: Batch, rows: int) -> None:
        """Add a batch to the metrics."""
        output = forward(model, batch.x)
        predicted, true = self.kind.decode(output, batch.y)
        for metric in meters.values():
            if isinstance(metric, MeanLoss):
                metric.update(output, batch.y, batch.weight)
            else:
                metric.update(predicted, true)

    def metrics(self) -> tuple[MeanLoss, dict[str, Metric]]:
        """Return new objects for one evaluation: the mean loss, and the metrics by name."""
        return MeanLoss(self.loss.reported), {name: build() for name, build in self.factories.items()}

    def objective(self, metric: str, path: str) -> Objective:
        """Return a metric that decides something, with its direction.

        Args:
            metric: `val/<name>`.
            path: Where it was given.

        Raises:
            ConfigurationError: The task has no such metric.
        """
        loss, others = self.metrics()
        known = {f"val/{name}": each for name, each in {"loss": loss, **others}.items()}
        if metric not in known:
            raise ConfigurationError(
                f"{path}: unknown metric {metric!r}; known are {', '.join(known)}{did_you_mean(metric, known)}"
            )
        return Objective(metric, known[metric].higher_is_better)


def require_scalar(loss: object, where: str, expected: str) -> None:
    """Reject a loss that isn't a scalar."""
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise UserCodeError(f"{where} returned {shape}; expected {expected}")


def require_gradient(loss: Tensor, where: str, model: str) -> None:
    """Reject a loss that has no gradient."""
    if not loss.requires_grad:
        raise UserCodeError(
            f"{where} doesn't depend on the model's parameters{model}: "
            "there is nothing to train; is something computed under no_grad, or detached?"
        )

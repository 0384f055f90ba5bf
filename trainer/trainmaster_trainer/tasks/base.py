"""What a kind of task is, and what the loop asks of a task with its loss and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from trainmaster_api.references import did_you_mean

from trainmaster_trainer.errors import ConfigurationError

from .losses.base import Loss
from .mean_loss import MeanLoss
from .metrics.base import Metric
from .objective import Objective


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


@dataclass(frozen=True)
class Task:
    """What is predicted, what is minimised, what is measured.

    Attributes:
        kind: Outputs, and what metrics see.
        loss: What is minimised.
        factories: Factories of the metrics other than the loss, by their name in the spec and in metrics.jsonl.
    """

    kind: Kind
    loss: Loss
    factories: dict[str, Callable[[], Metric]]

    @property
    def outputs(self) -> int:
        """Numbers that the model returns for a sample."""
        return self.kind.outputs

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

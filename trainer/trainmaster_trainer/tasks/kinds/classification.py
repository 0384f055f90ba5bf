"""Classification: logits of (batch, classes), classes of (batch,)."""

from __future__ import annotations

from torch import Tensor
from trainmaster_api.spec.task import Task as TaskSpec

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.tasks.base import Unit


class Classification:
    """One of several classes."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def decode(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits in float32, whatever precision they were computed in, and the classes."""
        return output.float(), target


def build(spec: TaskSpec, classes: int, unit: Unit) -> Classification:
    """Return the task; the number of classes is that of the spec, or else the data's."""
    outputs = spec.num_classes or classes
    if outputs < 2:
        raise ConfigurationError(f"task.numClasses: the data has {outputs} named classes; set the number of classes")
    return Classification(outputs)

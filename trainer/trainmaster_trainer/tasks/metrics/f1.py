"""F1 averaged over the classes that occur."""

from __future__ import annotations

import torch
from torch import Tensor

from trainmaster_trainer.tasks.base import Kind

from .base import Metric


class MacroF1(Metric):
    """Unweighted mean of the classes' F1; a class that is neither predicted nor true has none.

    Args:
        classes: Number of classes.
    """

    name, higher_is_better = "f1", True

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("counts", torch.zeros((3, classes), dtype=torch.float64))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count hits, predictions and true rows of each class."""
        predicted = output.argmax(dim=1)
        groups = (target[predicted == target], predicted, target)
        self.add("counts", torch.stack([torch.bincount(g, minlength=self.classes).double() for g in groups]))

    def compute(self) -> float:
        """Return the mean of 2 * hits / (predicted + true)."""
        hits, predicted, true = self["counts"]
        f1 = 2 * hits / (predicted + true).clamp(min=1)
        return float(f1[(predicted + true) > 0].mean())


def build(kind: Kind) -> MacroF1:
    """Return it for a task."""
    return MacroF1(kind.outputs)

"""Classification: cross-entropy; accuracy and macro F1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from trainmaster_api.spec.task import CrossEntropyArgs, Task


class ClassificationTask:
    """Targets are class numbers, int64 of (batch,)."""

    def __init__(self, spec: Task, classes: int) -> None:
        self.outputs = spec.num_classes or classes
        self.label_smoothing = spec.loss_or_default.typed_args(CrossEntropyArgs).label_smoothing

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(output, target, label_smoothing=self.label_smoothing)

    def sums(self, output: Tensor, target: Tensor) -> Tensor:
        """[rows, loss, hits per class, predicted per class, true per class]."""
        loss = F.cross_entropy(output.float(), target, label_smoothing=self.label_smoothing, reduction="sum")
        predicted = output.argmax(dim=1)
        head = torch.stack([torch.tensor(float(len(target)), dtype=torch.float64, device=loss.device), loss.double()])
        groups = (target[predicted == target], predicted, target)
        return torch.cat([head, *(torch.bincount(g, minlength=self.outputs).double() for g in groups)])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Loss, accuracy, and F1 averaged over the classes that occur."""
        rows, loss = sums[:2]
        hits, predicted, true = sums[2:].view(3, self.outputs)
        f1 = 2 * hits / (predicted + true).clamp(min=1)
        return {
            "loss": float(loss / rows),
            "accuracy": float(hits.sum() / rows),
            "f1": float(f1[(predicted + true) > 0].mean()),
        }

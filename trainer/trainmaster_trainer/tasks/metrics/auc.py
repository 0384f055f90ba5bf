"""Area under the ROC curve: exact, over all rows; several classes: mean of each against the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainmaster_trainer.tasks.base import Kind

from .base import Metric


class Auc(Metric):
    """The probability that a row of the class scores higher than one that isn't; ties count half.

    No sum over batches gives it: the scores of all rows are gathered, 4 bytes per row and class on every rank.
    """

    name, higher_is_better = "auc", True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", merge="cat")
        self.add_state("targets", merge="cat")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Collect probabilities and classes."""
        self.append("scores", output.softmax(dim=1))
        self.append("targets", target)

    def compute(self) -> float:
        """Return the area; NaN where the rows are all of one class, for which there is no curve."""
        scores, targets = self["scores"], self["targets"]
        classes = [1] if scores.shape[1] == 2 else list(range(scores.shape[1]))
        areas = [_area(scores[:, c], targets == c) for c in classes]
        found = [area for area in areas if not math.isnan(area)]
        return sum(found) / len(found) if found else math.nan


def _area(scores: Tensor, is_positive: Tensor) -> float:
    """Return Mann-Whitney's U over all pairs, from ranks; equal scores share their mean rank."""
    positives = int(is_positive.sum())
    negatives = len(is_positive) - positives
    if not positives or not negatives:
        return math.nan
    _, group, sizes = torch.unique(scores, return_inverse=True, return_counts=True)
    ends = sizes.cumsum(0).double()
    ranks = (ends - (sizes.double() - 1) / 2)[group]
    u = float(ranks[is_positive].sum()) - positives * (positives + 1) / 2
    return u / (positives * negatives)


def build(kind: Kind) -> Auc:
    """Return it for a task."""
    return Auc()

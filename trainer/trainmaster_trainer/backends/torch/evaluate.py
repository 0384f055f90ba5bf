"""Evaluation of a split: metric objects see this rank's batches and are merged: the figures are those of one pass."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainmaster_trainer.data import Prepared
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.tasks import Task
from trainmaster_trainer.tasks.metrics import merge_over_ranks

MOST_ROWS = 512
MOST_VALUES = 2**22  # of input at a time: large images are evaluated in small batches


@torch.no_grad()
def evaluate(
    model: nn.Module, data: Prepared, rows: Indices, task: Task, *, rank: int = 0, world_size: int = 1
) -> dict[str, float]:
    """Return metrics of the model on the given rows; every rank takes its share and all get the same numbers.

    Args:
        model: The bare model, not its DDP wrapper; its buffers must agree between the ranks.
        data: Where the rows are.
        rows: Row numbers.
        task: Gives the metrics.
        rank: This rank.
        world_size: Ranks; the process group must be up when more than one.
    """
    was_training = model.training
    model.eval()
    loss, metrics = task.metrics()
    mine = rows[rank::world_size]
    at_once = max(1, min(MOST_ROWS, MOST_VALUES // math.prod(data.rows.shape)))
    for start in range(0, len(mine), at_once):
        x, y = data.batch(mine[start : start + at_once])
        output = model(x)
        loss.update(output, y)
        predicted, true = task.kind.decode(output, y)
        for metric in metrics.values():
            metric.update(predicted, true)
    model.train(was_training)
    merge_over_ranks([loss, *metrics.values()], world_size, data.mean.device)
    return {name: float(metric.compute()) for name, metric in {"loss": loss, **metrics}.items()}

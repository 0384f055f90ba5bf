"""Evaluation of a split: sums over batches and workers, so the figure is that of one pass over all rows."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import nn

from trainmaster_trainer.data import Prepared
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.tasks import Task

MOST_ROWS = 512
MOST_VALUES = 2**22  # of input at a time: large images are evaluated in small batches


@torch.no_grad()
def evaluate(
    model: nn.Module, data: Prepared, rows: Indices, task: Task, *, rank: int = 0, world_size: int = 1
) -> dict[str, float]:
    """Metrics of the model on the given rows; every rank takes its share and all get the same numbers.

    Args:
        model: The bare model, not its DDP wrapper.
        data: Where the rows are.
        rows: Row numbers.
        task: Gives sums and metrics.
        rank: This rank.
        world_size: Ranks; the process group must be up when more than one.
    """
    was_training = model.training
    model.eval()
    total = _zeros(model, data, rows, task)
    mine = rows[rank::world_size]
    at_once = max(1, min(MOST_ROWS, MOST_VALUES // math.prod(data.rows.shape)))
    for start in range(0, len(mine), at_once):
        x, y = data.batch(mine[start : start + at_once])
        total += task.sums(model(x), y)
    model.train(was_training)
    if world_size > 1:
        dist.all_reduce(total)
    return task.metrics(total)


def _zeros(model: nn.Module, data: Prepared, rows: Indices, task: Task) -> torch.Tensor:
    """Zeros in the shape of the task's sums; a rank whose share is empty needs it too."""
    x, y = data.batch(rows[:1])
    return torch.zeros_like(task.sums(model(x), y))

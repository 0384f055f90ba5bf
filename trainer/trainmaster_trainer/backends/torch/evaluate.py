"""Evaluation of a split: metrics see this rank's batches and are merged, so the result is that of a single process."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainmaster_trainer.data.loader import Loader
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.stream_loader import StreamLoader
from trainmaster_trainer.tasks import Trained
from trainmaster_trainer.tasks.metrics import merge_over_ranks

MOST_ROWS = 512
MOST_VALUES = 2**22  # of input at a time: large images are evaluated in small batches, which bounds the memory


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: Loader | StreamLoader, rows: Indices, task: Trained, *, rank: int = 0, world_size: int = 1
) -> dict[str, float]:
    """Return metrics of the model on the given rows; every rank takes its share and all get the same values.

    Of no rows, which a recipe may have in its splits, it returns none.

    Args:
        model: The bare model, not its DDP wrapper; its buffers must agree between the ranks.
        loader: Makes the batches.
        rows: Row numbers.
        task: Defines the metrics.
        rank: This rank.
        world_size: Number of ranks; the process group must be initialized if more than one.
    """
    if not len(rows):
        return {}
    # The bare model, because DDP's forward would broadcast buffers in every batch, and ranks have different numbers of
    # batches: the rank with more would hang.
    was_training = model.training
    model.eval()
    meters = task.meters()
    mine = rows[rank::world_size]  # no padding: a row that is evaluated twice would count twice
    shape = loader.data.inputs.shape  # unknown where samples differ: then as many as there is memory for in training
    at_once = max(1, min(MOST_ROWS, MOST_VALUES // math.prod(shape))) if shape else loader.micro_batch
    parts = [mine[start : start + at_once] for start in range(0, len(mine), at_once)]
    for part, batch in zip(parts, loader.evaluation(parts), strict=True):
        task.observe(meters, model, batch, len(part))
    model.train(was_training)
    # The only communication of an evaluation. Metrics merge states and not values: a mean of ranks' F1 isn't the F1.
    merge_over_ranks(list(meters.values()), world_size, loader.data.mean.device)
    return {name: float(metric.compute()) for name, metric in meters.items()}

"""`spec.training.distributed`: how several workers train one model."""

from __future__ import annotations

from trainmaster_api.types import Model


class Distributed(Model):
    """How several workers train one model; without effect with a single worker."""

    sync_batch_norm: bool = False
    """If true, the model's batch norm layers normalize with the statistics of all workers (torch.nn.SyncBatchNorm),
    not with those of the worker's own rows. Requires GPUs, and a model that has such layers."""

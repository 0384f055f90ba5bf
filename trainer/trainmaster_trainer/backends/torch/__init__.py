"""Our own PyTorch loop. Imports no torch until it trains."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.context import Context, Result

if TYPE_CHECKING:
    import torch


class TorchBackend:
    """The loop of `loop.py`."""

    is_reusable = True
    # torch.distributed and DDP come with them
    warm_modules = (f"{__name__}.loop", f"{__name__}.group")

    def join(
        self, job: TrainingJob, world_size: int, cpus: float | None
    ) -> contextlib.AbstractContextManager[torch.device]:
        """Set the threads, find the device and join torch.distributed."""
        from .group import join

        return join(job, world_size, cpus)

    def fit(self, context: Context) -> Result:
        """Train on this rank."""
        from .loop import fit
        from .settings import settings_kept

        with settings_kept():
            return fit(context)


BACKEND = TorchBackend()

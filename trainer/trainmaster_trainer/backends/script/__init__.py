"""An unchanged program of the user's own, run in the rank's main thread with torchrun's environment."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.context import Context, Result

if TYPE_CHECKING:
    import torch


class ScriptBackend:
    """Runs the program of `training.script`."""

    # what nearly every program imports; a restart doesn't wait for it
    is_reusable = False  # a program may leave anything in its process
    warm_modules: tuple[str, ...] = (f"{__name__}.fit", "torch.distributed", "torch.optim")

    def join(
        self, job: TrainingJob, world_size: int, cpus: float | None
    ) -> contextlib.AbstractContextManager[torch.device]:
        """Set the threads; process group and device are the program's own affair."""
        from .fit import join

        return join(world_size, cpus)

    def fit(self, context: Context) -> Result:
        """Run the program to its end."""
        from .fit import fit

        return fit(context)


BACKEND = ScriptBackend()

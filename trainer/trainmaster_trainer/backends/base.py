"""What a backend is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.context import Context, Result


class Backend(Protocol):
    """Runs a job's training."""

    @property
    def is_reusable(self) -> bool:
        """Whether a process that has trained one job may train another one: nothing of the first is left in it."""
        ...

    @property
    def warm_modules(self) -> tuple[str, ...]:
        """Modules that a process imports before it knows its job; they create no context on a GPU."""
        ...

    def join(self, job: TrainingJob, world_size: int, cpus: float | None) -> AbstractContextManager[Any]:
        """Set this process up as a rank for the block, by torchrun's environment variables.

        Args:
            job: The resolved job.
            world_size: Number of ranks.
            cpus: Cores of this rank; None on a laptop, where the ranks share the machine.

        Returns:
            A context manager that yields the device, which becomes `Context.device`.

        Raises:
            PortTaken: Rank 0 can't listen where it was told to.
        """
        ...

    def fit(self, context: Context) -> Result:
        """Train on this rank, from the newest checkpoint if there is one, to the end or to a stop."""
        ...

"""What a backend is."""

from __future__ import annotations

from typing import Protocol

from trainmaster_trainer.context import Context, Result


class Backend(Protocol):
    """Runs a job's training."""

    @property
    def warm_modules(self) -> tuple[str, ...]:
        """Modules that a process imports before it knows its job; they create no context on a GPU."""
        ...

    def fit(self, context: Context) -> Result:
        """Train on this rank, from the newest checkpoint if there is one, to the end or to a stop."""
        ...

"""What a backend is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trainmaster_trainer.context import Context, Result


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a backend; a job that needs more is rejected before it starts.

    Attributes:
        is_resumable: It resumes from a checkpoint exactly.
        is_distributed: It trains with more than one worker.
        has_early_stopping: It stops when a metric no longer improves.
        exports_onnx: Its models can be exported to ONNX.
    """

    is_resumable: bool
    is_distributed: bool
    has_early_stopping: bool
    exports_onnx: bool


class Backend(Protocol):
    """Runs a job's training."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    @property
    def warm_modules(self) -> tuple[str, ...]:
        """Modules that a process imports before it knows its job; they create no context on a GPU."""
        ...

    def fit(self, context: Context) -> Result:
        """Train on this rank, from the newest checkpoint if there is one, to the end or to a stop."""
        ...

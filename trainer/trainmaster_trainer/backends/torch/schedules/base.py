"""What a schedule is."""

from __future__ import annotations

from collections.abc import Callable

from trainmaster_trainer.tasks import Trained as Task

Shape = Callable[[int], float]
"""Steps since the end of the warm-up -> share of the peak learning rate."""

__all__ = ["Shape", "Task"]

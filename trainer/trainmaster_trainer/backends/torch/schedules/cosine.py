"""Down along a half cosine, to `minLrRatio` at the end of the run."""

from __future__ import annotations

import math

from trainmaster_api.spec.schedule import Schedule

from .base import Shape, Task


def build(part: Schedule, task: Task, steps: int) -> Shape:
    """Return it."""
    floor = part.min_lr_ratio

    def share(step: int) -> float:
        done = min(1.0, step / max(1, steps))
        return floor + (1 - floor) * (0.5 * (1 + math.cos(math.pi * done)))

    return share

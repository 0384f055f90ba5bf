"""Learning-rate schedules as pure functions of the step; only plateau remembers something."""

from __future__ import annotations

import math
from functools import lru_cache

from trainmaster_api.spec.schedule import Schedule
from trainmaster_api.types import parse_count

from trainmaster_trainer.tasks.metrics import higher_is_better


@lru_cache(maxsize=64)  # asked in every step
def steps_of(duration: str, steps_per_epoch: int, total_steps: int = 0) -> int:
    """Steps of `20ep`, `1000step` or (of the whole run) `5%`."""
    number, unit = parse_count(duration)
    if unit == "ep":
        return number * steps_per_epoch
    if unit == "%":
        return round(total_steps * number / 100)
    return number


def factor(schedule: Schedule, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Share of the peak learning rate at a step (the first step is 0); plateau's own factor comes on top."""
    warmup = steps_of(schedule.warmup, steps_per_epoch, total_steps)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.name in ("constant", "plateau"):
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    shape = 0.5 * (1 + math.cos(math.pi * done)) if schedule.name == "cosine" else 1 - done
    return schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * shape


class Patience:
    """Counts validations without improvement. Its state is two numbers and goes into the checkpoint."""

    def __init__(self, metric: str, patience: int, min_delta: float = 0.0) -> None:
        self.metric = metric
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        self.waited = 0

    def update(self, metrics: dict[str, float]) -> bool:
        """Take a validation in; True when patience has run out (and the count starts again)."""
        value = metrics[self.metric]
        gain = 0.0 if self.best is None else (value - self.best) * (1 if higher_is_better(self.metric) else -1)
        if self.best is None or gain > self.min_delta:
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        if self.waited < self.patience:
            return False
        self.waited = 0
        return True

    def state(self) -> dict[str, float | int | None]:
        """What a resume needs."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float | int | None]) -> None:
        """Take the state of a checkpoint."""
        self.best = state["best"]
        self.waited = int(state["waited"] or 0)

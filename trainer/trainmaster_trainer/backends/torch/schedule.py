"""The learning rate as a function of the step: a warm-up, then the schedule's shape."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from trainmaster_api.spec.schedule import Schedule as SchedulePart
from trainmaster_api.types import parse_count

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import arguments, call, resolve
from trainmaster_trainer.registry import Registry
from trainmaster_trainer.tasks import Trained

from .schedules.base import Shape

SCHEDULES: Registry[Callable[[SchedulePart, Trained, int], Shape]] = Registry(
    "schedule", f"{__package__}.schedules", "trainmaster.schedules"
)


@lru_cache(maxsize=64)  # asked in every step
def steps_of(duration: str, steps_per_epoch: int, total_steps: int = 0) -> int:
    """Return the steps of `20ep`, `1000step` or (of the whole run) `5%`."""
    number, unit = parse_count(duration)
    if unit == "ep":
        return number * steps_per_epoch
    if unit == "%":
        return round(total_steps * number / 100)
    return number


class Schedule:
    """Share of the peak learning rate at a step.

    Args:
        part: What was asked.
        task: For a schedule that watches a metric.
        total_steps: Steps of the run.
        steps_per_epoch: Steps of an epoch.
        own: A recipe's schedule, instead: the share at each step, without a warm-up.

    Raises:
        ConfigurationError: The schedule doesn't exist, or its arguments don't fit.
    """

    def __init__(
        self, part: SchedulePart, task: Trained, total_steps: int, steps_per_epoch: int, own: Shape | None = None
    ) -> None:
        self.warmup = steps_of(part.warmup, steps_per_epoch, total_steps)
        steps = max(1, total_steps - self.warmup)
        self.shape: Shape
        self.floor = 0.0  # ours keep minLrRatio by themselves
        if own is not None:
            self.shape, self.warmup = own, 0
        elif SCHEDULES.is_shipped(part.name) and part.name is not None:
            self.shape = SCHEDULES.get(part.name, "schedule.name")(part, task, steps)
        else:
            self.shape = _own(part, total_steps=steps, steps_per_epoch=steps_per_epoch)
            self.floor = part.min_lr_ratio

    def share(self, step: int) -> float:
        """Return the share of the peak at a step (the first step is 0)."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return max(self.floor, float(self.shape(step - self.warmup)))

    def validated(self, metrics: dict[str, float]) -> None:
        """Tell a schedule that wants to know."""
        if hasattr(self.shape, "validated"):
            self.shape.validated(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs; empty for a pure function of the step."""
        return dict(self.shape.state_dict()) if hasattr(self.shape, "state_dict") else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        if state and hasattr(self.shape, "load_state_dict"):
            self.shape.load_state_dict(state)


def _own(part: SchedulePart, **offered: int) -> Shape:
    """Return the user's: a class whose objects are called with the step since the warm-up, or a function of it."""
    target = (
        resolve(part.reference, "schedule.class") if part.reference else SCHEDULES.get(part.name or "", "schedule.name")
    )
    how = part.FAMILY.call
    if inspect.isclass(target):
        shape = call(target, "schedule", how, part.args, offered=offered)
    else:
        shape = partial(target, **arguments(target, "schedule", how, part.args, offered))
    if not callable(shape):
        raise ConfigurationError(f"schedule {part.label}: its instances can't be called with a step")
    found: Shape = shape
    return found

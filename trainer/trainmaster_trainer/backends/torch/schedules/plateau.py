"""Down by a factor whenever a metric hasn't improved for some validations."""

from __future__ import annotations

from typing import Any

from trainmaster_api.spec.schedule import PlateauArgs, Schedule

from trainmaster_trainer.backends.torch.patience import Patience

from .base import Task


class Plateau:
    """Its state is three numbers: the share, and those of `Patience`."""

    def __init__(self, part: Schedule, task: Task) -> None:
        args = part.typed_args(PlateauArgs)
        self.factor, self.floor, self.share = args.factor, part.min_lr_ratio, 1.0
        self.patience = Patience(task.objective(args.metric, "schedule.args.metric"), args.patience)

    def __call__(self, step: int) -> float:
        """Return the share of the peak, whatever the step."""
        return self.share

    def validated(self, metrics: dict[str, float]) -> None:
        """Take a validation in."""
        if self.patience.update(metrics):
            self.share = max(self.share * self.factor, self.floor)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {"share": self.share, **self.patience.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self.share = float(state["share"])
        self.patience.restore(state)


def build(part: Schedule, task: Task, steps: int) -> Plateau:
    """Return it."""
    return Plateau(part, task)

"""The validations of a trial: after each one the program waits until the search has decided whether it continues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.distributed as dist

from trainmaster_trainer.context import Context, Report, ReportKind, Verdict
from trainmaster_trainer.errors import UserCodeError

from .steps import Progress, metric_name

_HOW = {
    "script": "Call trainmaster.report({name}=...) after each validation",
    "lightning": 'Call self.log("{name}", ...) in validation_step',
    "transformers": "The metrics are those of `task`, after each evaluation",
}
"""How a metric is reported."""


class Gate:
    """Asks after each validation of a trial; where there is no search it never does.

    Attributes:
        is_framework: Whether a framework trains now, whose validations are noticed. What the program reports itself
            at the same step is one with them.

    Args:
        context: Of this rank.
        progress: Of the program.
        publish: Called before each question: logs and stores the metrics that were told.
    """

    def __init__(self, context: Context, progress: Progress, publish: Callable[[], None]) -> None:
        self._context, self._progress, self._publish = context, progress, publish
        self.is_framework = False
        self._before = self._here = 0
        self._at: int | None = None
        self._told: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether this is a trial of a search."""
        return bool(self._context.objectives)

    @property
    def time(self) -> int:
        """How many validations there have been, with those of former processes."""
        return self._before + self._here

    def resume(self, before: int) -> None:
        """Take over how many validations there were before this process, as far as the program continues them."""
        self._before = before

    def load(self, time: int) -> None:
        """Take over how many validations there had been when a checkpoint was written."""
        self._before, self._here = time, 0

    def completes(self, names: Iterable[str]) -> bool:
        """Return whether with these metrics all have been told that make a validation."""
        if not self.is_open:
            return False
        wanted = set(self._context.objectives)
        self._told |= wanted.intersection(map(metric_name, names))
        if self._told < wanted:
            return False
        self._told = set()
        return True

    def ends(self) -> bool:
        """Count a validation whose metrics were told, and wait for the verdict; on rank 0 only."""
        context, progress = self._context, self._progress
        assert context.gate is not None
        if self.is_framework and progress.step == self._at:
            return False
        self._publish()
        self._here += 1
        step = self._at = progress.step
        report = Report(
            kind=ReportKind.VALIDATION,
            step=step,
            total_steps=max(progress.total, step),
            epoch=progress.epoch,
            metrics=dict(progress.metrics),
        )
        ends = context.gate(report, self.time) is Verdict.STOP
        progress.wait_for_tick()
        return ends

    def all_end(self, metrics: Mapping[str, float], device: torch.device) -> bool:
        """Return on every rank alike whether the trial ends after a validation of a framework."""
        ends = self._context.rank == 0 and self.completes(metrics) and self.ends()
        if self._context.world_size > 1 and dist.is_initialized():
            shared = torch.tensor(int(ends), device=device)
            dist.broadcast(shared, src=0)
            ends = bool(shared.item())
        return ends

    def require(self) -> None:
        """Raise UserCodeError if a trial has ended without a validation."""
        if self._context.rank != 0 or not self.is_open or self.time:
            return
        known = self._progress.metrics
        metric = next((each for each in self._context.objectives if each not in known), self._context.objectives[0])
        told = ", ".join(sorted(known)) or "no metrics"
        how = _HOW[self._context.job.spec.training.backend].format(name=metric.replace("/", "_"))
        raise UserCodeError(
            f"the program ended without having reported {metric}, which the search compares; reported were: {told}. "
            + how
        )

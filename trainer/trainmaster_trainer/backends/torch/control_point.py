"""The control point: about twice a second all ranks agree whether to stop or to save, at the same step.

Rank 0 looks at the clock and at what it was told, and broadcasts its decision together with the step of the next
control point; so no step waits for a message, and time never reaches the arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from trainmaster_trainer.context import Context, Signal

INTERVAL_SECONDS = 0.5
MOST_GROWTH = 4  # a pace measured over few steps is not trusted for many


@dataclass(frozen=True, slots=True)
class Decision:
    """What all ranks do at a control point."""

    stop: bool
    save: bool


class Pulse:
    """Control points of one rank.

    Args:
        context: Rank, world size, and rank 0's control.
        step: Step at which the run goes on: the first control point.
        clock: Seconds; only rank 0 reads it.
    """

    def __init__(self, context: Context, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._context, self._clock = context, clock
        self.first_step = self._last = step
        self._began = self._at = clock()
        self._gap = 1
        self.next_step = step

    def exchange(self, step: int, wants_save: bool) -> Decision:
        """Agree with the other ranks; `wants_save` counts on rank 0 only."""
        context = self._context
        if context.rank == 0:
            stop = context.control.poll() is Signal.STOP
            message = [int(stop), int(wants_save), step + self._next_gap(step)]
        else:
            message = [0, 0, 0]
        if context.world_size > 1:
            shared = torch.tensor(message, device=context.device)
            dist.broadcast(shared, src=0)
            message = shared.tolist()
        self.next_step = message[2]
        return Decision(stop=bool(message[0]), save=bool(message[1]))

    def _next_gap(self, step: int) -> int:
        now = self._clock()
        passed, elapsed = step - self._last, now - self._at
        if passed > 0 and elapsed > 0:
            wanted = round(passed / elapsed * INTERVAL_SECONDS)
            self._gap = max(1, min(wanted, self._gap * MOST_GROWTH))
        self._last, self._at = step, now
        return self._gap

    def eta_seconds(self, step: int, total_steps: int) -> float | None:
        """Seconds to the end at the pace since this rank began; None before there is one."""
        done = step - self.first_step
        return (self._clock() - self._began) / done * (total_steps - step) if done > 0 else None

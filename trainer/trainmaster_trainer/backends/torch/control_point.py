"""The control point: about twice a second all ranks agree whether to stop or to save, at the same step.

Rank 0 checks the clock and its messages, and broadcasts its decision together with the step of the next control point.
So no step waits for a message, and time never influences the arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from trainmaster_trainer.context import Context, Signal

INTERVAL_SECONDS = 0.5
MOST_GROWTH = 4  # a speed measured over few steps is not trusted for many


@dataclass(frozen=True, slots=True)
class Decision:
    """What all ranks do at a control point."""

    stop: bool
    save: bool


class ControlPoint:
    """Control points of one rank.

    Args:
        context: Rank, world size, and rank 0's control.
        step: Step at which the run starts or resumes: the first control point.
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
        # Why a broadcast: a rank that stopped or saved one step earlier than the others would leave them waiting in an
        # all-reduce. A stop that arrives between two control points therefore waits up to half a second.
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
        # The next control point is a step and not a time, so that the ranks need no message to agree that it is here.
        self.next_step = message[2]
        return Decision(stop=bool(message[0]), save=bool(message[1]))

    def _next_gap(self, step: int) -> int:
        # Half a second, in steps at the last measured speed. Steps may get slower, so a control point may be late; the
        # gap grows at most fourfold at a time, because the first steps of a process are not typical.
        now = self._clock()
        passed, elapsed = step - self._last, now - self._at
        if passed > 0 and elapsed > 0:
            wanted = round(passed / elapsed * INTERVAL_SECONDS)
            self._gap = max(1, min(wanted, self._gap * MOST_GROWTH))
        self._last, self._at = step, now
        return self._gap

    def eta_seconds(self, step: int, total_steps: int) -> float | None:
        """Return the seconds to the end at the average speed of this process; None before its first step."""
        done = step - self.first_step
        return (self._clock() - self._began) / done * (total_steps - step) if done > 0 else None

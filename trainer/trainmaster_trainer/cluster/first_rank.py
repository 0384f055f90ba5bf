"""The process for a rank, started before its agent.

Ray calls `start` in each process that it starts for our job, before anything else is loaded there: a rank then imports
its framework while Ray Train still starts the agents. Ray Train's helpers are not affected.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from trainmaster_trainer.ipc.environment import ENV_FRAMEWORK

if TYPE_CHECKING:
    from .process import Process

HOOK = f"{__name__}.start"

_started: list[Process] = []


def start() -> None:
    """Start a process that may become a rank, if this process will be an agent."""
    if ENV_FRAMEWORK not in os.environ:
        return
    from .process import RANK_COMMAND, Process  # takes 0.1 s, which helpers don't need to spend

    with contextlib.suppress(OSError):  # the agent tries again and reports the error
        _started.append(Process(RANK_COMMAND, os.environ, is_spare=False))


def take() -> Process | None:
    """Return the process that was started, to the first caller only."""
    return _started.pop() if _started else None

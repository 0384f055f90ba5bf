"""Processes that tests take away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Any

from trainmaster_trainer.processes import descendants


def kill_all(process: subprocess.Popen[Any]) -> None:
    """Kill a process and all below it, as if their host lost power."""
    for pid in descendants(process.pid):
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(pid, signal.SIGKILL)
    process.wait(60)

"""Ray's processes of a pod: started by `ray start`, watched, restarted if their start failed, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainmaster_trainer.processes import Children, descendants, kill_descendants

from .ending import tail

MOST_STARTS = 4
"""Starts in a row: Ray gives a node 30 s to register and has no setting for it, and a loaded host may need more."""
_EXIT_TICK = 0.1


class RayNode:
    """The processes without which there is no training; the dashboard and Ray's agents are not among them."""

    def __init__(
        self,
        children: Children,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        parts: Sequence[str],
    ) -> None:
        """Start them.

        Args:
            children: Starts and reaps; adopts the processes that `ray start` leaves running.
            command: The `ray start` command.
            environment: Of the command.
            log: File for its output.
            parts: Names of the processes that matter: `raylet`, on a head also `gcs_server`.
        """
        self._children, self._command, self._environment = children, command, environment
        self._log, self._names = log, parts
        self._starts = 0
        self._parts: dict[str, int] = {}
        self._starter = 0
        self.start()

    def start(self) -> None:
        """Start them, for the first time or again."""
        self._starts += 1
        self._parts = {}
        with self._log.open("ab") as log:
            self._starter = self._children.start(self._command, self._environment, log)

    @property
    def may_start_again(self) -> bool:
        """Whether a node whose start failed should be started once more."""
        return self._starts < MOST_STARTS

    @property
    def runs(self) -> bool:
        """Whether every part has started."""
        return bool(self._parts)

    def trouble(self) -> str | None:
        """Return what is wrong, as a sentence; None if nothing is."""
        status = self._children.exit_of(self._starter)
        if status is None:
            return None
        if not self._parts:
            tries = f"try {self._starts} of {MOST_STARTS}"
            if status != 0:
                return f"Ray's node didn't start: `ray start` ended with status {status}; {tries}"
            found = {name: pid for pid in descendants(os.getpid()) if (name := _name(pid)) in self._names}
            missing = [name for name in self._names if name not in found]
            if missing:
                return f"Ray's {missing[0]} exited right after it had started; {tries}"
            self._parts, self._starts = found, 0
        for name, pid in self._parts.items():
            ended = self._children.exit_of(pid)
            if ended is not None:
                how = f"was killed by {signal.Signals(-ended).name}" if ended < 0 else f"ended with status {ended}"
                return f"Ray's {name} {how}"
        return None

    def last_lines(self) -> list[str]:
        """Return the last lines of `ray start`'s output."""
        return tail(self._log)

    def end(self, seconds: float) -> None:
        """End every process below the launcher that isn't spared.

        Args:
            seconds: How long the raylet may take to unregister. The head learns of an unregistered node at once, and
                of a killed one only after many seconds.
        """
        raylet = self._parts.get("raylet")
        if raylet is not None and seconds > 0:
            self._children.signal(raylet, signal.SIGTERM)
            deadline = time.monotonic() + seconds
            while self._children.exit_of(raylet) is None and time.monotonic() < deadline:
                self._children.wait(_EXIT_TICK)
        kill_descendants(self._children.spared)
        self._children.reap()


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""

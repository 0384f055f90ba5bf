"""How often the kernel killed a process of this container for memory, by cgroup v1 or v2."""

from __future__ import annotations

import contextlib
from pathlib import Path


class OomWatch:
    """Notices that the count grew since this object was made."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._files = _counters(root)
        self._start = self.count()

    def count(self) -> int:
        """Return the number of kills so far; 0 if no cgroup has a counter."""
        for path in self._files:
            with contextlib.suppress(OSError):
                for line in path.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def happened(self) -> bool:
        """Return whether something was killed."""
        return self.count() > self._start


def _counters(root: Path) -> list[Path]:
    """Return the files that may hold the count, the most special first.

    In a container the cgroup of its processes is seen as the root of the tree, outside of one by its full path.
    """
    unified, memory = own_groups(root)
    tree = root / "sys/fs/cgroup"
    return [
        tree / unified / "memory.events",
        tree / "memory" / memory / "memory.oom_control",
        tree / "memory.events",
        tree / "memory/memory.oom_control",
    ]


def own_groups(root: Path) -> tuple[str, str]:
    """Return this process's cgroups: in the tree of version 2, and of version 1's memory; empty: the root."""
    unified, memory = "", ""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                unified = path.strip("/")
            elif "memory" in controllers.split(","):
                memory = path.strip("/")
    return unified, memory

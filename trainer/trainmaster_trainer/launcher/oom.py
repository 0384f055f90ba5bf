"""How often the kernel killed a process of this container for memory, by cgroup v1 or v2."""

from __future__ import annotations

import contextlib
from pathlib import Path

_FILES = ("sys/fs/cgroup/memory.events", "sys/fs/cgroup/memory/memory.oom_control")


class OomWatch:
    """Notices that the count grew since this object was made."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._files = [root / name for name in _FILES]
        self._start = self.count()

    def count(self) -> int:
        """Kills so far; 0 where no cgroup says."""
        for path in self._files:
            with contextlib.suppress(OSError):
                for line in path.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def happened(self) -> bool:
        """Whether something was killed."""
        return self.count() > self._start

"""How much memory this process can still use: that of the machine, or of its container where that is less."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .oom import own_groups

_UNLIMITED = 2**60  # cgroup v1 says so with a number near 2**63


def available_memory(root: Path = Path("/")) -> int:
    """Return bytes that can be used without swapping or being killed; what the kernel can take back counts as free.

    Args:
        root: Of the file system; another one for tests.
    """
    found = [*_of_machine(root), *_of_groups(root)]
    return min(found) if found else _UNLIMITED


def _of_machine(root: Path) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _of_groups(root: Path) -> Iterator[int]:
    """Yield what is left in the cgroups that hold this process; in a container its cgroup is the root of the tree."""
    unified, memory = own_groups(root)
    tree = root / "sys/fs/cgroup"
    for folder, limit, usage in (
        (tree / unified, "memory.max", "memory.current"),
        (tree, "memory.max", "memory.current"),
        (tree / "memory" / memory, "memory.limit_in_bytes", "memory.usage_in_bytes"),
        (tree / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # `max` is no number
            most = int((folder / limit).read_text())
            if most < _UNLIMITED:
                used = int((folder / usage).read_text()) - _reclaimable(folder)
                yield max(0, most - used)


def _reclaimable(folder: Path) -> int:
    """Return the bytes of files in memory that the kernel drops when it needs the room."""
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0

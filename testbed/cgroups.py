"""One cgroup per node, in every hierarchy: limits for its pods, and the list of its processes."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from testbed.procs import wait_until

ROOT = Path("/sys/fs/cgroup")


def hierarchies(mounts: str) -> list[Path]:
    """The cgroup mounts of ``/proc/mounts``: one for v2, one per controller for v1 (and hybrids)."""
    rows = (line.split() for line in mounts.splitlines())
    return [Path(row[1]) for row in rows if row[2] in ("cgroup", "cgroup2")]


def _mounted() -> list[Path]:
    return hierarchies(Path("/proc/mounts").read_text())


def create(name: str) -> None:
    """Make the cgroup, with the daemons' own child group, in every hierarchy."""
    for root in _mounted():
        group = root / name
        group.mkdir(exist_ok=True)
        if (root / "cpuset.cpus").exists():
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (group / setting).write_text((root / setting).read_text())
        if root == ROOT:
            available = (root / "cgroup.controllers").read_text().split()
            for folder in (root, group):
                for controller in available:
                    # a controller that the machine's init keeps for itself is not ours to pass on
                    with suppress(OSError):
                        (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        daemons = group / "daemons"
        daemons.mkdir(exist_ok=True)
        if (root / "cpuset.cpus").exists():
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (daemons / setting).write_text((root / setting).read_text())


def adopt(name: str, pid: int) -> None:
    """Put a daemon of the node (and what it will start) into the node's cgroup."""
    for root in _mounted():
        (root / name / "daemons" / "cgroup.procs").write_text(str(pid))


def pids(name: str) -> set[int]:
    """Every process of the node: its daemons, the shims and all containers."""
    found: set[int] = set()
    for root in _mounted():
        for folder, _, files in os.walk(root / name):
            if "cgroup.procs" in files:
                with suppress(OSError):
                    found.update(int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split())
    # 0 stands for a process of another pid namespace
    return found - {0}


def kill(name: str) -> None:
    """Kill every process of the node at once, as a power cut would."""

    def gone() -> bool:
        left = pids(name)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(gone, 20, every=0.05)


def remove(name: str) -> None:
    """Remove the (empty) cgroup from every hierarchy."""

    def gone() -> bool:
        clean = True
        for root in _mounted():
            for folder, _, _ in os.walk(root / name, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    clean = False
        return clean

    wait_until(gone, 10)


def names() -> set[str]:
    """Top-level cgroups, to compare before and after."""
    return {folder.name for root in _mounted() for folder in root.iterdir() if folder.is_dir()}

"""CPU time and peak memory of a process from /proc, and the machine in one line."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time that the process has used, its threads included."""
    return parse_stat(Path(f"/proc/{pid}/stat").read_text()) / TICKS


def total_cpu_seconds(pids: Iterable[int]) -> float:
    """The same over several processes."""
    return sum(cpu_seconds(pid) for pid in pids)


def peak_bytes(pid: int) -> int:
    """Most memory that was resident at a time (VmHWM)."""
    return parse_peak(Path(f"/proc/{pid}/status").read_text())


def parse_stat(text: str) -> int:
    """Ticks of utime + stime; the command's name may hold blanks and brackets."""
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def parse_peak(text: str) -> int:
    """VmHWM of /proc/PID/status in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise ValueError("no VmHWM line: the process has ended or is a kernel thread")
    return int(found[1]) * 1024


def machine() -> str:
    """CPU, cores, memory, kernel, Python: what a figure depends on, and nothing that names this machine."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = found[1] if found else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = ".".join(platform.release().split(".")[:2])
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.system()} {kernel}, "
        f"Python {platform.python_version()}"
    )

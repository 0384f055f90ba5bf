"""A process under a limit of memory: by a cgroup where one can be made, else by killing what goes beyond it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.result import ROOT

TREE = Path("/sys/fs/cgroup")
_PAUSE = 0.02
_NAME = "trainmaster-bench"


@dataclass(frozen=True)
class Ended:
    """How a process under a limit ended.

    Attributes:
        code: Exit code; negative: the signal that ended it.
        peak: Most anonymous bytes of it and its children at a time, sampled.
        seconds: How long it took.
        out: What it printed, as JSON of the last line; empty if it failed.
        by: What kept the limit.
        is_late: Whether it was ended because it took too long.
    """

    code: int
    peak: int
    seconds: float
    out: dict[str, float]
    by: str
    is_late: bool = False

    @property
    def was_killed(self) -> bool:
        """Whether it needed more memory than it had."""
        return self.code == -signal.SIGKILL and not self.is_late


def run_limited(
    command: Sequence[str], env: Mapping[str, str], most: int, log: Path, patience: float = float("inf")
) -> Ended:
    """Run a command in at most so many bytes: pages of files count in a cgroup, which drops them when it needs room.

    Args:
        command: Prints JSON on its last line.
        env: Its environment.
        most: Bytes.
        log: What it says on stderr.
        patience: Seconds after which it is ended.
    """
    began, peak, is_late = time.monotonic(), 0, False
    with _group(most) as group, log.open("ab") as said, log.with_suffix(".out").open("w+b") as out:

        def enter() -> None:
            if group is not None:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        with subprocess.Popen(
            command, cwd=ROOT, env=dict(env), stdout=out, stderr=said, start_new_session=True, preexec_fn=enter
        ) as child:
            try:
                while child.poll() is None:
                    peak = max(peak, anonymous(child.pid))
                    is_late = time.monotonic() - began > patience
                    if is_late or (group is None and peak > most):
                        os.killpg(child.pid, signal.SIGKILL)
                    time.sleep(_PAUSE)
            except BaseException:  # Ctrl-C ends this process alone: the other has a session of its own
                os.killpg(child.pid, signal.SIGKILL)
                raise
        out.seek(0)
        lines = out.read().decode().splitlines()
    by = "a cgroup" if group is not None else "sampled anonymous memory"
    found = json.loads(lines[-1]) if child.returncode == 0 else {}
    return Ended(child.returncode, peak, time.monotonic() - began, found, by, is_late)


def anonymous(pid: int) -> int:
    """Return the anonymous bytes of a process and of all its descendants."""
    total = 0
    with contextlib.suppress(OSError):  # it has ended
        total = parse_anonymous(Path(f"/proc/{pid}/status").read_text())
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += sum(anonymous(int(each)) for each in (thread / "children").read_text().split())
    return total


def parse_anonymous(status: str) -> int:
    """Return RssAnon of /proc/PID/status in bytes; 0: a process that has ended has none."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def forget(folder: Path) -> None:
    """Let the kernel drop the pages of all files below a folder, so that the next reader finds none in memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _group(most: int) -> Iterator[Path | None]:
    """Yield a cgroup with a limit below our own, removed at the end; None where none can be made."""
    for parent, name in _parents():
        group = parent / f"{_NAME}-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(most))
        except OSError:  # the memory controller isn't enabled below
            group.rmdir()
            continue
        try:
            yield group
        finally:
            for _ in range(100):  # a process that has just ended is still in it for a moment
                try:
                    group.rmdir()
                    break
                except OSError:
                    time.sleep(0.1)
        return
    yield None


def _parents() -> Iterator[tuple[Path, str]]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            yield TREE / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
        elif not controllers:
            yield TREE / path.lstrip("/"), "memory.max"

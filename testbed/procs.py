"""Start, find and end the bed's processes. Only what was recorded here is ever killed."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.errors import BedError


@dataclass(frozen=True)
class Proc:
    """A process that we started. The start time tells it from a later process with the same pid."""

    name: str
    pid: int
    started: int
    argv: list[str]
    log: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie doesn't)."""
        return start_ticks(self.pid) == self.started

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        try:
            lines = Path(self.log).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(line[:400] for line in lines[-count:])


def start_ticks(pid: int) -> int | None:
    """Start time of a live process in clock ticks after boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class Processes:
    """The processes of one state directory: ``procs/NAME.json`` and ``logs/NAME.log``."""

    def __init__(self, state: Path, die_with_parent: bool = False) -> None:
        self._records = state / "procs"
        self._logs = state / "logs"
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        self._die_with_parent = die_with_parent
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None, netns: str | None = None
    ) -> Proc:
        """Start `argv` in the background (in a network namespace, when one is given) and record it."""
        log = self._logs / f"{name}.log"
        command = list(argv)
        if netns:
            # not `ip netns exec`: that remounts /sys and hides the cgroups from the kubelet
            command = ["nsenter", f"--net={netns}", "--", *command]
        # The kernel sends the death signal when the starting *thread* ends, so only the main one may ask.
        main = threading.current_thread() is threading.main_thread()
        if self._die_with_parent and main and shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        with log.open("ab") as out:
            child = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=None if env is None else {**os.environ, **env},
            )
        self._children[name] = child
        proc = Proc(name, child.pid, start_ticks(child.pid) or 0, list(argv), str(log))
        (self._records / f"{name}.json").write_text(json.dumps(asdict(proc)))
        return proc

    def get(self, name: str) -> Proc | None:
        """The recorded process of that name, alive or not."""
        try:
            return Proc(**json.loads((self._records / f"{name}.json").read_text()))
        except FileNotFoundError:
            return None

    def all(self) -> list[Proc]:
        """Every recorded process, alive or not."""
        return [Proc(**json.loads(path.read_text())) for path in sorted(self._records.glob("*.json"))]

    def is_alive(self, name: str) -> bool:
        """Whether the recorded process still runs."""
        self._reap(name)
        proc = self.get(name)
        return proc is not None and proc.alive

    def stop(self, name: str, patience: float = 10.0) -> None:
        """Ask it to end, insist after `patience` seconds, forget it. 0 means: kill it at once."""
        proc = self.get(name)
        if proc is None:
            return
        if proc.alive:
            _signal(proc.pid, signal.SIGTERM if patience else signal.SIGKILL)
            if not wait_until(lambda: not self.is_alive(name), patience or 10, every=0.02):
                _signal(proc.pid, signal.SIGKILL)
                if not wait_until(lambda: not self.is_alive(name), 10, every=0.02):
                    raise BedError(f"{name} (pid {proc.pid}) does not end; see {proc.log}")
        self._reap(name)
        (self._records / f"{name}.json").unlink(missing_ok=True)

    def wait_ready(self, name: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready()`; fail at once, with its last log lines, if the process dies.

        Raises:
            BedError: it died, or was not ready in time.
        """
        proc = self.get(name)
        assert proc is not None, name
        if wait_until(lambda: not self.is_alive(name) or ready(), seconds) and self.is_alive(name):
            return
        what = f"was not ready after {seconds:.0f} s" if self.is_alive(name) else "ended"
        raise BedError(f"{name} {what}. Its last lines ({proc.log}):\n{proc.last_lines()}")

    def _reap(self, name: str) -> None:
        child = self._children.get(name)
        if child is not None and child.poll() is not None:
            del self._children[name]


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
    """Poll `condition` until it holds or the time is over; returns whether it held."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def run(argv: Sequence[str], stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return its output.

    Raises:
        BedError: it failed; the message holds the command and the end of what it said.
    """
    done = subprocess.run(
        list(argv),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BedError(f"`{' '.join(argv)[:300]}` failed with exit code {done.returncode}:\n{said}")
    return done.stdout

"""Children are started, signalled and reaped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from trainmaster_trainer.processes import descendants


def children_script(body: str) -> subprocess.CompletedProcess[str]:
    """`Children` blocks signals of its whole process, so it gets one of its own."""
    code = f"import os, signal, sys, time\nfrom trainmaster_trainer.processes import Children\nc = Children()\n{body}"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


def test_children_are_reaped_and_killed_with_their_own() -> None:
    done = children_script(
        "pid = c.start(['/bin/sh', '-c', 'trap \"\" TERM; sleep 100 & wait; sleep 100'], os.environ)\n"
        "c.wait(0.5)\n"
        "from trainmaster_trainer.processes import descendants\n"
        "below = descendants(pid)\n"
        "assert len(below) == 2, below\n"
        "c.end(pid, 0.3)\n"
        "while c.exit_of(pid) is None: c.wait(0.1)\n"
        "assert c.exit_of(pid) == -9\n"
        "alive = lambda p: os.path.exists(f'/proc/{p}') and ') Z ' not in open(f'/proc/{p}/stat').read()\n"
        "deadline = time.monotonic() + 30\n"
        "while any(map(alive, below)) and time.monotonic() < deadline: c.wait(0.1)\n"
        "assert not any(map(alive, below)), below\n"
    )
    assert done.returncode == 0, done.stderr


def test_children_get_signals_that_we_hold_back() -> None:
    done = children_script(
        "pid = c.start(['/bin/sleep', '100'], os.environ)\n"
        "c.wait(0.3)\n"
        "c.signal(pid, signal.SIGTERM)\n"
        "while c.exit_of(pid) is None: c.wait(1)\n"
        "assert c.exit_of(pid) == -15, c.exits\n"
    )
    assert done.returncode == 0, done.stderr


def test_children_wait_ends_with_a_signal() -> None:
    done = children_script(
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "began = time.monotonic()\n"
        "assert c.wait(30)\n"
        "assert time.monotonic() - began < 5\n"
    )
    assert done.returncode == 0, done.stderr


def test_descendants_of_this_process() -> None:
    with subprocess.Popen(["/bin/sleep", "100"]) as child:
        assert child.pid in descendants(os.getpid())
        child.send_signal(signal.SIGKILL)

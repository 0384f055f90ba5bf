"""What a rank asks of the kernel: to end with its agent, and a name for `ps`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")

CHILD = """
import os, time
from trainmaster_trainer.kernel import die_with_parent
die_with_parent()
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {CHILD!r}])
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def is_running(pid: int) -> bool:
    """Whether it runs and is no zombie: in a container it may stay unreaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_rank_ends_with_its_agent() -> None:
    with subprocess.Popen(python(PARENT), env=environment(), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while is_running(child):
        assert time.monotonic() < deadline, "an orphan would keep its GPU"
        time.sleep(0.01)


def test_name_is_cut_to_what_the_kernel_keeps() -> None:
    code = (
        "from pathlib import Path\nfrom trainmaster_trainer.kernel import name_process\n"
        "for name in ('rank 3', 'a rank with a long name'):\n"
        "    name_process(name)\n    print(Path('/proc/self/comm').read_text(), end='')\n"
    )
    found = subprocess.run(python(code), env=environment(), capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.splitlines() == ["rank 3", "a rank with a l"]


def test_platform_without_prctl_is_no_error() -> None:
    code = (
        "import ctypes\nfrom trainmaster_trainer import kernel\n"
        "def missing(name):\n    raise OSError('no such library')\n"
        "ctypes.CDLL = missing\nkernel.die_with_parent()\nkernel.name_process('rank 3')\n"
    )
    subprocess.run(python(code), env=environment(), timeout=60, check=True)
